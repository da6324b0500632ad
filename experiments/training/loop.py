"""One training run: phases of steps, evaluations and checkpoints; it resumes bit for bit after any interruption.

A checkpoint holds everything that decides the next step: the state on the devices and ``progress.Progress``. The
examples, random numbers and learning rate of a step are functions of the step number.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import ml_collections

from backbones.errors import UserError, listed
from backbones.model import Model
from backbones.pretrained import description
from experiments.cli import atomic_files
from experiments.data import pipeline, texts
from experiments.data.dataset import Dataset
from experiments.tasks import Task
from experiments.training import introduction
from experiments.training.checkpoints import Checkpoints
from experiments.training.evaluation import Evaluation, GivenUp
from experiments.training.monitor import EVENTS, Monitor
from experiments.training.preemption import Interruption
from experiments.training.profiling import Profile
from experiments.training.progress import Progress
from experiments.training.run_description import describe
from experiments.training.session import Session
from experiments.training.state import TrainState

_CHECKPOINTS = 'checkpoints'
# Difference of two validation scores that is worth a line.
_NOTABLE = 0.02


class Diverged(UserError):
    """The loss or a gradient is no longer finite."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a training run.

    Attributes:
        model: the task's model.
        variables: its parameters and statistics, unsharded, with adapters merged, averaged if the config says so.
        task: its task.
        steps: number of steps taken.
        examples: number of training examples.
        trainable: number of trainable parameters (in the last phase).
        validation_score: the primary metric of these variables.
        images_per_second: training throughput, excluding the first step of this process.
        skipped: steps whose update was skipped because it was non-finite.
        unreadable: training examples that could not be read.
        evaluate: evaluates a split on all processes, of another data set if one is given (``Session.evaluate``);
            call it only once for the test split.
    """

    model: Model
    variables: dict
    task: Task
    steps: int
    examples: int
    trainable: int
    validation_score: float
    images_per_second: float
    skipped: tuple[int, ...]
    unreadable: tuple[str, ...]
    evaluate: Callable[..., Evaluation]

    @property
    def backbone_bytes(self) -> int:
        """Bytes of the backbone's parameters and statistics."""
        parts = [collection['backbone'] for collection in self.variables.values() if 'backbone' in collection]
        return sum(leaf.nbytes for leaf in jax.tree.leaves(parts))


def fit(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    directory: Path,
    tables: bool = True,
    keys: str = 'config.',
    label: str = '',
) -> Trained:
    """``run`` a new session for a config and a data set; the test split is not touched."""
    return run(Session(config, dataset, directory, keys=keys), tables=tables, label=label)


def has_begun(directory: Path) -> bool:
    """Whether there is a checkpoint from which ``run`` would continue."""
    return any(path.name.isdigit() for path in directory.glob(f'{_CHECKPOINTS}/*'))


