"""A trace of a few steps, for TensorBoard or Perfetto."""

from pathlib import Path

import jax


class Profile:
    """A context that traces a few steps, but not the first ones, which compile and fill caches.

    Args:
        directory: the directory of the run; ``None``: nothing is traced.
        first: number of steps that were finished when this process began.
    """

    def __init__(self, directory: Path | None, first: int):
        self._target = str(directory / 'profile') if directory else ''
        self._steps = (first + 4, first + 8)
        self._tracing = False

    def __enter__(self) -> 'Profile':
        return self

    def __exit__(self, *_) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """Start the trace if it begins with this step."""
        if self._target and step == self._steps[0]:
            jax.profiler.start_trace(self._target)
            self._tracing = True

    def last(self, step: int) -> bool:
        """Whether the trace ends with this step."""
        return self._tracing and step == self._steps[1]

    def after(self, step: int) -> None:
        """Stop the trace if it ends with this step, which the devices must have finished."""
        if self.last(step):
            jax.profiler.stop_trace()
            self._tracing = False
