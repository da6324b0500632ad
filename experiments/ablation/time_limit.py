"""A limit on the time of a run, which ends as if it was asked to stop."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator

from experiments.cli.exit_status import Preempted


class OutOfTime(Preempted):
    """What comes next would pass the time limit; everything before it is finished."""

    def __init__(self, hours: float, left: int):
        super().__init__()
        cells = 'cell is' if left == 1 else 'cells are'
        self.args = (f'--max_hours {hours:g} would be passed: {left} {cells} left, and the same command continues',)


class TimeLimit:
    """A deadline, and how long each kind of work has taken so far.

    Args:
        hours: from now on; none if ``None``.
        clock: seconds.
    """

    def __init__(self, hours: float | None = None, clock: Callable[[], float] = time.monotonic):
        self._hours, self._clock = hours, clock
        self._deadline = None if hours is None else clock() + 3600 * hours
        self._longest: dict[str, float] = {}

    @contextlib.contextmanager
    def work(self, kind: str, left: int) -> Generator[None]:
        """A context for work that begins only if the longest of its kind so far would end in time.

        Args:
            left: number of cells that are not finished.

        Raises:
            OutOfTime: it would not.
        """
        began = self._clock()
        if self._deadline is not None and began + self._longest.get(kind, 0.0) >= self._deadline:
            assert self._hours is not None
            raise OutOfTime(self._hours, left)
        yield
        self._longest[kind] = max(self._longest.get(kind, 0.0), self._clock() - began)

    @contextlib.contextmanager
    def alarm(self) -> Generator[None]:
        """A context in which this process gets SIGTERM at the deadline: a training then saves its state and stops."""
        if self._deadline is None:
            yield
            return
        timer = threading.Timer(max(0.0, self._deadline - self._clock()), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
