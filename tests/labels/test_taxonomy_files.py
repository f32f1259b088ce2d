"""Guards that taxonomies are read from each kind of file, and that unsound files are refused with line or path."""

from pathlib import Path

import pandas as pd
import pytest

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy_files import read_taxonomy

DATA = Path(__file__).parents[1] / "data"
FMA = DATA / "fma" / "genres.csv"


def test_the_genres_of_fma():
    taxonomy = read_taxonomy(str(FMA))
    rows = pd.read_csv(FMA)
    title = dict(zip(rows.genre_id, rows.title, strict=True))
    assert sorted(taxonomy.labels) == sorted(rows.title)
    assert len(taxonomy) == 163
    assert sorted(taxonomy.roots) == sorted(title[genre] for genre in set(rows.top_level))
    for genre, parent, top in zip(rows.genre_id, rows.parent, rows.top_level, strict=True):
        assert taxonomy.parents(title[genre]) == (() if parent == 0 else (title[parent],))
        assert taxonomy.path(title[genre])[-1] == title[top]


def test_a_ground_truth_spells_its_taxonomy_out():
    taxonomy = read_taxonomy(str(DATA / "emotify" / "tags.tsv"))
    text = (DATA / "emotify" / "tags.tsv").read_text().splitlines()[1:]
    stated = {label for line in text for label in line.split("\t")[2:] if label}
    assert set(taxonomy.labels) == stated | {label.split("---")[0] for label in stated}


def test_a_small_yaml(tmp_path):
    path = tmp_path / "genres.yaml"
    path.write_text(
        "labels:\n  rock:\n  folk: ~\n  punk: rock\n  folk punk: [folk, punk]\n  1984: []\n  no: '1984'\n"
        "aliases: {folkpunk: folk punk, on: no}\n"
    )
    taxonomy = read_taxonomy(str(path))
    assert taxonomy.labels == ("1984", "folk", "no", "rock", "punk", "folk punk")
    assert taxonomy.parents("folk punk") == ("folk", "punk")
    assert taxonomy.resolve("on") == "no"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels:\n  a: b\n  b: c\n  c: a\n", "form a cycle: a → b → c → a"),
        ("labels:\n  a:\n  b: a\n  a: b\n", "line 4: expected each name once, found 'a', which is also in line 2"),
        ("labels: {a: }\nlabels: {b: }\n", "line 2: expected each name once, found 'labels'"),
        ("labels:\n  a:\n  b: aa\n", "'aa', a parent of 'b', is not a label"),
        ("labels:\n  a:\naliases:\n  a: a\n", "'a' is an alias of 'a' and also a label"),
        ("labels:\n  a:\naliases:\n  b: c\n", "the alias 'b' stands for 'c', not a label"),
        ("labels:\n  a: {b: }\n", "line 2: expected a name on one line"),
        ("labels:\n  a: [[b]]\n", "line 2: expected a name on one line"),
        ("labels:\n  'a\\nb':\n  \"a\\nb\":\n", "line 3: expected a name on one line"),
        ("labels: [a, b]\n", "line 1: expected a mapping"),
        ("genres:\n  a:\n", "line 2: expected the sections `labels` and `aliases`, found 'genres'"),
        ("labels:\n", "no labels found; list labels"),
        ("", "the file is empty"),
        ("labels: {a: [\n", "line 2: expected YAML"),
        ("labels: {a: &b [*b]}\n", "line 1: expected a name on one line"),
        ("[" * 5000, "nested too deeply"),
        ("labels: {a: \xff", "as UTF-8 text"),
    ],
)
def test_unsound_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "genres.yml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"genres\.yml.*" + message.replace("[", r"\[")):
        read_taxonomy(str(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,0,0,A,1\n2,0,9,B,1\n", "line 3: expected a parent that is a genre's id, found 9"),
        ("1,0,2,A,1\n2,0,1,B,1\n", "a cycle: A → B → A"),
        (
            "1,0,0,Rock,1\n2,0,0,Noise,2\n3,0,1,Punk,1\n4,0,3,Noise,1\n",
            r"line 5: expected each title once, found it for 2 \(Noise\) and 4 \(Noise → Punk → Rock\)",
        ),
    ],
)
def test_unsound_genres_of_fma_are_refused(tmp_path, rows, message):
    path = tmp_path / "genres.csv"
    path.write_text("genre_id,#tracks,parent,title,top_level\n" + rows)
    with pytest.raises(InputError, match=message):
        read_taxonomy(str(path))
