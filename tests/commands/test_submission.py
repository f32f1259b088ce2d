"""Guards jobs as a cluster's users run them: `ray job submit --working-dir . -- python jobs/NAME.py …`."""

import re

from genre_ray.storage import objects

PIPELINE = ("python", "jobs/pipeline.py")


def state(output):
    """Every object below the output with its ETag, Delta's logs among them."""
    return {file.name: (file.size, file.version) for file in objects.list_files(output)}


def last_lines(done):
    """The job's own log, which `ray job submit` follows by lines of its own: the last two lines of it."""
    lines = [line for line in done.log.splitlines() if re.match(r"\S+ \S+,\d+ (INFO|ERROR|WARNING) ", line)]
    return lines[-2:]


def test_the_demo_succeeds_and_its_log_comes_through(demo):
    done = demo.job

    assert (done.code, done.driver_exit_code, done.status) == (0, 0, "SUCCEEDED"), done.log
    assert done.log.count(" INFO step ") == 10
    assert "144 rows, 0 rejected" in done.log
    assert "Traceback" not in done.log
    report, end = last_lines(done)
    assert report.endswith(f"{demo.output}/report/report.html")
    assert end.endswith(" INFO exit code 0")


def test_submitted_again_it_does_nothing(demo, submit_job):
    before = state(demo.output)
    done = submit_job(*PIPELINE, *demo.arguments, working_dir=demo.working_dir)

    assert done.driver_exit_code == 0, done.log
    assert done.log.count("is already complete") == done.log.count(" INFO step ") == 10
    assert last_lines(done)[0].endswith(f"{demo.output}/report/report.html")
    assert state(demo.output) == before


def test_a_changed_setting_ends_with_4_and_is_named(demo, submit_job):
    before = state(demo.output)
    done = submit_job(*PIPELINE, *demo.arguments, "--set", "common.split.seed=77", working_dir=demo.working_dir)

    assert (done.driver_exit_code, done.status) == (4, "FAILED"), done.log
    error, end = last_lines(done)
    assert f"{demo.output}/bundles/folder belongs to run" in error
    assert re.search(r"settings\.split\.seed: \d+ there, 77 here", error)
    assert end.endswith(" INFO exit code 4")
    assert "Traceback" not in done.log
    assert state(demo.output) == before


def test_a_configuration_that_is_not_there_ends_with_2(demo, submit_job):
    done = submit_job(*PIPELINE, "--config", "jobs/configs/demp.yaml", working_dir=demo.working_dir)

    assert (done.driver_exit_code, done.status) == (2, "FAILED"), done.log
    error, end = last_lines(done)
    assert "jobs/configs/demp.yaml: cannot read this file" in error
    assert end.endswith(" INFO exit code 2")
    assert "Traceback" not in done.log
