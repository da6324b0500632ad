"""One training run: phases of steps, evaluations, checkpoints; interrupted anywhere, it continues bit by bit.

Everything that decides the next step is in the checkpoint: the state on the devices, and ``phase.Progress`` beside it.
The examples of a step, its random numbers and its learning rate are functions of the number of the step.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import ml_collections

from backbones.preprocessing import Preprocessing
from experiments.cli import atomic_files, display
from experiments.data.dataset import Dataset
from experiments.planning import program_costs
from experiments.training.checkpoints import Checkpoints
from experiments.training.evaluation import Evaluation
from experiments.training.monitor import Monitor
from experiments.training.phase import Phase, Progress
from experiments.training.preemption import Interruption
from experiments.training.session import Session
from experiments.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training leaves behind.

    Attributes:
        model: the classifier.
        variables: its parameters and statistics, whole, adapters merged, averaged if the config asks for it.
        preprocessing: what its input needs.
        steps: number of steps taken.
        examples: number of training examples.
        trainable: number of parameters that trained (in the last phase).
        validation_accuracy: of these variables.
        images_per_second: training throughput without the first step of this process.
        skipped: steps whose update was left out as it was not finite.
        unreadable: training examples that could not be read.
        evaluate: evaluates a split, on all processes; ask for the test split once.
    """

    model: nn.Module
    variables: dict
    preprocessing: Preprocessing
    steps: int
    examples: int
    trainable: int
    validation_accuracy: float
    images_per_second: float
    skipped: tuple[int, ...]
    unreadable: tuple[str, ...]
    evaluate: Callable[[str], Evaluation]


def fit(config: ml_collections.ConfigDict, dataset: Dataset, directory: Path, tables: bool = True) -> Trained:
    """``run`` a new session with a config and a data set, whose test split is not touched."""
    return run(Session(config, dataset, directory), tables=tables)


def run(
    session: Session, profile: bool = False, interruption: Interruption | None = None, tables: bool = True
) -> Trained:
    """Train a classifier to the end, from the newest intact checkpoint in its directory if there is one.

    Writes ``metrics.jsonl`` (a row per evaluation: training metrics, validation accuracy), ``parameters.json`` (what
    trains), ``events.jsonl`` (what happened to the run) and ``checkpoints/``.

    Args:
        session: config, data and devices.
        profile: whether a few steps are traced, to ``profile/``.
        interruption: the command's, entered; without one, SIGTERM is noticed by a new one.
        tables: whether the tables of what trains are shown (they are always saved).

    Raises:
        UserError: a value of the config that does not fit, a loss that is not finite (unless the config skips such
            steps), too many unreadable examples, a checkpoint that can't be written or none that is intact. What was
            saved before is good in each case.
        Preempted: the process was asked to stop; its state is saved.
    """
    config, setup, directory = session.config, session.setup, session.directory
    regime = setup.regime

    def abstract(metadata: dict) -> TrainState:
        return setup.abstract_state(metadata['phase'])

    with contextlib.ExitStack() as contexts:
        interruption = interruption or contexts.enter_context(Interruption())
        contexts.enter_context(interruption.deferred())
        checkpoints = contexts.enter_context(
            Checkpoints(directory / 'checkpoints', config.keep_checkpoints, session.keeps_best)
        )
        progress = Progress()

        def last_good() -> str:
            saved = checkpoints.steps()
            last = f'the last good checkpoint is step {saved[-1]:,}' if saved else 'there is no checkpoint yet'
            return f'the run had finished step {progress.step:,}, {last}'

        contexts.enter_context(atomic_files.os_errors_as_user_errors(last_good))
        restored = checkpoints.restore_latest(abstract)
        progress = Progress(**restored.metadata) if restored else Progress()
        monitor = contexts.enter_context(
            Monitor(directory, config, progress.step, session.is_main_process, progress.evaluation_due)
        )
        if restored:
            state = restored.state
            for warning in restored.warnings:
                monitor.event('damaged checkpoint', warning)
            monitor.event('resumed', f'resumed after step {progress.step:,}', step=progress.step)
        else:
            if session.is_main_process:
                session.save_freeze_tables()
                if tables:
                    session.introduce()
            state = setup.initial_state()
        while True:
            if not progress.over:
                state = Phase(session, progress, checkpoints, monitor, interruption).run(state, profile)
            if progress.phase == len(regime.phases) - 1:
                break
            progress = progress.next_phase()
            state, told = setup.next_state(state, progress.phase)
            monitor.event('phase', f'phase {session.phase_names[progress.phase]} begins; {told}', step=progress.step)
        if session.keeps_best:
            checkpoints.wait()
            best = checkpoints.restore_best(abstract)
            if best is not None:
                state = best.state
                monitor.event('best', f'the best epoch ended with step {best.step:,}', step=best.step)
    return Trained(
        setup.model,
        setup.plain_variables(state),
        setup.preprocessing,
        progress.step,
        len(session.indices),
        sum(leaf.size for leaf in jax.tree.leaves(state.trainable)),
        progress.best if session.keeps_best else progress.last_accuracy,
        monitor.meter.steps_per_second * setup.batch_size,
        tuple(progress.skipped),
        tuple(progress.bad),
        functools.partial(session.evaluate, state.variables()),
    )


def dry_run(session: Session) -> dict[str, float]:
    """Build everything, take one step on one batch, and say what that takes; nothing is written.

    Returns:
        The metrics of the step.
    """
    session.introduce()
    with contextlib.closing(session.batches(0, 1)) as reading:
        batch = session.place(next(reading))
    state = session.setup.initial_state()
    program = session.setup.train_step(0).lower(state, batch).compile()
    display.console.print(program_costs.table(program_costs.analyse(program)))
    _, metrics = program(state, batch)
    return {name: float(value) for name, value in metrics.items()}
