"""What a running training tells: a progress bar, ``metrics.jsonl``, and TensorBoard or Weights & Biases if asked.

Metrics hold no times, so a run that was interrupted leaves the same file as one that was not. What happened to the run
itself goes to ``events.jsonl``.
"""

import datetime
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
    """Steps per second between laps; the time before the first lap (compilation) and of pauses does not count."""

    def __init__(self):
        self._steps, self._seconds = 0, 0.0
        self._last: tuple[int, float] | None = None
        self._paused = False

    def lap(self, step: int) -> None:
        """All steps up to this one are done."""
        now = time.perf_counter()
        if self._last and not self._paused:
            self._steps += step - self._last[0]
            self._seconds += now - self._last[1]
        self._last, self._paused = (step, now), False

    def pause(self) -> None:
        """What happens until the next lap is not only training."""
        self._paused = True

    @property
    def steps_per_second(self) -> float:
        """0 before the second lap."""
        return self._steps / self._seconds if self._seconds else 0.0


class Monitor:
    """The voice of one training; use it as a context manager. Only the main process writes and shows anything.

    Args:
        directory: where files go.
        config: of the training.
        first: rows of an earlier run after this step are forgotten: they will be computed again.
        evaluation_due: whether the row of an evaluation after this very step is forgotten as well.
        is_main_process: whether this is the process that writes and shows.
    """

    def __init__(
        self,
        directory: Path,
        config: ml_collections.ConfigDict,
        first: int,
        is_main_process: bool,
        evaluation_due: bool = False,
    ):
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
        try:
            self.flush()
            for writer in self._writers:
                writer.close()
        except OSError:
            if error is None:
                raise

    def bar(self, description: str, total: int, completed: int = 0) -> Any:
        """A bar of its own."""
        return self._bar.add_task(description, total=total, completed=completed, note='')

    def advance(self, task: Any, completed: int | None = None, by: int | None = None, note: str | None = None) -> None:
        """Move a bar."""
        self._bar.update(task, completed=completed, advance=by)
        if note is not None:
            self._bar.update(task, note=note)

    def done(self, task: Any) -> None:
        """Take a bar away."""
        self._bar.remove_task(task)

    def row(self, step: int, values: Mapping[str, float | str], now: bool = False) -> None:
        """A row of metrics.

        Args:
            now: whether it must be in the file before anything else happens.
        """
        if not self._is_main_process:
            return
        self._rows.append({'step': step, **values})
        for writer in self._writers:
            writer.row(step, {name: value for name, value in values.items() if not isinstance(value, str)})
        if now or time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Bring all rows into the file."""
        if self._is_main_process and self._rows:
            atomic_files.write_jsonl(self._directory / METRICS, self._rows)
            self._written = time.monotonic()

    def event(self, kind: str, text: str, **facts: Any) -> None:
        """Something that a person should know, now and later."""
        if not self._is_main_process:
            return
        self._events.append({'time': datetime.datetime.now().astimezone().isoformat(), 'event': kind, **facts})
        self._events[-1]['text'] = text
        atomic_files.write_jsonl(self._directory / EVENTS, self._events)
        display.console.print(text, style='yellow', soft_wrap=True, markup=False)


class _TensorBoard:
    def __init__(self, directory: Path, first: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError('config key tensorboard needs the package tensorboardX: pip install -e .[watch]') from None
        self._writer = SummaryWriter(str(directory / 'tensorboard'), purge_step=first + 1)

    def row(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """The run's id is made of its directory, so a run that resumes goes on in the same one."""

    def __init__(self, directory: Path, config: ml_collections.ConfigDict):
        try:
            import wandb  # ty: ignore[import-not-found]
        except ImportError:
            raise UserError('config key wandb_project needs the package wandb: pip install -e .[watch]') from None
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
