"""Guards the job: its outputs on real taxonomies, whose they are, and that a tree or other names of labels are used."""

import json
from pathlib import Path

import pytest

from genre_ray.commands import reconcile
from genre_ray.commands.reconcile import ReconcileConfiguration
from genre_ray.truth.mapping_table import read_mapping

DATA = Path(__file__).parents[1] / "data" / "emotify"
HEADER = "recordingmbid\treleasegroupmbid\tgenre1\tgenre2\n"


def truth(path, labels):
    rows = (f"r{place}\t\t{label}\t\n" for place, label in enumerate(labels))
    path.write_text(HEADER + "".join(rows))
    return {"ground_truth": [str(path)]}


@pytest.fixture
def run(job, tmp_path):
    def run_(taxonomies, *more, output="out"):
        config = tmp_path / "reconcile.yaml"
        config.write_text(json.dumps({"output": str(tmp_path / output), "taxonomies": taxonomies}))
        return job(reconcile, ReconcileConfiguration, "--config", str(config), *more)

    return run_


EMOTIFY = {name: {"ground_truth": [str(DATA / f"{name}.tsv")]} for name in ("folder", "tags")}


def rows(path):
    header, *lines = path.read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_emotify(run, tmp_path):
    code, log = run(EMOTIFY)
    assert code == 0, log
    assert "folder and tags both annotate 144 recordings" in log
    found = {(row["from_label"], row["to_label"]): row for row in rows(tmp_path / "out" / "mapping.tsv")}
    assert found["rock---hard rock", "rock"]["relation"] == "within"
    assert found["classical", "classical"]["relation"] == "same"
    weights = read_mapping(str(tmp_path / "out" / "mapping.tsv")).weights
    assert set(weights) == {("folder", "tags"), ("tags", "folder")}
    # What too few recordings tell of, and no name, is for people to fill in.
    alone = {row["from_label"] for row in rows(tmp_path / "out" / "conflicts.tsv") if row["reason"] == "no_counterpart"}
    assert alone == {"electronic---ambient", "new age", "world"}
    document = json.loads((tmp_path / "out" / "reconcile.json").read_text())
    assert document["pairs"][0]["recordings"] == 144
    assert sum(document["pairs"][0]["relations"].values()) == len(weights["folder", "tags"])


def test_an_output_is_one_runs_and_what_people_corrected_stays(run, tmp_path):
    assert run(EMOTIFY)[0] == 0
    mapping = tmp_path / "out" / "mapping.tsv"
    mapping.write_text(mapping.read_text() + "tags\tworld\tfolder\tpop\tsame\t0.5\t0\t1\t0\t0\t0\t0\tcorrected\n")
    corrected = mapping.read_bytes()
    assert run(EMOTIFY)[0] == 4
    code, log = run(EMOTIFY, "--resume")
    assert (code, mapping.read_bytes()) == (0, corrected)
    assert "is already complete" in log
    code, log = run(EMOTIFY, "--resume", "--least", "3")
    assert code == 4
    assert "settings.least: 5 there, 3 here" in log
    assert mapping.read_bytes() == corrected


def test_a_dry_run_writes_nothing(run, tmp_path):
    code, log = run(EMOTIFY, "--dry-run")
    assert code == 0
    assert "both annotate 144 recordings" in log
    assert not (tmp_path / "out").exists()


def test_a_tree_and_other_names_are_used(run, tmp_path):
    tree = tmp_path / "house.yaml"
    tree.write_text("labels: {rock: , punk: rock, jazz: }\naliases: {punk rock: punk}\n")
    ours = truth(tmp_path / "house.tsv", ["punk rock"] * 20 + ["rock"] * 20 + ["jazz"] * 40)
    theirs = truth(tmp_path / "other.tsv", ["Rock"] * 40 + ["Jazz"] * 40)
    code, log = run({"house": {**ours, "taxonomy": str(tree)}, "other": theirs})
    assert code == 0, log
    found = {(row["from_label"], row["to_label"]): row["relation"] for row in rows(tmp_path / "out" / "mapping.tsv")}
    assert found["rock", "Rock"] == "same"
    assert found["punk", "Rock"] == "within"


@pytest.mark.parametrize(
    ("taxonomies", "message"),
    [
        ({"folder": EMOTIFY["folder"]}, "expected at least two taxonomies"),
        ({**EMOTIFY, "x": {"ground_truth": []}}, "taxonomies.x.ground_truth"),
        ({**EMOTIFY, "x": {"truth": ["a"]}}, "unknown key 'taxonomies.x.truth'; did you mean 'ground_truth'"),
        ({**EMOTIFY, "x": {"ground_truth": EMOTIFY["tags"]["ground_truth"] * 2}}, "is also in another ground truth"),
        ({**EMOTIFY, "x": {"ground_truth": ["/none.tsv"]}}, "none.tsv"),
    ],
)
def test_what_cannot_be_reconciled_is_refused(run, tmp_path, taxonomies, message):
    code, log = run(taxonomies)
    assert code == 2
    assert message in log
    assert not (tmp_path / "out").exists()
