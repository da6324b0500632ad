"""Compile a train step for devices that are not attached: python -m experiments.plan --config FILE[:NAME=VALUE,…] --topology v5e:16x16

Prints what the step costs on each device (memory, arithmetic, communication) and whether it fits. It needs no TPU and
no weights, and with --classes and --stored_size no data.
"""  # noqa: E501

import math

from backbones.errors import UserError
from experiments.cli import command_line
from experiments.training.config_keys import KEYS


def main(argv: list[str] | None) -> None:
    """Compile every phase and print a table for each."""
    arguments = command_line.parser(__doc__, workdir=False, keys=KEYS)
    command_line.add_data_directory(arguments)
    arguments.add_argument(
        '--topology',
        default='local',
        help='such as v5e:16x16, cpu:N (emulated), or local: the attached devices (default)',
    )
    arguments.add_argument(
        '--classes', type=int, help='number of classes (default: that of the data set, which is then loaded)'
    )
    arguments.add_argument(
        '--stored_size', metavar='HxW[xC]', help='size of the stored images (default: as for --classes)'
    )
    arguments.add_argument('--phase', help='only this phase of a regime that has several')
    arguments.add_argument('--batch_per_device', type=int, help='overrides batch_size of the config')
    arguments.add_argument(
        '--find_batch', '--find-batch', action='store_true', help='search for the largest batch per device that fits'
    )
    arguments.add_argument('--memory_gib', type=float, help='memory of a device, if it is unknown or should be less')
    arguments.add_argument('--json', type=command_line.path, metavar='FILE', help='also write the numbers to this file')
    options, config = command_line.parse(arguments, argv)
    for name in ('classes', 'batch_per_device', 'memory_gib'):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f'--{name} must be positive, not {value}')
    if options.json and not options.json.parent.is_dir():
        # Before compiling, not after it.
        raise UserError(f'--json {options.json}: there is no directory {str(options.json.parent)!r}')
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import plan

    plan.run(options, config)


if __name__ == '__main__':
    command_line.run(main)
