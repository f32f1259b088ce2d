"""Guards what is read off real documents besides their numbers: identity, artists, release group, extractor."""

import json
from pathlib import Path

import pytest

from genre_ray.sources.documents.archives import read_archive
from genre_ray.sources.documents.parse import Document, DocumentVersion, parse_document

DATA = Path(__file__).parents[2] / "data"
DOCUMENTS = sorted((DATA / "acousticbrainz").glob("*.json"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem[:8])
def test_real_documents_are_read_in_full(path):
    document = parse_document(str(path), path.read_bytes())
    content = json.loads(path.read_bytes())
    tags = content["metadata"]["tags"]
    assert document.recording_id == path.stem == tags["musicbrainz_recordingid"][0]
    assert document.submission == 0
    assert document.version is DocumentVersion.MUSIC_1
    assert document.extractor.startswith("music 1.0 / essentia 2.1-beta")
    assert document.artist_ids == tuple(tags["musicbrainz_artistid"])
    assert document.release_group_id == tags.get("musicbrainz_releasegroupid", [None])[0]
    assert (document.lowlevel, document.rhythm, document.tonal) == (
        content["lowlevel"],
        content["rhythm"],
        content["tonal"],
    )


def test_what_is_special_about_two_of_them():
    by_name = {path.stem[:8]: parse_document(path.name, path.read_bytes()) for path in DOCUMENTS}
    assert by_name["00c47ea6"].release_group_id is None
    # Its version stands one level deeper, beside that of its high-level data.
    assert by_name["cd3f5efa"].extractor == "music 1.0 / essentia 2.1-beta1 / v2.1_beta1-7-ge0e83e8-dirty"


def test_the_emotify_sample_is_whole_and_of_one_version():
    uri = str(DATA / "emotify" / "documents.tar.zst")
    with open(uri, "rb") as stream:
        documents = [parse_document(raw.name, bytes(raw.payload)) for raw in read_archive(stream, uri)]
    assert len(documents) == 144
    assert all(isinstance(document, Document) for document in documents)
    assert {document.version for document in documents} == {DocumentVersion.MUSIC_2}
    assert {document.extractor for document in documents} == {
        "music 2.0 / essentia 2.1-beta6-dev / v2.1_beta5-1389-g36ec3d92"
    }
    assert len({artist for document in documents for artist in document.artist_ids}) == 106
    truths = [
        {line.split("\t")[0]: line.split("\t")[1] for line in path.read_text().splitlines()[1:]}
        for path in sorted((DATA / "emotify").glob("*.tsv"))
    ]
    assert truths[0] == truths[1] == {d.recording_id: d.release_group_id for d in documents}


@pytest.mark.parametrize(
    ("stated", "peak", "expected"),
    [
        ({"extractor": "music 1.0"}, 120.0, DocumentVersion.MUSIC_1),
        ({"extractor": "music 2.0"}, {"mean": 120.0}, DocumentVersion.MUSIC_2),
        ({"lowlevel": {"extractor": "music 2.0"}}, {"mean": 120.0}, DocumentVersion.MUSIC_2),
        ({}, {"mean": 120.0}, DocumentVersion.MUSIC_1),
        ({}, 120, DocumentVersion.MUSIC_2),
        ({"extractor": "freesound 0.5"}, 120.0, DocumentVersion.MUSIC_2),
        ({"extractor": ["music 1.0"]}, {"mean": 120.0}, DocumentVersion.MUSIC_1),
        ("music 2.0", {"mean": 120.0}, DocumentVersion.MUSIC_1),
    ],
)
def test_the_stated_version_counts_before_the_shapes(stated, peak, expected):
    content = {
        "lowlevel": {},
        "rhythm": {"bpm_histogram_first_peak_bpm": peak},
        "tonal": {},
        "metadata": {"version": stated},
    }
    assert parse_document("a.json", json.dumps(content).encode()).version is expected


def test_what_a_document_says_of_itself_is_bounded():
    """150 documents with ids of 7.8 MB once held 1.5 GiB."""
    document = json.loads(DOCUMENTS[0].read_bytes())
    tags, version = document["metadata"]["tags"], document["metadata"]["version"]
    fitting = [f"  {'x' * 253}{n:03d} " for n in range(150)]
    tags["musicbrainz_artistid"] = ["y" * 257, "\x01" * 100, "z" * 8_000_000, *fitting]
    tags["musicbrainz_releasegroupid"] = ["g" * 8_000_000, "short"]
    version["essentia"], version["essentia_git_sha"] = "e" * 8_000_000, "\x02" * 5000
    found = parse_document("a.json", json.dumps(document).encode())
    assert found.artist_ids == tuple(text.strip() for text in fitting[:100])
    assert found.release_group_id == "short"
    assert len(found.extractor) == 256
    assert found.extractor.startswith("music 1.0 / essentia eee")
