"""Read taxonomies from a YAML file, from FMA's `genres.csv`, or from the `genre---subgenre` names in a ground truth.

The YAML lists each label with its parents (none, one or several), and optionally aliases of labels:

    labels:
      rock:
      folk:
      punk: rock
      folk punk: [folk, punk]
    aliases:
      folkpunk: folk punk

Names are read as text, also `1984`, `no` and `on`. A name that occurs twice is an error.
"""

from collections.abc import Iterator, Sequence
from typing import NoReturn

import yaml

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.outcomes import printable
from genre_ray.storage import objects
from genre_ray.truth.fma import NO_PARENT, Genre, read_genres
from genre_ray.truth.ground_truth import read_ground_truth
from genre_ray.truth.lines import refuse

_NULL = "tag:yaml.org,2002:null"


def read_taxonomy(uri: str) -> Taxonomy:
    """Read a taxonomy from a file.

    Args:
        uri: `.yaml` or `.yml`; `.csv` for FMA's genres; any other name is read as a ground truth TSV.

    Raises:
        InputError: the file is malformed, its parents form a cycle, or one name stands for two labels.
        StorageError: the file does not exist or cannot be read.
    """
    lowered = uri.lower()
    if lowered.endswith((".yaml", ".yml")):
        return _of_yaml(uri)
    if lowered.endswith(".csv"):
        return of_genres(read_genres(uri), uri)
    labels = {label for labels in read_ground_truth(uri).labels for label in labels}
    return Taxonomy.of_names(labels, uri)


def of_genres(genres: Sequence[Genre], uri: str) -> Taxonomy:
    """Make a taxonomy from FMA's genres. Its labels are their titles.

    Args:
        genres: from `read_genres`.
        uri: the file they come from, for error messages.

    Raises:
        InputError: two genres have the same title, a parent is unknown, or parents form a cycle.
    """
    by_id = {genre.genre_id: genre for genre in genres}
    above: dict[str, tuple[str, ...]] = {}
    for genre in genres:
        if genre.parent_id not in (NO_PARENT, *by_id):
            refuse(uri, genre.line, "a parent that is a genre's id", str(genre.parent_id), "add it or correct the id")
        if genre.title in above:
            other = next(x for x in genres if x.title == genre.title)
            both = " and ".join(f"{x.genre_id} ({' → '.join(_path(x, by_id))})" for x in (other, genre))
            refuse(uri, genre.line, "each title once", f"it for {both}", "rename one of them")
        above[genre.title] = () if genre.parent_id == NO_PARENT else (by_id[genre.parent_id].title,)
    return Taxonomy(above, origin=uri)


def _path(genre: Genre, by_id: dict[int, Genre]) -> list[str]:
    titles, seen = [genre.title], {genre.genre_id}
    while (above := by_id.get(genre.parent_id)) is not None and above.genre_id not in seen:
        genre = above
        titles.append(genre.title)
        seen.add(genre.genre_id)
    return titles


def _of_yaml(uri: str) -> Taxonomy:
    try:
        root = yaml.compose(objects.read_bytes(uri).decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: cannot read this file as UTF-8 text: {error}; convert it to UTF-8") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        refuse(uri, mark.line + 1 if mark else 1, "YAML", str(problem), "correct it")
    except RecursionError:
        raise InputError(f"{uri}: this YAML is nested too deeply; list labels with their parents") from None
    if root is None:
        raise InputError(f"{uri}: the file is empty; list labels with their parents under `labels`")
    sections = dict(_items(uri, root))
    for name, node in sections.items():
        if name not in ("labels", "aliases"):
            _refuse(uri, node, "the sections `labels` and `aliases`", repr(name))
    above = {label: tuple(_names(uri, node)) for label, node in _items(uri, sections.get("labels"))}
    aliases = {alias: _one(uri, node) for alias, node in _items(uri, sections.get("aliases"))}
    if not above:
        raise InputError(f"{uri}: no labels found; list labels with their parents under `labels`")
    return Taxonomy(above, aliases, origin=uri)


def _items(uri: str, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the (key, value) pairs of a mapping; refuse a key that occurs twice."""
    if node is None or node.tag == _NULL:
        return
    if not isinstance(node, yaml.MappingNode):
        _refuse(uri, node, "a mapping", "another value")
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = _one(uri, key)
        if name in lines:
            _refuse(uri, key, "each name once", f"{name!r}, which is also in line {lines[name]}")
        lines[name] = key.start_mark.line + 1
        yield name, value


def _names(uri: str, node: yaml.Node) -> Iterator[str]:
    """Yield the names in a value: nothing for null, one name for a scalar, several for a list."""
    if node.tag == _NULL:
        return
    for inner in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        yield _one(uri, inner)


def _one(uri: str, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value or printable(node.value) != node.value:
        _refuse(uri, node, "a name on one line", repr(node.value) if isinstance(node.value, str) else "another value")
    return str(node.value)


def _refuse(uri: str, node: yaml.Node, expected: str, found: str) -> NoReturn:
    refuse(uri, node.start_mark.line + 1, expected, found, "correct it")
