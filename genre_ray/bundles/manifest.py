"""The manifest of a bundle, `model.json`: a typed and versioned description of its model.

All code reads and writes `model.json` through `Manifest`. Reading raises an error for an unknown or missing key, a
value of another type, a number that is not finite, or another version. `docs/bundle.md` lists the fields.
"""

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from genre_ray.config import Description, Json, Settings
from genre_ray.decisions.consistency import Hierarchy, Pair
from genre_ray.decisions.fitting import ValidationMetrics
from genre_ray.decisions.policy import Policy, PolicyDescription
from genre_ray.errors import InputError
from genre_ray.features.spec import FeatureSpec
from genre_ray.models.description import OutputDescription, OutputName, PreparationDescription
from genre_ray.systems.description import ModelDescription

VERSION: Final = 1

_SHOWN_ERRORS, _SHOWN_CHARACTERS = 3, 80


def _read_spec(content: Any) -> FeatureSpec:
    return content if isinstance(content, FeatureSpec) else FeatureSpec.from_dict(content)


Spec = Annotated[FeatureSpec, PlainValidator(_read_spec), PlainSerializer(FeatureSpec.as_dict)]


class Licences(Settings):
    """The licences of a bundle's training data and weights."""

    data: str | None = Field(None, description="licence of the training data, an SPDX identifier or free text")
    weights: str | None = Field(None, description="licence of the weights, an SPDX identifier or free text")


class Architecture(Description):
    """The network: its number of inputs, and the settings that its system builds it from."""

    inputs: int = Field(ge=1, description="values that the network gets per row, after the preprocessing")
    network: dict[str, Json] = Field(description="settings of the system's network")


class TaskDescription(Description):
    """One task of the network: its labels and the kind of its output."""

    kind: Literal["multi_label", "single_label"] = Field(description="how many labels a row may have")
    output: OutputName = Field(description="what makes scores of the network's values")
    labels: tuple[str, ...] = Field(min_length=1, description="label of each score, in their order")
    factors: int | None = Field(None, ge=1, description="dimensions of the label factors, for the output cosine")


class TargetDescription(Description):
    """A taxonomy that the bundle predicts: the columns of its labels, and the policy that turns scores into labels."""

    task: str = Field(description="the task whose scores are used")
    labels: tuple[str, ...] = Field(min_length=1, description="the taxonomy's own names")
    columns: tuple[int, ...] = Field(description="for each label the position of its score in the task's labels")
    hierarchy: tuple[Pair, ...] = Field(description="(child, parent) positions in labels")
    policy: PolicyDescription = Field(description="calibration, thresholds, consistency and abstention")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.columns) != len(self.labels) or len({*self.columns}) < len(self.columns):
            raise ValueError(f"expected {len(self.labels)} different columns, one per label")
        if any(not threshold > 0 for threshold in self.policy.thresholds):
            raise ValueError("expected thresholds above 0")
        Policy.of(self.labels, self.policy)
        try:
            Hierarchy(self.hierarchy, len(self.labels))
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


class Metrics(Description):
    """Metrics on the validation part, and the course of the training."""

    targets: dict[str, ValidationMetrics] = Field(description="by taxonomy")
    best_epoch: int = Field(ge=1, description="the epoch whose weights were kept, counted from 1")
    history: tuple[dict[str, float], ...] = Field(description="metrics of each epoch")


class SourceDescription(Description):
    """A ground truth that the model was trained on."""

    recordings: int = Field(ge=0, description="recordings in the ground truth")
    unmatched_share: float = Field(ge=0, le=1, description="share of these that the features table lacked")


class Data(Description):
    """A summary of the training data. `examples.parquet` lists the recordings."""

    recordings: dict[str, int] = Field(description="by part: train, validation, test")
    rows: int = Field(ge=0, description="rows of the features table; a recording has one per submission")
    sources: dict[str, SourceDescription] = Field(description="ground truths by taxonomy")
    extractors: dict[str, int] = Field(description="training rows by the software that extracted them")
    unlabelled: Literal["negative", "masked"] = Field(
        "negative", description="what labels are to recordings that their taxonomies did not annotate"
    )


