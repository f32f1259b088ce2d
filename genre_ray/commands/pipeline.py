"""The job `pipeline`: run several jobs in the order of one YAML file, and skip those that are complete."""

import logging
from typing import Any

from pydantic import Field

from genre_ray.commands import calibrate, evaluate, fuse, ingest, predict, reconcile, train
from genre_ray.config import JobConfiguration
from genre_ray.errors import ConfigurationError

logger = logging.getLogger(__name__)

JOBS: dict[str, tuple[Any, Any]] = {
    "ingest": (ingest.IngestConfiguration, ingest.run),
    "train": (train.TrainConfiguration, train.run),
    "fuse": (fuse.FuseConfiguration, fuse.run),
    "predict": (predict.PredictConfiguration, predict.run),
    "reconcile": (reconcile.ReconcileConfiguration, reconcile.run),
    "calibrate": (calibrate.CalibrateConfiguration, calibrate.run),
    "evaluate": (evaluate.EvaluateConfiguration, evaluate.run),
}

PipelineStep = dict[str, dict[str, Any]]


class PipelineConfiguration(JobConfiguration):
    """Run the jobs listed under `steps` in order. In their settings, `{output}` stands for the pipeline's output."""

    steps: tuple[PipelineStep, ...] = Field(min_length=1, description="list of steps, each a job with its settings")
    common: dict[str, Any] = Field({}, description="settings for every step whose job has a setting of that name")


def run(configuration: PipelineConfiguration) -> int:
    """Run the steps in order; stop at the first exit code that is not 0 and return it."""
    prepared = [_prepare(step, number, configuration) for number, step in enumerate(configuration.steps, 1)]
    for number, (job, settings) in enumerate(prepared, 1):
        logger.info("step %d of %d: %s → %s", number, len(prepared), job, settings.output)
        if configuration.dry_run and number > 1:
            continue
        code: int = JOBS[job][1](settings)
        if code != 0:
            return code
    return 0


def _prepare(step: PipelineStep, number: int, configuration: PipelineConfiguration) -> tuple[str, JobConfiguration]:
    if len(step) != 1 or next(iter(step)) not in JOBS:
        raise ConfigurationError(
            f"steps.{number}: expected one job ({', '.join(JOBS)}) with its settings, found "
            f"{', '.join(step) or 'nothing'}"
        )
    ((job, settings),) = step.items()
    cls: type[JobConfiguration] = JOBS[job][0]
    common = {key: value for key, value in configuration.common.items() if key in cls.model_fields}
    filled = _fill({**common, **settings}, configuration.output.rstrip("/"))
    # A step's own settings win over the pipeline's.
    given = configuration.model_dump(include={"limit", "max_rejected"}, exclude_none=True)
    placement = {**given, "resume": True, "dry_run": configuration.dry_run}
    execution = filled.get("execution", {})
    if isinstance(execution, dict):
        execution = {**configuration.execution.model_dump(exclude_unset=True), **execution}
    return job, cls.from_mapping({**placement, **filled, "execution": execution}, f"steps.{number} ({job})")


def _fill(value: Any, output: str) -> Any:
    if isinstance(value, str):
        return value.replace("{output}", output)
    if isinstance(value, dict):
        return {key: _fill(inner, output) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, output) for inner in value]
    return value
