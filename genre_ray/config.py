"""Settings of a job: one YAML file, `--set` and flags over it, refused when anything in it is not understood.

Every job's configuration is a frozen model derived from `JobConfiguration`. Its *identity* is what decides the
result; everything else (where to, how many workers, whether to resume) may change between a run and its resume.
"""

import argparse
import difflib
import json
import reprlib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from genre_ray.credentials import find_credential, names_credential, redacted
from genre_ray.errors import ConfigurationError

C = TypeVar("C", bound="JobConfiguration")

# Aliases let a few lines of YAML stand for more values than any memory holds: what was found is shown in part.
_shown = reprlib.Repr()
_shown.maxlevel, _shown.maxstring, _shown.maxother = 3, 300, 300


class Settings(BaseModel):
    """A group of settings: immutable, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def from_mapping(cls, settings: dict[str, Any], origin: str = "configuration") -> Self:
        """Validate `settings`.

        Raises:
            ConfigurationError: names each key that is unknown (with the nearest one that is known), missing or wrong;
                or the first that carries a credential, whose value it does not repeat.
        """
        if (key := find_credential(settings)) is not None:
            raise ConfigurationError(
                f"{origin}: {key!r} looks like a credential; expected none here, since settings are stored beside the "
                "results. Take it out and give it by the usual AWS chain (environment, profile, role), and replace "
                "it where others may have read it"
            )
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            lines = [_explain(cls, dict(item)) for item in error.errors(include_url=False)]
            raise ConfigurationError(f"{origin}: " + "; ".join(lines)) from None


class Description(Settings):
    """A group of values that are stored beside results: settings whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


def first_error(error: ValidationError) -> str:
    """The first value of stored content that is wrong, by its path, and why."""
    wrong = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg'].removeprefix('Value error, ')}"


def _finite(value: JsonValue) -> JsonValue:
    json.dumps(value, allow_nan=False)
    return value


Json = Annotated[JsonValue, AfterValidator(_finite)]
"""Any JSON value. The numbers in it are finite, which pydantic's own type does not check."""


class Execution(Settings):
    """Execution settings.

    They do not change which rows are written; training may find a different model of equal quality. `workers` and
    `*_per_worker` are for the jobs that work on rows (`ingest`, `predict`), `learners` and `*_per_learner` for those
    that train (`train`, `fuse`).
    """

    workers: int | None = Field(
        None,
        ge=1,
        description="most workers of a stage at the same time; as many as the cluster can run when not given",
    )
    cpus_per_worker: float = Field(1.0, gt=0, allow_inf_nan=False, description="CPUs that a worker reserves")
    gpus_per_worker: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="GPUs that a worker of a stage with a network reserves; a fraction shares one",
    )
    learners: int = Field(1, ge=1, description="training processes that learn together")
    cpus_per_learner: float = Field(1.0, gt=0, allow_inf_nan=False, description="CPUs that a learner reserves")
    gpus_per_learner: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="GPUs that a learner reserves; 0 trains on CPUs"
    )
    training_memory_mib: int = Field(
        1024, ge=1, description="memory for the rows of a learner; rows that need more are streamed from storage"
    )
    rows_per_shard: int = Field(5000, ge=1, description="rows per shard, which is committed as a whole")
    mib_per_shard: int = Field(
        512, ge=1, description="MiB of rows as they are read that close a shard before it has rows_per_shard rows"
    )
    core_hour_price: float | None = Field(None, ge=0, description="price of one CPU per hour, for a dry run's estimate")
    gpu_hour_price: float | None = Field(None, ge=0, description="price of one GPU per hour, for a dry run's estimate")
    item_timeout_s: float = Field(
        60.0,
        ge=0.1,
        allow_inf_nan=False,
        description="seconds for one row, above what an idle worker takes, after a worker died; a worker that hangs is "
        "ended after ten times as long",
    )
    item_memory_mib: int = Field(
        4096, ge=64, description="MiB for one row, above what an idle worker takes, after a worker died"
    )


class JobConfiguration(Settings):
    """What every job understands."""

    PLACEMENT: ClassVar[frozenset[str]] = frozenset({"output", "resume", "dry_run", "max_rejected", "execution"})

    output: str = Field(description="folder or s3:// URI that receives the result")
    limit: int | None = Field(None, ge=1, description="take only the first N inputs of the plan")
    resume: bool = Field(False, description="go on with the run that the output already holds, if it is this one")
    dry_run: bool = Field(False, description="list what would be done and stop")
    max_rejected: int | None = Field(None, ge=0, description="end with exit code 3 when more rows are rejected")
    execution: Execution = Execution()

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(self.PLACEMENT))


