"""Jobs bring the nodes that they need on a cluster that is scaled to zero, and the nodes go again.

They sized themselves by what the cluster had: on an empty one an ingest of sixty archives asked for one worker, so that
one node of three came up, and no GPU was ever requested.
"""

import io
import re
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from genre_ray.storage import tables

pytestmark = [pytest.mark.slow, pytest.mark.server]

ARCHIVES, COPIES = 60, 10
"""Enough work for the last node to come before it is done."""


@dataclass(frozen=True)
class Finished:
    """A job that ended: its output, and how many nodes (without a GPU, with one) there were while and after it ran."""

    output: str
    code: int
    log: str
    nodes: list[tuple[int, int]]


@pytest.fixture(scope="module")
def run(autoscaling_cluster, tmp_path_factory):
    """`run(job, *arguments)`: from no nodes until there are none again."""

    def finish(job: str, *arguments: str) -> Finished:
        autoscaling_cluster.wait_until_empty()
        before = len(autoscaling_cluster.nodes())
        output = str(tmp_path_factory.mktemp(job) / "out")
        code, log = autoscaling_cluster.run(job, *arguments, "--output", output)
        autoscaling_cluster.wait_until_empty()
        return Finished(output, code, log, autoscaling_cluster.nodes()[before:])

    return finish


@pytest.fixture(scope="module")
def archives(tmp_path_factory, sample) -> Path:
    """Ten times the sample's 144 documents in sixty archives."""
    folder = tmp_path_factory.mktemp("archives")
    packed = (sample / "emotify" / "documents.tar.zst").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as whole, ExitStack() as stack:
        parts = [stack.enter_context(tarfile.open(folder / f"{n:02}.tar", "w")) for n in range(ARCHIVES)]
        members = [member for member in whole if member.isfile()] * COPIES
        for number, member in enumerate(members):
            parts[number % ARCHIVES].addfile(member, whole.extractfile(member))
    return folder


@pytest.fixture(scope="module")
def ingested(run, archives) -> Finished:
    return run("ingest", "--inputs", str(archives), "--set", "execution.rows_per_shard=1")


@pytest.fixture(scope="module")
def trained(run, ingested, sample) -> Finished:
    return run(
        *("train", "--features", f"{ingested.output}/features", "--taxonomy", "folder"),
        *("--ground-truth", str(sample / "emotify" / "folder.tsv")),
        *("--set", "execution.gpus_per_learner=1", "rules.max_epochs=2", "split.least_train=5", "split.least_other=2"),
        *("split.fractions=[0.6, 0.2, 0.2]", "split.group_by=artist", "split.seed=10"),
    )


def test_an_ingest_of_sixty_archives_brings_all_three_cpu_nodes(ingested):
    assert ingested.code == 0, ingested.log
    assert max(cpu for cpu, _ in ingested.nodes) == 3, ingested.log
    assert sum(part.rows for part in tables.list_parts(f"{ingested.output}/features")) == COPIES * 144


def test_a_training_brings_the_gpu_node(trained):
    """Its GPU is a number to Ray alone, so PyTorch computes on the CPU, and the log says so.

    The passes over all rows, before and after it, reserve CPUs, for which a node of the other kind may come.
    """
    assert trained.code == 0, trained.log
    assert max(gpu for _, gpu in trained.nodes) == 1
    assert max(cpu for cpu, _ in trained.nodes) <= 1
    assert "no CUDA" in trained.log
    assert "wrote the bundle" in trained.log


def test_a_prediction_brings_the_gpu_node(run, ingested, trained):
    predicted = run(
        *("predict", "--features", f"{ingested.output}/features", "--bundle", trained.output),
        *("--set", "execution.gpus_per_worker=1"),
        *("--limit", "144"),
    )
    assert predicted.code == 0, predicted.log
    assert max(gpu for _, gpu in predicted.nodes) == 1
    assert sum(part.rows for part in tables.list_parts(f"{predicted.output}/predictions")) == 144


def test_what_no_node_can_ever_have_is_refused(autoscaling_cluster, ingested, sample, tmp_path):
    """By the maximum in the cluster's configuration; `tests/runs/test_resources.py` has the kinds of refusals."""
    code, log = autoscaling_cluster.run(
        *("train", "--features", f"{ingested.output}/features", "--taxonomy", "folder"),
        *("--ground-truth", str(sample / "emotify" / "folder.tsv"), "--output", str(tmp_path / "out")),
        *("--set", "execution.learners=9", "split.least_train=5", "split.least_other=2"),
        *("split.fractions=[0.6, 0.2, 0.2]", "split.group_by=artist", "split.seed=10"),
    )
    assert code == 2, log
    assert re.search(r"9 workers with 1 CPU each must run at the same time, but .* can run only 8\.", log)
