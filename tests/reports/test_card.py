"""A card says what the manifest says."""

from genre_ray.bundles.manifest import Data, Licences, Lineage, TargetDescription
from genre_ray.decisions.policy import PolicyDescription
from genre_ray.decisions.thresholds import NO_THRESHOLD
from genre_ray.models.description import PreparationDescription
from genre_ray.reports.card import card
from genre_ray.systems.description import GENRES
from tests.manifests import make_manifest

LABELS = ("jazz", "rock", "rock---indie")


def target(labels, thresholds):
    policy = PolicyDescription(thresholds=thresholds)
    return TargetDescription(task=GENRES, labels=labels, columns=(0, 1, 2), hierarchy=(), policy=policy)


def manifest_of(**changes):
    return make_manifest(
        LABELS, columns=[f"c{n}" for n in range(2669)], thresholds=[0.25, 0.5, NO_THRESHOLD], **changes
    )


def test_card_says_what_the_manifest_says():
    manifest = manifest_of(
        system="fusion",
        source="the paper of the system",
        preprocessing=PreparationDescription(
            kind="embeddings", settings={"sources": [{"clip_sd": 8.0}, {"clip_sd": None}]}
        ),
        data=Data(recordings={"train": 90}, rows=120, sources={}, extractors={"music 1.0": 120}),
        lineage=Lineage(run_id="r", identity={"bundles": ["first", "second"]}, inner=("first", "second")),
        licences=Licences(data="CC-BY-NC-SA-4.0"),
    )
    text = card(manifest)
    assert text.startswith("# Genre labels of the taxonomy folders, system fusion\n")
    for line in (
        "| inputs.audio.columns | 2,669 values |",
        f"| inputs.audio.hash | {manifest.inputs['audio'].hash} |",
        "| preprocessing.settings.sources.1.clip\\_sd | 8 |",
        "| preprocessing.settings.sources.2.clip\\_sd | none |",
        "| history.1.validation\\_loss | 0.6 |",
        "| extractors.music 1.0 | 120 |",
        "| inner | first, second |",
        "| training data | CC-BY-NC-SA-4.0 |",
        "| weights | not stated |",
        "| jazz | 0.2500 |",
        "| rock---indie | – |",
    ):
        assert line in text.splitlines()
    assert "The system is described in the paper of the system." in text
    assert "2 genres and 1 subgenre " in text
    assert "not calibrated" in text


def test_names_cannot_become_markup():
    text = card(
        manifest_of(
            taxonomy="[t](u)",
            targets={"[t](u)": target(("<script>", "a|b", "x\n# y"), (float(NO_THRESHOLD),) * 3)},
            licences=Licences(weights="<b>|"),
        )
    )
    assert "<script>" not in text
    assert "| a\\|b | – |" in text.splitlines()
    assert "| x # y | – |" in text.splitlines()
    assert "\\[t\\](u)" in text
    assert "| weights | &lt;b&gt;\\| |" in text.splitlines()
