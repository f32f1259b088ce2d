"""Guards that every client reads every table, and every job works on it, before and after Delta's OPTIMIZE and VACUUM.

Readers once took column names and policies from the metadata of Parquet files, which OPTIMIZE drops.
"""

import json

import duckdb
import numpy as np
import polars
import pytest
from deltalake import DeltaTable

from genre_ray.commands import erase, evaluate, ingest, predict, train, verify
from genre_ray.commands.erase import EraseConfiguration
from genre_ray.commands.evaluate import EvaluateConfiguration
from genre_ray.commands.ingest import IngestConfiguration
from genre_ray.commands.predict import PredictConfiguration
from genre_ray.commands.train import TrainConfiguration
from genre_ray.commands.verify import VerifyConfiguration

pytestmark = pytest.mark.slow

BROKEN = "00000000-0000-4000-8000-000000000000"
TABLES = {"catalog/features": 144, "catalog/rejected": 1, "labels/predictions": 144, "labels/rejected": 0}
NUMBERS, STRINGS = {"features", "scores", "all_scores"}, {"artist_ids", "labels"}
TRAINING = {
    "system": "melband",
    "taxonomy": "folder",
    "split": {"group_by": "artist", "fractions": [0.6, 0.2, 0.2], "least_train": 5, "least_other": 2, "seed": 10},
    "network": {"filters": [16, 32]},
    "rules": {"batch": 32, "max_epochs": 2},
}


def by_pandas(uri):
    return DeltaTable(uri).to_pandas().to_dict("records")


def by_polars(uri):
    return polars.read_delta(uri).to_dicts()


def by_duckdb(uri):
    """From the Parquet files themselves, which DuckDB reads with a reader of its own."""
    files = DeltaTable(uri).file_uris()
    return duckdb.read_parquet(files).to_arrow_table().to_pylist() if files else []


CLIENTS = (by_pandas, by_polars, by_duckdb)


def plain(name, value):
    if name in NUMBERS:
        return np.asarray(value, np.float32).tobytes()  # as bytes, in which NaN is equal to itself
    if name in STRINGS:
        return tuple(value)
    return value if value == value else None  # pandas has NaN for numbers that are null


def rows_of(uri, client):
    """The rows of a table in an order of their own, with plain values."""
    rows = [{name: plain(name, value) for name, value in row.items()} for row in client(uri)]
    return sorted(rows, key=lambda row: str(row["recording_id"]) + str(row.get("source_uri")))


@pytest.fixture
def settings(sample, tmp_path):
    """(name of a job's settings, its values) → arguments of the job."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / f"{BROKEN}.json").write_text("{")
    out, truth = str(tmp_path / "out"), str(sample / "emotify" / "folder.tsv")
    documents = [str(sample / "emotify" / "documents.tar.zst"), str(tmp_path / "documents")]
    features, bundle = f"{out}/catalog/features", f"{out}/bundle"
    known = {
        # Four parts to merge.
        "ingest": {"inputs": documents, "output": f"{out}/catalog", "execution": {"rows_per_shard": 40}},
        "train": {**TRAINING, "features": features, "ground_truth": truth, "output": bundle},
        "predict": {"bundle": bundle, "features": features, "all_scores": True, "output": f"{out}/labels"},
        "evaluate": {"predictions": f"{out}/labels/predictions", "ground_truth": truth, "output": f"{out}/report"},
        "verify": {"inputs": [out]},
    }

    def of(name, **changed):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**known[name], **changed}))
        return "--config", str(path)

    return of


def test_tables_are_read_by_all_after_optimize_and_vacuum(job, ray_cluster, settings, tmp_path):
    out = str(tmp_path / "out")

    def done(command, configuration, *argv):
        code, log = job(command, configuration, *argv)
        assert code == 0, log
        return log

    done(ingest, IngestConfiguration, *settings("ingest"))
    done(train, TrainConfiguration, *settings("train"))
    done(predict, PredictConfiguration, *settings("predict"))
    done(evaluate, EvaluateConfiguration, *settings("evaluate"))
    before = {table: rows_of(f"{out}/{table}", by_pandas) for table in TABLES}
    assert {table: len(rows) for table, rows in before.items()} == TABLES
    for table, rows in before.items():
        assert all(rows_of(f"{out}/{table}", client) == rows for client in CLIENTS)

    for table in TABLES:
        delta = DeltaTable(f"{out}/{table}")
        delta.optimize.compact()
        delta.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert len(DeltaTable(f"{out}/catalog/features").file_uris()) == 1
    for table, rows in before.items():
        assert all(rows_of(f"{out}/{table}", client) == rows for client in CLIENTS)

    done(predict, PredictConfiguration, *settings("predict", output=f"{out}/again"))
    again = rows_of(f"{out}/again/predictions", by_pandas)
    assert [row["all_scores"] for row in again] == [row["all_scores"] for row in before["labels/predictions"]]
    done(train, TrainConfiguration, *settings("train", output=f"{out}/bundle-again"))
    done(evaluate, EvaluateConfiguration, *settings("evaluate", output=f"{out}/report-again"))
    assert metrics(f"{out}/report") == metrics(f"{out}/report-again")
    done(verify, VerifyConfiguration, *settings("verify"))

    gone = before["catalog/features"][0]["recording_id"]
    ids = ("--recordings", gone, BROKEN)
    done(erase, EraseConfiguration, "--inputs", f"{out}/catalog", f"{out}/labels", *ids)
    done(verify, VerifyConfiguration, *settings("verify"))
    assert "is already complete" in done(ingest, IngestConfiguration, *settings("ingest"), "--resume")
    for table, rows in before.items():
        kept = [row for row in rows if row["recording_id"] not in (gone, BROKEN)]
        assert len(kept) == len(rows) - bool(rows)
        assert all(rows_of(f"{out}/{table}", client) == kept for client in CLIENTS)


def metrics(output):
    with open(f"{output}/report.json") as file:
        return json.load(file)["evaluations"]
