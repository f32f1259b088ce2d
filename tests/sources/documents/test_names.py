"""Guards which recording a file name stands for, and that every identifier can be stored as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.sources.documents.names import bounded, identifier, identify

UUID = "54551aad-4fca-4ba4-9ce2-f6b2d9b5fceb"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{UUID}.json", (UUID, 0)),
        (f"low/level/54/{UUID.upper()}.JSON", (UUID, 0)),
        (f"{UUID}-0.json", (UUID, 0)),
        (f"{UUID}-93.json", (UUID, 93)),
        (f"{UUID}-07.json", (f"{UUID}-07", 0)),
        (f"{UUID}-99999999999.json", (f"{UUID}-99999999999", 0)),
        (f"{UUID}-x.json", (f"{UUID}-x", 0)),
        ("song-3.json", ("song-3", 0)),
        ("Song A.json", ("Song A", 0)),
        ("a/.json", (".json", 0)),
        ("no-suffix", ("no-suffix", 0)),
        ("tab\there.json", ("tab\\there", 0)),
        ("caf\udce9.json", ("caf\\udce9", 0)),
    ],
)
def test_names_give_recording_and_submission(name, expected):
    assert identify(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(f" {UUID.upper()}\n", UUID), (" Song A ", "Song A"), (UUID.upper()[1:], UUID.upper()[1:]), ("a\x00b", "a\\x00b")],
)
def test_only_a_musicbrainz_id_changes_its_case(text, expected):
    assert identifier(text) == expected


@given(st.text(st.characters(exclude_categories=())), st.integers(1, 40))
def test_any_text_is_stored_within_its_limit(text, limit):
    stored = bounded(text, limit)
    assert len(stored) <= limit
    assert len(stored.encode().splitlines()) <= 1
    if len(text) < limit and text.isprintable():
        assert stored == text
