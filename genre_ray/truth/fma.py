"""FMA, the Free Music Archive data set (Defferrard et al. 2017): genres and tracks, from its CSV files.

`genres.csv` names each genre and the one above it; `tracks.csv` (two header rows and a row that names the index, or the
one header row of an extract) gives a track's genres with all above them. A track id is the recording id. Both are read
plain or compressed as their suffix says.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from genre_ray.errors import InputError
from genre_ray.sources.documents.compression import DAMAGE
from genre_ray.storage import objects
from genre_ray.truth.lines import refuse

if TYPE_CHECKING:
    from pandas import DataFrame

NO_PARENT = 0


class Genre(NamedTuple):
    """A row of `genres.csv`; a genre at the top has the parent `NO_PARENT`."""

    genre_id: int
    parent_id: int
    title: str
    line: int


class Tracks(NamedTuple):
    """Annotated tracks in the file's order; the three lists run in parallel. An album may be empty: not known."""

    recording_ids: list[str]
    release_group_ids: list[str]
    labels: list[tuple[str, ...]]


def read_genres(uri: str) -> list[Genre]:
    """The genres of `genres.csv`, in its order.

    Raises:
        InputError: a column is missing or an id is no number or given twice; the message names the line.
        StorageError: the file is not there or cannot be read.
    """
    rows = _read(uri, dtype=str, keep_default_na=False)
    _require(uri, rows, ["genre_id", "parent", "title"])
    genres: dict[int, Genre] = {}
    for line, row in enumerate(rows[["genre_id", "parent", "title"]].itertuples(index=False, name=None), start=2):
        if not (row[0].isdecimal() and row[1].isdecimal()):
            refuse(uri, line, "numbers as genre_id and parent", f"{row[0]!r} and {row[1]!r}", "correct them")
        genre = Genre(int(row[0]), int(row[1]), row[2].strip(), line)
        if genre.genre_id in genres or genre.genre_id == NO_PARENT or not genre.title:
            refuse(uri, line, "an id of its own above 0 and a title", f"{row[0]} {row[2]!r}", "correct them")
        genres[genre.genre_id] = genre
    return list(genres.values())


def read_tracks(uri: str, genres: Sequence[Genre]) -> Tracks:
    """Tracks with all their genres by title; the album is the release group. Tracks without a genre are left out.

    Raises:
        InputError: a column is missing, or a track's genres cannot be read or are not among `genres`.
        StorageError: the file is not there or cannot be read.
    """
    titles = {genre.genre_id: genre.title for genre in genres}
    rows = _read_tracks(uri)
    _require(uri, rows, ["genres_all"])
    albums = rows["album.id"] if "album.id" in rows else [""] * len(rows)
    truth = Tracks([], [], [])
    known: dict[str, tuple[str, ...]] = {}
    for track, album, stated in zip(rows.index, albums, rows["genres_all"], strict=True):
        if stated not in known:
            known[stated] = _titles(f"{uri}, track {track}", stated, titles)
        if known[stated]:
            truth.recording_ids.append(track)
            truth.release_group_ids.append(album)
            truth.labels.append(known[stated])
    if not rows.index.is_unique:
        raise InputError(f"{uri}: expected each track once, found {rows.index[rows.index.duplicated()][0]} again")
    return truth


def _titles(where: str, stated: str, titles: dict[int, str]) -> tuple[str, ...]:
    """The titles of a list of ids such as `[27, 12]`, sorted."""
    try:
        ids = json.loads(stated)
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(type(genre) is int for genre in ids):
        raise InputError(f"{where}: expected genre ids such as [27, 12], found {stated!r}; correct the row")
    unknown = [genre for genre in ids if genre not in titles]
    if unknown:
        raise InputError(f"{where}: expected ids of genres.csv, found {unknown[0]}; use the genres of the same release")
    return tuple(sorted({titles[genre] for genre in ids}))


def _read_tracks(uri: str) -> "DataFrame":
    """All columns as text, a track's own under the names that a flat extract gives them; tracks as index."""
    rows = _read(uri, dtype=str, keep_default_na=False, index_col=0)
    if rows.index.name != "track_id":
        rows = _read(uri, dtype=str, keep_default_na=False, header=[0, 1], index_col=0)
        if rows.index.name != "track_id":
            raise InputError(f"{uri}: expected the tracks of FMA, found no column track_id; give its tracks.csv")
        rows.columns = [".".join(column).removeprefix("track.") for column in rows.columns]
    return rows


def _require(uri: str, rows: "DataFrame", columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in rows]
    if missing:
        found = ", ".join(map(str, rows.columns[:8]))
        raise InputError(f"{uri}: expected the columns {', '.join(columns)}, found {found}; give FMA's own file")


def _read(uri: str, **settings: Any) -> "DataFrame":
    # Here, not above: it takes a second to import, and every job that reads annotations imports this module.
    import pandas as pd

    suffix = uri.lower().rpartition(".")[2]
    compression = {"bz2": "bz2", "gz": "gzip", "zst": "zstd"}.get(suffix)
    with objects.open_stream(uri) as stream:
        try:
            return pd.read_csv(stream, compression=compression, low_memory=False, **settings)
        except (*DAMAGE, ValueError) as error:
            found = " ".join(str(error).split())
            raise InputError(f"{uri}: expected a whole CSV file of FMA, found: {found}; copy it again") from None
