"""Taxonomies from files: a ground truth's `genre---subgenre` names, FMA's `genres.csv`, or a small YAML.

The YAML names each label with its parents (one, several or none) and, if wanted, other names of labels:

    labels:
      rock:
      folk:
      punk: rock
      folk punk: [folk, punk]
    aliases:
      folkpunk: folk punk

Every name is the text that stands there (`1984`, `no` and `on` too), and a name that stands there twice is refused.
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
    """The taxonomy of a file: `.yaml` or `.yml`, FMA's genres as `.csv`, and any other a ground truth.

    Raises:
        InputError: the file departs from its format, has a cycle or gives one name to two labels.
        StorageError: it is not there or cannot be read.
    """
    lowered = uri.lower()
    if lowered.endswith((".yaml", ".yml")):
        return _of_yaml(uri)
    if lowered.endswith(".csv"):
        return of_genres(read_genres(uri), uri)
    labels = {label for labels in read_ground_truth(uri).labels for label in labels}
    return Taxonomy.of_names(labels, uri)


def of_genres(genres: Sequence[Genre], uri: str) -> Taxonomy:
    """FMA's genres by their titles.

    Raises:
        InputError: a title is given twice, a parent is unknown, or a genre is above itself.
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
        raise InputError(f"{uri}: expected YAML in UTF-8, found: {error}; convert the file") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        refuse(uri, mark.line + 1 if mark else 1, "YAML", str(problem), "correct it")
    except RecursionError:
        raise InputError(f"{uri}: expected labels with their parents, found YAML nested too deeply") from None
    if root is None:
        raise InputError(f"{uri}: expected labels with their parents, found an empty file; name some")
    sections = dict(_items(uri, root))
    for name, node in sections.items():
        if name not in ("labels", "aliases"):
            _refuse(uri, node, "labels and aliases", repr(name))
    above = {label: tuple(_names(uri, node)) for label, node in _items(uri, sections.get("labels"))}
    aliases = {alias: _one(uri, node) for alias, node in _items(uri, sections.get("aliases"))}
    if not above:
        raise InputError(f"{uri}: expected labels with their parents under `labels`, found none; name some")
    return Taxonomy(above, aliases, origin=uri)


def _items(uri: str, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """The pairs of a mapping, each key once."""
    if node is None or node.tag == _NULL:
        return
    if not isinstance(node, yaml.MappingNode):
        _refuse(uri, node, "a mapping", "something else")
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = _one(uri, key)
        if name in lines:
            _refuse(uri, key, "each name once", f"{name!r} again after line {lines[name]}")
        lines[name] = key.start_mark.line + 1
        yield name, value


def _names(uri: str, node: yaml.Node) -> Iterator[str]:
    """No name, one or a list of them."""
    if node.tag == _NULL:
        return
    for inner in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        yield _one(uri, inner)


def _one(uri: str, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value or printable(node.value) != node.value:
        _refuse(uri, node, "a name on one line", repr(node.value) if isinstance(node.value, str) else "something else")
    return str(node.value)


def _refuse(uri: str, node: yaml.Node, expected: str, found: str) -> NoReturn:
    refuse(uri, node.start_mark.line + 1, expected, found, "correct it")