def load_configuration(cls: type[C], argv: list[str]) -> C:
    """Read a job's command line: `--config FILE`, then `--set key=value`, then the flags of single settings.

    Raises:
        ConfigurationError: what cannot be read or understood, in the user's words.
        SystemExit: with code 2, by argparse, for flags that do not exist.
    """
    arguments = _parse(_parser(cls), argv)
    file, overrides = arguments.pop("config"), arguments.pop("set")
    settings = read_yaml(file) if file else {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigurationError(
                f"--set expects key=value, found {redacted(override)!r}; write e.g. --set execution.workers=4"
            )
        _assign(settings, key.split("."), _parse_yaml(value, f"--set {key}"))
    settings.update({name: value for name, value in arguments.items() if value is not None})
    return cls.from_mapping(settings, file or "arguments")


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: expected a readable YAML file in UTF-8, found: {error}") from None
    settings = _parse_yaml(text, path)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{path}: expected a mapping of settings, found {type(settings).__name__}")
    return settings


def _parse_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's own text quotes the lines around, which may hold anything.
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "no YAML"
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError(f"{origin}: expected YAML, found: {problem}{where}") from None


def _assign(settings: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        if settings.get(name) is None:
            settings[name] = {}
        inner = settings[name]
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"--set {'.'.join(path)}: {name!r} is a {type(inner).__name__}, it has no keys to set"
            )
        settings = inner
    settings[path[-1]] = value


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> dict[str, Any]:
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        # What follows an unknown flag may be a secret.
        flags = [argument for argument in unknown if argument.startswith("-")]
        shown = [argument.partition("=")[0] if names_credential(argument) else redacted(argument) for argument in flags]
        shown = shown or [redacted(argument) for argument in unknown]
        parser.error(f"unrecognized arguments: {' '.join(shown)}")
    return vars(arguments)


def _parser(cls: type[JobConfiguration]) -> argparse.ArgumentParser:
    summary = (cls.__doc__ or "").strip().splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the settings below")
    parser.add_argument(
        "--set", nargs="+", default=[], action="extend", metavar="KEY=VALUE", help="override one setting"
    )
    for name, field in cls.model_fields.items():
        kind = _plain(field.annotation)
        if not _is_flag(kind):
            continue
        flag: dict[str, Any] = {"dest": name, "default": None, "help": field.description}
        if kind is bool:
            flag["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) in (list, tuple):
            flag |= {"nargs": "+", "metavar": name.upper()}
        else:
            flag["metavar"] = name.upper()
        parser.add_argument("--" + name.replace("_", "-"), **flag)
    return parser


def _plain(annotation: Any) -> Any:
    """The annotation without `| None`."""
    if isinstance(annotation, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else annotation
    return annotation


def _is_flag(kind: Any) -> bool:
    """Whether a command line can say it: a scalar or a list of scalars; mappings are for YAML and `--set`."""
    if typing.get_origin(kind) in (list, tuple):
        return all(_is_flag(part) for part in typing.get_args(kind) if part is not ...)
    return typing.get_origin(kind) is not dict and kind is not dict and not _is_settings(kind)


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _explain(cls: type[Settings], error: dict[str, Any]) -> str:
    path = error["loc"]
    name = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        known = list(_model_at(cls, path[:-1]).model_fields)
        nearest = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys are {', '.join(sorted(known))}"
        return f"unknown key {name!r}; {hint}"
    if error["type"] == "missing":
        return f"{name!r} is required: {_describe(cls, path)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name!r}: {message}, found {_shown.repr(error['input'])}" if name else message


def _model_at(cls: type[Settings], path: tuple[str | int, ...]) -> type[Settings]:
    for step in path:
        if isinstance(step, int) or step not in cls.model_fields:
            continue
        kind = _plain(cls.model_fields[step].annotation)
        inner = [part for part in (kind, *typing.get_args(kind)) if _is_settings(part)]
        if inner:
            cls = inner[0]
    return cls


def _describe(cls: type[Settings], path: tuple[str | int, ...]) -> str:
    field = _model_at(cls, path[:-1]).model_fields.get(str(path[-1]))
    return (field.description if field else None) or "see the job's documentation"
