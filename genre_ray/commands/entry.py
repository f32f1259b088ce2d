"""Run a job as a program: read its command line, run it, and return an exit code.

Exit codes: 0 success; 2 the configuration, an argument or an input is invalid; 3 success, but more rows were rejected
than `--max-rejected` allows; 4 the output belongs to another run; 1 any other failure. The exit code is also logged,
because `ray job submit` itself always exits with 1 if a job fails.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from genre_ray.config import JobConfiguration, load_configuration
from genre_ray.errors import GenreRayError

logger = logging.getLogger("genre_ray")

C = TypeVar("C", bound=JobConfiguration)


def run_job(configuration: type[C], run: Callable[[C], int], argv: Sequence[str] | None = None) -> int:
    """Run one job and return its exit code.

    Args:
        configuration: the job's configuration class.
        run: the job; returns an exit code.
        argv: the command line without the program's name; that of this process if None.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    for library, level in (("ray.data", logging.ERROR), ("ray.train", logging.ERROR), ("botocore", logging.WARNING)):
        logging.getLogger(library).setLevel(level)
    code = 1
    try:
        code = run(load_configuration(configuration, list(sys.argv[1:] if argv is None else argv)))
    except GenreRayError as error:
        code = error.exit_code
        logger.error("%s", error)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        code = 130
        logger.error("interrupted; run again with --resume to continue")
    except Exception:
        logger.exception("unexpected error; this is a bug in genre_ray or in a library that it uses")
    finally:
        logger.info("exit code %d", code)
    return code
