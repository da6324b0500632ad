"""Detection from pixels to boxes: ours against torchvision's detector with the same weights.

    python -m benchmarks.detect [NAME …] --peers .venv-peers/bin/python [--images 8] [--repetitions 5]

Both get the same images of 640x480 pixels, in memory, and do everything from there: resize, the network, box decoding
and non-maximum suppression. The weights are random ones that torchvision writes and we import, with biases that let
every class score 0.1 to 0.9, so that there are boxes to suppress. One call of either after the other.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import backbones
from benchmarks.peers.client import Peer
from experiments.cli import command_line

NAMES = ('fasterrcnn_mobilenet_v3_large_320_fpn', 'fcos_resnet50_fpn')
SIZE = (480, 640)


def main() -> None:
    """Print each row as it is measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'published detectors ({", ".join(NAMES)})')
    parser.add_argument('--peers', type=Path, required=True, help='Python of an environment with the peers')
    parser.add_argument('--images', type=int, default=8, help='images per call (8)')
    parser.add_argument('--repetitions', type=int, default=5, help='calls of each (5)')
    arguments = parser.parse_args()
    columns = ('detector', 'ours', 'torchvision', 'ours / torchvision', 'boxes', "torchvision's boxes")
    table = Table(title=f'images/s, {SIZE[1]}x{SIZE[0]} pixels', title_justify='left')
    for column in columns:
        table.add_column(column, justify='left' if column == 'detector' else 'right')
    images = np.random.default_rng(0).integers(0, 256, (arguments.images, *SIZE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as temporary:
        np.save(Path(temporary) / 'images.npy', images)
        for name in arguments.names or NAMES:
            weights = Path(temporary) / f'{name}.pth'
            peer = Peer(arguments.peers, 'detect.py', {'model': name, 'directory': temporary})
            theirs = peer.ask({})[1]  # warms up, and has written the weights
            predict = backbones.load(str(weights), name, score_threshold=None, batch_size=arguments.images)
            ours = sum(len(each.scores) for each in predict(list(images)))
            rounds = []
            for _ in range(arguments.repetitions):
                begin = time.perf_counter()
                predict(list(images))
                rounds.append((time.perf_counter() - begin, peer.ask({})[0]))
            speeds = [len(images) / statistics.median(each) for each in zip(*rounds, strict=True)]
            ratio = statistics.median(other / own for own, other in rounds)
            row = [name, f'{speeds[0]:.2f}', f'{speeds[1]:.2f}', f'{ratio:.2f}', str(ours), str(theirs)]
            print(*(f'{column} {value}' for column, value in zip(columns, row, strict=True)), sep='  ', flush=True)
            table.add_row(*row)
    Console(width=140).print(table)


if __name__ == '__main__':
    command_line.run(lambda _: main())
