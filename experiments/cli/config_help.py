"""What ``--help`` shows: a command's docstring and the keys of its config, for terminals of any width."""

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ml_collections


class Described(Protocol):
    """A key of a config, as ``--help`` shows it."""

    @property
    def default(self) -> Any:
        """The value if none is given."""

    @property
    def meaning(self) -> str:
        """What it does."""

    @property
    def choices(self) -> Sequence[str]:
        """The values it can have; none if they cannot be listed."""


def width() -> int:
    """Columns of the terminal, and at most 100: longer lines are hard to read."""
    return min(shutil.get_terminal_size().columns, 100)


def wrapped(text: str) -> str:
    """A docstring whose paragraphs are wrapped to the terminal; indented blocks stay as they are."""
    blocks = re.split(r'\n\s*\n', text.strip('\n'))
    return '\n\n'.join(block.rstrip() if block.startswith(' ') else _filled(block) for block in blocks)


def _filled(paragraph: str) -> str:
    return textwrap.fill(' '.join(paragraph.split()), width(), break_on_hyphens=False)


def spec(words: Sequence[str]) -> str | None:
    """What a command line gives as ``--config``."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == '--config':
            return following
        if word.startswith('--config='):
            return word.removeprefix('--config=')
    return None


def listing(
    keys: Mapping[str, Described], spec: str | None = None, config: ml_collections.ConfigDict | None = None
) -> str:
    """Every key with its value, meaning and choices.

    Args:
        keys: the keys.
        spec: the name of ``config``.
        config: the values to show; the defaults if ``None``.
    """
    values = {} if config is None else _flat(config)
    lines = [f'keys of the config, with the values of {spec}:' if spec else 'keys of the config, with their defaults:']
    for key, row in keys.items():
        value = values.get(key, row.default)
        default = f' (default: {row.default!r})' if value != row.default else ''
        # Most meanings name what else there is beside the default.
        unsaid = [choice for choice in row.choices if choice != row.default and choice not in row.meaning]
        choices = f' ({", ".join(map(repr, row.choices))})' if unsaid else ''
        lines += textwrap.wrap(f'{key} = {value!r}{default}', width(), initial_indent='  ', subsequent_indent='    ')
        lines += textwrap.wrap(
            row.meaning + choices, width(), initial_indent=' ' * 6, subsequent_indent=' ' * 6, break_on_hyphens=False
        )
    return '\n'.join(lines)


def _flat(config: ml_collections.ConfigDict, prefix: str = '') -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in config.items():
        group = isinstance(value, ml_collections.ConfigDict)
        values |= _flat(value, f'{prefix}{name}.') if group else {prefix + name: value}
    return values
