"""Guards a run of real processes: workers, drivers and the object store die by SIGKILL, and no table shows it."""

import hashlib
import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import zstandard

from genre_ray.storage import objects, tables

REPOSITORY = Path(__file__).resolve().parents[2]
JITTERED = '"average_loudness":'
LONG_DOCUMENTS, LONG_SHARD, SHORT_DOCUMENTS, SHORT_SHARD = 20_000, 100, 600, 10
RUN_TIMEOUT_S, OUTAGE_S = 1500.0, 8.0

logger = logging.getLogger(__name__)


class Documents:
    """Made documents: real ones with one value and the id changed; every hundredth is bad in one of three ways."""

    def __init__(self, sample: Path, digits: int) -> None:
        texts = [json.loads(path.read_bytes()) for path in sorted((sample / "acousticbrainz").glob("*.json"))]
        compact = [json.dumps(_rounded(text, digits), separators=(",", ":")) for text in texts]
        self.split = [self._at_value(text) for text in compact if JITTERED in text]

    def _at_value(self, text: str) -> tuple[bytes, bytes]:
        start = text.index(JITTERED) + len(JITTERED)
        end = next(place for place in range(start, len(text)) if text[place] in ",}")
        return text[:start].encode(), text[end:].encode()

    def make(self, number: int) -> tuple[str, bytes]:
        before, after = self.split[number % len(self.split)]
        content = before + f"{0.5 + number / 1e6:.6f}".encode() + after
        if number % 100 == 7:
            content = (b"", content[:-20], content.replace(b'"tonal"', b'"tonic"'))[number // 100 % 3]
        return f"{number:08x}-0000-4000-8000-000000000000.json", content

    def write(self, folder: Path, count: int, archives: int) -> None:
        """One part in twenty as single files, the others in archives."""
        folder.mkdir()
        single = count // 20
        for name, content in map(self.make, range(single)):
            (folder / name).write_bytes(content)
        for archive in range(archives):
            path = folder / f"documents-{archive}.tar.zst"
            numbers = range(single + archive, count, archives)
            with (
                zstandard.open(path, "wb", zstandard.ZstdCompressor(1)) as file,
                tarfile.open(fileobj=file, mode="w|") as tar,
            ):
                for name, content in map(self.make, numbers):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _rounded(value: object, digits: int) -> object:
    if isinstance(value, dict):
        return {key: _rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


@dataclass
class Ingest:
    """`python jobs/ingest.py`, resumed until it is done, while `plan` says who dies when so many parts are there."""

    inputs: Path
    output: str
    rows_per_shard: int
    random: random.Random
    log: Path
    hits: list[str] = field(default_factory=list)
    uncommitted: list[int] = field(default_factory=list)
    """Parts that a driver left uncommitted, for each that was killed or stopped."""
    starts: int = 0
    took_s: float = 0.0

    def run(self, plan: list[tuple[int, str]], deeds: dict[str, Callable[[], bool]] | None = None) -> int:
        """The exit code of the last driver; each deed of the plan is done once, in order."""
        ahead = sorted(plan)
        driver = self._start()
        began = time.monotonic()
        code: int | None = None
        while code is None:
            self.took_s = time.monotonic() - began
            assert self.took_s < RUN_TIMEOUT_S, self.log.read_text()[-4000:]
            time.sleep(0.1)
            code = driver.poll()
            if code == 1 and self.starts < 8:  # the storage was away for longer than it is waited for
                self.hits.append("failed driver")
                driver, code = self._start(), None
            elif code is None and ahead and self._parts() >= ahead[0][0]:
                deed = ahead[0][1]
                if deed in ("driver", "stop"):
                    driver.send_signal(signal.SIGKILL if deed == "driver" else signal.SIGTERM)
                    driver.wait()
                    self.uncommitted.append(self._parts() - len(tables.list_parts(f"{self.output}/features")))
                    driver = self._start()
                elif not (self._kill_worker() if deed == "worker" else (deeds or {})[deed]()):
                    continue
                self.hits.append(deed)
                ahead.pop(0)
                time.sleep(self.random.uniform(0.0, 1.0))
        return code

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            command = [sys.executable, str(REPOSITORY / "jobs" / "ingest.py"), "--resume"]
            settings = ["--inputs", str(self.inputs), "--output", self.output]
            shards = ["--set", f"execution.rows_per_shard={self.rows_per_shard}", "execution.workers=2"]
            return subprocess.Popen([*command, *settings, *shards], stdout=log, stderr=log)

    def _parts(self) -> int:
        return sum(file.name.endswith(".parquet") for file in objects.list_files(f"{self.output}/features"))

    def _kill_worker(self) -> bool:
        workers = _workers()
        if not workers:
            return False
        os.kill(self.random.choice(workers), signal.SIGKILL)
        return True


def _workers() -> list[int]:
    """The processes of a run's workers that descend from this one: other clusters of the machine are not touched."""
    parents: dict[int, int] = {}
    workers: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        if title.startswith(b"ray::") and b"-> write)" in title:
            workers.append(pid)

    def is_ours(pid: int) -> bool:
        while pid > 1:
            if pid == os.getpid():
                return True
            pid = parents.get(pid, 0)
        return False

    return sorted(pid for pid in workers if is_ours(pid))


def rows_of(output: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Of either table, each row's source and a digest of all its values but the shard, sorted."""
    data, rejected = [], []
    names = ["recording_id", "submission", "artist_ids", "release_group_id", "source_uri", "extractor", "features"]
    for batch in tables.read_batches(f"{output}/features", names):
        features = tables.vectors(batch.column("features"))
        for row, vector in zip(batch.drop_columns(["features"]).to_pylist(), features, strict=True):
            content = json.dumps(row, sort_keys=True).encode() + np.ascontiguousarray(vector).tobytes()
            data.append((row["source_uri"], hashlib.sha256(content).hexdigest()))
    for batch in tables.read_batches(f"{output}/rejected", ["source_uri", "recording_id", "reason", "detail"]):
        rejected += [(row["source_uri"], json.dumps(row, sort_keys=True)) for row in batch.to_pylist()]
    return sorted(data), sorted(rejected)


def check_same(ingest: Ingest, undisturbed: str, documents: int) -> None:
    data, rejected = rows_of(ingest.output)
    assert len({*data}) + len({*rejected}) == len(data) + len(rejected) == documents
    assert (data, rejected) == rows_of(undisturbed)
    named = len(tables.list_parts(f"{ingest.output}/features"))
    figures = f"{ingest.starts} drivers, {ingest._parts()} parts written for {named} named in {ingest.took_s:.0f} s"
    logger.warning("%d documents, %s: %s", documents, ", ".join(ingest.hits), figures)


@pytest.fixture
def ingest(ray_cluster, tmp_path):
    """`ingest(inputs, output, rows_per_shard, seed)`: the job on the tests' cluster."""

    def make(inputs: Path, output: str, rows_per_shard: int, seed: int = 0) -> Ingest:
        log = tmp_path / f"{seed}.log"
        return Ingest(inputs, output, rows_per_shard, random.Random(seed), log)

    return make


def _deaths(shards: int, workers: int, drivers: int, seed: int) -> list[tuple[int, str]]:
    """Deaths at random numbers of parts, all of them before nine tenths are there."""
    draw = random.Random(seed)
    places = sorted(draw.sample(range(1, max(shards * 9 // 10, workers + drivers + 1)), workers + drivers))
    deeds = ["worker"] * workers
    for driver in range(drivers):
        deeds.insert((driver + 1) * len(deeds) // (drivers + 1), "driver")
    return list(zip(places, deeds, strict=True))


@pytest.mark.slow
def test_a_run_whose_workers_and_driver_die_writes_the_same_tables(ingest, sample, tmp_path):
    inputs = tmp_path / "documents"
    Documents(sample, 17).write(inputs, SHORT_DOCUMENTS, 2)
    undisturbed = ingest(inputs, str(tmp_path / "undisturbed"), SHORT_SHARD, 1)
    assert undisturbed.run([]) == 0
    disturbed = ingest(inputs, str(tmp_path / "disturbed"), SHORT_SHARD, 2)
    assert disturbed.run([(3, "worker"), (8, "worker"), (20, "driver")]) == 0
    assert disturbed.hits == ["worker", "worker", "driver"]
    check_same(disturbed, undisturbed.output, SHORT_DOCUMENTS)


@pytest.mark.slow
def test_a_driver_that_is_stopped_commits_what_was_written(ingest, sample, tmp_path):
    """Ten finished shards were thrown away at every stop: they waited for the next summary."""
    inputs = tmp_path / "documents"
    Documents(sample, 17).write(inputs, SHORT_DOCUMENTS, 2)
    run = ingest(inputs, str(tmp_path / "stopped"), SHORT_SHARD, 1)
    assert run.run([(25, "stop")]) == 0
    assert run.hits == ["stop"]
    # All but what the workers wrote until they were ended; nothing was due for a commit yet by number or time.
    assert run.uncommitted[0] <= 12
    data, rejected = rows_of(run.output)
    assert len({*data}) + len({*rejected}) == len(data) + len(rejected) == SHORT_DOCUMENTS


@pytest.fixture(scope="module")
def many(sample, tmp_path_factory):
    """The folder of 20,000 documents."""
    folder = tmp_path_factory.mktemp("many") / "documents"
    Documents(sample, 5).write(folder, LONG_DOCUMENTS, 4)
    return folder


@pytest.fixture(scope="module")
def undisturbed_many(ray_cluster, many, tmp_path_factory):
    """The output of a run over them that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Ingest(many, str(folder / "out"), LONG_SHARD, random.Random(0), folder / "log")
    assert run.run([]) == 0
    return run.output


@pytest.mark.long
def test_twenty_thousand_documents_survive_twelve_workers_and_two_drivers(ingest, many, undisturbed_many, tmp_path):
    run = ingest(many, str(tmp_path / "disturbed"), LONG_SHARD, 3)
    assert run.run(_deaths(LONG_DOCUMENTS // LONG_SHARD, 12, 2, seed=3)) == 0
    assert (run.hits.count("worker"), run.hits.count("driver")) == (12, 2)
    check_same(run, undisturbed_many, LONG_DOCUMENTS)


@pytest.mark.long
def test_an_object_store_may_go_away_for_a_while(ingest, many, undisturbed_many, s3_server, s3):
    def outage() -> bool:
        s3_server.kill()
        time.sleep(OUTAGE_S)
        s3_server.start()
        return True

    run = ingest(many, f"{s3}/disturbed", LONG_SHARD, 4)
    plan = _deaths(LONG_DOCUMENTS // LONG_SHARD, 10, 2, seed=4)
    assert run.run([*plan, (LONG_DOCUMENTS // LONG_SHARD // 2, "outage")], {"outage": outage}) == 0
    assert (run.hits.count("worker"), run.hits.count("driver"), run.hits.count("outage")) == (10, 2, 1)
    check_same(run, undisturbed_many, LONG_DOCUMENTS)
