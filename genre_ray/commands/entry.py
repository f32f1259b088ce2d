"""How every job starts and ends: arguments in, one exit code out, and no traceback for what a user can correct.

Exit codes: 0 done; 2 configuration, arguments or inputs; 3 done, but more rows rejected than `--max-rejected` allows;
4 the output belongs to another run; 1 anything else. The code is also the log's last line, because `ray job submit`
ends with 1 whatever code other than 0 the job ended with.
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
    """Run one job as a program.

    Args:
        configuration: the job's configuration class.
        run: the job; returns an exit code.
        argv: the command line, without the program's name.
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
        logger.error("interrupted; --resume goes on from what is done")
    except Exception:
        logger.exception("this is a fault of genre_ray, or of something under it")
    finally:
        logger.info("exit code %d", code)
    return code
