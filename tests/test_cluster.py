"""Guards cluster.yaml, offline: valid by Ray's own schema, and as closed and thrifty as its comments say."""

import json
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).resolve().parents[1] / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster():
    """The configuration as `ray up` sees it: with Ray's defaults filled in."""
    return prepare_config(yaml.safe_load(FILE.read_text()))


@pytest.fixture(scope="module")
def node_types(cluster):
    return cluster["available_node_types"]


def _pool(node_types, resource):
    return {name: node for name, node in node_types.items() if node["resources"].get(resource, 0) and name != "head"}


def test_is_valid_by_rays_schema(cluster):
    validate_config(cluster)


def test_the_schema_check_can_fail(cluster):
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(cluster | {"idle_minutes": 10})


def test_the_head_runs_no_tasks(cluster, node_types):
    head = node_types[cluster["head_node_type"]]

    assert head["resources"] == {"CPU": 0}


def test_pools_grow_from_nothing_and_shrink_when_idle(cluster, node_types):
    pools = {name: node for name, node in node_types.items() if name != cluster["head_node_type"]}

    assert cluster["idle_timeout_minutes"] <= 15
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in pools.values())
    assert sum(node["max_workers"] for node in pools.values()) <= cluster["max_workers"]


def test_there_is_a_cpu_pool_and_a_spot_gpu_pool(node_types):
    gpu = _pool(node_types, "GPU")

    assert _pool(node_types, "CPU").keys() - gpu.keys()
    assert gpu
    assert all(node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for node in gpu.values())


def test_no_port_is_open_to_the_world(cluster, node_types):
    # A node type without a group of its own gets one from Ray, with port 22 open to 0.0.0.0/0.
    assert all(node["node_config"].get("SecurityGroupIds") for node in node_types.values())
    assert "security_group" not in cluster["provider"]
    assert "0.0.0.0" not in json.dumps(cluster)
    assert "::/0" not in json.dumps(cluster)


def test_the_job_server_listens_on_the_head_alone(cluster):
    (start,) = [line for line in cluster["head_start_ray_commands"] if "ray start --head" in line]

    assert "--dashboard-host=127.0.0.1" in start


def test_nodes_reach_s3_by_instance_profile_without_keys(node_types):
    assert all(node["node_config"]["IamInstanceProfile"]["Name"] for node in node_types.values())
    assert all(node["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for node in node_types.values())


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_asks_for_the_token(cluster, role):
    starts = [line for line in cluster[f"{role}_start_ray_commands"] if "ray start" in line]

    assert starts
    assert all("RAY_AUTH_MODE=token" in line.split("ray start")[0] for line in starts)
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"


def test_holds_no_secret():
    text = FILE.read_text()

    assert not [word for word in ("AKIA", "aws_secret", "RAY_AUTH_TOKEN=", "PRIVATE KEY", "password") if word in text]


def test_nodes_install_the_tested_versions(cluster):
    installs = [line for line in cluster["setup_commands"] if "pip install" in line]

    assert installs
    assert all(line.count("--constraint constraints.txt") == line.count("pip install") for line in installs)
