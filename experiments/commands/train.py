"""The work of ``experiments.train``: one model, from its config to its results."""

import argparse
import contextlib
import functools
from pathlib import Path

import jax
import ml_collections

import backbones
from backbones import cost
from backbones.errors import UserError
from experiments import tasks
from experiments.cli import atomic_files, display, work_directories
from experiments.cli.versions import versions
from experiments.data import account, loading, model_input, record, texts
from experiments.data.dataset import Dataset
from experiments.data.model_input import Reader
from experiments.data.options import ReadingOptions
from experiments.planning import program_costs
from experiments.results import rows, scores
from experiments.results.axes import RANDOM, Cell, Variant
from experiments.results.rows import Row
from experiments.training import distributed, introduction, loop, own_keys
from experiments.training.config import FREE_KEYS, default_config
from experiments.training.evaluation import Evaluation
from experiments.training.preemption import Interruption
from experiments.training.run_description import describe
from experiments.training.session import Session, check_without_data, load_pretrained

_FINISHED = 'the training is finished and saved, and the same command writes the results'


def run(options: argparse.Namespace, config: ml_collections.ConfigDict) -> None:
    """Train, evaluate once on the test split, and write weights and results."""
    distributed.join(options.distributed, options.coordinator_address, options.num_processes, options.process_id)
    if options.dry_run:
        _check_config(config)
        dataset, inputs = _dataset(config, options.data_dir)
        session = Session(config, dataset, options.workdir)
        account.show(dataset, inputs)
        metrics = dry_run(session)
        shown = ', '.join(f'{name} {value:.4g}' for name, value in metrics.items())
        if not metrics['finite']:
            raise UserError(f'the loss or the gradient of the first step is not finite ({shown}); nothing was written')
        display.console.print(f'dry run: {shown}; nothing was written')
        return
    with Interruption() as interruption:
        _train(config, options, interruption)


def dry_run(session: Session) -> dict[str, float]:
    """Build everything, take one step on one batch and print its costs; nothing is written.

    Returns:
        The metrics of the step.
    """
    introduction.show(session)
    with contextlib.closing(session.batches(0, 1)) as reading:
        batch = session.device_put(next(reading))
    state, rate = session.initial_state(), session.learning_rate(0, 0)(0)
    program = session.train_step(0)
    display.console.print(program_costs.table(program_costs.analyse(program)))
    _, metrics = program(state, batch, rate)
    return {name: float(value) for name, value in metrics.items()}


def _train(config: ml_collections.ConfigDict, options: argparse.Namespace, interruption: Interruption) -> None:
    is_main_process = jax.process_index() == 0
    workdir = options.workdir
    loading.check_place(workdir, config.dataset)
    work_directories.check(workdir, config.to_dict(), FREE_KEYS, default_config().to_dict())
    begins = not loop.has_begun(workdir)
    pretrained = _check_without_data(config, workdir) if begins else None
    dataset, inputs = _dataset(config, options.data_dir)
    changes = [] if work_directories.is_unused(workdir) else _check_data(workdir, dataset, options.accept_changed_data)
    session = Session(config, dataset, workdir, pretrained=pretrained)
    del pretrained  # the session lets go of them once they are on the devices
    if is_main_process:
        account.show(dataset, inputs)
    if begins:
        _check_with_data(session)
    # Only once everything fits: a mistake must not claim a directory.
    with work_directories.used(work_directories.make(workdir)) if is_main_process else contextlib.nullcontext():
        if is_main_process:
            work_directories.claim(workdir, config.to_dict(), FREE_KEYS, default_config().to_dict())
            with atomic_files.os_errors_as_user_errors(
                lambda: 'nothing was computed yet, and the same command continues'
            ):
                record.write(workdir, dataset, changes=changes)
        run = loop.run(session, options.profile, interruption)
        validation, test = run.evaluate('validation'), run.evaluate('test')
        if not is_main_process:
            return
        with atomic_files.os_errors_as_user_errors(lambda: _FINISHED):
            _write(config, dataset, workdir, run, validation, test)
    display.console.print(f'test {test.primary} {test.score:.4f}; weights in {workdir / "weights.safetensors"}')


def _dataset(config: ml_collections.ConfigDict, data_directory: Path | None) -> tuple[Dataset, list[str]]:
    """The data set, and how it reaches the model's input, in words."""
    truth, inputs = tasks.find(config.task).truth, model_input.input_kind(config.backbone)
    dataset = loading.load(config.dataset, data_directory, ReadingOptions.of(config), truth, inputs=inputs)
    preprocessing = tasks.input_preprocessing(config.task, config.backbone, config.weights, config)
    return model_input.read_by(dataset, [Reader(config.backbone, preprocessing, trains=True)])


