"""Run an ablation: python -m experiments.ablate --config FILE[:NAME=VALUE,…] --workdir DIR

Plans the cells that the config's axes span, runs those that are not finished in the work directory, and writes the
table of all finished cells. Any key may be given several values, such as --config.image_size='(32, 64)', and is then an
axis too. A config may grow: adding a backbone, data set, regime, label fraction, seed or another value of an axis runs
only the new cells; a value that finished cells depend on cannot change.
A cell that fails is recorded with its error, and the others go on; the exit status is then 3, and the same command
tries the cell again. When asked to stop, it exits with status 75 (SIGTERM, or --max_hours) or 130 (Ctrl-C; a second one
ends at once), and the same command continues with the unfinished cells.
"""

import argparse
import math
import threading

from experiments.ablation.config_keys import KEYS
from experiments.cli import command_line
from experiments.features.store import DEFAULT_LIMIT


def main(argv: list[str] | None) -> None:
    """Plan, run, report."""
    arguments = command_line.parser(__doc__, keys=KEYS)
    command_line.add_data_directory(arguments)
    command_line.add_cache_directory(arguments, 'feature store shared by all runs')
    arguments.add_argument(
        '--cache_size',
        default=DEFAULT_LIMIT,
        metavar='SIZE',
        help='size limit of the store; the least recently used features are removed first (default: %(default)s)',
    )
    command_line.add_accept_changed_data(arguments)
    arguments.add_argument('--plan', action='store_true', help='print the plan with its estimated cost and stop')
    arguments.add_argument(
        '--only',
        action='append',
        default=[],
        metavar='PATTERN',
        help='run only cells whose label contains this, with *, ? and […] as in a shell (may be repeated; with --plan '
        'the labels are printed)',
    )
    arguments.add_argument(
        '--shard',
        metavar='I/N',
        help='run one of N parts (I from 1), for the jobs of an array; all have the same --workdir',
    )
    arguments.add_argument(
        '--max_hours',
        type=_hours,
        metavar='H',
        help='stop, with exit status 75, before what comes next would pass this many hours',
    )
    options, config = command_line.parse(arguments, argv)
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import ablate

    ablate.run(options, config)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f'{text!r} is no positive number of hours')
    if hours * 3600 > threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(
            f'{text!r} is more than the {threading.TIMEOUT_MAX / 3600:.0f} hours that a timer can wait; without '
            '--max_hours there is no limit'
        )
    return hours


if __name__ == '__main__':
    command_line.run(main, continues=True)
