"""One step of fine-tuning (forward, backward, AdamW) against torch eager on channels_last.

    python -m benchmarks.train_step [NAME=BATCH …] [--peers .venv-peers/bin/python] [--repetitions 5]

One step of either after the other; medians of images/s and of the ratios. Memory: of ours, what the compiled step
takes while it runs (arguments, results, everything temporary); of torch, how much the largest resident size of its
process grew from before the network was made to after the last step. Float32, 224 px, random weights and images.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers.client import Peer
from experiments.cli import command_line
from experiments.planning import ahead_of_time
from experiments.planning.program_costs import memory_of
from experiments.training import config as configuration
from experiments.training import mesh

STEPS = ('resnet50=8', 'vit_small_patch16=8', 'convnext_tiny=8', 'efficientnet_lite0=32')
CLASSES, SIZE = 10, 224


def our_step(name: str, batch: int) -> tuple[Callable[[], None], int]:
    """A step that trains everything, compiled, and its bytes."""
    config = configuration.default_config()
    config.backbone, config.regime = name, 'scratch'  # as finetune, from random weights
    config.batch_size, config.image_size = batch, SIZE
    programs = ahead_of_time.planned(config, CLASSES, (SIZE, SIZE, 3), batch, mesh.make())
    step = programs.compiled_train_step(0)
    variables = programs.init(jax.random.key(0))
    state = jax.device_put(programs.state(0, variables, jax.random.key(1)))
    generator = np.random.default_rng(0)
    arrays = {
        each: np.ones(leaf.shape, leaf.dtype)
        if each == 'weight'
        else generator.integers(0, CLASSES if each == 'target' else 256, leaf.shape).astype(leaf.dtype)
        for each, leaf in programs.abstract_batch().items()
    }
    data = jax.device_put(arrays)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, data, np.float32(1e-4))
        jax.block_until_ready(metrics)

    memory = memory_of(step)
    assert memory is not None
    return run, memory.peak


def main() -> None:
    """Print each row as it is measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('steps', nargs='*', metavar='NAME=BATCH', help=f'networks and images per step ({STEPS})')
    parser.add_argument('--peers', type=Path, metavar='PYTHON', help='of an environment with peers/requirements.txt')
    parser.add_argument('--repetitions', type=int, default=5, help='steps of each (5)')
    arguments = parser.parse_args()
    columns = ('backbone', 'batch', 'ours', 'torch', 'ours / torch', 'our GiB', "torch's GiB", 'ours / torch')
    table = Table(title=f'images/s of a fine-tuning step at {SIZE} px', title_justify='left')
    for column in columns:
        table.add_column(column, justify='left' if column == 'backbone' else 'right')
    for each in arguments.steps or STEPS:
        name, batch = each.split('=')
        run, memory = our_step(name, int(batch))
        settings = {'model': name, 'batch': int(batch), 'size': SIZE, 'classes': CLASSES}
        peer = Peer(arguments.peers, 'train_step.py', settings) if arguments.peers else None
        rounds, resident = [], 0
        for number in range(arguments.repetitions + 1):
            begin = time.perf_counter()
            run()
            seconds = [time.perf_counter() - begin]
            if peer is not None:
                theirs, resident = peer.ask({})
                seconds.append(theirs)
            if number:  # the first warms up
                rounds.append(seconds)
        row = [name, batch, f'{int(batch) / statistics.median(own for own, *_ in rounds):.1f}', '–', '–']
        row += [f'{memory / 2**30:.2f}', '–', '–']
        if peer is not None:
            row[3] = f'{int(batch) / statistics.median(theirs for _, theirs in rounds):.1f}'
            row[4] = f'{statistics.median(theirs / own for own, theirs in rounds):.2f}'
            row[6], row[7] = f'{resident / 2**30:.2f}', f'{memory / resident:.2f}'
        print(*(f'{column} {value}' for column, value in zip(columns, row, strict=True)), sep='  ', flush=True)
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == '__main__':
    command_line.run(lambda _: main())
