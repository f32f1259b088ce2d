"""Read and write run files in the format of the AcousticBrainz genre task: the predicted labels of each recording.

The format is tab-separated text without a header, `recordingid<TAB>label<TAB>label…`. A subgenre does not imply its
genre; both must be listed. Reading and writing refuse everything that the task's own checker refuses.
"""

from collections.abc import Collection, Iterable, Sequence

from genre_ray.errors import InputError
from genre_ray.sources.documents.names import identifier
from genre_ray.truth.ground_truth import label_fault
from genre_ray.truth.lines import read_rows, refuse


def read_run(
    uri: str,
    *,
    vocabulary: Collection[str] | None = None,
    recording_ids: Collection[str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Read a run file, plain or `.bz2`.

    Args:
        uri: the file.
        vocabulary: the allowed labels; None for any.
        recording_ids: the recordings that must be in the file, and no others; None for any.

    Returns:
        Recording id → labels, in the order of the file.

    Raises:
        InputError: a row has no label or a label twice, a label is malformed or not in `vocabulary`, a recording occurs
            twice or is not in `recording_ids`, or one of `recording_ids` is missing.
        StorageError: the file does not exist or cannot be read.
    """
    rows = ((number, identifier(fields[0]), fields[1:]) for number, fields in read_rows(uri))
    return _checked(uri, rows, vocabulary, recording_ids)


def format_run(
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    vocabulary: Collection[str] | None = None,
    recording_ids: Collection[str] | None = None,
) -> bytes:
    """Return the content of a run file.

    Args:
        rows: a recording id and its labels per row, in the order of the file.
        vocabulary: the allowed labels; None for any.
        recording_ids: the recordings that must be in the file, and no others; None for any.

    Raises:
        InputError: as in `read_run`.
    """
    numbered = ((number, recording_id, labels) for number, (recording_id, labels) in enumerate(rows, start=1))
    checked = _checked("the run", numbered, vocabulary, recording_ids)
    return "".join("\t".join([id_, *labels]) + "\n" for id_, labels in checked.items()).encode()


def _checked(
    uri: str,
    rows: Iterable[tuple[int, str, Sequence[str]]],
    vocabulary: Collection[str] | None,
    recording_ids: Collection[str] | None,
) -> dict[str, tuple[str, ...]]:
    known_labels = None if vocabulary is None else frozenset(vocabulary)
    known_ids = None if recording_ids is None else frozenset(recording_ids)
    run: dict[str, tuple[str, ...]] = {}
    for number, recording_id, labels in rows:
        if not recording_id or recording_id != identifier(recording_id):
            refuse(uri, number, "a recording id", repr(recording_id), "correct the id")
        if recording_id in run:
            refuse(uri, number, "each recording once", f"{recording_id} again", "remove one of its rows")
        if known_ids is not None and recording_id not in known_ids:
            refuse(uri, number, "a recording of the ground truth", recording_id, "remove the row")
        _check_labels(uri, number, labels, known_labels)
        run[recording_id] = tuple(labels)
    missing = sorted((known_ids or frozenset()).difference(run))
    if missing:
        raise InputError(
            f"{uri}: expected a row for each of {len(known_ids or ())} recordings, "
            f"found none for {len(missing)} of them, e.g. {missing[0]}; predict these too."
        )
    return run


def _check_labels(uri: str, number: int, labels: Sequence[str], vocabulary: frozenset[str] | None) -> None:
    if not any(labels):
        refuse(uri, number, "at least one label", "none", "predict at least the most likely genre")
    for place, label in enumerate(labels):
        fault = label_fault(label)
        if fault:
            refuse(uri, number, "`genre` or `genre---subgenre`", f"{label!r}, {fault}", "correct the label")
        if label in labels[:place]:
            refuse(uri, number, "each label once", f"{label!r} twice", "remove one of them")
        if vocabulary is not None and label not in vocabulary:
            refuse(uri, number, "a label of the vocabulary", repr(label), "map it to the target taxonomy")
