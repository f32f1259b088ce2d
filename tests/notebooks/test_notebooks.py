"""The notebooks run as they are shipped, on the sample, and show what their text promises."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TIMEOUT_S = 240  # a cell; a busy machine is slow, not broken

pytestmark = pytest.mark.slow


def execute(path: Path, *probes: str) -> tuple[Any, list[Any]]:
    """Run a notebook beside its file, then evaluate `probes` in its kernel; a cell that raises fails the test.

    Returns:
        The notebook with its outputs, and what the probes gave, through JSON.
    """
    notebook = nbformat.read(path, as_version=4)
    cells = len(notebook.cells)
    for probe in probes:
        notebook.cells.append(nbformat.v4.new_code_cell(f"print(__import__('json').dumps({probe}))"))
    # Without folders to look into, the only kernel is that of the interpreter that runs the tests.
    kernels = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    NotebookClient(
        notebook, km=kernels, timeout=TIMEOUT_S, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    answers = [json.loads(cell.outputs[-1].text) for cell in notebook.cells[cells:]]
    notebook.cells = notebook.cells[:cells]
    return notebook, answers


def output_types(cell: Any) -> set[str]:
    """The kinds of output of a cell, e.g. text/html."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def truth_of(path: Path) -> dict[str, list[str]]:
    """Labels by recording."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        return {row[0]: [label for label in row[2:] if label] for row in rows}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    """Stored outputs go stale, and carry paths and names of the machine that made them."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.usefixtures("ray_cluster")
def test_first_look(sample: Path) -> None:
    """A newcomer who runs the first notebook sees every damaged document's reason and five answers of each model."""
    notebook, (rejected, counts, answers, labels, parts) = execute(
        NOTEBOOKS / "first-look.ipynb",
        "rejected.set_index('document')['reason'].to_dict()",
        "label_counts",
        "{t: {i: [list(p.loc[i, 'labels']), [float(s) for s in p.loc[i, 'scores']]] for i in five}"
        " for t, p in predictions.items()}",
        "{t: [m.labels, m.targets[t].policy.thresholds] for t, m in models.items()}",
        "{t: read_examples(str(OUTPUT / 'bundles' / t)).to_pandas().set_index('recording_id')['part'].to_dict()"
        " for t in truths}",
    )
    assert rejected == {
        "cut-off.json": "not_json",
        "empty.json": "empty",
        "list-too-short.json": "wrong_shape",
        "not-a-number.json": "not_finite",
        "not-text.json": "not_utf8",
        "nothing-measured.json": "no_lowlevel",
    }
    for taxonomy in ("folder", "tags"):
        truth = truth_of(sample / "emotify" / f"{taxonomy}.tsv")
        assert counts[taxonomy] == Counter(label for row in truth.values() for label in row)
        known = dict(zip(*labels[taxonomy], strict=True))
        assert len(answers[taxonomy]) == 5
        for recording, (given, scores) in answers[taxonomy].items():
            assert parts[taxonomy].get(recording, "test") == "test"
            assert given
            assert set(given) <= set(known)
            assert all(0 < score <= 1 for score in scores)
    assert answers["folder"].keys() == answers["tags"].keys()
    assert answers["folder"].keys() <= {recording for recording, part in parts["folder"].items() if part == "test"}
    assert set(labels["folder"][0]) == {"classical", "electronic", "pop", "rock"}

    shown = {cell.id: output_types(cell) for cell in notebook.cells if cell.cell_type == "code"}
    assert all("image/svg+xml" in shown[figure] for figure in ("label-counts", "scores"))
    assert all("text/html" in shown[table] for table in ("cards", "rejected", "answers"))
