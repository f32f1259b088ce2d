"""Guards that a process computes on a GPU only if it has reserved one: Ray shows a node's GPUs to all its workers."""

import pytest
import ray
import torch

from genre_ray.models import device
from genre_ray.models.device import reserved_device


@pytest.fixture
def worker(monkeypatch):
    """`worker(reserved, visible)`: this process as a worker of a node with GPUs."""

    def act(reserved, visible=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "get_gpu_ids", lambda: reserved)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return act


@pytest.mark.parametrize(
    ("reserved", "visible", "index"),
    [
        ([0], "0", 0),
        # Ray makes the reserved GPUs visible, and torch counts visible ones from 0.
        ([3], "3", 0),
        (["3"], "3", 0),
        # Where Ray is told to leave the variable alone.
        ([3], None, 3),
        (["3"], "1,3", 1),
        (["GPU-b"], "GPU-a, GPU-b", 1),
        (["MIG-1"], None, 0),
    ],
)
def test_the_reserved_gpu_is_the_one_that_torch_counts_so(worker, reserved, visible, index):
    worker(reserved, visible)
    assert reserved_device() == torch.device("cuda", index)


@pytest.mark.parametrize("visible", [None, "", "0,1"])
def test_a_gpu_that_is_only_seen_is_left_alone(worker, visible):
    worker([], visible)
    assert reserved_device() == torch.device("cpu")


def test_a_reserved_gpu_that_torch_cannot_use(worker, monkeypatch, caplog):
    worker([0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reserved_device() == torch.device("cpu")
    assert "GPU 0 is reserved, but torch cannot use it" in caplog.text


def test_outside_of_ray_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert reserved_device() == torch.device("cpu")
    monkeypatch.delitem(device.sys.modules, "ray")
    assert reserved_device() == torch.device("cpu")


def test_workers_and_drivers_of_a_cluster_without_gpus(ray_cluster):
    ray.init(ignore_reinit_error=True)
    assert str(reserved_device()) == "cpu"
    assert ray.get(ray.remote(lambda: str(reserved_device())).remote()) == "cpu"
