"""Guards that no document, whatever its bytes, raises or leaves text that a table cannot store."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.outcomes import DETAIL_CHARACTERS, Reason, Rejection
from genre_ray.sources.documents.parse import Document, parse_document

MINIMAL = {"lowlevel": {}, "rhythm": {}, "tonal": {"key_key": "A"}}


def minimal(**more):
    return json.dumps(MINIMAL | more).encode()


def nested(levels, opening=b"[", closing=b"]"):
    return opening * levels + closing * levels


def with_ignored(payload):
    """A good document with `payload` in a field that nobody reads, one level down."""
    return minimal()[:-1] + b', "ignored": ' + payload + b"}"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.EMPTY),
        (b" \n\t", Reason.EMPTY),
        (b"\x00" * 100, Reason.NOT_JSON),
        (b"not json", Reason.NOT_JSON),
        (minimal()[:-1], Reason.NOT_JSON),
        (minimal() + b"x", Reason.NOT_JSON),
        (b"{'lowlevel': 1}", Reason.NOT_JSON),
        (b"\xff\xfe{\x00}\x00", Reason.NOT_UTF8),
        (b'{"lowlevel": "\xc3\x28"}', Reason.NOT_UTF8),
        (b'{"lowlevel": "\xed\xa0\x80"}', Reason.NOT_UTF8),
        (b"\x1f\x8b\x08\x00", Reason.NOT_UTF8),
        (b"null", Reason.NOT_AN_OBJECT),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b"NaN", Reason.NOT_AN_OBJECT),
        (b"{}", Reason.NO_LOWLEVEL),
        (b'{"lowlevel": null, "rhythm": {}, "tonal": {}}', Reason.NO_LOWLEVEL),
        (b'{"lowlevel": [], "rhythm": {}, "tonal": {}}', Reason.NO_LOWLEVEL),
        (b'{"lowlevel": {}, "rhythm": {}}', Reason.NO_LOWLEVEL),
        (b'{"lowlevel": {}, "rhythm": {}, "tonal": {}}', Reason.UNKNOWN_VERSION),
        (with_ignored(nested(64)), Reason.TOO_DEEP),
        (with_ignored(nested(500, b'{"a":[', b"]}")), Reason.TOO_DEEP),
        (with_ignored(nested(100_000)), Reason.TOO_DEEP),
        (with_ignored(b"[NaN," + nested(64) + b"]"), Reason.TOO_DEEP),
        (b"[" * 1_000_000, Reason.TOO_DEEP),
    ],
)
def test_a_bad_document_is_a_rejection_with_its_reason(payload, reason):
    rejection = parse_document("some/song.json", payload)
    assert isinstance(rejection, Rejection)
    assert rejection.reason is reason
    assert rejection.recording_id == "song"
    assert 0 < len(rejection.detail) <= DETAIL_CHARACTERS


@pytest.mark.parametrize(
    "ignored",
    [
        nested(63),
        b"[NaN, Infinity, -Infinity, 1e999, " + b"9" * 5000 + b"]",
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"' + b"[" * 1000 + b'"',
        b'["]]]]", "\\"[", [[["{{{"]]]]',
    ],
)
def test_odd_content_of_an_ignored_field_does_no_harm(ignored):
    assert isinstance(parse_document("a.json", with_ignored(ignored)), Document)


def test_a_byte_order_mark_is_passed_over():
    assert isinstance(parse_document("a.json", b"\xef\xbb\xbf" + minimal()), Document)


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\a', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\b', max_size=4), inner),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("tags", "artists", "group"),
    [
        (None, (), None),
        ([], (), None),
        ("x", (), None),
        ({}, (), None),
        ({"musicbrainz_artistid": None, "musicbrainz_releasegroupid": []}, (), None),
        ({"musicbrainz_artistid": "A", "musicbrainz_releasegroupid": "G"}, ("A",), "G"),
        ({"musicbrainz_artistid": ["A", 1, None, ["B"], {}, "C", "A", "", "  "]}, ("A", "C"), None),
        ({"musicbrainz_releasegroupid": [None, "G", "H"]}, (), "G"),
        ({"musicbrainz_artistid": ["\ud800x", "tab\t"]}, ("\\ud800x", "tab"), None),
    ],
)
def test_odd_tags_never_raise_and_give_storable_ids(tags, artists, group):
    document = parse_document("a.json", minimal(metadata={"tags": tags}))
    assert document.artist_ids == artists
    assert document.release_group_id == group


@pytest.mark.parametrize("metadata", [None, 1, [], {"version": None}, {"version": {"lowlevel": 3}}])
def test_odd_metadata_leaves_the_extractor_unknown(metadata):
    assert parse_document("a.json", minimal(metadata=metadata)).extractor == "unknown"


def test_a_partly_stated_extractor():
    document = parse_document("a.json", minimal(metadata={"version": {"essentia": "2.1\ud800", "extractor": 3}}))
    assert document.extractor == "unknown / essentia 2.1\\ud800 / unknown"


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=())), st.binary() | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_name_and_bytes_give_a_document_or_a_rejection(name, payload):
    outcome = parse_document(name, payload)
    assert isinstance(outcome, Rejection)
    assert (outcome.detail + outcome.recording_id).encode()
