"""Tables in pages of Markdown, written again from the rows that they show.

A page says where a table comes from, and everything between the two comments is written by this module::

    <!-- table results/quickstart mnist5k | regime=linear | columns=backbone, weights, scores, parameters -->
    …
    <!-- end of table -->

After the directory of the rows, relative to the repository (or several, ``A+B``), and the data set (which may be left
out where there is one) come, in any order: ``NAME=VALUE, VALUE`` (only rows with one of these texts in the column
NAME), ``columns=…`` (titles, in this order; ``scores`` stands for all of the label fractions), ``further=…`` (how the
title of a further table begins, such as ``recall of each class``, which is shown instead of the main one, and whose
columns are the ``scores``) and ``note`` (the note under the main table).
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from backbones.errors import UserError, unknown
from experiments.results import aggregates, markdown_text, tables
from experiments.results.tables import View

_BEGIN = r'<!-- table (?P<source>[^>]*?) -->\n'
_END = '<!-- end of table -->'
_TABLE = re.compile(rf'({_BEGIN})(?P<table>(?:(?!<!-- table ).)*?)(?P<end>{_END})', re.DOTALL)
_SCORES = 'scores'


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a table of a page comes from.

    Attributes:
        workdirs: directories of its rows, relative to the repository.
        dataset: the data set; empty: the only one.
        where: title of a column → the texts that its rows may have there.
        columns: titles; empty: all.
        further: how the title of the further table begins that it is; empty: it is the main one.
        note: whether the note follows the table.
    """

    workdirs: tuple[str, ...]
    dataset: str = ''
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    columns: tuple[str, ...] = ()
    further: str = ''
    note: bool = False

    @staticmethod
    def parse(text: str) -> 'Source':
        """Parse what the comment says.

        Raises:
            UserError: it is none of what the module's docstring lists.
        """
        first, *rest = (part.strip() for part in text.split('|'))
        workdirs, _, dataset = first.partition(' ')
        where, columns, further, note = [], (), '', False
        for part in rest:
            name, equals, values = part.partition('=')
            several = tuple(value.strip() for value in values.split(','))
            if not equals:
                if part != 'note':
                    raise unknown('word of a table', part, ('note', 'columns=…', 'further=…', 'NAME=VALUE'))
                note = True
            elif name == 'columns':
                columns = several
            elif name == 'further':
                further = values.strip()
            else:
                where.append((name, several))
        return Source(tuple(workdirs.split('+')), dataset, tuple(where), columns, further, note)


def sources(page: str) -> list[Source]:
    """Where the tables of a page come from, in their order."""
    return [Source.parse(found['source']) for found in _TABLE.finditer(page)]


def written(page: str, root: Path) -> str:
    """A page whose tables are those of their rows.

    Args:
        page: the text of the page.
        root: the repository.

    Raises:
        UserError: a comment is not as the module's docstring says, has no end, or names rows that are not there.
    """
    ended = {found.start() for found in _TABLE.finditer(page)}
    for found in re.finditer(_BEGIN, page):
        if found.start() not in ended:
            line = page.count('\n', 0, found.start()) + 1
            raise UserError(f'the table {found["source"]!r} in line {line} has no end; expected {_END} after its rows')
    return _TABLE.sub(lambda found: found[1] + table(Source.parse(found['source']), root) + found['end'], page)


def table(source: Source, root: Path) -> str:
    """The lines of a table.

    Raises:
        UserError: see ``written``.
    """
    of = '+'.join(source.workdirs)
    entries = aggregates.load(*(root / workdir for workdir in source.workdirs))
    names = aggregates.datasets(entries)
    if not source.dataset and len(names) > 1:
        raise UserError(f'{of} has {len(names)} data sets; name one: {", ".join(names)}')
    if source.dataset and source.dataset not in names:
        raise unknown(f'data set of {of}', source.dataset, names)
    view = tables.view(entries, source.dataset or names[0])
    view = dataclasses.replace(view, rows=tuple(row for row in view.rows if _is_wanted(view, row, source)))
    if not view.rows:
        conditions = ' and '.join(f'{name}={", ".join(values)}' for name, values in source.where)
        raise UserError(f'no row of {of} has {conditions}')
    if source.further:
        header, rows = _further(view, source)
        scores = header[len(view.labels) :]
    else:
        header, rows = view.header, [tables.marked(view, row) for row in view.rows]
        scores = header[len(view.labels) :][: len(view.fractions)]
    if source.columns:
        chosen = _columns(header, source.columns, scores)
        header, rows = [header[index] for index in chosen], [[row[index] for index in chosen] for row in rows]
    labels = sum(title in view.labels for title in header)
    # Beside the input, whose length in tokens it is, the note need not say it.
    text = view.note(says_lengths='input' not in header)
    note = ['', f'<sub>{markdown_text.escaped(text)}</sub>'] if source.note else []
    return ''.join(f'{line}\n' for line in ['', *markdown_text.table(header, rows, labels), *note, ''])


def _is_wanted(view: View, row: tuple, source: Source) -> bool:
    titles, texts = view.header, view.cells(row)
    for name, values in source.where:
        if name not in titles:
            raise unknown(f'column of {"+".join(source.workdirs)}', name, titles)
        if texts[titles.index(name)] not in values:
            return False
    return True


def _further(view: View, source: Source) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a further table."""
    found = view.further()
    for each in found:
        if each.title.startswith(source.further):
            return each.header, each.rows
    raise unknown(f'further table of {"+".join(source.workdirs)}', source.further, [each.title for each in found])


def _columns(header: Sequence[str], columns: Sequence[str], scores: Sequence[str]) -> list[int]:
    """Places of the wanted columns."""
    chosen: list[int] = []
    for column in columns:
        if column != _SCORES and column not in header:
            raise unknown('column', column, (*header, _SCORES))
        chosen += [header.index(title) for title in (scores if column == _SCORES else (column,))]
    return chosen
