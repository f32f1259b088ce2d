"""Guards that FMA's files are read as their authors wrote them, and that others are refused.

The reference is a second reading by other means: the csv module and Python's literals.
"""

import ast
import bz2
import csv
from pathlib import Path

import pytest

from genre_ray.errors import GenreRayError, InputError
from genre_ray.truth.fma import NO_PARENT, read_genres, read_tracks
from genre_ray.truth.ground_truth import read_ground_truth

DATA = Path(__file__).parents[1] / "data" / "fma"
GENRES = str(DATA / "genres.csv")


def rows(name):
    with bz2.open(DATA / name, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_genres():
    genres = read_genres(GENRES)
    assert len(genres) == 163
    assert sum(genre.parent_id == NO_PARENT for genre in genres) == 16
    assert genres[0] == (1, 38, "Avant-Garde", 2)


def test_tracks_have_all_their_genres():
    genres = read_genres(GENRES)
    title = {genre.genre_id: genre.title for genre in genres}
    truth = read_tracks(str(DATA / "tracks.csv.bz2"), genres)
    header, *tracks = rows("tracks.csv.bz2")
    stated = [ast.literal_eval(track[header.index("genres_all")]) for track in tracks]
    assert truth.recording_ids == [track[0] for track in tracks]
    assert truth.labels == [tuple(sorted(title[genre] for genre in ids)) for ids in stated]
    assert len(truth.labels) == 2000


def test_tracks_with_the_headers_of_the_full_data_set(tmp_path):
    path = tmp_path / "tracks.csv"
    path.write_text(
        ",album,artist,set,track,track,track\n,id,name,split,genre_top,genres_all,title\ntrack_id,,,,,,\n"
        '2,1,AWOL,training,Hip-Hop,[21],"Food, ""live"""\n3,1,AWOL,test,,"[27, 12]","two\nlines"\n4,7,X,test,,[],none\n'
    )
    truth = read_tracks(str(path), read_genres(GENRES))
    assert truth.recording_ids == ["2", "3"]
    assert truth.release_group_ids == ["1", "1"]
    assert truth.labels == [("Hip-Hop",), ("Lo-Fi", "Rock")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("track_id,genres_all\n1,[9999]\n", "track 1: expected ids of genres.csv, found 9999"),
        ("track_id,genres_all\n1,rock\n", r"track 1: expected genre ids such as \[27, 12\], found 'rock'"),
        ("track_id,genres_all\n1,[true]\n", "track 1: expected genre ids"),
        ("track_id,genres_all\n1,[12]\n1,[12]\n", "expected each track once, found 1 again"),
        ("track_id,genres\n1,[12]\n", "expected the columns genres_all, found genres"),
        ("a,b\n1,2\n3,4\n", "no column track_id"),
        ("", "expected a whole CSV file of FMA"),
    ],
)
def test_other_tracks_are_refused(tmp_path, text, message):
    path = tmp_path / "tracks.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_tracks(str(path), read_genres(GENRES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genre_id,parent,title\n1,x,A\n", "line 2: expected numbers as genre_id and parent, found '1' and 'x'"),
        ("genre_id,parent,title\n1,0,A\n1,0,B\n", "line 3: expected an id of its own above 0 and a title"),
        ("genre_id,parent,title\n0,0,A\n", "line 2: expected an id of its own"),
        ("genre_id,title\n1,A\n", "expected the columns genre_id, parent, title, found genre_id, title"),
    ],
)
def test_other_genres_are_refused(tmp_path, text, message):
    path = tmp_path / "genres.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_genres(str(path))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "tracks.csv.bz2"
    path.write_bytes((DATA / "tracks.csv.bz2").read_bytes()[:1000])
    with pytest.raises(GenreRayError, match="expected a whole CSV file of FMA"):
        read_tracks(str(path), read_genres(GENRES))


def test_tracks_are_a_ground_truth_with_the_genres_beside_them(tmp_path):
    uri = str(DATA / "tracks.csv.bz2")
    tracks, truth = read_tracks(uri, read_genres(GENRES)), read_ground_truth(uri)
    assert (truth.uri, truth.recording_ids, truth.labels) == (uri, tracks.recording_ids, tracks.labels)
    (tmp_path / "tracks.csv").write_text("track_id,genres_all\n1,[12]\n")
    with pytest.raises(GenreRayError, match=r"genres\.csv"):
        read_ground_truth(str(tmp_path / "tracks.csv"))