def _check_data(workdir: Path, dataset: Dataset, accepted: bool) -> list[str]:
    """Check that a run continues on the data that it was begun on; returns what differs, if that is accepted."""
    changes = record.check(workdir, dataset, accepted)
    if changes and jax.process_index() == 0:
        display.console.print(f'going on with changed data: {"; ".join(changes)}', style='yellow', markup=False)
    # Earlier versions kept no record, but a fingerprint in the result.
    known = {row.data['fingerprint'] for row in rows.read(workdir)} - {None}
    changed = known and not known & {dataset.fingerprint(), dataset.earlier_fingerprint()}
    if changed and not accepted and record.read(workdir, dataset.name) is None:
        raise UserError(
            f'the data of {dataset.name!r} have changed since {str(workdir)!r} was finished (fingerprint '
            f'{known.pop()} then, {dataset.fingerprint()} now); restore them, or choose another --workdir'
        )
    return changes


def _check_config(config: ml_collections.ConfigDict) -> None:
    with own_keys.named():
        check_without_data(config)
    if found := own_keys.unread(config, [config.regime]):
        raise UserError(found[0])


def _check_without_data(config: ml_collections.ConfigDict, workdir: Path) -> dict | None:
    """Check what can be checked before the data are read, which may take long; returns the weights to start from."""
    work_directories.check_writable(workdir)
    _check_config(config)
    return load_pretrained(config)


def _check_with_data(session: Session) -> None:
    """Check that every step of a new run can be computed, and that there is memory for it."""
    session.trace()
    with display.console.status('compiling'):
        for phase in range(len(session.phase_names)):
            session.train_step(phase)


def _cell(config: ml_collections.ConfigDict) -> Cell:
    """What an ablation would call this training."""
    variant = Variant(config.backbone, config.weights or RANDOM)
    head = tasks.head_name(tasks.find(config.task), config.head)
    return Cell(config.dataset, variant, config.regime, config.fraction, config.seed, head)


def _write(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    workdir: Path,
    run: loop.Trained,
    validation: Evaluation,
    test: Evaluation,
) -> None:
    description = describe(config, dataset, run.model, run.task)
    try:
        backbones.save_weights(workdir / 'weights.safetensors', run.variables, description=description)
    except UserError as error:
        raise UserError(f'{error}; {_FINISHED}') from error
    predictions = Path('predictions') / 'test.npz'
    task = tasks.find(config.task)
    tested, validated = (
        scores.Predicted(
            [dataset.ids[index] for index in each.indices], dataset.targets_of(each.indices), each.predictions
        )
        for each in (test, validation)
    )
    resampled = scores.resampled(task, tested.predictions, tested.targets)
    scores.write(workdir / predictions, *tested, resampled, validation=validated)
    metrics_of = functools.partial(rows.metrics, task, dataset.classes)
    parameters = run.variables['params']
    row = Row(
        cell=_cell(config),
        task=config.task,
        primary=test.primary,
        config=work_directories.as_read_back(config.to_dict()),
        validation={**validation.metrics, **metrics_of(validated), test.primary: run.validation_score},
        test={**test.metrics, **metrics_of(tested, validation=validated)},
        selected={},
        at_edge=(),
        choices=None,
        depends_on_seed=True,
        costs={
            'parameters': sum(leaf.size for leaf in jax.tree.leaves(parameters['backbone'])),
            'trainable_parameters': run.trainable,
            'flops_per_image': cost.count_flops(backbones.create(config.backbone), run.task.preprocessing.size),
            'flops_counted_in': 'traced program',
            # Those of inference, which only an ablation measures; training throughput is in ``result.json``.
            'images_per_second': None,
            'peak_memory_bytes': None,
            'weight_bytes': run.backbone_bytes,
            'input': list(run.task.preprocessing.size),
        },
        data={
            'provenance': dataset.provenance,
            'fingerprint': dataset.fingerprint(),
            'train_examples': run.examples,
            'validation_examples': len(dataset.splits['validation']),
            'test_examples': test.count,
            'skipped': len(dataset.skipped),
            'inputs': texts.inputs_of(dataset),
        },
        versions=versions(),
        predictions=predictions.as_posix(),
    )
    rows.write(workdir, [row])
    result = {
        'config': config.to_dict(),
        'data': {
            'fingerprint': dataset.fingerprint(),
            'classes': list(dataset.classes),
            **account.as_json(dataset),
        },
        'steps': run.steps,
        'images_per_second': run.images_per_second or None,  # too few steps to tell
        **{f'test_{name}': value for name, value in test.metrics.items()},
        'test_examples': test.count,
        'unreadable_examples': [*run.unreadable, *(example for example, _ in test.bad)],
        'skipped_steps': list(run.skipped),
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        'trainable_parameters': run.trainable,
    }
    atomic_files.write_json(workdir / rows.RESULT, result)
