"""One Ray cluster and one object store for the whole test run, each started by the first test that needs it.

Both are real and both are closed: the cluster asks for a token, the store for keys.
Their addresses and secrets are settled when this file is imported, before any test module imports ray: Ray
reads RAY_AUTH_MODE once for each process, and the cluster's workers keep the environment it was started in.
"""

import contextlib
import functools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKET = "genre-ray"
START_TIMEOUT_S = 120.0

# Two busy cores make single examples slow, never wrong.
hypothesis.settings.register_profile("genre_ray", deadline=None)
hypothesis.settings.load_profile("genre_ray")


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on now, all different.

    They lie between the ports of Ray's workers (10002 to 19999) and those that systems give to outgoing
    connections (from 32768), so that nothing takes one before its server starts.
    """
    with ExitStack() as sockets:
        found: list[int] = []
        for port in random.SystemRandom().sample(range(20_000, 32_000), 1_000):
            held = sockets.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                held.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"{count} free ports between 20000 and 32000 were expected, {len(found)} were found")


@dataclass(frozen=True)
class RayCluster:
    """A running head node: `address` for ray.init, `job_server` for `ray job submit`."""

    address: str
    job_server: str
    token: str
    start_s: float


@dataclass(frozen=True)
class JobResult:
    """A submitted job: `ray job submit`'s exit code, all that it printed, and the job's own exit code."""

    code: int
    log: str
    submission_id: str
    status: str
    driver_exit_code: int | None


@dataclass(frozen=True)
class S3Server:
    """A running object store with one bucket, `s3://<bucket>`; it can be killed, and started over what it holds."""

    endpoint: str
    bucket: str
    kill: Callable[[], None]
    start: Callable[[], None]


# Short, because Ray puts sockets below it and a socket's path holds 107 bytes.
_scratch = Path(tempfile.mkdtemp(prefix="gr-"))
_token = secrets.token_hex(32)
_gcs_port, _job_port, _client_port, _agent_port, _s3_port, *_weed_ports = free_ports(12)
_cluster = RayCluster(f"127.0.0.1:{_gcs_port}", f"http://127.0.0.1:{_job_port}", _token, 0.0)


def _session_environment() -> dict[str, str]:
    token_path = _scratch / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(_token)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Or its end waits half a minute for actors that Ray Data leaves running.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{_s3_port}",
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",  # delta-rs refuses plain HTTP without it
        "AWS_EC2_METADATA_DISABLED": "true",
        # A developer's own profile must not reach a test, nor a test that profile.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # A job's entrypoint says `python`: the one that runs the tests.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


for _name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
    os.environ.pop(_name, None)
os.environ.update(_session_environment())


def pytest_unconfigure() -> None:
    shutil.rmtree(_scratch, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes a server, and as slow what submits a job: each submission packs, starts and connects a driver."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"ray_cluster", "s3_server"} & fixtures:
            item.add_marker(pytest.mark.server)
        if "submit_job" in fixtures:
            item.add_marker(pytest.mark.slow)


@contextlib.contextmanager
def _background(command: Sequence[str], log: Path, ready: Callable[[], bool], end: int) -> Iterator[float]:
    """Run a server until the block ends, then signal `end`; gives the seconds until it was ready."""
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not ready():
            if process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
                pytest.fail(
                    f"{command[0]} is not ready after {time.monotonic() - started:.0f} s "
                    f"(exit code {process.poll()}):\n{log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.2)
        yield time.monotonic() - started
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, **headers: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """The one Ray cluster of the test run; `ray.init()` and jobs that a test starts join it."""
    command = [
        # --block: stopping this process stops this cluster; `ray stop` would stop every one of the machine.
        *(shutil.which("ray") or "ray", "start", "--head", "--block"),
        *(f"--port={_gcs_port}", f"--ray-client-server-port={_client_port}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={_job_port}"),
        f"--dashboard-agent-listen-port={_agent_port}",
        # Its own folder, or `auto` inside of a job finds another cluster of this machine.
        f"--temp-dir={_scratch / 'ray'}",
        # The GPU is a number to Ray alone: stages that reserve one get a pool of their own.
        *("--num-cpus=2", "--num-gpus=1", f"--object-store-memory={10**9}", "--disable-usage-stats"),
    ]
    bearer = {"Authorization": f"Bearer {_token}"}

    def ready() -> bool:
        return _answers(f"{_cluster.job_server}/api/version", **bearer)

    with ExitStack() as stack:
        start_s = stack.enter_context(_background(command, _scratch / "ray.log", ready, signal.SIGTERM))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_ADDRESS", _cluster.address)
        # `ray job submit` lets RAY_ADDRESS win over its own --address, and this one over both.
        patch.setenv("RAY_API_SERVER_ADDRESS", _cluster.job_server)
        yield RayCluster(_cluster.address, _cluster.job_server, _token, start_s)
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


@pytest.fixture(scope="session")
def submit_job(ray_cluster: RayCluster) -> Callable[..., JobResult]:
    """`submit_job("python", "jobs/ingest.py", "--limit", "3")`: by `ray job submit`, until it has ended."""

    def submit(*entrypoint: str, working_dir: Path | None = REPOSITORY, timeout_s: float = 300.0) -> JobResult:
        from ray.job_submission import JobSubmissionClient

        submission_id = f"test-{uuid.uuid4().hex[:12]}"
        packaged = [] if working_dir is None else ["--working-dir", str(working_dir)]
        command = [
            "ray",
            "job",
            "submit",
            "--address",
            ray_cluster.job_server,
            "--submission-id",
            submission_id,
        ]
        done = subprocess.run(
            [*command, *packaged, "--", *entrypoint],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        info: Any = JobSubmissionClient(ray_cluster.job_server).get_job_info(submission_id)
        return JobResult(done.returncode, done.stdout, submission_id, str(info.status), info.driver_exit_code)

    return submit


_S3_IDENTITY = """{"identities": [{"name": "tests", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],
"actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}"""


@contextlib.contextmanager
def object_store() -> Iterator[S3Server]:
    """A SeaweedFS that boto3, pyarrow and delta-rs reach through the environment."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    identity = _scratch / "s3.json"
    identity.touch(mode=0o600)
    identity.write_text(_S3_IDENTITY % (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]))
    data = _scratch / "s3"
    data.mkdir()
    roles = ("master", "volume", "filer")
    command = [
        *(shutil.which("weed") or "weed", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        # Unnamed, a gRPC port is the role's port + 10,000, which may be past the last one.
        *(f"-{role}.port={port}" for role, port in zip(roles, _weed_ports, strict=False)),
        *(f"-{role}.port.grpc={port}" for role, port in zip(roles, _weed_ports[3:], strict=False)),
        *("-s3", f"-s3.port={_s3_port}", f"-s3.port.grpc={_weed_ports[6]}", f"-s3.config={identity}"),
        # Catalog servers that come with the gateway, on ports that two test runs would fight for.
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]
    endpoint = os.environ["AWS_ENDPOINT_URL"]

    def ready() -> bool:
        # The gateway answers before a volume can take a write.
        try:
            client = boto3.client("s3")
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    # Its own way to stop takes 25 s, and nothing of its data is kept.
    with ExitStack() as running:

        def start() -> None:
            running.enter_context(_background(command, _scratch / "s3.log", ready, signal.SIGKILL))

        start()
        yield S3Server(endpoint, BUCKET, running.close, start)
    for port in (_s3_port, *_weed_ports):  # sockets that it puts there whatever its folder
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The one object store of the test run."""
    with object_store() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> str:
    """An `s3://` URI that no other test writes below."""
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object]], None]:
    """`until(condition)`: wait for it, as long as a busy machine may need; a fixed pause would be too short there."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not happen within 60 s"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def sample() -> Path:
    """The shipped sample of real documents: `sample / "emotify" / ...`."""
    return REPOSITORY / "tests" / "data"


@pytest.fixture(scope="session")
def write_features_to() -> Callable[..., str]:
    """`write_features_to(folder, values, recording_id=[…], …)`: a features table of (rows, columns) values.

    It has several parts. Its features are called c0, c1, … where `names` does not name them, and are what `spec` says
    if it is given.
    """

    def write(
        folder: Path,
        values: Any,
        *,
        parts: int = 2,
        name: str = "features",
        names: Sequence[str] | None = None,
        spec: Any = None,
        **columns: Sequence[Any],
    ) -> str:
        import numpy as np
        import pyarrow as pa

        from genre_ray.features.spec import FeatureSpec
        from genre_ray.storage import tables
        from genre_ray.storage.schemas import FEATURES

        values = np.asarray(values, dtype=np.float32)
        spec = spec or FeatureSpec.of_columns("test", names or [f"c{column}" for column in range(values.shape[1])])
        filled: dict[str, Sequence[Any]] = {
            "recording_id": [f"r{row:04d}" for row in range(len(values))],
            "submission": [0] * len(values),
            "artist_ids": [[]] * len(values),
            "release_group_id": [None] * len(values),
            "source_uri": [f"documents/{row}" for row in range(len(values))],
            "extractor": ["test"] * len(values),
            **columns,
            "features": values.tolist(),
        }
        rows = pa.table(filled, FEATURES)
        uri = str(folder / name)
        tables.create_table(uri, FEATURES, spec.properties())
        step = -(-len(values) // parts)
        written = [
            tables.write_part(uri, f"part-{start:06d}", rows.slice(start, step))
            for start in range(0, len(values), step)
        ]
        tables.append(tables.open_table(uri), [tables.Append("run/0", written)], FEATURES)
        return uri

    return write


@pytest.fixture
def write_features(write_features_to: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """`write_features(values, …)`: as `write_features_to`, in the test's own folder."""
    return functools.partial(write_features_to, tmp_path)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Any]:
    """`make_bundle(columns, fused=False, thresholds=…)` → (the bundle as read again, preparation, network).

    Its network has random weights and takes features of the kind `test`, or those of documents.
    """

    def make(
        columns: Sequence[str] = "abcdef",
        *,
        fused: bool = False,
        thresholds: Sequence[float] = (0.5, 0.4, 0.5, 0.6),
        clip_sd: float | None = 50.0,
    ) -> tuple[Any, Any, Any]:
        import numpy as np
        import torch

        from genre_ray.bundles.files import read_bundle, write_bundle
        from genre_ray.bundles.manifest import Architecture
        from genre_ray.bundles.predictor import to_tensors
        from genre_ray.features.essentia.columns import ESSENTIA
        from genre_ray.features.scaling import Scaling
        from genre_ray.features.spec import FeatureSpec
        from genre_ray.models.outputs import Sigmoid
        from genre_ray.models.preparation import Standardise
        from genre_ray.storage.schemas import EXAMPLES
        from genre_ray.systems.description import AUDIO
        from genre_ray.systems.fusion import Embeddings
        from genre_ray.systems.model import Model
        from genre_ray.systems.system import find_system
        from tests.manifests import make_manifest

        labels = ("jazz", "rock", "rock---indie", "soul")
        torch.manual_seed(len(columns) + fused)
        generator = np.random.default_rng(5)
        scaling = Scaling(generator.normal(size=len(columns)), generator.uniform(0.5, 2, len(columns)))
        outputs = {"genres": Sigmoid(len(labels))}
        system = find_system("essentia")
        settings = system.resolve_network({"branches": {"units": 8}})
        model = Model(system, settings, Standardise.of(scaling, clip_sd), outputs)
        if fused:
            system = find_system("fusion")
            model = Model(system, system.resolve_network({}), Embeddings([model, model], [0, 0]), outputs)
        description = model.describe()
        is_essentia = tuple(columns) == ESSENTIA.columns
        manifest = make_manifest(
            labels,
            thresholds=np.float32(thresholds).tolist(),
            system=system.name,
            inputs={AUDIO: ESSENTIA if is_essentia else FeatureSpec.of_columns("test", columns)},
            preprocessing=description.preprocessing,
            architecture=Architecture(inputs=model.preparation.shape[0], network=description.network),
        )
        uri = str(tmp_path / f"bundle-{len(columns)}-{fused}")
        assert write_bundle(uri, manifest, to_tensors(model), EXAMPLES.empty_table(), "")
        model.eval()
        return read_bundle(uri), model.preparation, model.network

    return make


