"""Tables in pages of Markdown, written again from the rows that they show.

A page says where a table comes from, and everything between the two comments is written by this module::

    <!-- table results/quickstart mnist5k | regime=linear | columns=backbone, weights, scores, parameters -->
    …
    <!-- end of table -->

After the directory of the rows, relative to the repository, and the data set (which may be left out where there is
one) come, in any order: ``NAME=VALUE, VALUE`` (only rows with one of these texts in the column NAME), ``columns=…``
(titles, in this order; ``scores`` stands for all of the label fractions), ``classes`` (the table of the classes) and
``note`` (the note under the table).
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from backbones.errors import UserError, unknown
from experiments.results import aggregates, tables
from experiments.results.tables import View

_TABLE = re.compile(r'(<!-- table (?P<source>[^>]*?) -->\n)(?P<table>.*?)(?P<end><!-- end of table -->)', re.DOTALL)
_SCORES = 'scores'


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a table of a page comes from.

    Attributes:
        workdir: directory of its rows, relative to the repository.
        dataset: the data set; empty: the only one.
        where: title of a column → the texts that its rows may have there.
        columns: titles; empty: all.
        classes: whether it is the table of the classes.
        note: whether the note follows the table.
    """

    workdir: str
    dataset: str = ''
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    columns: tuple[str, ...] = ()
    classes: bool = False
    note: bool = False

    @staticmethod
    def parse(text: str) -> 'Source':
        """Parse what the comment says.

        Raises:
            UserError: it is none of what the module's docstring lists.
        """
        first, *rest = (part.strip() for part in text.split('|'))
        workdir, _, dataset = first.partition(' ')
        where, columns, flags = [], (), set()
        for part in rest:
            name, equals, values = part.partition('=')
            several = tuple(value.strip() for value in values.split(','))
            if not equals:
                if part not in ('classes', 'note'):
                    raise unknown('word of a table', part, ('classes', 'note', 'columns=…', 'NAME=VALUE'))
                flags.add(part)
            elif name == 'columns':
                columns = several
            else:
                where.append((name, several))
        return Source(workdir, dataset, tuple(where), columns, 'classes' in flags, 'note' in flags)


def sources(page: str) -> list[Source]:
    """Where the tables of a page come from, in their order."""
    return [Source.parse(found['source']) for found in _TABLE.finditer(page)]


def written(page: str, root: Path) -> str:
    """A page whose tables are those of their rows.

    Args:
        page: the text of the page.
        root: the repository.

    Raises:
        UserError: a comment is not as the module's docstring says, or names rows that are not there.
    """
    return _TABLE.sub(lambda found: found[1] + table(Source.parse(found['source']), root) + found['end'], page)


def table(source: Source, root: Path) -> str:
    """The lines of a table.

    Raises:
        UserError: see ``written``.
    """
    entries = aggregates.load(root / source.workdir)
    names = aggregates.datasets(entries)
    if not source.dataset and len(names) > 1:
        raise UserError(f'{source.workdir} has {len(names)} data sets; name one: {", ".join(names)}')
    if source.dataset and source.dataset not in names:
        raise unknown(f'data set of {source.workdir}', source.dataset, names)
    view = tables.view(entries, source.dataset or names[0])
    view = dataclasses.replace(view, rows=tuple(row for row in view.rows if _is_wanted(view, row, source)))
    if not view.rows:
        conditions = ' and '.join(f'{name}={", ".join(values)}' for name, values in source.where)
        raise UserError(f'no row of {source.workdir} has {conditions}')
    lines = _lines(tables.markdown(view), of_classes=source.classes)
    if source.columns:
        lines = _columns(lines, source.columns, view)
    note = ['', f'<sub>{view.note()}</sub>'] if source.note else []
    return ''.join(f'{line}\n' for line in ['', *lines, *note, ''])


def _is_wanted(view: View, row: tuple, source: Source) -> bool:
    titles, texts = view.header, view.cells(row)
    for name, values in source.where:
        if name not in titles:
            raise unknown(f'column of {source.workdir}', name, titles)
        if texts[titles.index(name)] not in values:
            return False
    return True


def _lines(markdown: str, of_classes: bool) -> list[str]:
    """The lines of the first table of a text, or of the second, that of the classes."""
    found, before = [], False
    for line in markdown.splitlines():
        if line.startswith('|'):
            if not before:
                found.append([])
            found[-1].append(line)
        before = line.startswith('|')
    return found[1 if of_classes else 0]


def _columns(lines: Sequence[str], columns: Sequence[str], view: View) -> list[str]:
    cells = [line.removeprefix('|').removesuffix('|').split('|') for line in lines]
    titles = [title.strip() for title in cells[0]]
    start = len(view.labels)
    chosen: list[int] = []
    for column in columns:
        if column == _SCORES:
            chosen += range(start, start + len(view.fractions))
        elif column in titles:
            chosen.append(titles.index(column))
        else:
            raise unknown('column', column, (*titles, _SCORES))
    return [f'|{"|".join(row[index] for index in chosen)}|' for row in cells]
