"""First and second start of each command: with an empty cache of compiled programs, and with what the first one kept.

    python benchmarks/startup.py [ablate train predict demo …] [--repetitions 3]

Prints one row per command, in seconds of wall time from start to end: ``--help``; the first start, in fresh cache and
work directories; and the second, in a fresh work directory, with the programs that the first one has compiled. Each
number is the median over the repetitions; the share is the median of those of the pairs. The features of the ablation
are stored before, by a run that is not measured, so that its starts differ in programs alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
_ONLY = '*digits*'
# The words of each command; NEW is a fresh directory, KEPT one that all starts share.
COMMANDS: Mapping[str, Sequence[str]] = {
    'ablate': (
        *('--config', 'configs/ablations/quickstart.py', f'--only={_ONLY}', '--config.seeds=(0,)'),
        *('--workdir', 'NEW/run', '--cache_dir', 'KEPT/features'),
    ),
    'train': (
        *('--config', 'configs/transfer.py:backbone=resnet_micro,dataset=digits,regime=finetune', '--dry_run'),
        *('--workdir', 'NEW/run'),
    ),
    'predict': ('--model', 'bundled:shapes_detector', 'KEPT/image.png'),
    'demo': ('--save', 'NEW/demo.png'),
}


def seconds(command: str, words: Sequence[str], cache: Path, new: Path, kept: Path) -> float:
    """The wall time of one start.

    Raises:
        RuntimeError: it fails; with what it printed.
    """
    words = [word.replace('NEW', str(new)).replace('KEPT', str(kept)) for word in words]
    environment = {name: value for name, value in os.environ.items() if name != 'JAX_COMPILATION_CACHE_DIR'}
    begin = time.monotonic()
    run = subprocess.run(
        [sys.executable, '-m', f'experiments.{command}', *words],
        cwd=ROOT, env={**environment, 'VISION_BACKBONES_CACHE': str(cache)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(f'experiments.{command} {" ".join(words)} ended with {run.returncode}: {run.stderr}')
    return time.monotonic() - begin


def measure(command: str, kept: Path) -> tuple[float, float, float]:
    """Seconds of help, of a first start and of a second."""
    with tempfile.TemporaryDirectory() as directory:
        places = [Path(directory, name) for name in ('cache', 'first', 'second')]
        for place in places:
            place.mkdir()
        cache, first, second = places
        return (
            seconds(command, ['--help'], cache, first, kept),
            *(seconds(command, COMMANDS[command], cache, new, kept) for new in (first, second)),
        )


def main() -> None:
    """Print each pair as it is measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('commands', nargs='*', metavar='COMMAND', help=f'of {", ".join(COMMANDS)} (all)')
    parser.add_argument('--repetitions', type=int, default=3, help='pairs of starts of each command (3)')
    arguments = parser.parse_args()
    if unknown := [each for each in arguments.commands if each not in COMMANDS]:
        parser.error(f'unknown command {unknown[0]!r}; expected some of {", ".join(COMMANDS)}')
    if arguments.repetitions < 1:
        parser.error(f'--repetitions must be positive, not {arguments.repetitions}')
    table = Table(title=f'seconds to the end of a command, medians of {arguments.repetitions}', title_justify='left')
    for column in ('command', 'help', 'first start', 'second start', 'second / first'):
        table.add_column(column, justify='left' if column == 'command' else 'right')
    with tempfile.TemporaryDirectory() as directory:
        kept = Path(directory)
        Image.new('RGB', (128, 128), 'white').save(kept / 'image.png')
        for command in arguments.commands or COMMANDS:
            if command == 'ablate':
                measure(command, kept)
            measured = []
            for _ in range(arguments.repetitions):
                measured.append(measure(command, kept))
                print(f'{command}: help {measured[-1][0]:.1f} s, {measured[-1][1]:.1f} s, {measured[-1][2]:.1f} s')
            medians = [statistics.median(each) for each in zip(*measured, strict=True)]
            share = statistics.median(second / first for _, first, second in measured)
            table.add_row(command, *(f'{each:.1f}' for each in medians), f'{share:.2f}')
    Console(width=100).print(table)


if __name__ == '__main__':
    main()
