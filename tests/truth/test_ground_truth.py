"""Guards that ground truths of the task's format are read as they are written: ids, order, labels, compression."""

import bz2
from pathlib import Path

import pytest

from genre_ray.storage import objects
from genre_ray.truth.ground_truth import label_fault, read_ground_truth

DATA = Path(__file__).parents[1] / "data" / "emotify"
TEXT = (
    "recordingmbid\treleasegroupmbid\tgenre1\tgenre2\tgenre3\n"
    "B\tg1\trock---indie\trock\t\n"
    "A\t\tfunk / soul\t\t\r\n"
    "54551AAD-4FCA-4BA4-9CE2-F6B2D9B5FCEB\tg1\tavant-garde\tavant-garde---computer music\n"
    "C\tg1\trock---indie\t\t"
)


def test_rows_keep_their_order_and_labels_are_sorted(tmp_path):
    plain, compressed = tmp_path / "t.tsv", tmp_path / "t.tsv.bz2"
    plain.write_bytes(TEXT.encode())
    # Two streams in a row, as parallel compressors write.
    compressed.write_bytes(bz2.compress(TEXT[:90].encode()) + bz2.compress(TEXT[90:].encode()))
    for path in (plain, compressed):
        truth = read_ground_truth(str(path))
        assert truth.uri == str(path)
        assert len(truth) == 4
        assert truth.recording_ids == ["B", "A", "54551aad-4fca-4ba4-9ce2-f6b2d9b5fceb", "C"]
        assert truth.release_group_ids == ["g1", "", "g1", "g1"]
        assert truth.labels == [
            ("rock", "rock---indie"),
            ("funk / soul",),
            ("avant-garde", "avant-garde---computer music"),
            # Its genre is not listed, and is not added.
            ("rock---indie",),
        ]


def test_the_sample_has_two_taxonomies_of_the_same_recordings():
    folder, tags = (read_ground_truth(str(DATA / name)) for name in ("folder.tsv", "tags.tsv"))
    assert folder.recording_ids == tags.recording_ids
    assert len(folder) == 144
    assert {label for labels in folder.labels for label in labels} == {"classical", "electronic", "pop", "rock"}
    assert sum(len(labels) == 2 for labels in tags.labels) == 65


def test_labels_of_the_four_published_taxonomies_are_fine():
    for label in ("funk / soul", "avant-garde---computer music", "hiphop", "r&b---doo-wop", "rock---3rd wave", "ö"):
        assert label_fault(label) is None


@pytest.mark.parametrize(("name", "stored_as"), [("truth.tsv", bytes), ("truth.tsv.bz2", bz2.compress)])
def test_reads_from_an_object_store(s3, name, stored_as):
    objects.write_bytes(f"{s3}/{name}", stored_as(b"recordingmbid\treleasegroupmbid\tgenre1\nsong\tgroup\tjazz\n"))
    truth = read_ground_truth(f"{s3}/{name}")
    assert (truth.recording_ids, truth.labels) == (["song"], [("jazz",)])
