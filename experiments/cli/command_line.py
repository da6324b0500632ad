"""Shared by all commands: arguments, config and exit status.

Bad input ends in one line on standard error and exit status 2; whatever was computed before is already on disk.
"""

import argparse
import ast
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_collections

from backbones.errors import UserError, unknown
from experiments.cli import (
    allocator,
    cache_directory,
    compilation_cache,
    compiler_flags,
    config_help,
    interrupts,
    platforms,
)
from experiments.cli.axis_config import AxisConfig
from experiments.cli.config_files import load as load_config
from experiments.cli.config_help import Described
from experiments.cli.exit_status import INTERRUPTED, TERMINATED, CellsFailed, Preempted

__all__ = [
    'add_data_directory', 'add_processes', 'load_config', 'override', 'parse', 'parser', 'path', 'run',
]  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are; ``--help`` shows the usage, and the keys of the config.

    Attributes:
        keys: every key of a command's config; none for a command without one.
    """

    keys: Mapping[str, Described] = {}

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message} (see --help)\n')

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; if help is asked for, whatever else is missing, print it with the keys, and exit."""
        words = sys.argv[1:] if args is None else list(args)
        if self.keys and {'-h', '--help'} & {*words}:
            spec = config_help.spec(words)
            config, note = None, ''
            if spec:
                try:
                    config = load_config(spec, self.keys)
                except UserError as error:  # an argument of the file is missing, for one: help must not be refused
                    note = f'\n{spec}: {error}; these are the defaults:\n'
            print(f'{self.format_help()}{note}\n{config_help.listing(self.keys, spec if config else None, config)}')
            self.exit()
        return super().parse_known_args(args, namespace)


def path(text: str) -> Path:
    """A path as an argument: ``~`` stands for the home directory, also after ``=``, where a shell leaves it alone."""
    if not text:
        raise argparse.ArgumentTypeError('a path is empty')
    expanded = os.path.expanduser(text)  # noqa: PTH111 Path would take ./~ for ~
    if expanded.startswith('~'):
        raise argparse.ArgumentTypeError(f'there is no home directory {text.split("/")[0]!r}; say ./{text}')
    return Path(expanded)


