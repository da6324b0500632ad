"""Handling of preemption: clusters send SIGTERM before they take a machine away.

A training run saves its state after the current step, or gives up the current evaluation. It ends with
``exit_status.EXIT_STATUS``, which asks to be started again. With several processes, JAX's coordination service receives
the signal, whichever process gets it, and makes all processes stop at the same step.
"""

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from experiments.cli.exit_status import Preempted


class Interruption:
    """A context in which SIGTERM raises ``Preempted`` or, while deferred, is only noted."""

    def __init__(self):
        self._deferred = False
        self._noted = threading.Event()
        self._calls = 0
        self._before = None

    def __enter__(self) -> 'Interruption':
        # With several processes JAX handles the signal; Python can set handlers only in its main thread.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._noted.set()
        if not self._deferred:
            raise Preempted

    @contextlib.contextmanager
    def deferred(self) -> Generator[None]:
        """A context in which the signal waits for the next ``asked``, or for the end of the context."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._noted.is_set():
            raise Preempted

    def asked(self) -> bool:
        """Whether to save and stop now. All processes must call it equally often, and get the same answer."""
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._noted.is_set()
