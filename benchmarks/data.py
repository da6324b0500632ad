"""A folder of JPEG images → batches of 224 pixels: our pipeline against torchvision's ImageFolder and DataLoader.

    python -m benchmarks.data [--peers .venv-peers/bin/python] [--images 600] [--workers 2] [--repetitions 5]

Both decode every image with Pillow, scale its shorter side to 224 pixels (bicubic), crop the centre, and give batches
of 32 images of 8 bits per channel; ours with as many threads as theirs has worker processes, which live as long as the
benchmark. The images are drawn here: 500x375 pixels, of about 100 kB. One pass of either after the other.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.peers.client import Peer
from experiments.cli import command_line
from experiments.data import decoding, loading, pipeline
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions

SIZE, BATCH = 224, 32
_CLASSES = 4


def draw(directory: Path, count: int) -> None:
    """Images with structure at every scale, as photographs have it."""
    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = np.zeros((375, 500, 3))
        for side in (4, 16, 64, 250):
            coarse = generator.integers(0, 256, (side, side, 3), np.uint8)
            pixels += np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        target = directory / f'class{index % _CLASSES}' / f'{index:05d}.jpg'
        target.parent.mkdir(exist_ok=True)
        Image.fromarray((pixels / 4).astype(np.uint8)).save(target, quality=95)


def one_pass(dataset: Dataset, workers: int) -> float:
    """Seconds of reading every image once."""
    begin, indices = time.perf_counter(), np.arange(len(dataset.targets))
    with contextlib.closing(pipeline.evaluation_batches(dataset, indices, BATCH, threads=workers)) as batches:
        seen = sum(int(batch.arrays['weight'].sum()) for batch in batches)
    assert seen == len(indices)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', type=Path, metavar='PYTHON', help='of an environment with peers/requirements.txt')
    parser.add_argument('--images', type=int, default=600, help='how many (600)')
    parser.add_argument('--workers', type=int, default=2, help='threads, or processes of the DataLoader (2)')
    parser.add_argument('--repetitions', type=int, default=5, help='passes of each (5)')
    arguments = parser.parse_args()
    # Else they would be decoded once and kept.
    decoding.MEMORY_LIMIT = 0
    with tempfile.TemporaryDirectory() as temporary:
        draw(Path(temporary), arguments.images)
        sizes = [file.stat().st_size for file in Path(temporary).rglob('*.jpg')]
        print(f'{len(sizes)} images of {sum(sizes) / len(sizes) / 1000:.0f} kB')
        dataset = loading.load(f'folder:{temporary}', options=ReadingOptions(stored_size=SIZE))
        settings = {'folder': temporary, 'size': SIZE, 'batch': BATCH, 'workers': arguments.workers}
        peer = Peer(arguments.peers, 'image_folder.py', settings) if arguments.peers else None
        rounds = []
        for number in range(arguments.repetitions + 1):
            seconds = [one_pass(dataset, arguments.workers)]
            if peer is not None:
                seconds.append(peer.ask({}))
            if number:  # the first warms up
                rounds.append(seconds)
        ours = statistics.median(each[0] for each in rounds)
        table = Table(title=f'images/s with {arguments.workers} workers', title_justify='left')
        row = [f'{arguments.images / ours:.0f}']
        table.add_column('ours', justify='right')
        if peer is not None:
            table.add_column('DataLoader', justify='right')
            table.add_column('ours / DataLoader', justify='right')
            row.append(f'{arguments.images / statistics.median(each[1] for each in rounds):.0f}')
            row.append(f'{statistics.median(theirs / own for own, theirs in rounds):.2f}')
        table.add_row(*row)
        Console(width=140).print(table)


if __name__ == '__main__':
    command_line.run(lambda _: main())