def parser(
    description: str, config: bool = True, workdir: bool = True, keys: Mapping[str, Described] | None = None
) -> argparse.ArgumentParser:
    """A parser with the arguments that all commands take.

    Args:
        description: the command's docstring.
        config: whether it takes ``--config``.
        workdir: whether it takes ``--workdir``.
        keys: every key of its config, for ``--help`` and to check the config.
    """
    result = _Parser(
        description=config_help.wrapped(description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog=config_help.wrapped(
            'Any value of the config can be changed on the command line: --config.KEY=VALUE. A key that takes several '
            "values takes a tuple: --config.KEY='(1, 2)'."
        )
        if config
        else None,
    )
    result.keys = keys or {}
    if config:
        result.add_argument(
            '--config',
            required=True,
            metavar='FILE[:NAME=VALUE,…]',
            help='a config file, with arguments for its get_config() after a colon',
        )
    if workdir:
        result.add_argument('--workdir', required=True, type=path, help='directory for everything that this run writes')
    return result


def add_data_directory(arguments: argparse._ActionsContainer) -> None:
    """Add ``--data_dir``, for commands that read data sets."""
    arguments.add_argument(
        '--data_dir',
        type=path,
        help='directory of prepared TFDS data sets (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)',
    )


def add_cache_directory(arguments: argparse._ActionsContainer, purpose: str) -> None:
    """Add ``--cache_dir``, for commands that use the feature store; ``purpose`` says what it is to them."""
    arguments.add_argument(
        '--cache_dir',
        type=path,
        help=f'{purpose} (default: {cache_directory.VARIABLE}, or {cache_directory.features()})',
    )


def add_accept_changed_data(arguments: argparse.ArgumentParser) -> None:
    """Add ``--accept_changed_data``, for commands that continue what an earlier start began."""
    arguments.add_argument(
        '--accept_changed_data',
        action='store_true',
        help='go on although images were added, removed or replaced since the work directory was begun',
    )


def positive(text: str) -> int:
    """A positive whole number as an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no positive whole number')
    return int(text)


def add_processes(arguments: argparse.ArgumentParser) -> None:
    """``--distributed`` and its details, for commands that run on several machines."""
    group = arguments.add_argument_group('several processes')
    group.add_argument(
        '--distributed',
        action='store_true',
        help='run as one of several processes (detected on SLURM, Cloud TPU, GKE and Open MPI)',
    )
    group.add_argument('--coordinator_address', metavar='HOST:PORT', help='address of process 0, if it is not detected')
    group.add_argument('--num_processes', type=int, help='number of processes')
    group.add_argument('--process_id', type=int, help='number of this process, from 0')


def parse(
    arguments: argparse.ArgumentParser, argv: list[str] | None
) -> tuple[argparse.Namespace, ml_collections.ConfigDict]:
    """Parse the command line and load the config with its overrides.

    Raises:
        UserError: the config cannot be loaded, it or an override names an unknown key, or a value has the wrong type.
    """
    options, rest = arguments.parse_known_args(argv)
    overrides = []
    while rest:
        word = rest.pop(0)
        if not word.startswith('--config.'):
            arguments.error(f'unrecognized argument: {word}')
        key, equals, value = word.removeprefix('--config.').partition('=')
        if not equals:
            if not rest or rest[0].startswith('--'):
                arguments.error(f'{word} needs a value: {word}=VALUE')
            value = rest.pop(0)
        overrides.append((key, value))
    keys = getattr(arguments, 'keys', {})
    config = load_config(options.config, keys)
    _complete(config, options.config, keys)
    for key, value in overrides:
        override(config, key, value)
    return options, config


def _complete(config: ml_collections.ConfigDict, spec: str, known: Mapping[str, Described]) -> None:
    """Give the keys that a config file leaves out their defaults, and refuse those that nothing reads."""
    if not known:
        return
    present = _keys(config)
    strange = [key for key in present if key not in known]
    if strange:
        raise UserError(f'{unknown("config key", strange[0], known)} (it is set by {spec})')
    with config.unlocked():
        for key in known.keys() - set(present):
            *parents, last = key.split('.')
            node = config
            for parent in parents:
                if not isinstance(node.get(parent), ml_collections.ConfigDict):
                    node[parent] = ml_collections.ConfigDict()
                node = node[parent]
            node[last] = known[key].default


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Change one value of a config in place; its type stays the same.

    Raises:
        UserError: there is no such key, or the text does not fit the type of the value.
    """
    *parents, last = key.split('.')
    node = config
    for parent in parents:
        if not isinstance(node, ml_collections.ConfigDict) or parent not in node:
            raise unknown('config key', key, _keys(config))
        node = node[parent]
    if not isinstance(node, ml_collections.ConfigDict) or last not in node:
        raise unknown('config key', key, _keys(config))
    may_be_axis = isinstance(node, AxisConfig)
    present = node.single(last) if may_be_axis else node[last]
    if isinstance(present, ml_collections.ConfigDict):
        raise unknown('config key', key, [each for each in _keys(config) if each.startswith(f'{key}.')])
    value: object = text
    # A text may be anything; several are in parentheses.
    if not isinstance(present, str) or (may_be_axis and text.startswith(('(', '['))):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    if isinstance(present, tuple) and type(value) is int and {type(item) for item in present} == {int}:
        counted = last == 'seeds' and 1 < value < 10
        several = f", or --config.{key}='{tuple(range(value))}' for {value}" if counted else ''
        raise UserError(
            f'config key {key!r} takes a tuple, and {text} may be meant as a value or as a number of values: say '
            f"--config.{key}='({value},)' for the one value {value}{several}"
        )
    try:
        several = isinstance(value, tuple | list) and may_be_axis
        if isinstance(present, tuple):
            if several and value and all(isinstance(each, tuple | list) for each in value):
                value = tuple(_tuple_like(present, each, text) for each in value)
            else:
                value = _tuple_like(present, value, text)
        # ConfigDict itself would accept None for anything and True for a number.
        elif present is not None:
            for each in value if several else (value,):
                if each is None or any(isinstance(each, kind) != isinstance(present, kind) for kind in (bool, str)):
                    raise TypeError
        node[last] = value
    except TypeError:
        raise UserError(
            f'config key {key!r} takes a value of type {type(present).__name__} such as {present!r}, not {text!r}'
        ) from None


def _tuple_like(present: tuple, value: object, text: str) -> tuple:
    """Convert a value to a tuple whose items have the type of the present ones."""
    kinds = {type(item) for item in present}
    if isinstance(value, str):
        items = tuple(value.split(','))
    else:
        items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if kinds == {float}:
        items = tuple(float(item) if type(item) is int else item for item in items)
    elif kinds == {str} and not all(isinstance(item, str) for item in items):
        items = tuple(text.split(','))  # names that look like numbers
    if len(kinds) == 1 and {type(item) for item in items} - kinds:
        raise TypeError
    return items


def _keys(config: ml_collections.ConfigDict, prefix: str = '') -> list[str]:
    keys = []
    for name, value in config.items():
        keys += _keys(value, f'{prefix}{name}.') if isinstance(value, ml_collections.ConfigDict) else [prefix + name]
    return keys


def run(main: Callable[[list[str] | None], None], continues: bool = False) -> None:
    """Call a command's ``main`` and turn its outcome into an exit status.

    Args:
        main: of the command.
        continues: whether the same command continues where an earlier one was stopped. Such a command has its own
            answer to SIGTERM; others finish what they are writing, and end.
    """
    allocator.configure()
    compiler_flags.configure()
    compilation_cache.configure()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # as standard error: a path need not be UTF-8
    try:
        with interrupts.answered(continues), contextlib.nullcontext() if continues else _terminated():
            allocator.call_with_room(lambda: main(None))
    except CellsFailed as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(error.status)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except Preempted as stopped:
        _end(str(stopped), stopped.status, main)
    except (RuntimeError, AssertionError) as error:
        told = platforms.unusable(error)
        if told is None:
            raise
        print(f'error: {told}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        more = '; the same command continues from what is finished' if continues else ''
        _end(f'interrupted{more}', INTERRUPTED, main)
    except _Terminated:
        _end('asked to stop', TERMINATED, main)


class _Terminated(BaseException):
    """SIGTERM has arrived."""


@contextlib.contextmanager
def _terminated() -> Generator[None]:
    """A context in which SIGTERM is an exception, so that files are closed and temporary ones removed."""

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(text: str, status: int, main: Callable) -> NoReturn:
    if main.__module__ == '__main__':  # a program that only calls the command goes on
        interrupts.end_in_time(status)
    print(text, file=sys.stderr)
    sys.exit(status)
