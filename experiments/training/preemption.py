"""Handling of preemption: clusters send SIGTERM before they take a machine away, and people press Ctrl-C.

A training run saves its state after the current step, or gives up the current evaluation. It ends with
``exit_status.EXIT_STATUS``, which asks to be started again, or after Ctrl-C with ``exit_status.INTERRUPTED``. With
several processes, JAX's coordination service receives SIGTERM, whichever process gets it, and makes all processes stop
at the same step.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from experiments.cli import interrupts
from experiments.cli.exit_status import Preempted

# Seconds; the callback in which a request was lost is over by then.
_UNTIL_AGAIN = 0.05


class Interruption:
    """A context in which SIGTERM and Ctrl-C raise ``Preempted`` or, while deferred, are only noted.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self):
        self._deferred = False
        self._noted = threading.Event()
        self._interrupted = False
        self._calls = 0
        self._before: dict[int, Any] = {}
        self._unraisable: Any = None

    def __enter__(self) -> 'Interruption':
        # Python can set handlers only in its main thread.
        if threading.current_thread() is not threading.main_thread():
            return self
        # With several processes JAX handles it.
        if jax.process_count() == 1:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._receive)
        # Ignored by what a shell starts in the background.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._receive)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._repeat
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._unraisable is not None:
            sys.unraisablehook, self._unraisable = self._unraisable, None

    def _repeat(self, lost: 'sys.UnraisableHookArgs') -> None:
        """Ask again where the exception was raised in a callback, such as one of the garbage collector, and lost."""
        if not isinstance(lost.exc_value, Preempted):
            return self._unraisable(lost)
        again = threading.Timer(_UNTIL_AGAIN, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        return again.start()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                interrupts.end_at_once()
            self._interrupted = True
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the other processes
                return
        self._noted.set()
        if not self._deferred:
            raise self.preempted()

    @contextlib.contextmanager
    def deferred(self) -> Generator[None]:
        """A context in which the signal waits for the next ``asked``, or for the end of the context."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._noted.is_set():
            raise self.preempted()

    def asked(self) -> bool:
        """Whether to save and stop now. All processes must call it equally often, and get the same answer."""
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._noted.is_set()

    def preempted(self, step: int | None = None, of: str = '') -> Preempted:
        """The exception to raise once the state is saved; see ``Preempted``."""
        return Preempted(step, self._interrupted, of)
