"""Train one model: python -m experiments.train --config FILE[:NAME=VALUE,…] --workdir DIR

The same command resumes an interrupted run. When asked to stop, it saves its state and exits with status 75 (SIGTERM)
or 130 (Ctrl-C; a second one ends at once).
"""

from experiments.cli import command_line
from experiments.training.config_keys import KEYS


def main(argv: list[str] | None) -> None:
    """Train, evaluate once on the test split, and write weights and results."""
    arguments = command_line.parser(__doc__, keys=KEYS)
    command_line.add_data_directory(arguments)
    command_line.add_accept_changed_data(arguments)
    arguments.add_argument(
        '--dry_run', action='store_true', help='build everything, take one step, print the tables and write nothing'
    )
    arguments.add_argument('--profile', action='store_true', help='trace a few steps to DIR/profile')
    command_line.add_processes(arguments)
    options, config = command_line.parse(arguments, argv)
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import train

    train.run(options, config)


if __name__ == '__main__':
    command_line.run(main, continues=True)
