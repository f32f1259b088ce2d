"""Guards the comparison of inputs with what was planned: in any order, with any names, in memory that does not grow."""

import tracemalloc
from dataclasses import replace

import pytest

from genre_ray.errors import InputError
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.plan import settle_plans
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.storage.files import StoredFile

NAMES = ["b", "a", "Z", "a/b", "a-b", "ü", "\udcff", "\U0001f3b5", "line\nbreak", "a b"]


def file(name, **more):
    return replace(StoredFile(f"s3://b/{name}", name, 10, "v1"), **more)


def test_files_come_once_and_in_the_order_of_their_addresses():
    with Inventory(map(file, [*NAMES, *NAMES])) as inventory:
        assert [found.name for found in inventory] == sorted(NAMES)
        assert list(inventory) == sorted(map(file, NAMES), key=lambda found: found.uri)
    with Inventory([file("a"), replace(file("a"), name="other")]) as inventory:
        assert list(inventory) == [replace(file("a"), name="other")]


def test_new_is_what_was_neither_planned_nor_left_out():
    with Inventory(map(file, "abcd")) as inventory:
        inventory.add_planned([file("b")])
        inventory.add_left_out([file("d").uri])
        assert [found.name for found in inventory.new()] == ["a", "c"]
        new = inventory.new()
        assert next(new).name == "a"
        inventory.forget_plans()
        assert [found.name for found in inventory.new()] == ["a", "b", "c", "d"]


def test_what_was_left_out_may_change_and_go():
    with Inventory([file("a", size=11), file("c")]) as inventory:
        inventory.add_left_out([file("a").uri, file("b").uri])
        inventory.refuse_changes()
        inventory.add_planned([file("a")])
        with pytest.raises(InputError, match="1 inputs changed since this run was planned, the first is s3://b/a"):
            inventory.refuse_changes()


def test_a_tables_parts_must_still_be_there():
    with Inventory([file("c")]) as inventory:
        inventory.add_planned([file("b")])
        inventory.refuse_changes()
        inventory.add_planned([file("d"), file("a"), file("c")], parts=True)
        with pytest.raises(InputError, match=r"2 parts of the input table were rewritten .* the first is s3://b/a"):
            inventory.refuse_changes()


def test_an_error_of_the_listing_comes_through():
    def broken():
        yield file("a")
        raise InputError("expected documents")

    with pytest.raises(InputError, match="expected documents"):
        Inventory(broken())


def peak_of_planning(count, output):
    def listed():
        for n in reversed(range(count)):
            yield StoredFile(f"s3://b/catalog/{n:040x}.json", f"{n:040x}.json", n, f"{n:032x}")

    source = DocumentSource(("s3://b/catalog",))
    tracemalloc.start()
    try:
        with Inventory(listed()) as inventory:
            plans = settle_plans(str(output), inventory, source.cut, 200)
        tasks = [left for plan in plans for left in plan.remaining(lambda item: 0)]
        return tracemalloc.get_traced_memory()[1], tasks
    finally:
        tracemalloc.stop()


def test_a_driver_holds_no_more_for_ten_times_as_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr("genre_ray.runs.plan.CHUNK_FILES", 1000)
    few, _ = peak_of_planning(1_200, tmp_path / "few")
    many, tasks = peak_of_planning(12_000, tmp_path / "many")
    # A file that is held takes some 500 bytes; other threads of a test run take some memory as well.
    assert (many - few) / (12_000 - 1_200) < 100
    assert len(tasks) < 100
    assert max(len(str(task)) for task in tasks) < 500
