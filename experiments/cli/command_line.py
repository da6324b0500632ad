"""Shared by all commands: arguments, config and exit status.

Bad input ends in one line on standard error and exit status 2; whatever was computed before is already on disk.
"""

import argparse
import ast
import inspect
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import ml_collections

from backbones.errors import UserError, unknown
from experiments.cli import compiler_flags
from experiments.cli.exit_status import EXIT_STATUS, Preempted


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are; ``--help`` shows the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message} (see --help)\n')


def parser(description: str, config: bool = True, workdir: bool = True) -> argparse.ArgumentParser:
    """A parser with the arguments that all commands take."""
    result = _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog='Any value of the config can be changed on the command line: --config.seed=1 --config.epochs=3'
        if config
        else None,
    )
    if config:
        result.add_argument(
            '--config',
            required=True,
            metavar='FILE[:NAME=VALUE,…]',
            help='a config file, with arguments for its get_config() after a colon',
        )
    if workdir:
        result.add_argument('--workdir', required=True, type=Path, help='directory for everything that this run writes')
    return result


def add_data_directory(arguments: argparse.ArgumentParser) -> None:
    """Add ``--data_dir``, for commands that read data sets."""
    arguments.add_argument(
        '--data_dir',
        type=Path,
        help='directory of prepared TFDS data sets (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)',
    )


def add_accept_changed_data(arguments: argparse.ArgumentParser) -> None:
    """Add ``--accept_changed_data``, for commands that continue what an earlier start began."""
    arguments.add_argument(
        '--accept_changed_data',
        action='store_true',
        help='go on although images were added, removed or replaced since the work directory was begun',
    )


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
        UserError: the config cannot be loaded, or an override names an unknown key or has the wrong type.
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
    config = load_config(options.config)
    for key, value in overrides:
        override(config, key, value)
    return options, config


def load_config(spec: str) -> ml_collections.ConfigDict:
    """Call the ``get_config`` of a Python file with arguments: ``FILE`` or ``FILE:name=value,name=value``.

    A piece without ``=`` continues the value before it, so ``backbones=resnet50,vit_small_patch16`` is one argument.
    An argument that ``get_config`` annotates with ``int``, ``float`` or ``bool`` is converted.

    Raises:
        UserError: no such file, no ``get_config`` in it, or an argument that it does not take or that has another type.
    """
    file, _, text = spec.partition(':')
    path = Path(file)
    if not path.is_file():
        near = [str(each) for each in sorted(path.parent.glob('*.py'))] if path.parent.is_dir() else []
        raise unknown('config file', file, near) if near else UserError(f'there is no config file {file!r}')
    get_config = runpy.run_path(str(path)).get('get_config')
    if get_config is None:
        raise UserError(f'the config file {file!r} defines no get_config()')
    known = inspect.signature(get_config, eval_str=True).parameters
    arguments: dict[str, str] = {}
    name = None
    for piece in text.split(',') if text else []:
        before, equals, value = piece.partition('=')
        if equals:
            name = before
            if name not in known:
                raise unknown(f'argument of {file}', name, known)
            arguments[name] = value
        elif name is None:
            raise UserError(f'arguments of a config file have the form name=value, not {piece!r}')
        else:
            arguments[name] += f',{piece}'
    missing = [
        name for name, each in known.items() if each.default is inspect.Parameter.empty and name not in arguments
    ]
    if missing:
        raise UserError(f'{file} needs the argument {missing[0]!r}: --config {file}:{missing[0]}=…')
    return get_config(**{name: _typed(name, text, known[name].annotation) for name, text in arguments.items()})


def _typed(name: str, text: str, kind: type) -> object:
    """Convert an argument to its annotated type; without one it stays text."""
    try:
        if kind is bool:
            return {'true': True, 'false': False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (ValueError, KeyError):
        expected = 'true or false' if kind is bool else f'a value of type {kind.__name__}'
        raise UserError(f'the argument {name!r} of the config file takes {expected}, not {text!r}') from None


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
    present = node[last]
    if isinstance(present, ml_collections.ConfigDict):
        raise unknown('config key', key, [each for each in _keys(config) if each.startswith(f'{key}.')])
    value: object = text
    if not isinstance(present, str):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
    try:
        if isinstance(present, tuple):
            value = _tuple_like(present, value, text)
        # ConfigDict itself would accept None for anything and True for a number.
        if present is not None and (value is None or isinstance(value, bool) != isinstance(present, bool)):
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


def run(main: Callable[[list[str] | None], None]) -> None:
    """Call a command's ``main`` and turn its outcome into an exit status."""
    compiler_flags.configure()
    try:
        main(None)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except KeyboardInterrupt:
        print('interrupted; the same command continues from what is finished', file=sys.stderr)
        sys.exit(130)
