"""A card says what model.json says, and says so where model.json says nothing."""

from genre_ray.reports.card import card


def target(labels, thresholds):
    return {"labels": labels, "thresholds": thresholds, "calibration": "none"}


MODEL = {
    "system": "fusion",
    "task": "multi_label",
    "labels": ["jazz", "rock", "rock---indie"],
    "targets": {"folders": target(["jazz", "rock", "rock---indie"], [0.25, None, 3.4028234663852886e38])},
    "input": {"schema_hash": "ab12", "columns": [f"c{n}" for n in range(2669)]},
    "preprocessing": {"sources": [{"clip_sd": 8.0}, {"clip_sd": None}]},
    "metrics": {"validation": {"roc_auc": {"macro": 0.9123456}}},
    "source": "the paper of the system",
    "data": {"extractors": {"music 1.0": 120}},
    "lineage": {"bundles": ["first", "second"]},
}


def test_card_says_what_the_model_says():
    text = card(MODEL)
    assert text.startswith("# Genre labels of the taxonomy folders, system fusion\n")
    for line in (
        "| input.columns | 2,669 values |",
        "| input.schema\\_hash | ab12 |",
        "| sources.1.clip\\_sd | 8 |".replace("sources", "preprocessing.sources"),
        "| preprocessing.sources.2.clip\\_sd | none |",
        "| validation.roc\\_auc.macro | 0.9123 |",
        "| extractors.music 1.0 | 120 |",
        "| bundles | first, second |",
        "| jazz | 0.2500 |",
        "| rock | – |",
        "| rock---indie | – |",
    ):
        assert line in text.splitlines()
    assert "The system is described in the paper of the system." in text
    assert "2 genres and 1 subgenre " in text
    assert "not calibrated" in text


def test_card_says_what_is_not_known():
    text = card({"labels": []})
    for absent in ("Not described.", "None recorded.", "Not recorded.", "not named"):
        assert absent in text


def test_names_cannot_become_markup():
    text = card({**MODEL, "targets": {"[t](u)": target(["<script>", "a|b", "x\n# y"], [None] * 3)}})
    assert "<script>" not in text
    assert "| a\\|b | – |" in text.splitlines()
    assert "| x # y | – |" in text.splitlines()
    assert "\\[t\\](u)" in text
