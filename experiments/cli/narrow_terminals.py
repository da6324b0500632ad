"""Tables for terminals that are too narrow for them: fewer columns, and no word that is broken in two."""

import dataclasses
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

# Where the words of a column may be broken, such as paths, a line of it has at least so many characters.
_LEAST_PIECE = 16
# Of each column, and of a table: borders and the spaces beside them.
_BESIDE_A_COLUMN, _BESIDE_ALL = 3, 1


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A table as a console has room for it.

    Attributes:
        table: what is printed.
        left_out: titles of the columns that it lacks.
    """

    table: Table
    left_out: tuple[str, ...]

    def note(self, console: Console, elsewhere: str) -> str:
        """What is left out, and where it is; empty if nothing is."""
        if not self.left_out:
            return ''
        return f'left out at a width of {console.width}: {", ".join(self.left_out)}; {elsewhere}'


def fitted(table: Table, optional: Sequence[int], console: Console, breakable: Collection[int] = ()) -> Fitted:
    """The table without those optional columns for which there is no room if words are to stay whole.

    Args:
        table: all of it, whose cells are texts.
        optional: numbers of columns, in the order in which they are left out. If the others need more room than there
            is, their words are broken.
        console: where it is printed.
        breakable: numbers of columns with words that may be broken, such as paths.
    """
    kept, widths = list(range(len(table.columns))), None
    for count in range(len(optional) + 1):
        kept = [number for number in range(len(table.columns)) if number not in optional[:count]]
        widths = _widths([table.columns[number] for number in kept], console, [number in breakable for number in kept])
        if widths is not None:
            break
    made = Table(title=table.title, title_justify=table.title_justify, caption=table.caption)
    made.caption_justify = table.caption_justify
    columns = [table.columns[number] for number in kept]
    for column, width in zip(columns, widths or [None] * len(columns), strict=True):
        made.add_column(column.header, justify=column.justify, overflow=column.overflow, width=width)
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*cells)
    return Fitted(made, tuple(str(each.header) for each in table.columns if each not in columns))


def _widths(columns: Sequence[Column], console: Console, breakable: Sequence[bool]) -> list[int] | None:
    """The width of each column; ``None`` where words would have to be broken."""
    least, most = [], []
    for column, may_break in zip(columns, breakable, strict=True):
        texts = [console.render_str(str(each)) for each in (column.header, *column.cells)]
        measured = [Measurement.get(console, console.options, text) for text in texts]
        longest = max(each.minimum for each in measured)
        least.append(min(longest, _LEAST_PIECE) if may_break else longest)
        most.append(max(each.maximum for each in measured))
    spare = console.width - _BESIDE_ALL - _BESIDE_A_COLUMN * len(least) - sum(least)
    if spare < 0:
        return None
    widths = list(least)
    # Columns that lack little first: more of them then need no second line.
    for index in sorted(range(len(widths)), key=lambda index: most[index] - least[index]):
        more = min(most[index] - least[index], spare)
        widths[index] += more
        spare -= more
    return widths
