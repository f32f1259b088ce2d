"""Guards the plan: drivers agree on it, it outlives them, and what was planned is neither changed nor taken twice."""

import concurrent.futures
import gzip
import tempfile
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.errors import InputError, StorageError
from genre_ray.runs import inventory as inventory_module
from genre_ray.runs import plan as plan_module
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.plan import WorkItem, load_or_extend_plans, read_plans
from genre_ray.storage import objects
from genre_ray.storage.files import StoredFile


def files(*names):
    return [StoredFile(f"s3://b/{name}", name, 10, "v1") for name in names]


def make_work_items(listed, rows_per_shard):
    return [WorkItem(f"i{n}", "file", (file,), rows_per_shard) for n, file in enumerate(listed)]


def never(listed, rows_per_shard):
    raise AssertionError("there was nothing new to make_work_items")


def settle(output, listed, make_work_items, rows_per_shard):
    with Inventory(listed) as inventory:
        return load_or_extend_plans(output, inventory, make_work_items, rows_per_shard)


@pytest.fixture(params=["local", "s3"])
def output(request, tmp_path):
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path)


def test_a_plan_is_stored_and_read_again(output):
    (plan,) = settle(output, files("a", "b"), make_work_items, 7)
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
    (first,) = settle(str(tmp_path), files("b"), make_work_items, 7)
    plans = settle(str(tmp_path), files("a", "b", "c"), make_work_items, 9)
    assert plans[0] == first
    assert (plans[1].generation, plans[1].rows_per_shard) == (1, 9)
    assert [(item.name, item.files[0].name) for item in plans[1].items()] == [("0001-i0", "a"), ("0001-i1", "c")]
    assert settle(str(tmp_path), files("a", "b", "c"), never, 1) == plans


def test_an_input_that_is_gone_stays_planned(tmp_path):
    plans = settle(str(tmp_path), files("a", "b"), make_work_items, 7)
    assert settle(str(tmp_path), files("b"), never, 7) == plans


@pytest.mark.parametrize("change", [{"size": 11}, {"version": "v2"}])
def test_a_changed_input_is_refused_by_name(tmp_path, change):
    settle(str(tmp_path), files("a", "b"), make_work_items, 7)
    now = files("a", "b")
    now[1] = replace(now[1], **change)
    with pytest.raises(InputError, match=r"1 inputs changed .* s3://b/b; restore them"):
        settle(str(tmp_path), now, make_work_items, 7)


def test_what_a_limit_left_out_is_not_new_the_next_time(tmp_path):
    """A resume of a limited run once took as many again, and again."""

    def limited(listed, rows_per_shard):
        return [item for item in make_work_items(listed, rows_per_shard) if int(item.name[1:]) < 2]

    plans = settle(str(tmp_path), files("a", "b", "c", "d"), limited, 7)
    assert list(plans[0].left_out()) == ["s3://b/c", "s3://b/d"]
    assert settle(str(tmp_path), files("a", "b", "c", "d"), limited, 7) == plans
    assert len(settle(str(tmp_path), files("a", "b", "c", "d", "e"), limited, 7)) == 2


def test_no_inputs_are_a_plan_too(tmp_path):
    (plan,) = settle(str(tmp_path), [], make_work_items, 7)
    assert (plan.rows_per_shard, list(plan.items())) == (7, [])


def test_racing_drivers_agree_on_one_plan(output):
    """They may even have listed the inputs differently: all of them are planned, each once."""
    start = threading.Barrier(6)

    def drive(number):
        start.wait()
        return settle(output, files("a", "b", f"own{number}"), make_work_items, number + 1)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(drive, range(6)))

    stored = read_plans(output)
    assert all(plans == stored[: len(plans)] for plans in results)
    names = [file.name for plan in stored for item in plan.items() for file in item.files]
    assert sorted(names) == sorted(["a", "b", *(f"own{n}" for n in range(6))])
    assert len(objects.list_files(objects.join(output, "_run"))) == len(stored)


def pack(files):
    """Single files in items of three: lines that are about several files."""
    return [WorkItem(f"i{n}", "file", tuple(files[n : n + 3])) for n in range(0, len(files), 3)]


