"""Guards reading ahead: nothing is lost, doubled or out of order, errors come where they came, and threads end."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.errors import StorageError
from genre_ray.runs.ahead import map_ahead, read_ahead
from genre_ray.storage import streams


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def numbers(count, log=None, error=None):
    """0 to `count` - 1, then `error`; what happens is told to `log`."""
    log = [] if log is None else log
    try:
        for number in range(count):
            log.append(number)
            yield number
        if error:
            raise error
    finally:
        log.append(f"closed in {threading.current_thread().name}")


@given(count=st.integers(0, 40), depth=st.integers(1, 5), taken=st.integers(0, 41), fails=st.booleans())
def test_the_same_values_until_whoever_consumes_has_enough(count, depth, taken, fails):
    log, error = [], StorageError("gone") if fails else None
    found = []
    try:
        with read_ahead(numbers(count, log, error), depth) as values:
            for number in values:
                # It may be `depth` values ahead, and have one in its hand.
                assert max(entry for entry in list(log) if isinstance(entry, int)) <= number + depth + 1
                found.append(number)
                if len(found) >= taken:
                    break
    except StorageError:
        assert error is not None
        assert len(found) == count < max(taken, 1)
    assert found == list(range(min(count, max(taken, 1))))
    assert log[-1] == "closed in read-ahead"
    assert not threads()


def test_an_error_of_the_consumer_ends_the_thread():
    log = []
    with pytest.raises(ZeroDivisionError), read_ahead(numbers(100, log)) as values:
        assert 1 / next(values)
    assert log[-1] == "closed in read-ahead"
    assert not threads()


def test_nothing_is_read_before_it_is_asked_for():
    """The mark of an attempt is made first: reading may be what kills."""
    log = []
    with read_ahead(numbers(3, log)) as values:
        time.sleep(0.05)
        assert log == []
        assert list(values) == [0, 1, 2]
    with read_ahead(numbers(3, log := [])):
        pass
    assert log == []
    assert not threads()


def test_it_reads_while_others_compute(until):
    log = []
    with read_ahead(numbers(100, log), depth=3) as values:
        assert next(values) == 0
        until(lambda: log[-1] == 4)
        time.sleep(0.05)
        assert log[-1] == 4


def test_what_is_read_ahead_is_counted(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")

    def lines():
        with (tmp_path / "file").open("rb") as file:
            yield from streams.measured(file).read()

    with streams.metered() as meter, read_ahead(lines()) as values:
        assert list(values) == list(b"12345")
    assert meter.bytes_read == 5


@given(
    count=st.integers(0, 60),
    threads=st.integers(1, 6),
    taken=st.integers(1, 61),
    fails=st.sampled_from([None, 3, 50]),
)
def test_calls_at_a_time_give_the_same_results_in_order(count, threads, taken, fails):
    begun, given = [], iter(range(count))

    def square(number):
        begun.append(number)
        time.sleep(0.0001 * (number % 3))
        if number == fails:
            raise StorageError("gone")
        return number * number

    found, results = [], map_ahead(square, given, threads)
    try:
        for result in results:
            found.append(result)
            assert len(begun) <= len(found) + 2 * threads
            if len(found) == taken:
                break
    except StorageError:
        assert len(found) == fails < taken
    results.close()
    assert found == [number * number for number in range(count)][: min(taken, count if fails is None else fails)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("map-ahead")]


def test_calls_are_made_at_a_time():
    together = threading.Barrier(4, timeout=60)
    assert len(list(map_ahead(lambda _: together.wait(), range(8), 4))) == 8
