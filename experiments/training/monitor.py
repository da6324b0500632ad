"""Output of a training run: a progress bar, ``metrics.jsonl``, and TensorBoard or Weights & Biases if enabled.

Metrics contain no times, so an interrupted run leaves the same file as an uninterrupted one. What happens to the run
itself goes to ``events.jsonl``.
"""

import contextlib
import datetime
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_collections

from backbones.errors import UserError
from experiments.cli import atomic_files, display

METRICS = 'metrics.jsonl'
EVENTS = 'events.jsonl'
_SECONDS_BETWEEN_WRITES = 10.0


class Meter:
    """Steps per second between laps, excluding pauses and the time before the first lap (compilation)."""

    def __init__(self):
        self._steps, self._seconds = 0, 0.0
        self._last: tuple[int, float] | None = None
        self._paused = False

    def lap(self, step: int) -> None:
        """Note that all steps up to this one are done."""
        now = time.perf_counter()
        if self._last and not self._paused:
            self._steps += step - self._last[0]
            self._seconds += now - self._last[1]
        self._last, self._paused = (step, now), False

    def pause(self) -> None:
        """Exclude the time until the next lap, which is not only training."""
        self._paused = True

    @property
    def steps_per_second(self) -> float:
        """0 before the second lap."""
        return self._steps / self._seconds if self._seconds else 0.0


class Monitor:
    """The output of one training run, as a context manager. Only the main process writes or shows anything.

    Args:
        directory: where files go.
        config: the config of the run.
        first: rows of an earlier run after this step are dropped, because they will be recomputed.
        evaluation_due: whether the row of an evaluation at this step is dropped as well.
        is_main_process: whether this process writes and shows output.
        label: what every printed line begins with.
    """

    def __init__(
        self,
        directory: Path,
        config: ml_collections.ConfigDict,
        first: int,
        is_main_process: bool,
        evaluation_due: bool = False,
        label: str = '',
    ):
        self.label = label
        self._directory, self._is_main_process = directory, is_main_process
        self._rows = [
            row
            for row in atomic_files.read_jsonl(directory / METRICS)
            if row['step'] < first or (row['step'] == first and not (evaluation_due and 'epoch' in row))
        ]
        self._events = atomic_files.read_jsonl(directory / EVENTS)
        self._written = time.monotonic()
        self._bar = display.progress()
        self._bar.disable = not is_main_process
        self._writers = _writers(directory, config, first) if is_main_process else []
        self.meter = Meter()

    def __enter__(self) -> 'Monitor':
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        if isinstance(error, Exception):
            with contextlib.suppress(OSError):  # the error itself may be that nothing can be written
                self.note('failed', str(error) or type(error).__name__)
        try:
            self.flush()
            for writer in self._writers:
                writer.close()
        except OSError:
            if error is None:
                raise

    def bar(self, description: str, total: int, completed: int = 0, brief: bool = False) -> Any:
        """Add a progress bar.

        Args:
            brief: whether it is usually over soon, so that its beginning and end are not worth a line of a log.
        """
        return self._bar.add_task(description, total=total, completed=completed, note='', brief=brief)

    def advance(self, task: Any, completed: int | None = None, by: int | None = None, note: str | None = None) -> None:
        """Update a progress bar."""
        self._bar.update(task, completed=completed, advance=by)
        if note is not None:
            self._bar.update(task, note=note)

    def done(self, task: Any) -> None:
        """Remove a progress bar, after it has been shown as it is."""
        self._bar.refresh()
        self._bar.remove_task(task)

    def row(self, step: int, values: Mapping[str, float | str], now: bool = False) -> None:
        """Add a row of metrics.

        Args:
            now: whether to write it to the file at once.
        """
        if not self._is_main_process:
            return
        self._rows.append({'step': step, **values})
        for writer in self._writers:
            writer.row(step, {name: value for name, value in values.items() if not isinstance(value, str)})
        if now or time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write all rows to the file."""
        if self._is_main_process and self._rows:
            atomic_files.write_jsonl(self._directory / METRICS, self._rows)
            self._written = time.monotonic()

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line, which begins with the label if there is one."""
        if self._is_main_process:
            line = f'{self.label}: {text}' if self.label else text
            display.console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)

    def event(self, kind: str, text: str, **facts: Any) -> None:
        """Record something that the user should know, and print it."""
        self.note(kind, text, **facts)
        self.say(text, 'yellow')

    def note(self, kind: str, text: str, **facts: Any) -> None:
        """Record an event without printing it."""
        if not self._is_main_process:
            return
        self._events.append({'time': datetime.datetime.now().astimezone().isoformat(), 'event': kind, **facts})
        self._events[-1]['text'] = text
        atomic_files.write_jsonl(self._directory / EVENTS, self._events)


def check_packages(config: ml_collections.ConfigDict) -> None:
    """Check that what a run is to be written to is installed.

    Raises:
        UserError: it is not; names the key and the package.
    """
    for key, package in (('tensorboard', 'tensorboardX'), ('wandb_project', 'wandb')):
        if config[key] and importlib.util.find_spec(package) is None:
            raise _missing(key, package)


def _missing(key: str, package: str) -> UserError:
    return UserError(f'config key {key} needs the package {package}: pip install -e .[watch]')


class _TensorBoard:
    def __init__(self, directory: Path, first: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise _missing('tensorboard', 'tensorboardX') from None
        self._writer = SummaryWriter(str(directory / 'tensorboard'), purge_step=first + 1)

    def row(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """Weights & Biases. The run's directory keeps the id, so a resumed run continues under the same one."""

    def __init__(self, directory: Path, config: ml_collections.ConfigDict):
        try:
            import wandb  # ty: ignore[import-not-found]
        except ImportError:
            raise _missing('wandb_project', 'wandb') from None
        file = directory / 'wandb_id'
        if not file.exists():
            with atomic_files.atomic_write(file) as stream:
                stream.write(wandb.util.generate_id())
        self._run = wandb.init(
            project=config.wandb_project,
            name=directory.name,
            dir=directory,
            id=file.read_text(),
            resume='allow',
            config=config.to_dict(),
        )

    def row(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def _writers(directory: Path, config: ml_collections.ConfigDict, first: int) -> list:
    writers: list = [_TensorBoard(directory, first)] if config.tensorboard else []
    return [*writers, _WeightsAndBiases(directory, config)] if config.wandb_project else writers
