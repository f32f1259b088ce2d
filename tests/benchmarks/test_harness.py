"""Guards the arithmetic and the input of the benchmarks; what they measure is never asserted in a test."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from genre_ray.features.essentia.flatten import flatten
from genre_ray.sources.documents.parse import Document, parse_document


@pytest.fixture(scope="module", autouse=True)
def beside_this_file() -> Iterator[None]:
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.pop(0)


@pytest.fixture
def harness() -> ModuleType:
    return importlib.import_module("harness")


def test_the_bar_is_held_against_the_median_of_the_ratios_of_pairs(harness: ModuleType) -> None:
    ours, reference = iter([4.0, 9.0, 8.0]), iter([2.0, 3.0, 1.0])
    result = harness.compare(
        "x", lambda: next(ours), lambda: next(reference), unit="rows/s", at_least=3.0, repetitions=3
    )
    assert result.held == (2.0, 3.0, 8.0)
    assert result.met is True
    assert "3.00 (2–8)" in harness.table([result])
    assert harness.Result("x", "s", (2.0,), (1.0,), at_most=1.9).met is False
    assert harness.Result("x", "s", (2.0,)).met is None


def test_a_marginal_rate_leaves_out_the_fixed_cost(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])

    def work(items: int) -> None:
        clock[0] += 100.0 + items / 50

    assert harness.marginal_rate(work, 1000) == pytest.approx(50)
    assert harness.rate(work, 1000) == pytest.approx(1000 / 120)


def test_all_numbers_are_written_with_the_machine(harness: ModuleType, tmp_path: Path) -> None:
    harness.write([harness.figure("start", lambda: 1.5, unit="s", at_most=2.0)], tmp_path / "new" / "bench.json")
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert written["results"][0]["ours"] == [1.5, 1.5, 1.5]
    assert written["results"][0]["met"] is True
    assert {"cpus", "ray", "torch", "python"} <= {*written["machine"]}


def test_jittered_documents_are_documents_of_their_kind_and_none_is_like_another() -> None:
    documents = importlib.import_module("documents")
    vectors = []
    for name, content in documents.jittered_documents(40, seed=3):
        document = parse_document(name, content)
        assert isinstance(document, Document)
        vectors.append(flatten(document))
    matrix = np.array(vectors)
    assert matrix.shape == (40, 2669)
    assert len(np.unique(matrix, axis=0)) == 40
    assert {"music 1", "music 2"} <= {_kind(content) for _, content in documents.jittered_documents(40, seed=3)}


def _kind(content: bytes) -> str:
    return "music 2" if b'"key_temperley"' in content else "music 1"
