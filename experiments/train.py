"""Train one model: python -m experiments.train --config FILE[:NAME=VALUE,…] --workdir DIR

The same command continues a run that was interrupted. Asked to stop (SIGTERM), it saves its state and ends with exit
status 75.
"""

import argparse
from pathlib import Path

import jax
import ml_collections
import numpy as np

import backbones
from experiments.cli import atomic_files, command_line, display, work_directories
from experiments.data import loading
from experiments.data.dataset import Dataset
from experiments.training import distributed, loop
from experiments.training.config import FREE_KEYS
from experiments.training.evaluation import Evaluation
from experiments.training.preemption import Interruption
from experiments.training.session import Session

RESULT = 'result.json'


def main(argv: list[str] | None) -> None:
    """Train, evaluate once on the test split, and write weights and results."""
    arguments = command_line.parser(__doc__)
    command_line.add_data_directory(arguments)
    arguments.add_argument(
        '--dry_run', action='store_true', help='build everything, take one step, print the tables, write nothing'
    )
    arguments.add_argument('--profile', action='store_true', help='trace a few steps to DIR/profile')
    command_line.add_processes(arguments)
    options, config = command_line.parse(arguments, argv)
    distributed.join(options.distributed, options.coordinator_address, options.num_processes, options.process_id)
    if options.dry_run:
        dataset = loading.load(config.dataset, options.data_dir, config.stored_size, config.bad_files_limit, config.fit)
        metrics = loop.dry_run(Session(config, dataset, options.workdir))
        shown = ', '.join(f'{name} {value:.4g}' for name, value in metrics.items())
        display.console.print(f'dry run: {shown}; nothing was written')
        return
    with Interruption() as interruption:
        _train(config, options, interruption)


def _train(config: ml_collections.ConfigDict, options: argparse.Namespace, interruption: Interruption) -> None:
    is_main_process = jax.process_index() == 0
    workdir = options.workdir
    work_directories.check(workdir, config.to_dict(), FREE_KEYS)
    dataset = loading.load(config.dataset, options.data_dir, config.stored_size, config.bad_files_limit, config.fit)
    session = Session(config, dataset, workdir)
    if is_main_process:
        # Not before everything fits: a mistake must not claim a directory.
        work_directories.claim(workdir, config.to_dict(), FREE_KEYS)
    run = loop.run(session, options.profile, interruption)
    test = run.evaluate('test')
    if not is_main_process:
        return
    with atomic_files.os_errors_as_user_errors(
        lambda: 'the training is finished and saved, the same command writes the results'
    ):
        _write(config, dataset, workdir, run, test)
    display.console.print(f'test {test.primary} {test.score:.4f}; weights in {workdir / "weights.safetensors"}')


def _write(
    config: ml_collections.ConfigDict, dataset: Dataset, workdir: Path, run: loop.Trained, test: Evaluation
) -> None:
    backbones.save_weights(workdir / 'weights.safetensors', run.variables)
    with atomic_files.atomic_write(workdir / 'predictions' / 'test.npz', 'wb') as stream:
        np.savez_compressed(
            stream,
            example=np.array([dataset.ids[index] for index in test.indices]),
            label=dataset.targets[test.indices],
            prediction=test.predictions['logits'].argmax(-1).astype(np.int32),
        )
    result = {
        'config': config.to_dict(),
        'data': {'provenance': dataset.provenance, 'fingerprint': dataset.fingerprint()},
        'steps': run.steps,
        'images_per_second': run.images_per_second,
        **{f'test_{name}': value for name, value in test.metrics.items()},
        'test_examples': test.count,
        'unreadable_examples': [*run.unreadable, *(example for example, _ in test.bad)],
        'skipped_steps': list(run.skipped),
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(run.variables['params'])),
        'trainable_parameters': run.trainable,
    }
    atomic_files.write_json(workdir / RESULT, result)


if __name__ == '__main__':
    command_line.run(main)
