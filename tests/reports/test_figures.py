"""Figures are whole SVG elements in the page's colours, whatever the labels are called."""

import re
import warnings
from xml.etree import ElementTree

import pytest

from genre_ray.reports import figures
from genre_ray.reports.result import LabelResult


def drawings(result):
    return [
        figures.label_scores(result.labels),
        figures.precision_recall(result.curves),
        figures.score_histograms(result.histograms),
        figures.trust(result.uncalibrated, result.calibrated, result.abstention),
        figures.trust(None, result.calibrated, None),
    ]


@pytest.mark.parametrize("labels", [("a", "b"), ("<x>&", "$\\frac{1}{2$", "演歌", "b" * 200)])
def test_figures_are_well_formed_and_silent(build, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for drawing in drawings(build(labels)):
            root = ElementTree.fromstring(drawing)
            assert root.tag == "svg"
            assert root.attrib["role"] == "img"
            assert root.attrib["aria-label"]


def test_colours_are_the_pages_own(build):
    for drawing in drawings(build()):
        assert set(re.findall(r"#[0-9a-f]{6}\b", drawing)) <= {"#000000"}
        assert "var(--ink)" in drawing
        assert "var(--series-1)" in drawing


def test_names_of_few_labels_are_text(build):
    drawing = figures.label_scores(build(("jazz", "rock")).labels)
    texts = {element.text for element in ElementTree.fromstring(drawing).iter("text")}
    assert {"jazz", "rock", "F of the predicted labels", "ROC AUC"} <= texts


def test_many_labels_from_rare_to_frequent():
    labels = [LabelResult(f"g{n}", False, 1 + n * n, n, 0.5, 0.5, n / 800, n / 800, 0.1, None) for n in range(800)]
    ticks = [e.text for e in ElementTree.fromstring(figures.label_scores(labels)).iter("text")]
    assert {"1", "1,000", "100,000"} <= set(ticks)


def test_labels_that_no_recording_has_are_left_out(build):
    drawing = figures.label_scores([LabelResult("absent", False, 0, 3, None, None, None, None, None, None)])
    assert "absent" not in drawing