class Lineage(Description):
    """The run that wrote the bundle, and the bundles that its networks come from."""

    run_id: str = Field(description="id of the run that wrote the bundle")
    identity: dict[str, Json] = Field(description="the run's settings and the content of its inputs")
    inner: tuple[str, ...] = Field((), description="ids of the bundles whose networks are inside this one")
    model_of: tuple[str, ...] = Field((), description="ids of the bundles with this model and another policy")
    trained_by: dict[str, Json] | None = Field(
        None, description="identity of the run that trained the model, where another run fitted the policy"
    )


class Manifest(Description):
    """The content of `model.json`."""

    version: Literal[1] = Field(description="of this document")
    system: str = Field(description="name of the system")
    source: str = Field(description="where the system was published")
    taxonomy: str = Field(description="the target that is predicted when no other is asked for")
    inputs: dict[str, Spec] = Field(min_length=1, description="by modality: the features that a row must have")
    preprocessing: PreparationDescription = Field(description="what prepares a row for the network")
    architecture: Architecture
    rules: dict[str, Json] = Field(description="the training rules")
    tasks: dict[str, TaskDescription] = Field(min_length=1, description="the network's outputs by name")
    targets: dict[str, TargetDescription] = Field(description="by taxonomy")
    metrics: Metrics
    data: Data
    lineage: Lineage
    licences: Licences
    sha256: dict[str, str] = Field({}, description="checksums of the bundle's other files by name")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.taxonomy not in self.targets:
            raise ValueError(f"expected a target {self.taxonomy!r}, found {', '.join(self.targets) or 'no target'}")
        for taxonomy, target in self.targets.items():
            task = self.tasks.get(target.task)
            if task is None or not all(0 <= column < len(task.labels) for column in target.columns):
                raise ValueError(f"the target {taxonomy!r} has an unknown task, or columns that its task does not have")
        return self

    @property
    def model(self) -> ModelDescription:
        """What the model is made from, except for its tensors."""
        return ModelDescription(
            system=self.system,
            network=self.architecture.network,
            preprocessing=self.preprocessing,
            outputs={
                name: OutputDescription(
                    output=task.output, labels=len(task.labels), width=task.factors or len(task.labels)
                )
                for name, task in self.tasks.items()
            },
        )

    @property
    def task(self) -> TaskDescription:
        """The task that the default target uses."""
        return self.tasks[self.targets[self.taxonomy].task]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of that task, (labels,)."""
        return self.task.labels

    def to_json(self) -> bytes:
        """Return the content of `model.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes, uri: str) -> Self:
        """Parse the content of `model.json`.

        Args:
            content: the content.
            uri: its path, for error messages.

        Raises:
            InputError: it is not a valid manifest of this version. The message lists the first wrong values.
        """
        try:
            return cls.model_validate_json(content, strict=True)
        except ValidationError as error:
            raise InputError(f"{uri}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False)
    for wrong in errors:
        if wrong["loc"] == ("version",) and wrong["type"] != "missing":
            return (
                f"expected version {VERSION} of a bundle's manifest, found {_short(wrong['input'])}; "
                "use the version of genre_ray that wrote it"
            )
    if errors[0]["type"] == "json_invalid":
        return f"expected JSON, found: {errors[0]['msg']}; restore the bundle"
    lines = []
    for wrong in errors[:_SHOWN_ERRORS]:
        name, message = ".".join(map(str, wrong["loc"])) or "manifest", wrong["msg"].removeprefix("Value error, ")
        found = "" if wrong["type"] in ("missing", "value_error") else f", found {_short(wrong['input'])}"
        lines.append(f"{name}: {message}{found}")
    more = f"; and {len(errors) - len(lines)} more" if len(errors) > len(lines) else ""
    return f"expected the manifest of a bundle: {'; '.join(lines)}{more}; restore the bundle"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
