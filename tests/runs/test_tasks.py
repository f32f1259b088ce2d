"""A task returns what its function does, here or on a cluster, and raises its errors as they are."""

import os

import pytest
import ray

from genre_ray.errors import InputError
from genre_ray.runs import cluster
from genre_ray.runs.tasks import put, start


def add(one, other):
    return one + other


def where():
    return os.getpid()


def refuse(name):
    raise InputError(f"expected another {name}")


def fail():
    raise LookupError("a fault")


@pytest.fixture(params=["here", pytest.param("cluster", marks=pytest.mark.slow)])
def place(request):
    """Where tasks run."""
    if request.param == "here":
        if ray.is_initialized():
            ray.shutdown()
    else:
        request.getfixturevalue("ray_cluster")
        cluster.connect()
    return request.param


@pytest.mark.server
def test_results_errors_and_places(place):
    assert start(add, 1, 2).get() == 3
    # Results are arguments without a way over the driver.
    assert start(add, put([1]), start(add, [2], [3])).get() == [1, 2, 3]
    assert (start(where).get() == os.getpid()) == (place == "here")
    assert (start(where, on_this_node=True).get() == os.getpid()) == (place == "here")


@pytest.mark.server
def test_an_error_of_ours_is_raised_without_the_traceback_of_another_process(place):
    with pytest.raises(InputError) as caught:
        start(refuse, "name").get()
    assert str(caught.value) == "expected another name"
    assert type(caught.value) is InputError
    with pytest.raises(LookupError, match="a fault"):
        start(fail).get()
