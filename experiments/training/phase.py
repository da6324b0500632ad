"""The steps of one phase, and the bookkeeping that a resumed run needs."""

import collections
import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from backbones.errors import UserError
from experiments.cli.exit_status import Preempted
from experiments.data import pipeline
from experiments.training.checkpoints import Checkpoints
from experiments.training.evaluation import GivenUp
from experiments.training.monitor import EVENTS, Monitor
from experiments.training.preemption import Interruption
from experiments.training.session import Session
from experiments.training.step import TrainState


@dataclasses.dataclass
class Progress:
    """Where a run is, beside the state on the devices; saved with it, as JSON.

    Attributes:
        step: finished steps of all phases.
        phase: number of the present phase.
        phase_start: finished steps when it began.
        over: whether it has ended.
        evaluation_due: whether this step ends with an evaluation that is not done yet.
        sums: of the metrics of the steps since the last evaluation.
        counted: number of those steps.
        last_accuracy: of the newest evaluation of this phase; -1 before the first.
        best: the highest of them.
        stale: evaluations since then.
        skipped: steps whose update was left out.
        bad: training examples that could not be read.
    """

    step: int = 0
    phase: int = 0
    phase_start: int = 0
    over: bool = False
    evaluation_due: bool = False
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    counted: int = 0
    last_accuracy: float = -1.0
    best: float = -1.0
    stale: int = 0
    skipped: list[int] = dataclasses.field(default_factory=list)
    bad: list[str] = dataclasses.field(default_factory=list)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Count a finite step in."""
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}
        self.counted += 1

    def evaluated(self, accuracy: float) -> dict[str, float]:
        """Note a validation accuracy; returns the means of the steps before it."""
        means = {name: total / self.counted for name, total in self.sums.items()}
        self.sums, self.counted = {}, 0
        self.stale = 0 if accuracy > self.best else self.stale + 1
        self.last_accuracy, self.best = accuracy, max(self.best, accuracy)
        return means

    def next_phase(self) -> 'Progress':
        """At the beginning of the phase after this one."""
        return Progress(self.step, self.phase + 1, self.step, skipped=self.skipped, bad=self.bad)


class Phase:
    """The steps of one phase."""

    def __init__(
        self,
        session: Session,
        progress: Progress,
        checkpoints: Checkpoints,
        monitor: Monitor,
        interruption: Interruption,
    ):
        self._session, self._progress, self._checkpoints = session, progress, checkpoints
        self._monitor, self._interruption = monitor, interruption
        config, setup = session.config, session.setup
        self._end = progress.phase_start + setup.phase_steps(progress.phase)
        self._evaluation_steps = config.evaluate_epochs * setup.steps_per_epoch
        self._checkpoint_steps = max(1, round(config.checkpoint_epochs * setup.steps_per_epoch))
        self._pending: collections.deque[tuple[int, dict, tuple[str, ...]]] = collections.deque()
        self._name = session.phase_names[progress.phase]
        self._is_last = progress.phase == len(setup.regime.phases) - 1
        self._task = monitor.task(f'{config.backbone} {self._name}', self._end, progress.step)

    def run(self, state: TrainState, profile: bool) -> TrainState:
        """Take the steps that are left.

        Raises:
            UserError: see ``loop.fit``.
            Preempted: the process was asked to stop; the state is saved.
        """
        if self._progress.evaluation_due:
            self._pause(state, stops=False, saves=True)
        if not self._progress.over:
            state = self._take_steps(state, profile)
        self._monitor.done(self._task)
        return state

    def _take_steps(self, state: TrainState, profile: bool) -> TrainState:
        session, progress = self._session, self._progress
        train_step = session.setup.train_step(progress.phase, progress.phase_start)
        self._monitor.advance(self._task, note='compiling')
        first = progress.step
        reading = session.batches(first, self._end)
        with contextlib.closing(reading), Profile(session.directory if profile else None, first) as tracing:
            for host in reading:
                step = host.step + 1
                tracing.before(step)
                state, metrics = train_step(state, session.place(host))
                self._pending.append((step, metrics, host.ids))
                self._note_bad(host)
                if len(self._pending) > 1:
                    self._settle()
                within = step - progress.phase_start
                stops = self._interruption.asked()
                evaluates = within % self._evaluation_steps == 0 or step == self._end
                saves = within % self._checkpoint_steps == 0 or step == self._end
                if not (evaluates or saves or stops or tracing.last(step)):
                    continue
                while self._pending:
                    self._settle()
                tracing.after(step)
                progress.step, progress.evaluation_due = step, evaluates
                if evaluates or saves or stops:
                    self._pause(state, stops, saves)
                if progress.over:
                    break
        return state

    def _pause(self, state: TrainState, stops: bool, saves: bool) -> None:
        """Between two steps: evaluate if it is due, save if there is a reason to, and stop if asked to.

        Raises:
            Preempted: the state is saved.
        """
        session, progress, monitor = self._session, self._progress, self._monitor
        evaluated = progress.evaluation_due and not stops and self._evaluate(state)
        stops = stops or progress.evaluation_due
        best_yet = evaluated and session.keeps_best and self._is_last and progress.stale == 0
        if saves or stops or best_yet or progress.over:
            # Who resumes from here computes no row before it again.
            monitor.flush()
            score = progress.last_accuracy if evaluated and self._is_last else None
            self._checkpoints.save(progress.step, state, dataclasses.asdict(progress), score)
            monitor.meter.pause()
        if stops and not (progress.over and self._is_last):
            self._checkpoints.wait()
            monitor.event('preempted', f'asked to stop: step {progress.step:,} is saved', step=progress.step)
            raise Preempted(progress.step)

    def _settle(self) -> None:
        """Look at the oldest step that nobody has looked at yet; waits until the devices have done it."""
        session, progress, monitor = self._session, self._progress, self._monitor
        step, metrics, ids = self._pending.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        if not values.pop('finite'):
            self._not_finite(step, values, ids)
        else:
            if session.config.log_steps and step % session.config.log_steps == 0:
                monitor.row(step, values)
            progress.add({name: value for name, value in values.items() if name != 'learning_rate'})
        monitor.meter.lap(step)
        speed = monitor.meter.steps_per_second * session.setup.batch_size
        note = f'loss {values["loss"]:.3f}, accuracy {values["accuracy"]:.3f}, {speed:,.0f} images/s'
        monitor.advance(self._task, completed=step, note=note)

    def _not_finite(self, step: int, values: dict[str, float], ids: tuple[str, ...]) -> None:
        """The state was left as it was before this step; say so, and stop unless the config wants to go on."""
        session, progress = self._session, self._progress
        what = f'step {step:,}: loss {values["loss"]}, gradient norm {values["gradient_norm"]}'
        shown = ', '.join(ids[:8]) + (f' and {len(ids) - 8} more' if len(ids) > 8 else '')
        self._monitor.event('not finite', f'{what}; the batch was {shown}', step=step, ids=list(ids), **{
            name: str(value) for name, value in values.items()
        })  # fmt: skip
        if session.config.non_finite == 'skip':
            progress.skipped.append(step)
            return
        self._checkpoints.wait()  # one may be on its way
        saved = self._checkpoints.steps()
        last = f'the last good checkpoint is step {saved[-1]:,}' if saved else 'there is no checkpoint yet'
        raise UserError(
            f'not a finite number at {what}; the batch was {shown} (all in {EVENTS}); {last}. Lower learning_rate, '
            'set clip_norm, or leave such steps out with --config.non_finite=skip'
        )

    def _note_bad(self, host: pipeline.HostBatch) -> None:
        progress = self._progress
        for example, reason in host.bad:
            if example not in progress.bad:
                progress.bad.append(example)
                self._monitor.event('unreadable', f'left out: {example} cannot be read ({reason})', example=example)

    def _evaluate(self, state: TrainState) -> bool:
        """Evaluate on the validation split, write the row, and see whether the phase is over.

        Returns:
            Whether it came to its end, and was not given up as the process was asked to stop.
        """
        session, progress, config = self._session, self._progress, self._session.config
        try:
            evaluation = session.evaluate(state.variables(), 'validation', self._monitor, self._interruption.asked)
        except GivenUp:
            return False
        progress.evaluation_due = False
        means = progress.evaluated(evaluation.accuracy)
        schedule = session.setup.schedule(progress.phase, progress.phase_start)
        row: dict[str, float | str] = {
            'epoch': progress.step / session.setup.steps_per_epoch,
            'phase': self._name,
            **means,
            'learning_rate': float(jnp.asarray(schedule(progress.step - 1))),
            'validation_loss': evaluation.mean_loss,
            'validation_accuracy': evaluation.accuracy,
        }
        self._monitor.row(progress.step, row, now=True)
        patience = config.early_stopping_epochs
        tired = 0 < patience <= progress.stale * config.evaluate_epochs
        progress.over = tired or progress.step == self._end
        if tired and progress.step < self._end:
            text = f'no better validation accuracy than {progress.best:.4f} for {patience} epochs: the phase ends'
            self._monitor.event('early stopping', text, step=progress.step)
        return True


class Profile:
    """A context in which a few steps are traced; the first ones of a run compile and fill caches.

    Args:
        directory: of the run; ``None``: nothing is traced.
        first: finished steps when the run began.
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
        """Begin, if the trace begins with this step."""
        if self._target and step == self._steps[0]:
            jax.profiler.start_trace(self._target)
            self._tracing = True

    def last(self, step: int) -> bool:
        """Whether the trace ends with this step."""
        return self._tracing and step == self._steps[1]

    def after(self, step: int) -> None:
        """End, if the trace ends with this step, which the devices have done."""
        if self.last(step):
            jax.profiler.stop_trace()
            self._tracing = False
