"""Each known row is one example, with its recording's labels, a fair weight and a part that never splits a group."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.errors import ConfigurationError, InputError
from genre_ray.features.spec import FeatureSpec
from genre_ray.labels.splits import PARTS, hash_position, parts_at
from genre_ray.models.outputs import UNKNOWN
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES
from genre_ray.training.finding import Split
from genre_ray.truth.ground_truth import GroundTruth
from genre_ray.truth.identifiers import Identifiers
from tests.training.joining import make_examples

FREE = Split(least_train=1, least_other=1)


def truth_of(label_sets, groups=None, uri="truth.tsv"):
    """`label_sets` and `groups`: by recording."""
    return GroundTruth(
        uri,
        list(label_sets),
        [(groups or {}).get(recording, "") for recording in label_sets],
        [tuple(sorted(labels)) for labels in label_sets.values()],
    )


def part_of(group, seed, fractions):
    return PARTS[parts_at(np.array([hash_position(group, seed)], dtype=np.uint64), fractions)[0]]


def ids_of(examples):
    """The recording of each example."""
    return [examples.recording_ids[place].as_py() for place in examples.recordings.tolist()]


def parts_of_rows(examples):
    """The part of each example."""
    return [PARTS[place] for place in examples.parts[examples.recordings].tolist()]


def label_sets_of(examples):
    """The labels of each example."""
    sets = [
        tuple(label for label, there in zip(examples.labels, row, strict=True) if there)
        for row in examples.matrix.toarray().tolist()
    ]
    return [sets[place] for place in examples.recordings.tolist()]


def parts_of(examples):
    """Recording → its parts."""
    found = {}
    for recording, part in zip(ids_of(examples), parts_of_rows(examples), strict=True):
        found.setdefault(recording, set()).add(part)
    return found


def table(write_features, recordings, **columns):
    return write_features(np.zeros((len(recordings), 2)), recording_id=recordings, **columns)


def test_rows_are_joined_by_recording_wherever_they_are(write_features):
    recordings = ["c", "a", "x", "b", "a", "y", "b", "a"]
    uri = table(write_features, recordings, submission=[0, 0, 0, 1, 1, 0, 0, 2])
    truths = {
        "train": truth_of({"a": ["rock"], "missing": ["rock"]}),
        "validation": truth_of({"b": ["rock", "jazz"], "c": ["rock"]}),
    }
    examples = make_examples(uri, {"t": truths}, FREE)
    # Jazz is in validation only.
    assert examples.labels == ("rock",)
    assert examples.rows.tolist() == [[0, 1, 3, 4, 6, 7]]
    assert ids_of(examples) == [recordings[row] for row in examples.rows[0]]
    assert parts_of_rows(examples) == ["validation", "train", "validation", "train", "validation", "train"]
    assert label_sets_of(examples) == [("rock",)] * 6
    np.testing.assert_allclose(examples.weights, [1, 1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3])


def test_parts_agree_between_taxonomies_and_stay_when_the_table_grows(write_features):
    recordings = [f"r{n:03d}" for n in range(300)]
    groups = [f"group {n % 90}" if n % 3 else None for n in range(300)]
    artists = [[f"artist {n % 50}"] if n % 2 else [] for n in range(300)]
    columns = {"release_group_id": groups, "artist_ids": artists}
    small = table(write_features, recordings[:200], **{k: v[:200] for k, v in columns.items()}, name="small")
    # Grown, and with its rows in another order.
    grown = table(write_features, recordings[::-1], **{k: v[::-1] for k, v in columns.items()}, name="grown")
    one = truth_of({recording: ["rock"] for recording in recordings[:250]})
    # The other taxonomy's file also knows release groups, which are not the table's.
    other = truth_of({recording: ["folk"] for recording in recordings[100:]}, dict.fromkeys(recordings[100:], "wrong"))
    found = [
        parts_of(make_examples(uri, {"t": {"all": truth}}, FREE))
        for uri, truth in ((small, one), (grown, one), (grown, other))
    ]
    for a in found:
        assert all(len(parts) == 1 for parts in a.values())
        for b in found:
            named = [r for r in a.keys() & b.keys() if groups[int(r[1:])]]
            assert len(named) > 60
            assert [a[recording] for recording in named] == [b[recording] for recording in named]
    assert found[0] == {recording: found[1][recording] for recording in found[0]}
    by_group = {}
    for recording, parts in found[1].items():
        by_group.setdefault(groups[int(recording[1:])] or recording, set()).update(parts)
    assert all(len(parts) == 1 for group, parts in by_group.items() if group.startswith("group"))
    assert found[1]["r001"] == {part_of("group 1", 0, (0.8, 0.1, 0.1))}


def test_submissions_that_name_different_groups_stay_together(write_features):
    # Of 60 recordings whose later submissions name another release group, none may be in two parts.
    recordings = [f"r{n % 60:02d}" for n in range(180)]
    groups = [f"g{n}" for n in range(180)]
    uri = table(write_features, recordings, submission=[n // 60 for n in range(180)], release_group_id=groups)
    split = Split(least_train=1, least_other=1, fractions=(0.4, 0.3, 0.3))
    found = parts_of(make_examples(uri, {"t": {"all": truth_of({key: ["rock"] for key in set(recordings)})}}, split))
    assert found == {f"r{n:02d}": {part_of(f"g{n}", 0, split.fractions)} for n in range(60)}


def test_group_by_artist(write_features):
    recordings = [f"r{n:03d}" for n in range(200)]
    artists = [[f"a{n % 20}", f"guest {n}"] for n in range(200)]
    uri = table(write_features, recordings, artist_ids=artists, release_group_id=[f"g{n}" for n in range(200)])
    split = Split(group_by="artist", least_train=1, least_other=1, fractions=(0.5, 0.25, 0.25))
    found = parts_of(make_examples(uri, {"t": {"all": truth_of({key: ["rock"] for key in recordings})}}, split))
    for n, recording in enumerate(recordings):
        assert found[recording] == {part_of(f"a{n % 20}", 0, split.fractions)}


LABEL_SETS = st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=12, max_size=12)


@given(label_sets=LABEL_SETS, least_train=st.integers(1, 4), least_other=st.integers(1, 3))
def test_least_recordings_rule_equals_counting_recordings_not_rows(
    tmp_path_factory, label_sets, least_train, least_other
):
    uri = _twelve_recordings_twice(tmp_path_factory)
    recordings = [f"r{n:02d}" for n in range(12)]
    parts = ["train"] * 6 + ["validation"] * 4 + ["test"] * 2
    truths = {
        part: truth_of({r: label_sets[n] for n, r in enumerate(recordings) if parts[n] == part}) for part in set(parts)
    }
    counts = Counter((part, label) for part, labels in zip(parts, label_sets, strict=True) for label in labels)
    space = [
        label
        for label in "abcd"
        if counts["train", label] >= least_train
        and counts["validation", label] >= least_other
        and counts["test", label] >= least_other
    ]
    split = Split(least_train=least_train, least_other=least_other)
    if not space:
        with pytest.raises(InputError, match=r"lower split.least_train and split.least_other"):
            make_examples(uri, {"t": truths}, split)
        return
    examples = make_examples(uri, {"t": truths}, split)
    assert examples.labels == tuple(space)
    expected = {r: tuple(sorted(labels & set(space))) for r, labels in zip(recordings, label_sets, strict=True)}
    assert sorted(ids_of(examples)) == sorted([r for r, labels in expected.items() if labels] * 2)
    for recording, labels in zip(ids_of(examples), label_sets_of(examples), strict=True):
        assert labels == expected[recording]


_made = {}


def _twelve_recordings_twice(tmp_path_factory):
    if "uri" not in _made:
        _made["uri"] = str(tmp_path_factory.mktemp("join") / "features")
        schema = FEATURES
        rows = [
            {"recording_id": f"r{n % 12:02d}", "submission": n // 12, "artist_ids": [], "features": [0.0]}
            for n in range(24)
        ]
        tables.create_table(_made["uri"], schema, FeatureSpec.of_columns("test", ["c0"]).properties())
        part = tables.write_part(_made["uri"], "part", pa.Table.from_pylist(rows, schema))
        tables.append(tables.open_table(_made["uri"]), [tables.Append("run/0", [part])], schema)
    return _made["uri"]


def test_limit_takes_the_first_known_rows(write_features):
    recordings = [f"r{n}" for n in range(9)] + ["x"] * 3
    uri = table(write_features, recordings[::-1], parts=4)
    truths = {
        "train": truth_of({f"r{n}": ["rock"] for n in range(0, 9, 2)}),
        "validation": truth_of({f"r{n}": ["rock"] for n in range(1, 9, 2)}),
    }
    assert make_examples(uri, {"t": truths}, FREE, limit=4).rows.tolist() == [[3, 4, 5, 6]]
    assert len(make_examples(uri, {"t": truths}, FREE, limit=99)) == 9


def test_no_known_recording_is_refused(write_features):
    uri = table(write_features, ["a", "b"])
    with pytest.raises(InputError, match=r"found none of its 2 recordings; check that both name recordings"):
        make_examples(uri, {"t": {"all": truth_of({"x": ["rock"], "y": ["rock"]})}}, FREE)


def test_a_recording_in_two_parts_is_refused(write_features):
    uri = table(write_features, ["a", "b"])
    truths = {"train": truth_of({"a": ["rock"]}), "validation": truth_of({"b": ["rock"], "a": ["rock"]}, uri="v.tsv")}
    with pytest.raises(InputError, match=r"v.tsv: recording a is in another part too"):
        make_examples(uri, {"t": truths}, FREE)


@pytest.mark.parametrize("parts", [["train", "validation", "all"], ["training", "validation"]])
def test_unknown_parts_are_refused(write_features, parts):
    uri = table(write_features, ["a", "b", "c"])
    truths = {part: truth_of({recording: ["rock"]}) for part, recording in zip(parts, "abc", strict=False)}
    with pytest.raises(ConfigurationError, match="expected ground truths of train, validation, test, or one of all"):
        make_examples(uri, {"t": truths}, FREE)


def test_a_part_without_recordings_is_refused(write_features):
    uri = table(write_features, [f"r{n}" for n in range(20)])
    truth = truth_of({f"r{n}": ["rock"] for n in range(20)})
    with pytest.raises(InputError, match="expected recordings of t in the part validation, found none"):
        make_examples(uri, {"t": {"all": truth}}, Split(least_train=1, least_other=1, fractions=(1, 0, 0)))


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.1, -0.1, 0.0)])
def test_shares_must_sum_to_one(fractions):
    with pytest.raises(ConfigurationError, match="three shares of at least 0 that sum to 1"):
        Split.from_mapping({"fractions": fractions}, "split")


NAMES = {"a": ["Hip Hop", "Jazz", "jazz---be-bop"], "b": ["hiphop", "jazz", "soul"]}
JOINED = ("hiphop", "jazz", "jazz---bebop", "soul")
SHARED = {"Hip Hop": "hiphop", "Jazz": "jazz", "jazz---be-bop": "jazz---bebop"}

ANSWERS = st.fixed_dictionaries(
    {
        taxonomy: st.lists(
            st.none() | st.tuples(st.sampled_from(PARTS), st.sets(st.sampled_from(names), min_size=1)),
            min_size=8,
            max_size=8,
        )
        for taxonomy, names in NAMES.items()
    }
)


@settings(max_examples=25)
@given(ANSWERS, st.booleans())
def test_joined_taxonomies_equal_their_restatement(tmp_path_factory, answers, masked):
    """`answers`: by taxonomy, each recording's (part, labels), None where the taxonomy does not know it."""
    uri = _twelve_recordings_twice(tmp_path_factory)
    # Four more recordings give every taxonomy all its labels in train and validation.
    sure = ("train", "train", "validation", "validation")
    answers = {taxonomy: [*own, *((part, {*NAMES[taxonomy]}) for part in sure)] for taxonomy, own in answers.items()}
    sources, taxonomies = {}, {}
    for taxonomy, own in answers.items():
        truths = {
            part: truth_of({f"r{n:02d}": answer[1] for n, answer in enumerate(own) if answer and answer[0] == part})
            for part in PARTS
        }
        taxonomies[taxonomy] = truths = {part: truth for part, truth in truths.items() if len(truth)}
        tested = set().union(*(answer[1] for answer in own if answer and answer[0] == "test"))
        vocabulary = {*NAMES[taxonomy]} & (tested or {*NAMES[taxonomy]})
        answers[taxonomy] = [answer and (answer[0], answer[1] & vocabulary) for answer in own]
        sources[taxonomy] = make_examples(uri, {"t": truths}, FREE)
        assert set(sources[taxonomy].labels) == vocabulary
    joined = make_examples(uri, taxonomies, FREE, masked=masked)

    columns = {taxonomy: [SHARED.get(label, label) for label in sources[taxonomy].labels] for taxonomy in answers}
    space = sorted({*columns["a"], *columns["b"]})
    said = [{t: own[n] for t, own in answers.items() if own[n] and own[n][1]} for n in range(12)]
    known = [n for n in range(12) if said[n]]
    assert list(joined.labels) == space
    assert ids_of(joined) == [f"r{n:02d}" for n in known] * 2
    parts, label_sets, targets = parts_of_rows(joined), label_sets_of(joined), joined.targets().tolist()
    assert joined.weights.tolist() == [0.5] * 2 * len(known)
    kept = []
    for place, n in enumerate(known * 2):
        part = max((part for part, _ in said[n].values()), key=PARTS.index)
        union = {SHARED.get(label, label) for _, labels in said[n].values() for label in labels}
        asked = {label for taxonomy in said[n] for label in columns[taxonomy]} if masked else set(space)
        assert parts[place] == part
        assert label_sets[place] == tuple(sorted(union))
        assert targets[place] == [int(label in union) if label in asked else UNKNOWN for label in space]
        kept += [
            {"recording_id": f"r{n:02d}", "taxonomy": taxonomy, "part": part, "labels": sorted(labels), "bundle": None}
            for taxonomy, (_, labels) in sorted(said[n].items())
        ]
    assert joined.per_recording().read_all().to_pylist() == kept[: len(kept) // 2]
    for taxonomy, annotations in joined.taxonomies.items():
        assert [space[column] for column in annotations.columns] == columns[taxonomy]


def test_one_taxonomy_joined_with_nothing_stays_what_it_is(write_features):
    recordings = [f"r{n:02d}" for n in range(40)]
    uri = table(write_features, recordings)
    truths = {"all": truth_of({recording: ["2-step", "Step"][: 1 + n % 2] for n, recording in enumerate(recordings)})}
    alone = make_examples(uri, {"t": truths}, FREE)
    masked = make_examples(uri, {"t": truths}, FREE, masked=True)
    assert masked.labels == alone.labels == ("2-step", "Step")
    np.testing.assert_array_equal(masked.targets(), alone.targets())


def test_parts_by_hash_agree_so_that_no_recording_moves(write_features, caplog):
    recordings = [f"r{n:03d}" for n in range(300)]
    uri = table(write_features, recordings, release_group_id=[f"g{n // 3}" for n in range(300)])
    one = {"all": truth_of({recording: ["rock"] for recording in recordings[:200]})}
    # Its file names release groups of its own, which the table's go before.
    two = {"all": truth_of({recording: ["Rock"] for recording in recordings[100:]}, dict.fromkeys(recordings, "x"))}
    sources = {"one": make_examples(uri, {"t": one}, FREE), "two": make_examples(uri, {"t": two}, FREE)}
    joined = make_examples(uri, {"one": one, "two": two}, FREE)
    assert (joined.labels, len(joined)) == (("rock",), 300)
    assert "different parts" not in caplog.text
    for examples in sources.values():
        assert parts_of(examples).items() <= parts_of(joined).items()


def test_a_taxonomy_that_loses_its_validation_recordings_is_refused(write_features):
    uri = table(write_features, ["a", "b", "c", "d"])
    one = {"train": truth_of({"a": ["rock"]}), "validation": truth_of({"b": ["rock"]})}
    two = {
        "train": truth_of({"c": ["rock"]}),
        "validation": truth_of({"d": ["rock"]}),
        "test": truth_of({"b": ["rock"]}),
    }
    message = r"expected recordings of one in the part validation, found none \(1 recordings are in another part"
    with pytest.raises(InputError, match=message):
        make_examples(uri, {"one": one, "two": two}, FREE)


def test_own_ids_and_merged_ids_lead_to_one_recording(write_features):
    # The table has a recording under its old and its new id, the truths name it by an own id and by the new one.
    uri = table(write_features, ["old", "new", "b", "c"], submission=[0, 0, 0, 0])
    identifiers = Identifiers({"song-1": "new", "old": "new", "song-2": "b"})
    truths = {
        "train": truth_of({"song-1": ["rock"], "new": ["jazz"], "lost": ["rock"]}),
        "validation": truth_of({"song-2": ["rock"], "c": ["jazz"]}),
    }
    examples = make_examples(uri, {"t": truths}, FREE, identifiers=identifiers)
    assert ids_of(examples) == ["new", "new", "b", "c"]
    assert label_sets_of(examples) == [("jazz", "rock")] * 2 + [("rock",), ("jazz",)]
    np.testing.assert_allclose(examples.weights, [0.5, 0.5, 1, 1])
    assert examples.taxonomies["t"].coverage == (4, 3)
    assert examples.taxonomies["t"].coverage.lost == 0.25
    # What the identifiers bring into two parts is refused.
    truths["validation"] = truth_of({"old": ["rock"]})
    with pytest.raises(InputError, match="recording new is in another part too"):
        make_examples(uri, {"t": truths}, FREE, identifiers=identifiers)
