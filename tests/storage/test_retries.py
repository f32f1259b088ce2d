"""Guards how often a failed operation is repeated, with which pauses, and which error is raised in the end."""

import pytest

from genre_ray.storage import retries
from genre_ray.storage.retries import attempts, retried


@pytest.fixture
def pauses(monkeypatch):
    """The pauses, in seconds, which nobody waits for here."""
    found = []
    monkeypatch.setattr(retries.time, "sleep", found.append)
    return found


def failing(*errors):
    """An operation that raises each of `errors`, then returns how often it was called."""
    left = list(errors)

    def operation():
        operation.calls += 1
        if left:
            raise left.pop(0)
        return operation.calls

    operation.calls = 0
    return operation


def is_transient(error):
    return isinstance(error, OSError)


@pytest.mark.parametrize("failures", range(retries.OPERATION_ATTEMPTS))
def test_transient_errors_are_retried(pauses, failures):
    assert retried(failing(*[OSError()] * failures), is_transient) == failures + 1
    assert len(pauses) == failures


def test_the_last_transient_error_is_raised(pauses):
    errors = [OSError(n) for n in range(retries.OPERATION_ATTEMPTS + 1)]
    operation = failing(*errors)
    with pytest.raises(OSError, match=r"^3$") as raised:
        retried(operation, is_transient)
    assert raised.value is errors[retries.OPERATION_ATTEMPTS - 1]
    assert operation.calls == retries.OPERATION_ATTEMPTS


def test_any_other_error_is_raised_at_once(pauses):
    operation = failing(OSError(), ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        retried(operation, is_transient)
    assert (operation.calls, len(pauses)) == (2, 1)


def test_pauses_double_up_to_the_longest(pauses):
    assert list(attempts(10, longest_s=1.0)) == list(range(10))
    assert len(pauses) == 9
    for place, pause in enumerate(pauses):
        expected = min(0.1 * 2**place, 1.0)
        assert expected * 0.5 <= pause <= expected * 1.5
