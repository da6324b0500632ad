import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
from experiments.cli import allocator

if 'configured' in sys.argv:
    allocator.configure()

def fill():
    b'x' * 2**26

def in_a_thread():
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()

in_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_a_thread()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='only glibc is told to keep memory')
def test_large_buffers_are_reused_without_new_pages():
    def faults(*arguments):
        run = subprocess.run([sys.executable, '-c', PROGRAM, *arguments], capture_output=True, text=True, check=True)
        return int(run.stdout)

    pages = 2**26 // resource.getpagesize()
    if faults() < pages // 2:
        pytest.skip('this C library reuses large buffers by itself')
    assert faults('configured') < pages // 100


CALLS = """
import resource, sys
from experiments.cli import allocator

def deeper(depth):
    if depth:
        return deeper(depth - 1)
    for _ in range(100):
        leaf()

def leaf():
    pass

def all_depths():
    for depth in range(500):
        deeper(depth)

call = allocator.call_with_room if 'room' in sys.argv else lambda function: function()
call(all_depths)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
call(all_depths)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_nested_calls_need_no_new_pages():
    def faults(*arguments):
        run = subprocess.run([sys.executable, '-c', CALLS, *arguments], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults() > 200
    assert faults('room') < 200
