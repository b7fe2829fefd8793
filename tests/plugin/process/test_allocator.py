"""Memory that tensors give back: kept for the next ones, or returned to the system, counted in page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from plugin.process.allocator import keep_freed_memory

PROGRAM = """
import resource, sys, numpy
from plugin.process.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        numpy.ones(10_000_000, numpy.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if not keep_freed_memory(False):
    sys.exit(77)
found = []
for keep in (False, True, False):
    assert keep_freed_memory(keep)
    faults()
    found.append(faults())
print(*found)
"""


def test_kept_memory_is_used_again_without_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this C library is not glibc")
    assert done.returncode == 0, done.stderr
    returned, kept, returned_again = map(int, done.stdout.split())
    assert kept < 100 < min(returned, returned_again)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
