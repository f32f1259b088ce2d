"""The child process of `genre_ray.runs.isolation`: computes single rows and sends each outcome before the next.

Started as `python -m genre_ray.runs.child DESCRIPTOR`, with one end of a pipe. What comes through it is from the parent
alone, which is why it may be pickled.
"""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from genre_ray.errors import GenreRayError

OUT_OF_MEMORY = 77
"""The exit code that says so: an exception could be in the way of its own report."""

_PR_SET_PDEATHSIG = 1


def one_row(rows: Any, position: int) -> Any:
    """A chunk of one row: Arrow's and Python's sequences differ in how they are cut."""
    return rows.slice(position, 1) if hasattr(rows, "slice") else rows[position : position + 1]


def main(descriptor: int) -> None:
    """Answer every request (rows, positions) with one outcome a position, until the parent closes the pipe."""
    faulthandler.enable()
    _be_the_first_to_go()
    connection = Connection(descriptor)
    step = pickle.loads(connection.recv_bytes())
    connection.send_bytes(b"ready")
    with contextlib.suppress(EOFError):
        while True:
            rows, positions = pickle.loads(connection.recv_bytes())
            for position in positions:
                connection.send_bytes(pickle.dumps(_outcome(step, one_row(rows, position))))


def _outcome(step: Any, rows: Any) -> tuple[str, Any]:
    try:
        return "done", step(rows)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except GenreRayError as error:
        return type(error).__name__, str(error)
    except Exception:
        return "fault", traceback.format_exc()


def _be_the_first_to_go() -> None:
    """Die with the parent, leave no core dump, and let the kernel choose this process when memory runs out."""
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    main(int(sys.argv[1]))