def run(
    session: Session,
    profile: bool = False,
    interruption: Interruption | None = None,
    tables: bool = True,
    label: str = '',
) -> Trained:
    """Train to the end, starting from the newest intact checkpoint in the session's directory if there is one.

    Writes ``metrics.jsonl`` (one row per evaluation: training and validation metrics), ``parameters.json`` (which
    parameters train), ``description.json`` (what whoever uses the weights needs), ``events.jsonl`` (what happened to
    the run) and ``checkpoints/``.

    Args:
        session: config, data and devices.
        profile: whether to trace a few steps into ``profile/``.
        interruption: the command's, already entered; if ``None``, a new one handles SIGTERM.
        tables: whether to print the tables of what trains (they are always saved).
        label: which of several trainings this is, for all that is printed of it.

    Raises:
        UserError: a config value does not fit, too many examples are unreadable, a checkpoint cannot be written, or
            none is intact. Whatever was saved before stays valid.
        Diverged: the loss or a gradient is non-finite, unless the config skips such steps.
        Preempted: the process was asked to stop; its state is saved.
    """
    config, directory = session.config, session.directory

    def abstract(metadata: dict) -> TrainState:
        return session.programs.abstract_state(metadata['phase'])

    with contextlib.ExitStack() as contexts:
        interruption = interruption or contexts.enter_context(Interruption())
        contexts.enter_context(interruption.deferred())
        kept = None
        if session.is_main_process:
            kept = describe(config, session.dataset, session.programs.model, session.programs.task)
        checkpoints = contexts.enter_context(
            Checkpoints(directory / _CHECKPOINTS, config.keep_checkpoints, session.keeps_best, kept)
        )
        progress = Progress()
        contexts.enter_context(
            atomic_files.os_errors_as_user_errors(
                lambda: (
                    f'the run had finished step {progress.step:,}, {_last_good(checkpoints)}, and the same command '
                    'continues'
                )
            )
        )
        if kept is not None:
            atomic_files.write_json(directory / description.FILE, kept.as_json())
        restored = checkpoints.restore_latest(abstract)
        progress = Progress.from_metadata(restored.metadata) if restored else Progress()
        monitor = contexts.enter_context(
            Monitor(directory, config, progress.step, session.is_main_process, progress.evaluation_due, label)
        )
        if restored:
            state = restored.state
            for warning in restored.warnings:
                monitor.event('damaged checkpoint', warning)
            monitor.event('resumed', f'resumed after step {progress.step:,}', step=progress.step)
        else:
            if session.is_main_process:
                introduction.save(session)
                if tables:
                    introduction.show(session)
            state = session.initial_state()
        # Every regime but lpft has a single phase.
        while True:
            if not progress.over:
                state = _Phase(session, progress, checkpoints, monitor, interruption).run(state, profile)
            if session.is_last(progress.phase):
                break
            progress = progress.next_phase()
            state, told = session.next_phase_state(state, progress.phase)
            monitor.event('phase', f'phase {session.phase_names[progress.phase]} begins; {told}', step=progress.step)
        if session.keeps_best:
            checkpoints.wait()
            best = checkpoints.restore_best(abstract)
            if best is not None:
                state = best.state
                monitor.event('best', f'the best epoch ended at step {best.step:,}', step=best.step)
        elif tables and progress.best_score - progress.last_score > _NOTABLE:
            monitor.say(
                f'the result is the last epoch, with a validation score of {progress.last_score:.4f}; the best had '
                f'{progress.best_score:.4f}, and --config.keep_best=True keeps that one'
            )
    return Trained(
        model=session.programs.model,
        variables=session.host_variables(state),
        task=session.programs.task,
        steps=progress.step,
        examples=len(session.indices),
        trainable=sum(leaf.size for leaf in jax.tree.leaves(state.trainable)),
        validation_score=progress.best_score if session.keeps_best else progress.last_score,
        images_per_second=monitor.meter.steps_per_second * session.batch_size,
        skipped=tuple(progress.skipped),
        unreadable=tuple(progress.bad),
        evaluate=functools.partial(session.evaluate, state.variables()),
    )


def _last_good(checkpoints: Checkpoints) -> str:
    saved = checkpoints.steps()
    return f'the last good checkpoint is step {saved[-1]:,}' if saved else 'there is no checkpoint yet'