@pytest.mark.parametrize("chunk_files", [1, 4, 7, 1000])
def test_a_long_plan_is_in_chunks(output, monkeypatch, chunk_files):
    monkeypatch.setattr(plan_module, "CHUNK_FILES", chunk_files)
    listed = files(*(f"{n:02d}" for n in range(20)))

    def limited(new, rows_per_shard):
        return pack(list(new)[:14])

    (plan,) = settle(output, reversed(listed), limited, 7)
    assert read_plans(output) == [plan]
    assert [file for item in plan.items() for file in item.files] == listed[:14]
    assert list(plan.left_out()) == [file.uri for file in listed[14:]]
    assert (len(plan.chunks) > 1) == (chunk_files < 20)
    assert settle(output, listed, never, 7) == [plan]
    changed = [*listed[:4], replace(listed[4], size=11), *listed[5:]]
    with pytest.raises(InputError, match=r"1 inputs changed .* s3://b/04"):
        settle(output, changed, never, 7)
    # A worker reads no more than the chunk that its item is in.
    left = list(plan.remaining(lambda name: None if name.endswith("i3") else 2))
    assert [one.read_item("session") for one in left] == [item for item in plan.items() if item.name != "0000-i3"]
    assert {(one.rows_per_shard, one.first_shard) for one in left} == {(7, 2)}


def test_what_a_driver_wrote_that_died_before_its_plan_counted_is_no_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "CHUNK_FILES", 2)
    with monkeypatch.context() as patch:
        patch.setattr(objects, "put_if_absent", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            settle(str(tmp_path), files("a", "b", "c"), make_work_items, 7)
    assert len(objects.list_files(str(tmp_path))) == 1
    assert read_plans(str(tmp_path)) == []
    (plan,) = settle(str(tmp_path), files("a", "b", "c", "d"), make_work_items, 7)
    assert [file for item in plan.items() for file in item.files] == files("a", "b", "c", "d")
    # What both wrote has one name.
    assert len(objects.list_files(str(tmp_path))) == 3


def raise_interrupt(*_):
    raise KeyboardInterrupt


def test_a_relative_address_is_of_the_drivers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = [StoredFile("in/a", "a", 1, "1"), StoredFile("/in/b", "b", 1, "1"), StoredFile("s3://in/c", "c", 1, "1")]
    (plan,) = settle("out", listed, make_work_items, 7)
    left = list(plan.remaining(lambda name: 0))
    left = [one._replace(chunk=objects.absolute(one.chunk)) for one in left]
    monkeypatch.chdir("/")
    assert [one.read_item("session").files[0].uri for one in left] == ["/in/b", f"{tmp_path}/in/a", "s3://in/c"]


@pytest.mark.parametrize(
    "content",
    [b"x", gzip.compress(b""), gzip.compress(b"[]"), gzip.compress(b'{"name": 1}'), gzip.compress(b"{}")[:-3]],
)
def test_a_damaged_plan_is_named(tmp_path, content):
    uri = objects.join(str(tmp_path), "_run", "plan-0000.jsonl.gz")
    objects.write_bytes(uri, content)
    with pytest.raises(StorageError, match=f"{uri}: this plan is damaged .*; restore the file"):
        settle(str(tmp_path), files("a"), make_work_items, 7)


def test_a_work_item_that_its_chunk_lacks_is_named(tmp_path):
    (plan,) = settle(str(tmp_path), files("a"), make_work_items, 7)
    (left,) = plan.remaining(lambda name: 0)
    with pytest.raises(StorageError, match="the work item 0000-x is missing"):
        left._replace(item="0000-x").read_item("session")


@settings(max_examples=40)
@given(st.data())
def test_however_inputs_come_and_grow_each_is_planned_once(data):
    """In whatever order a store lists them, and wherever plans are make_work_items into chunks."""
    with tempfile.TemporaryDirectory() as output, pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "CHUNK_FILES", data.draw(st.integers(1, 5)))
        patch.setattr(inventory_module, "PAGE", data.draw(st.integers(1, 5)))
        patch.setattr("os.fsync", lambda descriptor: None)
        known = set()
        for generation in range(3):
            came = data.draw(st.sets(st.text("ab/\udc80ü\U0001f3b5", min_size=1, max_size=3), max_size=8))
            before, known = known, known | came
            now = data.draw(st.permutations(sorted(known)))
            plans = settle(output, files(*now), lambda new, rows: pack(list(new)), 7)
            planned = [[file.name for item in plan.items() for file in item.files] for plan in plans]
            assert sorted(name for names in planned for name in names) == sorted(known)
            assert all(names == sorted(names) for names in planned)
            if generation and came - before:
                assert set(planned[-1]) == came - before
