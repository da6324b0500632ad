"""The memory of a frozen pass does not grow with the data set: the largest resident size over 5,000 and 100,000 images.

    python -m benchmarks.memory [--backbone resnet_micro] [--images 5000 100000]

The images are made when they are read. Each pass runs in a process of its own, into an empty feature store on disk.
"""

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.table import Table

SIDE, CLASSES = 32, 10


def make(index: int) -> UInt8[np.ndarray, 'side side 3']:
    """An image that only its number decides."""
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def largest(backbone: str, images: int) -> int:
    """Bytes that a process takes at most, from its start to the end of the pass."""
    from experiments.ablation import cells
    from experiments.data.dataset import Dataset
    from experiments.data.decoding import DecodedImages
    from experiments.features.extractor import Extractor
    from experiments.features.frozen_backbone import FrozenBackbone
    from experiments.features.store import Store

    order = np.arange(images, dtype=np.int32)
    ids = tuple(f'{index:06d}' for index in order)
    splits = {'train': order[: images // 2], 'validation': order[images // 2 :: 2], 'test': order[images // 2 + 1 :: 2]}
    pictures = DecodedImages(make, (images, SIDE, SIDE, 3), f'{images} images of random pixels')
    dataset = Dataset(
        'random', pictures, order % CLASSES, ids, splits, tuple(map(str, range(CLASSES))), 'random pixels'
    )
    with tempfile.TemporaryDirectory() as temporary:
        extractor = Extractor(cells.default_config(), Store(Path(temporary)), Path(temporary))
        extractor.stored(FrozenBackbone(backbone, f'bundled:{backbone}'), dataset)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbone', default='resnet_micro', help='one with bundled weights (resnet_micro)')
    parser.add_argument('--images', type=int, nargs='+', default=[5_000, 100_000], help='of each pass (5000 100000)')
    arguments = parser.parse_args()
    table = Table(title=f'a pass of {arguments.backbone}', title_justify='left')
    for column in ('images', 'MiB', 'ratio'):
        table.add_column(column, justify='right')
    first = None
    for images in arguments.images:
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            found = pool.apply(largest, (arguments.backbone, images))
        first = first or found
        table.add_row(f'{images:,}', f'{found / 2**20:,.0f}', f'{found / first:.2f}')
    Console(width=140).print(table)


if __name__ == '__main__':
    main()
