"""One run of the demo for all tests of the jobs: submitted to the token-protected cluster, its output on S3."""

import logging
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genre_ray.commands.entry import run_job

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
