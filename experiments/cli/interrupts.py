"""Ctrl-C: the first is answered at once, and the second ends the process at once, whatever it is doing.

Ending at once is safe: every file is written under a temporary name and renamed.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from typing import NoReturn

from experiments.cli.exit_status import INTERRUPTED

FIRST = 'interrupted: stopping as soon as nothing is lost; Ctrl-C again ends at once'
ENDED = 'ended at once'
SECOND = f'{ENDED}; the same command continues from what was saved before'
# Until a process that is asked to stop ends although a thread of it does not, such as one that waits for a file.
_PATIENCE = 5.0
# The thread that waits for a second Ctrl-C and a handler of Python's may both end the process: one of them says so.
_ending = threading.Lock()


@contextlib.contextmanager
def answered(continues: bool = True) -> Generator[None]:
    """A context in which a first Ctrl-C is answered, and a second ends the process with ``INTERRUPTED``.

    Python runs a signal's handler between two of its own instructions, and so not while it compiles or waits for a
    device. The number of a signal, though, is written to a socket as soon as it arrives; a thread waits for it there.

    Args:
        continues: whether the same command continues from what was saved.
    """
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_answer, args=(reading, SECOND if continues else ENDED), name='interrupts', daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writing.close()
        thread.join()
        reading.close()


def _answer(reading: socket.socket, second: str) -> None:
    interrupts = 0
    while numbers := reading.recv(64):
        # Several may arrive together; each is answered.
        for _ in range(numbers.count(signal.SIGINT)):
            interrupts += 1
            if interrupts > 1:
                end_at_once(second)
            _say(FIRST)


def end_at_once(told: str = SECOND) -> NoReturn:
    """End the process, without waiting for any thread or running what is registered for its end."""
    if _ending.acquire(blocking=False):
        _say(told)
    else:
        time.sleep(1)  # the other ends the process
    os._exit(INTERRUPTED)


def _say(text: str) -> None:
    """Write a line to standard error without Python's locks, which the interrupted code may hold."""
    # A progress bar hides the cursor and leaves it in the middle of a line.
    before = '\x1b[?25h\r\x1b[2K' if os.isatty(2) else ''
    with contextlib.suppress(OSError):
        os.write(2, f'{before}{text}\n'.encode())


def end_in_time(status: int) -> None:
    """Make sure that a process that is about to end does so: Python waits for every thread of a pool."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def end() -> None:
        time.sleep(_PATIENCE)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)

    threading.Thread(target=end, daemon=True).start()
