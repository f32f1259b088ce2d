"""Guards the contract that tables, bundles and published results share: which 2669 columns there are, and their order.

The reference is written here from the documents alone: all leaves under the three rooms, sorted as strings.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from genre_ray.features.essentia.columns import FEATURE_COLUMNS, KEYS, READING_ORDER, missing_columns
from genre_ray.sources.documents.parse import DocumentVersion

DOCUMENTS = sorted((Path(__file__).parents[2] / "data" / "acousticbrainz").glob("*.json"))


def leaves(value, name):
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield name, value
    else:
        for key, child in children:
            yield from leaves(child, f"{name}.{key}")


def reference_columns(document):
    names = sorted(name for room in ("lowlevel", "rhythm", "tonal") for name, _ in leaves(document[room], room))
    names = [name for name in names if not name.startswith("rhythm.beats_position.")]
    assert len(names) == 2651
    names = [name for name in names if not name.startswith("rhythm.beats_loudness_band_ratio.median.")]
    columns = []
    for name in names:
        if name in ("tonal.key_key", "tonal.chords_key"):
            columns += [f"{name}_{key}" for key in KEYS]
        elif name in ("tonal.key_scale", "tonal.chords_scale"):
            columns += [f"{name}_major", f"{name}_minor"]
        else:
            columns.append(name)
    return tuple(columns)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem[:8])
def test_columns_are_the_sorted_leaves_of_real_documents(path):
    assert reference_columns(json.loads(path.read_bytes())) == FEATURE_COLUMNS


def test_there_are_six_documents():
    assert len(DOCUMENTS) == 6


def test_composition_is_the_published_one():
    assert len(FEATURE_COLUMNS) == len(set(FEATURE_COLUMNS)) == 2669
    assert sorted(READING_ORDER) == list(FEATURE_COLUMNS)
    counts = Counter(column.split(".")[1] for column in FEATURE_COLUMNS)
    expected = {
        "erbbands": 360,
        "melbands": 360,
        "gfcc": 351,
        "mfcc": 351,
        "hpcp": 324,
        "barkbands": 243,
        "spectral_contrast_coeffs": 54,
        "spectral_contrast_valleys": 54,
        "beats_loudness_band_ratio": 48,
        "thpcp": 36,
        "chords_histogram": 24,
    }
    assert {name: counts[name] for name in expected} == expected
    assert sum(count == 9 for count in counts.values()) == 47
    assert sum(count == 1 for count in counts.values()) == 13 + 28


def test_columns_of_string_order_do_not_count():
    start = FEATURE_COLUMNS.index("lowlevel.barkbands.dmean.0")
    assert [column.rsplit(".", 1)[1] for column in FEATURE_COLUMNS[start : start + 4]] == ["0", "1", "10", "11"]


def test_only_the_newer_version_lacks_columns():
    assert missing_columns(DocumentVersion.MUSIC_1) == ()
    missing = missing_columns(DocumentVersion.MUSIC_2)
    assert len(missing) == 9
    assert {column.rsplit(".", 1)[0] for column in missing} == {"rhythm.bpm_histogram_first_peak_spread"}


def test_names_and_order_of_the_columns_are_fixed():
    # A change here orphans every bundle that was ever trained.
    names = "\n".join(FEATURE_COLUMNS).encode()
    assert hashlib.sha256(names).hexdigest() == "ece038b2a1154d5974a3e923987d1b928c7e9f30cc0d120e88a7887f6a984633"
