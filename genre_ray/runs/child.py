"""The child process of `genre_ray.runs.isolation`, which answers requests of its parent.

It is started as `python -m genre_ray.runs.child DESCRIPTOR`, with the descriptor of a pipe. Messages are pickled, which
is safe because only the parent can write to the pipe.
"""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from genre_ray.errors import GenreRayError

OUT_OF_MEMORY = 77
"""The exit code for a MemoryError, because there may not be enough memory to send the exception."""

VALUE, END, FAULT = "value", "end", "fault"
"""The kinds of responses. Any other kind is the name of a `GenreRayError`."""

Serve = Callable[[Any], Iterator[Any]]

_PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Load the serving function, and answer each request with values and an end, until the parent closes the pipe."""
    faulthandler.enable()
    _be_the_first_to_go()
    connection = Connection(descriptor)
    serve = _load(connection)
    with contextlib.suppress(EOFError):
        while serve is not None:
            request = pickle.loads(connection.recv_bytes())
            for answer in _answers(serve, request):
                connection.send_bytes(pickle.dumps(answer))


def _load(connection: Connection) -> Serve | None:
    """Call the function in the parent's first message, which returns the serving function."""
    for kind, value in _answers(lambda make: iter([make()]), pickle.loads(connection.recv_bytes())):
        if kind == VALUE:
            serve: Serve = value
            connection.send_bytes(pickle.dumps((VALUE, None)))
            return serve
        connection.send_bytes(pickle.dumps((kind, value)))
    return None


def _answers(serve: Serve, request: Any) -> Iterator[tuple[str, Any]]:
    try:
        for value in serve(request):
            yield VALUE, value
        yield END, None
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except GenreRayError as error:
        yield type(error).__name__, str(error)
    except Exception:
        yield FAULT, traceback.format_exc()


def _be_the_first_to_go() -> None:
    """Die with the parent, write no core dump, and make the kernel kill this process first when memory runs out."""
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    main(int(sys.argv[1]))
