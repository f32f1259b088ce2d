"""Guards the plan: drivers agree on it, it outlives them, and what was planned is neither changed nor taken twice."""

import concurrent.futures
import threading
from dataclasses import replace

import pytest

from genre_ray.errors import InputError
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.plan import WorkItem, read_plans, settle_plans
from genre_ray.storage import objects
from genre_ray.storage.objects import StoredFile


def files(*names):
    return [StoredFile(f"s3://b/{name}", name, 10, "v1") for name in names]


def cut(listed, rows_per_shard):
    return [WorkItem(f"i{n}", "file", (file,), rows_per_shard) for n, file in enumerate(listed)]


def never(listed, rows_per_shard):
    raise AssertionError("there was nothing new to cut")


def settle(output, listed, cut, rows_per_shard):
    with Inventory(listed) as inventory:
        return settle_plans(output, inventory, cut, rows_per_shard)


@pytest.fixture(params=["local", "s3"])
def output(request, tmp_path):
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path)


def test_a_plan_is_stored_and_read_again(output):
    (plan,) = settle(output, files("a", "b"), cut, 7)
    assert (plan.generation, plan.rows_per_shard, list(plan.left_out())) == (0, 7, [])
    assert [item.name for item in plan.items()] == ["0000-i0", "0000-i1"]
    assert [item.files for item in plan.items()] == [(file,) for file in files("a", "b")]
    assert read_plans(output) == [plan]
    assert settle(output, files("a", "b"), never, 99) == [plan]


def test_an_item_is_a_line(tmp_path):
    item = WorkItem("n", "kind", tuple(files("ü", "line\nbreak", "\udcff")), None)
    assert WorkItem.from_json(item.to_json()) == item
    assert "\n" not in item.to_json()
    settle(str(tmp_path), item.files, lambda *_: [item], 1)
    assert list(read_plans(str(tmp_path))[0].items()) == [replace(item, name="0000-n")]


def test_inputs_that_came_later_are_a_generation_of_their_own(tmp_path):
    (first,) = settle(str(tmp_path), files("b"), cut, 7)
    plans = settle(str(tmp_path), files("a", "b", "c"), cut, 9)
    assert plans[0] == first
    assert (plans[1].generation, plans[1].rows_per_shard) == (1, 9)
    assert [(item.name, item.files[0].name) for item in plans[1].items()] == [("0001-i0", "a"), ("0001-i1", "c")]
    assert settle(str(tmp_path), files("a", "b", "c"), never, 1) == plans


def test_an_input_that_is_gone_stays_planned(tmp_path):
    plans = settle(str(tmp_path), files("a", "b"), cut, 7)
    assert settle(str(tmp_path), files("b"), never, 7) == plans


@pytest.mark.parametrize("change", [{"size": 11}, {"version": "v2"}])
def test_a_changed_input_is_refused_by_name(tmp_path, change):
    settle(str(tmp_path), files("a", "b"), cut, 7)
    now = files("a", "b")
    now[1] = replace(now[1], **change)
    with pytest.raises(InputError, match=r"1 inputs changed .* s3://b/b; restore them"):
        settle(str(tmp_path), now, cut, 7)


def test_what_a_limit_left_out_is_not_new_the_next_time(tmp_path):
    """A resume of a limited run once took as many again, and again."""

    def limited(listed, rows_per_shard):
        return [item for item in cut(listed, rows_per_shard) if int(item.name[1:]) < 2]

    plans = settle(str(tmp_path), files("a", "b", "c", "d"), limited, 7)
    assert list(plans[0].left_out()) == ["s3://b/c", "s3://b/d"]
    assert settle(str(tmp_path), files("a", "b", "c", "d"), limited, 7) == plans
    assert len(settle(str(tmp_path), files("a", "b", "c", "d", "e"), limited, 7)) == 2


def test_no_inputs_are_a_plan_too(tmp_path):
    (plan,) = settle(str(tmp_path), [], cut, 7)
    assert (plan.rows_per_shard, list(plan.items())) == (7, [])


def test_racing_drivers_agree_on_one_plan(output):
    """They may even have listed the inputs differently: all of them are planned, each once."""
    start = threading.Barrier(6)

    def drive(number):
        start.wait()
        return settle(output, files("a", "b", f"own{number}"), cut, number + 1)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(drive, range(6)))

    stored = read_plans(output)
    assert all(plans == stored[: len(plans)] for plans in results)
    names = [file.name for plan in stored for item in plan.items() for file in item.files]
    assert sorted(names) == sorted(["a", "b", *(f"own{n}" for n in range(6))])
    assert len(objects.list_files(objects.join(output, "_run"))) == len(stored)