@dataclass(frozen=True)
class Shard:
    """Rows of a shard as they are in the tables of a run, and as the log states them; by default both are equal."""

    kept: int
    rejected: int = 0
    stated: int | None = None


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Any]:
    """`write_run(output, {"a": [Shard(3, 1), Shard(2)]}, rows_per_shard=5)`: a run of these items; returns its ledger.

    Kept rows have the ids `item/shard/0`, `item/shard/1`, …; rejected rows have `item/shard/rejected/0`, ….
    """

    def write(
        output: str,
        items: dict[str, list[Shard]],
        *,
        rows_per_shard: int = 5,
        planned: dict[str, int | None] | None = None,
        unfinished: Sequence[str] = (),
    ) -> Any:
        """Write shards that the run has not committed yet.

        Args:
            output: where.
            items: the shards of each work item of kind `table`.
            rows_per_shard: as the plan has it.
            planned: rows of items as the plan has them, where they are not the stated ones.
            unfinished: items whose last shard here is not their last one.
        """
        import pyarrow as pa

        from genre_ray.runs.identity import make_identity
        from genre_ray.runs.inventory import Inventory
        from genre_ray.runs.ledger import Ledger, ShardSummary
        from genre_ray.runs.plan import WorkItem, load_or_extend_plans
        from genre_ray.storage import tables
        from genre_ray.storage.schemas import REJECTED, list_of

        def stated(shard: Shard) -> int:
            return shard.kept + shard.rejected if shard.stated is None else shard.stated

        def part(uri: str, name: str, values: list[dict[str, Any]], schema: Any) -> tuple[Any, ...]:
            rows = pa.Table.from_pylist(values, schema)
            return (tables.write_part(uri, name, rows),) if rows.num_rows else ()

        rows_of = {name: sum(map(stated, shards)) for name, shards in items.items()} | (planned or {})
        schema = pa.schema([("recording_id", pa.string()), ("features", list_of(pa.float32()))])
        ledger = Ledger.claim(output, "data", schema, make_identity("job", {}), resume=True)
        work_items = [WorkItem(name, "table", (), rows_of[name], is_counted=True) for name in items]
        load_or_extend_plans(output, Inventory(()), lambda *_: work_items, rows_per_shard)
        summaries = []
        for name, shards in items.items():
            for index, shard in enumerate(shards):
                item, row = f"0000-{name}", f"{name}/{index}"
                kept = [{"recording_id": f"{row}/{n}", "features": [n, 0.5, -n]} for n in range(shard.kept)]
                lost = [{"source_uri": f"archive#{row}/rejected/{n}", "reason": "bad"} for n in range(shard.rejected)]
                parts = part(ledger.data_uri, f"{item}-{index:05d}", kept, schema)
                rejected = part(ledger.rejected_uri, f"{item}-{index:05d}", lost, REJECTED)
                last = index == len(shards) - 1 and name not in unfinished
                summaries.append(ShardSummary(item, index, last, stated(shard), parts, rejected))
        ledger.commit(summaries)
        return ledger

    return write


@pytest.fixture(scope="session")
def shard() -> type[Shard]:
    """`shard(kept, rejected, stated=…)`, for `write_run`."""
    return Shard
