"""How this process keeps the memory that it has freed: of buffers, set before JAX first allocates, and of calls."""

import ctypes
import sys
from collections.abc import Callable
from typing import TypeVar

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# More than 1 MiB in places for values of 8 bytes, so that the chunk has 2 MiB and about half of it is left.
_PLACES = 2**17 + 1

Result = TypeVar('Result')


def configure() -> None:
    """Let glibc reuse large buffers; other C libraries stay as they are.

    XLA allocates the temporary memory of a step at each call. glibc takes such a buffer from the system and gives it
    back afterwards, so that every call pays for each of its pages again: half of the time of a training step of
    efficientnet_lite0 on two cores (0.77 s against 1.28 s for 16 images of 192x256), a tenth of resnet18's. Memory
    that is never given back, in one arena that all threads share, costs nothing: the next step needs the same again.
    """
    if not sys.platform.startswith('linux'):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        for parameter, value in ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0), (_ARENA_MAX, 1)):
            mallopt(parameter, value)


def call_with_room(function: Callable[[], Result]) -> Result:
    """Call a function whose nested calls find room for their frames.

    CPython (from 3.11) takes memory for frames from the system in chunks of 16 KiB, and gives a chunk back when the
    call that needed it returns. A loop whose calls lie across the end of a chunk pays for new pages in each turn;
    while JAX traces, which nests deeply, that was a tenth of the time. A frame that asks for more gets a chunk of the
    next power of two, and what it leaves is for the calls within.
    """
    return function()


call_with_room.__code__ = call_with_room.__code__.replace(co_stacksize=_PLACES)
