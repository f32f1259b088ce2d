"""The page opens anywhere, shows everything, and nothing in the data can become markup."""

from html.parser import HTMLParser

import pytest

from genre_ray.reports.html import render

HOSTILE = ('<script>alert("1")</script>', "funk / soul & $x_1$", '"><img src=x onerror=y>', '演歌---`id="a"`')
VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use"}


class Page(HTMLParser):
    """What a page consists of; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_every_evaluation_label_and_note_is_shown(build):
    evaluations = [build(name="single"), build(name="fused"), build(("calm", "tense"), name="mood", taxonomy="moods")]
    texts = Page(render(evaluations, "Sample", "1.2.3")).texts
    for evaluation in evaluations:
        for text in (evaluation.name, *(row.label for row in evaluation.labels), *evaluation.notes):
            assert text in texts
    for text in ("Sample", "genre_ray 1.2.3", "popularity baseline", "majority baseline", "moods"):
        assert text in texts
    assert f"{evaluations[0].system.official.recording_all.f_score.mean:.3f}" in texts
    assert f"{evaluations[0].calibrated.macro:.4f}" in texts
    assert any("pairs of a label and its parent" in text for text in texts)


def test_only_evaluations_of_the_same_recordings_share_a_table(build):
    page = Page(render([build(name="all"), build(name="half", recordings=20)]))
    assert page.texts.count("popularity baseline") == 2


def test_evaluations_of_one_truth_share_a_table_with_its_baselines(build):
    page = Page(render([build(name="single"), build(name="mood", taxonomy="moods"), build(name="fused")]))
    assert page.texts.count("popularity baseline") == 2
    rows = [text for text in page.texts if text in ("single", "fused", "mood", "random baseline")]
    assert rows[:5] == ["single", "fused", "random baseline", "mood", "random baseline"]


@pytest.mark.parametrize("scored", [True, False])
def test_nothing_is_loaded_from_elsewhere(build, scored):
    text = render([build(scored=scored)])
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(link.startswith("#") for link in links)


def test_ids_are_unique_and_every_reference_has_its_target(build):
    text = render([build(name="single"), build(name="fused")])
    attributes = Page(text).attributes
    names = [value for name, value in attributes if name == "id"]
    assert len(names) == len(set(names))
    references = {value[1:] for name, value in attributes if name == "href"}
    references |= {value[5:-1] for name, value in attributes if name == "clip-path"}
    assert references <= set(names)


def test_hostile_names_stay_text(build):
    labels = (*HOSTILE, "rock")
    page = Page(render([build(labels, name="<b>system</b>", taxonomy="<i>t</i>")], "<u>title</u>"))
    assert not {"script", "img", "b", "i", "u"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    for text in (*labels, "<b>system</b>", "<i>t</i>", "<u>title</u>"):
        assert text in page.texts


def test_without_all_scores_the_page_says_so(build):
    page = Page(render([build(scored=False)]))
    assert "Not available: the predictions do not hold the scores of all labels." in page.texts
    assert page.tags.count("svg") == 1


@pytest.mark.parametrize("labels", [("rock",), ("rock", "rock---indie"), ("rock", "polka")])
def test_few_labels_and_labels_without_positives(build, labels):
    result = build(labels, absent=("polka",), everywhere=("rock", "rock---indie"))
    texts = Page(render([result])).texts
    assert all(label in texts for label in labels)


def test_same_evaluations_give_the_same_page(build):
    assert render([build()]) == render([build()])
