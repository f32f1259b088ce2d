"""python tests/benchmarks/run.py [NAME …] [--out FILE]

Run the benchmarks of the modules beside this file, all of those that take minutes when none is named, on a machine
that does nothing else. Prints a table as it grows and writes every number to FILE.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import harness

NAMES = ("ingest", "archives", "listing", "inference", "training", "labels", "mapping")
LONG = ("memory", "driver")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*NAMES, *LONG))}")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/bench.json"))
    options = parser.parse_args(arguments)
    unknown = sorted({*options.names} - {*NAMES, *LONG})
    if unknown:
        parser.error(f"unknown benchmarks {', '.join(unknown)}; known are {', '.join((*NAMES, *LONG))}")
    results: list[harness.Result] = []
    for name in options.names or NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            for result in importlib.import_module(name).benchmarks(Path(scratch)):
                results.append(result)
                print(harness.table([result]).splitlines()[-1], flush=True)
                harness.write(results, options.out)
    print("\n" + ", ".join(f"{key} {value}" for key, value in harness.machine().items()) + "\n")
    print(harness.table(results))
    print(f"\nall numbers: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
