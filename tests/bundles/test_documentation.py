"""Holds the table of docs/bundle.md true to the manifest's model; run as a program, it writes the table again."""

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from genre_ray.bundles.manifest import Manifest
from genre_ray.features.spec import FeatureSpec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bundle.md"
HEAD = "| key | value | meaning |\n|---|---|---|\n"
WORDS = {str: "text", int: "integer", float: "number", FeatureSpec: "feature specification"}


def rows(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, value, meaning) of every field, those of inner models with dotted keys."""
    for name, field in model.model_fields.items():
        inner, place = inside(field.annotation)
        if inner is None:
            assert field.description, f"{model.__name__}.{name} needs a description"
            yield f"{above}{name}", kind(field.annotation), field.description
        else:
            yield from rows(inner, f"{above}{name}.{place}")


def inside(annotation: typing.Any) -> tuple[type[BaseModel] | None, str]:
    """The model that a field holds, and what stands between their keys."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict and is_model(arguments[1]):
        return arguments[1], "NAME."
    for candidate in (annotation, *(arguments if isinstance(annotation, types.UnionType) else ())):
        if is_model(candidate):
            return candidate, ""
    return None, ""


def is_model(annotation: typing.Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def kind(annotation: typing.Any) -> str:
    """A field's JSON value in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if isinstance(annotation, types.UnionType):
        return " or ".join("null" if part is types.NoneType else kind(part) for part in arguments)
    if origin is dict:
        return f"object of {kind(arguments[1])}"
    if origin is tuple:
        return f"list of {kind(arguments[0])}" if Ellipsis in arguments else f"[{', '.join(map(kind, arguments))}]"
    return WORDS.get(annotation, "any JSON")


def table() -> str:
    """The fields of `model.json` as Markdown."""
    return HEAD + "".join(f"| `{key}` | {value} | {meaning} |\n" for key, value, meaning in rows(Manifest))


def test_the_page_has_every_field_of_the_manifest():
    assert table() in PAGE.read_text()


if __name__ == "__main__":
    before, found, after = PAGE.read_text().partition(HEAD)
    PAGE.write_text(f"{before}{table()}{after.partition(chr(10) * 2)[1]}{after.partition(chr(10) * 2)[2]}")
    sys.stdout.write(f"{PAGE}\n")
