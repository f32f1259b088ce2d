"""Guards what `ray job submit --working-dir .` sends: all that a job needs, and no more than 10 MB of it."""

import zipfile
from pathlib import Path

import pytest
from ray._private import ray_constants
from ray._private.runtime_env.packaging import create_package

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 10_000_000


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package as Ray's own client makes it of the working tree."""
    target = tmp_path_factory.mktemp("package") / "package.zip"
    excludes = ray_constants.get_runtime_env_default_excludes()
    create_package(str(REPOSITORY), target, include_gitignore=True, excludes=excludes)
    return target


def _names(package):
    with zipfile.ZipFile(package) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def _sources(folder):
    files = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file())
    return {path.relative_to(REPOSITORY).as_posix() for path in files if "__pycache__" not in path.parts}


def test_stays_under_the_limit(package):
    assert package.stat().st_size < LIMIT_BYTES


@pytest.mark.parametrize("folder", ["genre_ray", "jobs", "tests/data"])
def test_holds_all_that_a_job_needs(package, folder):
    needed = _sources(folder)

    assert needed
    assert needed <= _names(package)


def test_a_job_imports_the_package_that_was_sent(submit_job):
    done = submit_job("python", "-c", "import genre_ray; print(genre_ray.__file__)")

    assert done.code == 0, done.log
    assert "working_dir_files" in done.log
    assert str(REPOSITORY / "genre_ray") not in done.log


def test_leaves_out_set_up_history_and_outputs(package):
    tops = {name.split("/")[0] for name in _names(package)}

    assert not tops & {".git", ".venv", ".ci", "runs", "notebooks", "dist"}
    assert not {name for name in _names(package) if name.startswith("tests/")} - _sources("tests/data")
