"""Guards how settings are read: what is not understood is refused in the user's words, and never with a traceback."""

import logging

import pytest
from pydantic import Field

from genre_ray.commands.entry import run_job
from genre_ray.config import JobConfiguration, Settings, load_configuration
from genre_ray.errors import ConfigurationError


class Network(Settings):
    units: int = Field(256, ge=1, description="units of the hidden layer")


class Example(JobConfiguration):
    """A job for these tests."""

    inputs: tuple[str, ...] = Field((), description="some inputs")
    all_scores: bool = Field(False, description="a flag")
    network: Network = Network()
    rules: dict[str, float] = Field({}, description="a mapping")


def load(*argv):
    return load_configuration(Example, list(argv))


@pytest.fixture
def yaml(tmp_path):
    def write(content):
        path = tmp_path / "settings.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--set", "outptu=x"], "unknown key 'outptu'; did you mean 'output'?"),
        (["--output=x", "--set", "execution.worker=2"], "unknown key 'execution.worker'; did you mean 'workers'?"),
        (["--output=x", "--set", "network.unit=2"], "unknown key 'network.unit'; did you mean 'units'?"),
        (["--output=x", "--set", "network.zzz=2"], "unknown key 'network.zzz'; known keys are units"),
        (["--limit=3"], "'output' is required: folder or s3:// URI"),
        (["--output=x", "--limit=three"], "'limit': .*integer.*found 'three'"),
        (["--output=x", "--limit=0"], "'limit': .*greater than or equal to 1, found '0'"),
        (["--output=x", "--set", "execution=3"], "'execution': .*found 3"),
        (["--output=x", "--set", "execution.item_timeout_s=1e-9"], "'execution.item_timeout_s': .*0.1"),
        (["--output=x", "--set", "execution.learners=0"], "'execution.learners': .*1"),
        (["--output=x", "--set", "execution.gpus_per_worker=null"], "'execution.gpus_per_worker': "),
        (["--output=x", "--set", "execution.mib_per_shard=0"], "'execution.mib_per_shard': .*1"),
        (["--output=x", "--set", "execution.workers=[1]"], "'execution.workers': .*found \\[1\\]"),
        (["--output=x", "--set", "inputs=a"], "'inputs': .*tuple, found 'a'"),
        (["--output=x", "--set", "limit"], "--set expects key=value, found 'limit'; write e.g."),
        (["--output=x", "--set", "=3"], "--set expects key=value, found '=3'"),
        (["--output=x", "--set", "limit=[1"], "--set limit: not valid YAML"),
        (["--output=x", "--set", "limit=1", "limit.a=2"], "--set limit.a: 'limit' is a int and has no keys"),
    ],
)
def test_what_is_not_understood_is_refused(argv, message):
    with pytest.raises(ConfigurationError, match=message):
        load(*argv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "expected a mapping of settings, found list"),
        ("just text", "expected a mapping of settings, found str"),
        ("output: [", "not valid YAML: "),
        (b"output: \xff\xfe\n", "cannot read this file as UTF-8"),
        ("output: x\n1: y\n", "'1'"),
        ("output: x\nexecution:\n  wrkers: 2\n", "unknown key 'execution.wrkers'; did you mean 'workers'?"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(yaml, content, message):
    path = yaml(content)
    with pytest.raises(ConfigurationError, match=message) as refused:
        load("--config", path)
    assert path in str(refused.value)


def test_a_missing_file_is_refused():
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: cannot read this file"):
        load("--config", "nowhere.yaml")


def test_every_mistake_is_named_at_once():
    with pytest.raises(ConfigurationError, match=r"'output' is required.*unknown key 'a'.*unknown key 'b'"):
        load("--set", "a=1", "b=2")


def test_set_goes_over_the_file_and_flags_over_both(yaml):
    path = yaml("output: file\nlimit: 1\nexecution:\n  workers: 1\n  rows_per_shard: 7\n")
    loaded = load("--config", path, "--set", "output=set", "execution.workers=2", "--output", "flag")
    assert (loaded.output, loaded.limit) == ("flag", 1)
    assert (loaded.execution.workers, loaded.execution.rows_per_shard) == (2, 7)


def test_an_empty_file_or_group_leaves_the_defaults(yaml):
    assert load("--config", yaml(""), "--output=x") == Example(output="x")
    loaded = load("--config", yaml("execution:\n"), "--output=x", "--set", "execution.workers=2")
    assert loaded.execution.workers == 2


def test_flags_of_every_kind():
    loaded = load("--output", "o", "--inputs", "a", "b", "--all-scores", "--limit", "3", "--set", "rules={rate: 0.5}")
    assert (loaded.inputs, loaded.all_scores, loaded.limit, loaded.rules) == (("a", "b"), True, 3, {"rate": 0.5})
    assert not load("--output", "o", "--set", "all_scores=true", "--no-all-scores").all_scores


@pytest.mark.parametrize("flag", ["--network", "--rules", "--execution", "--outp"])
def test_mappings_and_abbreviations_are_no_flags(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        load("--output=x", flag, "3")
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err


def test_a_configuration_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load("--output=x").limit = 3


def test_the_identity_is_what_decides_the_result():
    one = load("--output=a", "--limit=3")
    other = load(
        *("--output=b", "--limit=3", "--resume", "--dry-run", "--max-rejected=1"),
        *("--set", "execution.workers=3", "execution.rows_per_shard=9"),
    )
    assert one.identity() == other.identity()
    assert set(one.identity()) == {"inputs", "limit", "all_scores", "network", "rules"}
    assert one.identity() != load("--output=a", "--limit=4").identity()
    assert one.identity() != load("--output=a", "--limit=3", "--set", "network.units=8").identity()


def _refuse(_):
    raise ConfigurationError("--this: expected that")


def _break(_):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("argv", "run", "code", "said"),
    [
        (["--output=x"], lambda _: 0, 0, ""),
        (["--output=x"], lambda _: 3, 3, ""),
        (["-h"], _break, 0, "A job for these tests."),
        (["--output=x", "--unknown=3"], _break, 2, "--unknown=3"),
        (["--output=x", "--set", "limti=3"], _break, 2, "did you mean 'limit'?"),
        (["--output=x"], _refuse, 2, "--this: expected that"),
        (["--output=x"], _break, 1, "Traceback"),
    ],
)
def test_a_job_ends_with_a_code_that_its_last_line_names(argv, run, code, said, capfd):
    """A traceback is for faults of genre_ray alone."""
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        assert run_job(Example, run, argv) == code
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    out, err = capfd.readouterr()
    assert err.splitlines()[-1].endswith(f"exit code {code}")
    assert said in out + err
    assert ("Traceback" in err) == (said == "Traceback")
