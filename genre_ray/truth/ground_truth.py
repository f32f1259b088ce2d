"""Ground truths: recordings, release groups and labels, in the format of the AcousticBrainz genre task or of FMA.

Tab-separated, header `recordingmbid releasegroupmbid genre1 … genreN`, rows padded with tabs to N labels. A
genre has no `---`, a subgenre is `genre---subgenre`. A subgenre may stand without its genre: nothing is added
here. A file called `tracks.csv` is FMA's; its genres are in `genres.csv` beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from genre_ray.errors import InputError
from genre_ray.outcomes import printable
from genre_ray.sources.documents.names import identifier
from genre_ray.storage import objects
from genre_ray.truth.fma import read_genres, read_tracks
from genre_ray.truth.lines import read_rows, refuse

ID_COLUMNS = ("recordingmbid", "releasegroupmbid")
_SEPARATOR = "---"


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The annotated recordings of a file, in its order. All lists are (recordings,).

    Attributes:
        uri: the file.
        recording_ids: MusicBrainz ids in lower case, or other ids as written.
        release_group_ids: likewise; empty if not known.
        labels: the sorted labels of each recording, at least one.
    """

    uri: str
    recording_ids: list[str]
    release_group_ids: list[str]
    labels: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.recording_ids)


def read_ground_truth(uri: str) -> GroundTruth:
    """Read a ground truth, plain or `.bz2`; FMA's also as `genre_ray.truth.fma` reads it.

    Raises:
        InputError: a line is malformed; the message contains its number.
        StorageError: the file does not exist or cannot be read.
    """
    folder, _, name = uri.rpartition("/")
    if name.lower().startswith("tracks.csv"):
        return GroundTruth(uri, *read_tracks(uri, read_genres(objects.join(folder or ".", "genres.csv"))))
    rows = read_rows(uri)
    width = len(_header(uri, next(rows, (1, []))[1]))
    truth = GroundTruth(uri, [], [], [])
    lines: dict[str, int] = {}
    # Many recordings have the same labels, so each combination is checked and stored once.
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number, fields in rows:
        if len(fields) > width:
            refuse(uri, number, f"at most {width} fields", str(len(fields)), "add the missing columns to the header")
        recording_id = identifier(fields[0])
        if not recording_id:
            refuse(uri, number, "a recording id", "an empty field", "add the id or remove the line")
        if recording_id in lines:
            found = f"{recording_id}, which is also in line {lines[recording_id]}"
            refuse(uri, number, "each recording once", found, "merge the two lines")
        lines[recording_id] = number
        stated = tuple(fields[2:])
        if stated not in known:
            known[stated] = _labels(uri, number, stated)
        truth.recording_ids.append(recording_id)
        truth.release_group_ids.append(identifier(fields[1]))
        truth.labels.append(known[stated])
    if not truth.recording_ids:
        raise InputError(f"{uri}: the file contains only a header; give a file with recordings.")
    return truth


def _header(uri: str, fields: Sequence[str]) -> Sequence[str]:
    genres = [f"genre{place}" for place in range(1, max(len(fields) - 1, 2))]
    expected = [*ID_COLUMNS, *genres]
    if not fields:
        refuse(
            uri,
            1,
            f"the header {' '.join(expected)} …",
            "an empty file",
            "give a file with a header and rows",
        )
    for place, column in enumerate(expected):
        found = printable(fields[place]) if place < len(fields) else "no more columns"
        if found != column:
            refuse(uri, 1, f"column {place + 1} to be {column}", repr(found), "correct the header")
    return fields


def _labels(uri: str, number: int, padded: Sequence[str]) -> tuple[str, ...]:
    labels = list(padded)
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        refuse(uri, number, "at least one genre", "none", "annotate the recording or remove the line")
    for place, label in enumerate(labels):
        fault = label_fault(label)
        if fault:
            refuse(uri, number, "`genre` or `genre---subgenre`", f"{label!r}, {fault}", "correct the label")
        if label in labels[:place]:
            refuse(uri, number, "each label once", f"{label!r} twice", "remove one of them")
    return tuple(sorted(labels))


def label_fault(label: str) -> str | None:
    """Return what is wrong with the name of a label, or None.

    >>> label_fault("rock---indie"), label_fault("rock------indie")
    (None, 'which has an empty name')
    """
    names = label.split(_SEPARATOR)
    if not all(names):
        return "which has an empty name"
    if len(names) > 2:
        return "which has more than two levels"
    # Splitting at four or five dashes leaves a dash at the start of a name.
    if any(name != name.strip() or name.startswith("-") for name in names):
        return "which has a name that starts or ends with a space, or starts with a dash"
    if printable(label) != label:
        return "which has control characters"
    return None
