"""Notice that the process is to end soon: SIGTERM, which clusters send before they take a machine away.

A training saves its state at the next step and ends with ``EXIT_STATUS``, which says: start me again. With several
processes JAX's coordination service receives the signal, whichever process gets it, and names one step to all.
"""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h: a temporary failure, try again.
EXIT_STATUS = 75


class Preempted(Exception):
    """The training was asked to stop and has saved its state.

    Attributes:
        step: number of finished steps in the checkpoint.
    """

    def __init__(self, step: int):
        super().__init__(f'stopped on request after step {step}, which is saved; the same command continues')
        self.step = step


class Interruption:
    """A context in which SIGTERM is noted instead of ending the process."""

    def __init__(self):
        self._noted = threading.Event()
        self._before = None

    def __enter__(self) -> 'Interruption':
        # With several processes the signal belongs to JAX; Python only sets handlers in its main thread.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.set()

    @property
    def noted(self) -> bool:
        """Whether this process got the signal; with several processes only ``at`` can tell."""
        return self._noted.is_set()

    def at(self, step: int) -> bool:
        """Whether to save and stop after this step; the same answer on every process. Ask after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.noted
