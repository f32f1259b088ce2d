"""Guards that a worker does not have its memory cleared again for every chunk."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from genre_ray.runs.allocation import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):
    chunk = [bytes([n]) * 90_000 for n in range(64)]
    del chunk
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, check=True).stdout)
        for mode in ("kept", "given back")
    }
    # 20 chunks of 5.8 MB are 28,000 pages; one is 1,400.
    assert faults["kept"] < faults["given back"] - 15_000
