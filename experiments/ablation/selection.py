"""The part of an ablation that one command runs: cells by their labels, or one shard of a job array."""

import dataclasses
import fnmatch
from collections.abc import Sequence

from backbones.errors import UserError, unknown
from experiments.results.axes import Cell


def matching(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose labels contain any of the patterns, in which ``*``, ``?`` and ``[…]`` are those of a shell.

    Raises:
        UserError: a pattern matches no cell, or is empty.
    """
    if not patterns:
        return list(cells)
    for pattern in patterns:
        if not pattern.strip():
            raise UserError(
                '--only is empty, as of a variable that is not set; say a part of a label of a cell, or leave it out'
            )
        if not any(_matches(cell.label, pattern) for cell in cells):
            raise unknown('part of a label of a cell', pattern, _parts(cells))
    return [cell for cell in cells if any(_matches(cell.label, pattern) for pattern in patterns)]


def _matches(label: str, pattern: str) -> bool:
    # A name may have brackets in it, as 'folder:a [b]'.
    return pattern in label or fnmatch.fnmatchcase(label, f'*{pattern}*')


def _parts(cells: Sequence[Cell]) -> list[str]:
    return sorted({part for cell in cells for part in cell.label.split(' · ')})


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of the parts that an ablation is divided into.

    Attributes:
        number: from 1.
        count: number of parts.
    """

    number: int
    count: int

    @property
    def directory(self) -> str:
        """The name of its work directory inside that of the ablation."""
        return f'{self.number}-of-{self.count}'

    @staticmethod
    def parse(text: str) -> 'Shard':
        """``i/n``, with ``i`` from 1 to ``n``.

        Raises:
            UserError: it is not of this form.
        """
        number, slash, count = text.partition('/')
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(
                f'--shard takes i/n with i from 1 to n, such as 1/4, not {text!r}; where an array counts from 0, add 1'
            )
        return Shard(int(number), int(count))
