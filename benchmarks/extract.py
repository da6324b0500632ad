"""Frozen passes: ours in both runtimes, against torch, torch.compile and ONNX Runtime from torch's own export.

    make bench                                                       all benchmarks, with the peers' environment
    python -m benchmarks.extract [NAME …] [--peers .venv-peers/bin/python] [--batch 16] [--size 224]

One pass of every contestant after the other, as often as asked, so that whatever slows the machine slows all of them;
the median of each, and the median of the ratios of one round. ``ours`` is the better one of our runtimes, as
``runtime='auto'`` is meant to choose it; what it does choose is marked with a star. Float32, random weights.
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

import backbones
from benchmarks.peers.client import ForwardPasses
from experiments.cli import command_line
from experiments.features import runtimes
from experiments.features.network import make_network
from experiments.training import mesh

NAMES = (
    'resnet50', 'vgg16', 'googlenet', 'efficientnet_lite0', 'efficientnet_b0', 'mobilenet_v3_large', 'convnext_tiny',
    'cspdarknet53', 'vit_tiny_patch16', 'vit_small_patch16', 'vit_base_patch16', 'dinov2_small', 'swin_tiny', 'yolo26n',
)  # fmt: skip
OURS = (runtimes.XLA, runtimes.ONNX_RUNTIME)
PEERS = ('torch', 'torch.compile', 'onnxruntime')


def our_passes(name: str, batch: int, size: int) -> tuple[dict[str, Callable[[], object]], str]:
    """A pass in each runtime, compiled, and which of them ``'auto'`` chooses."""
    expected = backbones.preprocess(name).replace(size=(size, size))
    networks = {runtime: make_network(name, expected, 'float32', batch, mesh.make(), runtime) for runtime in OURS}
    chosen = make_network(name, expected, 'float32', batch, mesh.make(), runtimes.AUTO)
    generator = np.random.default_rng(0)
    shapes = networks[runtimes.XLA].shapes

    def value(leaf):
        if leaf.ndim < 2:
            return np.ones(leaf.shape, np.float32)  # variances and scales among them
        return generator.standard_normal(leaf.shape, np.float32) / np.sqrt(np.prod(leaf.shape[:-1], dtype=np.float32))

    variables = jax.device_put(jax.tree.map(value, shapes))
    images = jax.device_put(generator.standard_normal((batch, size, size, 3), np.float32))
    passes = {}
    for runtime, network in networks.items():
        program = network.frozen('pooled').program
        passes[runtime] = lambda program=program: jax.block_until_ready(program(variables, images))
        passes[runtime]()
    auto = runtimes.ONNX_RUNTIME if 'runtime' in chosen.document['computation'] else runtimes.XLA
    return passes, auto


def measure(name: str, peers: ForwardPasses, arguments: argparse.Namespace) -> tuple[list[str], str]:
    """One row of the table, and what was chosen."""
    passes, auto = our_passes(name, arguments.batch, arguments.size)
    theirs = peers.prepare(name, arguments.batch, arguments.size)
    rounds = []
    for number in range(arguments.repetitions + 1):
        seconds = {}
        for runtime, run in passes.items():
            begin = time.perf_counter()
            run()
            seconds[f'our {runtime}'] = time.perf_counter() - begin
        seconds |= {kind: peers.seconds(kind) for kind in theirs}
        if number:  # the first warms up
            rounds.append(seconds)
    speeds = {kind: arguments.batch / statistics.median(each[kind] for each in rounds) for kind in rounds[0]}
    row = [name]
    row += [f'{speeds[f"our {runtime}"]:.1f}{"*" if runtime == auto else ""}' for runtime in OURS]
    row += [f'{speeds[kind]:.1f}' if kind in speeds else '–' for kind in PEERS]

    def ratio(ours: str, others: tuple[str, ...]) -> str:
        if not others:
            return '–'
        return f'{statistics.median(min(each[other] for other in others) / each[ours] for each in rounds):.2f}'

    return [*row, ratio(f'our {auto}', theirs), ratio('our xla', theirs[:1])], auto


def main() -> None:
    """Print each row as it is measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help='backbones (those of the table in README.md)')
    parser.add_argument('--peers', type=Path, metavar='PYTHON', help='of an environment with peers/requirements.txt')
    parser.add_argument('--batch', type=int, default=16, help='images per pass (16)')
    parser.add_argument('--size', type=int, default=224, help='side of the images in pixels (224)')
    parser.add_argument('--repetitions', type=int, default=7, help='passes of each (7)')
    arguments = parser.parse_args()
    for name in arguments.names:
        backbones.info(name)
    peers = ForwardPasses(arguments.peers)
    columns = ('backbone', *(f'our {runtime}' for runtime in OURS), *PEERS, 'ours / best', 'our xla / torch')
    table = Table(title=f'images/s at {arguments.size} px, batches of {arguments.batch}', title_justify='left')
    for column in columns:
        table.add_column(column, justify='left' if column == 'backbone' else 'right')
    for name in arguments.names or NAMES:
        row, _ = measure(name, peers, arguments)
        print(*(f'{column} {value}' for column, value in zip(columns, row, strict=True)), sep='  ', flush=True)
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == '__main__':
    command_line.run(lambda _: main())
