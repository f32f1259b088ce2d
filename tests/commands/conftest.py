"""What the tests of the jobs share: the demo, submitted with its output on S3, and a small pipeline in this process."""

import logging
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genre_ray.commands import pipeline
from genre_ray.commands.entry import run_job
from genre_ray.config import load_configuration
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.storage import tables

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    """The finished demo: `output` on the object store, and the submitted job as `submit_job` gives it.

    It is submitted from `working_dir`, a copy of what jobs need: whoever edits the repository while the tests run would
    change the job package, and so the modification times of the sample in it.
    """

    working_dir: Path
    output: str
    arguments: tuple[str, ...]
    job: Any
    seconds: float


@pytest.fixture(scope="session")
def demo(s3_server, submit_job, tmp_path_factory) -> Demo:
    working_dir = tmp_path_factory.mktemp("working_dir")
    for folder in ("genre_ray", "jobs", "tests/data"):
        shutil.copytree(REPOSITORY / folder, working_dir / folder, ignore=shutil.ignore_patterns("__pycache__"))
    output = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}/demo"
    arguments = ("--config", "jobs/configs/demo.yaml", "--output", output)
    started = time.monotonic()
    job = submit_job("python", "jobs/pipeline.py", *arguments, working_dir=working_dir, timeout_s=600)
    return Demo(working_dir, output, arguments, job, time.monotonic() - started)


@dataclass(frozen=True)
class Joined:
    """The features table of the sample, and what the pipeline `JOINED` made of it, in this process."""

    features: str
    output: Path


JOINED = """
output: {output}
common:
  features: "{features}"
  all_scores: true
steps:
  - train:
      system: melband
      sources:
        folder: {{ground_truth: {sample}/emotify/folder.tsv}}
        tags: {{ground_truth: {sample}/emotify/tags.tsv}}
      taxonomy: tags
      unlabelled: masked
      split: {{group_by: artist, fractions: [0.6, 0.2, 0.2], least_train: 5, least_other: 2, seed: 10}}
      network: {{filters: [16, 32]}}
      rules: {{batch: 32, max_epochs: 5}}
      output: "{{output}}/bundle"
  - predict:
      bundle: "{{output}}/bundle"
      target: folder
      run_tsv: true
      output: "{{output}}/predictions"
  - evaluate:
      predictions: "{{output}}/predictions/predictions"
      examples: "{{output}}/bundle"
      output: "{{output}}/report"
"""


@pytest.fixture(scope="session")
def joined(ray_cluster, sample, write_features_to, tmp_path_factory) -> Joined:
    documents = DocumentSource((str(sample / "emotify" / "documents.tar.zst"),))
    parse = ParseDocuments().open()
    (item,) = documents.make_work_items(documents.list_inputs(), 1000)
    read = [outcome for _, outcome, _ in documents.read(item, ShardSize(1000))]
    (rows, rejected) = zip(*(parse(outcome.accepted) for outcome in read), strict=True)
    assert not pa.concat_tables([*rejected, *(outcome.rejected for outcome in read)])
    columns = pa.concat_tables(rows).combine_chunks()
    values = tables.vectors(columns["features"])
    kept = {name: columns[name].to_pylist() for name in columns.column_names if name != "features"}
    folder = tmp_path_factory.mktemp("joined")
    features = write_features_to(folder, values, spec=ESSENTIA, **kept)
    (folder / "joined.yaml").write_text(JOINED.format(output=folder / "output", sample=sample, features=features))
    configuration = load_configuration(pipeline.PipelineConfiguration, ["--config", str(folder / "joined.yaml")])
    assert pipeline.run(configuration) == 0
    return Joined(features, folder / "output")


@pytest.fixture
def job(capsys) -> Iterator[Any]:
    """`job(train, TrainConfiguration, *argv)` runs a job in this process as its program does: (exit code, log)."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(command: Any, configuration: Any, *argv: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run_job(configuration, command.run, argv)
        return code, capsys.readouterr().err

    yield run
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