class _Phase:
    """The steps of one phase; it keeps ``progress`` up to date.

    The devices run one step ahead: the metrics of a step are read while the next one is computed.
    """

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
        config = session.config
        self._end = progress.phase_start + session.phase_steps(progress.phase)
        self._learning_rate = session.learning_rate(progress.phase, progress.phase_start)
        self._evaluation_steps = config.evaluate_epochs * session.steps_per_epoch
        self._checkpoint_steps = max(1, round(config.checkpoint_epochs * session.steps_per_epoch))
        self._pending: collections.deque[tuple[int, dict, tuple[str, ...]]] = collections.deque()
        self._name = session.phase_names[progress.phase]
        self._is_last = session.is_last(progress.phase)
        self._bar = monitor.bar(monitor.label or f'{config.backbone} {self._name}', self._end, progress.step)

    def run(self, state: TrainState, profile: bool) -> TrainState:
        """Take the remaining steps.

        Raises:
            UserError: see ``loop.run``.
            Preempted: the process was asked to stop; the state is saved.
        """
        if self._progress.evaluation_due:
            self._pause(state, stops=False, saves=True)
        if not self._progress.over:
            state = self._take_steps(state, profile)
        self._monitor.done(self._bar)
        return state

    def _take_steps(self, state: TrainState, profile: bool) -> TrainState:
        session, progress = self._session, self._progress
        self._monitor.advance(self._bar, note='compiling')
        train_step = session.train_step(progress.phase)
        first = progress.step
        reading = session.batches(first, self._end)
        with contextlib.closing(reading), Profile(session.directory if profile else None, first) as tracing:
            for host in reading:
                step = host.step + 1
                tracing.before(step)
                state, metrics = train_step(state, session.device_put(host), self._learning_rate(host.step))
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
        """Evaluate if it is due, save if there is a reason to, and stop if asked to.

        Raises:
            Preempted: the process was asked to stop; the state is saved.
        """
        session, progress, monitor = self._session, self._progress, self._monitor
        evaluated = progress.evaluation_due and not stops and self._evaluate(state)
        stops = stops or progress.evaluation_due
        best_yet = evaluated and session.keeps_best and self._is_last and progress.stale == 0
        if saves or stops or best_yet or progress.over:
            # A run that resumes from here does not recompute earlier rows.
            monitor.flush()
            score = progress.last_score if evaluated and self._is_last else None
            self._checkpoints.save(progress.step, state, dataclasses.asdict(progress), score)
            monitor.meter.pause()
        if stops and not (progress.over and self._is_last):
            self._checkpoints.wait()
            stopped = self._interruption.preempted(progress.step, monitor.label)
            monitor.note('preempted', str(stopped), step=progress.step)  # printed when the process ends
            raise stopped

    def _settle(self) -> None:
        """Read the metrics of the oldest pending step, waiting until the devices have finished it."""
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
        shown = [f'{name} {values[name]:.3f}' for name in ('loss', session.programs.task.primary) if name in values]
        shown += self._speed()
        monitor.advance(self._bar, completed=step, note=', '.join(shown))

    def _not_finite(self, step: int, values: dict[str, float], ids: tuple[str, ...]) -> None:
        """Report a step that left the state unchanged, and stop unless the config skips such steps."""
        session, progress = self._session, self._progress
        what = f'step {step:,}: loss {values["loss"]}, gradient norm {values["gradient_norm"]}'
        shown = listed(ids, 8)
        self._monitor.event('not finite', f'{what}; the batch was {shown}', step=step, ids=list(ids), **{
            name: str(value) for name, value in values.items()
        })  # fmt: skip
        if session.config.non_finite == 'skip':
            progress.skipped.append(step)
            return
        self._checkpoints.wait()  # a save may still be running
        raise Diverged(
            f'non-finite loss or gradient at {what}; the batch was {shown} (all in {EVENTS}); '
            f'{_last_good(self._checkpoints)}. Lower --config.learning_rate, set --config.clip_norm, or skip such '
            'steps with --config.non_finite=skip'
        )

    def _note_bad(self, host: pipeline.HostBatch) -> None:
        progress = self._progress
        for example, reason in host.bad:
            if example not in progress.bad:
                progress.bad.append(example)
                self._monitor.event('unreadable', f'left out: {example} cannot be read ({reason})', example=example)

    def _evaluate(self, state: TrainState) -> bool:
        """Evaluate on the validation split, write the row, and decide whether the phase is over.

        Returns:
            Whether the evaluation finished; if not, it was given up because the process was asked to stop.
        """
        session, progress, config = self._session, self._progress, self._session.config
        try:
            evaluation = session.evaluate(state.variables(), 'validation', self._monitor, self._interruption.asked)
        except GivenUp:
            return False
        progress.evaluation_due = False
        means = progress.evaluated(evaluation.score)
        row: dict[str, float | str] = {
            'epoch': progress.step / session.steps_per_epoch,
            'phase': self._name,
            **means,
            'learning_rate': float(self._learning_rate(progress.step - 1)),
            **{f'validation_{name}': value for name, value in evaluation.metrics.items()},
        }
        self._monitor.row(progress.step, row, now=True)
        self._tell(row, evaluation.metrics)
        patience = config.early_stopping_epochs
        patience_exhausted = 0 < patience <= progress.stale * config.evaluate_epochs
        progress.over = patience_exhausted or progress.step == self._end
        if patience_exhausted and progress.step < self._end:
            text = (
                f'no validation {evaluation.primary} above {progress.best_score:.4f} for {patience} epochs: '
                'the phase ends'
            )
            self._monitor.event('early stopping', text, step=progress.step)
        return True

    def _speed(self) -> list[str]:
        """Such as ``['1,200 images/s']``; empty as long as it is not known."""
        speed = self._monitor.meter.steps_per_second * self._session.batch_size
        return [f'{speed:,.0f} {texts.inputs_of(self._session.dataset)}/s'] if speed else []

    def _tell(self, row: Mapping[str, float | str], validation: Mapping[str, float]) -> None:
        """Print the line of an evaluation."""
        session, progress, primary = self._session, self._progress, self._session.programs.task.primary
        epochs = self._end / session.steps_per_epoch
        phase = f'{self._name}, ' if len(session.phase_names) > 1 else ''
        parts = [f'{phase}epoch {row["epoch"]:.4g} of {epochs:.4g} (step {progress.step:,} of {self._end:,})']
        if 'loss' in row:
            parts.append(f'loss {row["loss"]:.4f}')
        score = validation[primary]
        best = f' (best {progress.best_score:.4f})' if score < progress.best_score else ''
        # Not those of single classes, which have a slash in their name, nor those that have no value here.
        shown = {name: value for name, value in validation.items() if '/' not in name and value is not None}
        others = [f'{name} {value:.4f}' for name, value in shown.items() if name != primary]
        parts += [f'validation {primary} {score:.4f}{best}', *(f'validation {each}' for each in others)]
        parts += [f'learning rate {row["learning_rate"]:.2g}', *self._speed()]
        self._monitor.say(', '.join(parts))
