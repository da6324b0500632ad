"""Config files: Python files with a function ``get_config`` and arguments for it, named ``FILE[:NAME=VALUE,…]``."""

import inspect
import os
import re
import runpy
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import ml_collections

from backbones.errors import UserError, unknown

T = TypeVar('T')

# Up to the next comma; a value in quotes may have commas and equals signs in it.
_PIECE = re.compile(r"""\w+=(?:'[^']*'|"[^"]*")(?=,|\Z)|[^,]*""")
_QUOTED = re.compile(r"""(['"])((?:(?!\1).)*)\1""", re.DOTALL)


def load(spec: str, keys: Container[str] = ()) -> ml_collections.ConfigDict:
    """Call the ``get_config`` of a Python file with arguments: ``FILE`` or ``FILE:name=value,name=value``.

    The longest beginning of ``spec`` that is a file is the file, so its path may have colons. A piece without ``=``
    continues the value before it, so ``backbones=resnet50,vit_small_patch16`` is one argument. A value in quotes is
    taken as it is, whatever it contains: ``dataset='folder:a,b=c'``. An argument that ``get_config`` annotates with
    ``int``, ``float`` or ``bool`` is converted.

    Args:
        spec: file and arguments.
        keys: of the config, which may be taken for arguments by mistake.

    Raises:
        UserError: no such file, no ``get_config`` in it, an error in it (its line is named), or an argument that it
            does not take or that has another type.
    """
    file, text = _split(spec)
    path = Path(file).expanduser()
    get_config = _run(file, path, lambda: runpy.run_path(str(path))).get('get_config')
    if not callable(get_config):
        raise UserError(f'the config file {file!r} defines no get_config()')
    known = _run(file, path, lambda: inspect.signature(get_config, eval_str=True)).parameters
    given = _arguments(file, text, known, keys)
    missing = [name for name, each in known.items() if each.default is inspect.Parameter.empty and name not in given]
    if missing:
        raise UserError(f'{file} needs the argument {missing[0]!r}: --config {file}:{missing[0]}=…')
    arguments = {name: _typed(name, value, known[name].annotation) for name, value in given.items()}
    config = _run(file, path, lambda: get_config(**arguments))
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f'get_config() of {file!r} must return an ml_collections.ConfigDict, such as a changed default_config(), '
            f'not {"nothing" if config is None else type(config).__name__}'
        )
    return config


def _split(spec: str) -> tuple[str, str]:
    """The file and its arguments."""
    ends = [*(match.start() for match in re.finditer(':', spec)), len(spec)]
    for end in reversed(ends):
        if os.path.isfile(os.path.expanduser(spec[:end])):  # noqa: PTH111, PTH113 they take names of any length
            return spec[:end], spec[end + 1 :]
    written = re.match(r'.*?\.py(?=:|\Z)', spec)
    file = written[0] if written else spec.partition(':')[0]
    if os.path.isdir(Path(file).expanduser()):  # noqa: PTH112
        raise UserError(f'{file!r} is a directory; expected a config file, such as configs/transfer.py')
    directory = Path(file).expanduser().parent
    near = [str(each) for each in sorted(directory.glob('*.py'))] if os.path.isdir(directory) else []  # noqa: PTH112
    raise (
        unknown('config file', str(Path(file).expanduser()), near)
        if near
        else UserError(f'there is no config file {file!r}')
    )


def _run(file: str, path: Path, action: Callable[[], T]) -> T:
    """Run code of a config file; its errors become one line."""
    try:
        return action()
    except UserError:
        raise
    except Exception as error:
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(path):
                line = trace.tb_lineno
            trace = trace.tb_next
        what = ' '.join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
        where = '' if line is None else f', line {line}'
        raise UserError(f'error in the config file {file!r}{where}: {type(error).__name__}: {what}') from error


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start <= len(text):
        match = _PIECE.match(text, start)
        assert match is not None, 'a piece may be empty'
        yield match[0]
        start = match.end() + 1


def _arguments(file: str, text: str, known: Mapping[str, inspect.Parameter], keys: Container[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    name = None
    for piece in _pieces(text) if text else ():
        before, equals, value = piece.partition('=')
        if equals and before.isidentifier():
            if before not in known:
                advice = f"; if it belongs to the value of {name!r}, quote that value: {name}='…'" if name else ''
                key = f'; a value of the config is changed by --config.{before}=…' if before in keys else ''
                raise UserError(f'{unknown(f"argument of {file}", before, known)}{key}{advice}')
            name = before
            quoted = _QUOTED.fullmatch(value)
            given[name] = quoted[2] if quoted else value
        elif name is None:
            raise UserError(f'arguments of a config file have the form name=value, not {piece!r}')
        else:
            given[name] += f',{piece}'
    return given


def _typed(name: str, text: str, kind: type) -> object:
    """Convert an argument to its annotated type; without one it stays text."""
    try:
        if kind is bool:
            return {'true': True, 'false': False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (ValueError, KeyError):
        expected = 'true or false' if kind is bool else f'a value of type {kind.__name__}'
        raise UserError(f'the argument {name!r} of the config file takes {expected}, not {text!r}') from None
