"""Guards that no secret gets into a configuration, a message or a stored record, and that nothing is unpickled."""

import re
from pathlib import Path

import pytest
from pydantic import Field

import genre_ray
from genre_ray.commands.entry import run_job
from genre_ray.config import JobConfiguration, load_configuration
from genre_ray.credentials import find_credential, redacted
from genre_ray.errors import ConfigurationError

# Put together here, so that no scanner takes this file for a leak.
KEY, SECRET = "AKIA" + "IOSFODNN7EXAMPLE", "wJalr" + "XUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
ADDRESS = f"http://me:{SECRET}@store.example/bucket"
SIGNED = f"https://store.example/x?X-Amz-Credential=abc&X-Amz-Signature={SECRET}"


class Job(JobConfiguration):
    """A job for these tests."""

    inputs: tuple[str, ...] = ()
    rules: dict[str, object] = Field({}, description="some rules")


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        (["--set", f"aws_secret_access_key={SECRET}"], "aws_secret_access_key"),
        (["--set", f"rules.password={SECRET}"], "rules.password"),
        (["--set", f"rules.deep.sessionToken={SECRET}"], "rules.deep.sessionToken"),
        (["--set", f"rules.options={{AWS_ACCESS_KEY_ID: {SECRET}}}"], "rules.options.AWS_ACCESS_KEY_ID"),
        (["--set", f"rules.name={KEY}"], "rules.name"),
        (["--set", f"rules.{KEY}=1"], "rules.…"),
        (["--inputs", "a", ADDRESS], "inputs.1"),
        (["--inputs", SIGNED], "inputs.0"),
    ],
)
def test_a_configuration_with_a_credential_is_refused(argv, key):
    with pytest.raises(ConfigurationError, match="looks like a credential") as refused:
        load_configuration(Job, ["--output=x", *argv])
    assert f"{key!r} looks like" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "argv",
    [
        ["--aws-secret-access-key", SECRET],
        [f"--secret={SECRET}"],
        ["--set", f"rules=[{SECRET}"],
        ["--set", KEY],
    ],
)
def test_a_refused_command_line_repeats_no_secret(argv, caplog, capsys):
    assert run_job(Job, lambda configuration: 0, ["--output=x", *argv]) == 2
    said = caplog.text + "".join(capsys.readouterr())
    assert SECRET not in said
    assert KEY not in said


def test_a_file_that_is_no_yaml_is_not_quoted(tmp_path):
    (tmp_path / "job.yaml").write_text(f"output: x\nsecret: {SECRET}: {{\n")
    with pytest.raises(ConfigurationError, match="in line 2, column") as refused:
        load_configuration(Job, ["--config", str(tmp_path / "job.yaml")])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "s3://bucket/AKIA/features", "rules": {"max_epochs": 3}},
        {"keyword": "x", "key": "low", "tokenizer": "bert", "secretary": 1, "access_key": None},
        {"inputs": ["s3://bucket/a:b@c", "runs/2026-01-01T10:00@x"]},
    ],
)
def test_ordinary_settings_are_not_taken_for_credentials(settings):
    assert find_credential(settings) is None


def test_messages_of_stores_are_redacted():
    answer = f"403: <Error><AWSAccessKeyId>{KEY}</AWSAccessKeyId><StringToSign>x\n{KEY}/y</StringToSign></Error>"
    for text in (answer, f"could not connect to {ADDRESS}", f"GET {SIGNED} failed", f"key {KEY}."):
        shown = redacted(text)
        assert SECRET not in shown
        assert KEY not in shown
    assert redacted("s3://bucket/key: not found") == "s3://bucket/key: not found"


def test_nothing_is_unpickled():
    wrong = re.compile(r"import (cloud)?pickle|pickle\.loads?|torch\.load\(|joblib|allow_pickle\s*=\s*True|shelve")
    folder = Path(genre_ray.__file__).parent
    found = {path.name for path in folder.rglob("*.py") if wrong.search(path.read_text(encoding="utf-8"))}
    # These talk over a pipe to a process of their own; nothing of it is stored or comes from outside.
    assert found <= {"child.py", "isolation.py"}
