"""Files of rows, CSV or JSON lines: each row by column, or what is wrong with it, with the line where it begins."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backbones.errors import UserError, unknown
from experiments.cli import display
from experiments.data.account import number_of
from experiments.data.folder_tree import printable

_TABULATOR, _SEPARATORS = '\t', (',', ';', '\t')
# Records between two updates of the progress bar.
_AT_ONCE = 1000
# Characters in which the names of the columns are looked for.
_LONGEST_HEADER = 100_000
_ZIPPED = b'\x1f\x8b'
# What a file of another encoding begins with; that of UTF-32 may begin like that of UTF-16.
_OTHER_ENCODINGS = {
    b'\xff\xfe\x00\x00': 'UTF-32',
    b'\x00\x00\xfe\xff': 'UTF-32',
    b'\xff\xfe': 'UTF-16',
    b'\xfe\xff': 'UTF-16',
}
# Which of the first four bytes are zero, where no such mark says the encoding and two ASCII characters come first.
_BY_ZEROS = {
    (False, True, True, True): 'UTF-32LE',
    (True, True, True, False): 'UTF-32BE',
    (False, True, False, True): 'UTF-16LE',
    (True, False, True, False): 'UTF-16BE',
}
# The least share of the lines of a file without quoting that are rows: in one with it, texts may take several lines.
_LEAST_ROWS = 0.9
# Where a field begins with a quote, and one that is in quotes as a whole, with those in it written twice.
_OPENS = re.compile(r'(?:^|\t)"', re.M)
_IN_QUOTES = re.compile(r'"(?:[^"]|"")*"')
# A byte that is no UTF-8, as ``surrogateescape`` decodes it.
_NO_UTF8 = re.compile('[\udc80-\udcff]')
_NOT_UTF8 = 'not UTF-8: '


class Record(NamedTuple):
    """A row of a file.

    Attributes:
        line: where it begins, from 1.
        values: by column; ``None`` where it has a problem.
    """

    line: int
    values: Mapping[str, Any] | None
    problem: str = ''


class Table(NamedTuple):
    """A file.

    Attributes:
        columns: in their order.
    """

    columns: tuple[str, ...]
    records: list[Record]
    guessed: tuple[str, ...] = ()


def read(kind: str, file: Path, wanted: str, limit: int) -> Table:
    """Read a file.

    Args:
        kind: ``'csv'`` or ``'jsonl'``.
        file: the file, which may be compressed by gzip.
        wanted: a column that it should have, as ``columns_of`` takes it; it tells what separates the columns.
        limit: rows that may be in another encoding than UTF-8.

    Raises:
        UserError: it cannot be read, is empty, is in another encoding, ends within quotes, or no row has columns.
    """
    content = _decoded(file)
    if not content.strip():
        raise UserError(f'{str(file)!r} is empty')
    table = _csv(file, content, wanted) if kind == 'csv' else _jsonl(file, content)
    odd = [each for each in table.records if each.problem.startswith(_NOT_UTF8)]
    if len(odd) > limit:
        raise UserError(
            f'{len(odd):,} of {len(table.records):,} rows of {str(file)!r} are not in UTF-8: line {odd[0].line} has '
            f'the {odd[0].problem.removeprefix(_NOT_UTF8)}; convert it, as with iconv -f WINDOWS-1252 -t UTF-8'
        )
    if not table.columns and table.records:
        first = table.records[0]
        why = f'line {first.line}: {first.problem or "an empty object"}'
        raise UserError(f'none of the {len(table.records):,} rows of {str(file)!r} has columns ({why})')
    return table


def _decoded(file: Path) -> str:
    """The text of a file; bytes that are no UTF-8 become surrogates.

    Raises:
        UserError: it cannot be read, or is in another encoding altogether.
    """
    try:
        content = file.read_bytes()
        if content.startswith(_ZIPPED):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f'{str(file)!r} cannot be read: {getattr(error, "strerror", None) or error}') from None
    encoding = next((name for start, name in _OTHER_ENCODINGS.items() if content.startswith(start)), '')
    if not encoding and b'\0' in content[:_LONGEST_HEADER].lstrip().partition(b'\n')[0]:
        encoding = _BY_ZEROS.get(tuple(byte == 0 for byte in content[:4]), '')
        if not encoding:
            raise UserError(
                f'the first line of {str(file)!r} holds zero bytes, so that it is in another encoding than UTF-8, or '
                'damaged; convert it, as with iconv -f UTF-16LE -t UTF-8'
            )
    if encoding:
        raise UserError(f'{str(file)!r} is in {encoding}; convert it to UTF-8, as with iconv -f {encoding} -t UTF-8')
    return content.decode('utf-8-sig', 'surrogateescape')


def _encoding_problem(text: str) -> str:
    """Why a text is not UTF-8; empty if it is."""
    found = _NO_UTF8.search(text)
    if found is None:
        return ''
    byte = found.group().encode('utf-8', 'surrogateescape')
    there = f'{_NOT_UTF8}byte 0x{byte.hex()}'
    for encoding, name in (('latin-1', 'Latin-1'), ('cp1252', 'Windows-1252')):
        meant = byte.decode(encoding, 'replace')
        if meant.isprintable() and meant != '\ufffd':
            return f'{there}, which is {meant!r} in {name}'
    return there


@contextmanager
def _fields_of(length: int) -> Generator[None]:
    """Let fields of a CSV file be as long as the file; what is too long for a text is said later, with its line."""
    before = csv.field_size_limit(length)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(file: Path, content: str, wanted: str) -> Table:
    separators = (_TABULATOR,) if '.tsv' in file.name.lower() else _SEPARATORS
    with _fields_of(len(content) + 1):
        headers = {each: _header(content[:_LONGEST_HEADER], each) for each in separators}
        separator = next((each for each in separators if _has(headers[each][0], wanted)), separators[0])
        columns, length = headers[separator]
        unquoted = _unquoted(content, columns, length) if separator == _TABULATOR else []
        try:
            records = _counted(_csv_records(file, content, separator, columns, length), content)
        except UserError:
            if not unquoted:
                raise
            records = []
    guessed = ()
    if separator != separators[0]:
        what = 'semicolons' if separator == ';' else 'tabulators'
        guessed = (f'{what} separate the columns of {printable(file.name)}',)
    if _usable(unquoted) > _usable(records):
        records = unquoted
        guessed += (f'{printable(file.name)} is written without quoting, so quotes are a part of its texts',)
    return Table(columns, records, guessed)


def _usable(records: Sequence[Record]) -> int:
    return sum(not record.problem for record in records)


def _unquoted(content: str, columns: tuple[str, ...], header: int) -> list[Record]:
    """The rows of a file whose tabulators separate whatever is quoted, as those of GLUE do; empty for another file.

    In such a file, most fields that begin with a quote do not end with the next one, and nearly all lines are rows.
    """
    if not _OPENS.search(content):
        return []
    reader = csv.reader(io.StringIO(content, newline=''), delimiter=_TABULATOR, quoting=csv.QUOTE_NONE)
    found, whole, torn = [], 0, 0
    for fields in reader:
        if reader.line_num <= header or not fields:
            continue
        opened = [field for field in fields if field.startswith('"')]
        in_quotes = sum(_IN_QUOTES.fullmatch(field) is not None for field in opened)
        whole, torn = whole + in_quotes, torn + len(opened) - in_quotes
        found.append(_record(reader.line_num, fields, _TABULATOR, columns))
    return found if torn > whole and _usable(found) >= _LEAST_ROWS * len(found) else []


def _header(content: str, separator: str) -> tuple[tuple[str, ...], int]:
    """The names of the columns, and the number of lines that they and empty ones before take."""
    reader = csv.reader(io.StringIO(content, newline=''), delimiter=separator)
    try:
        first = next((row for row in reader if row), [])
    except csv.Error:
        return (), 0
    return tuple(each.strip() for each in first), reader.line_num


def _csv_records(file: Path, content: str, separator: str, columns: tuple[str, ...], header: int) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(content, newline=''), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if 'unexpected end' in str(error):
                raise UserError(
                    f'a quote that opens in the row from line {line} of {str(file)!r} is never closed, so that all '
                    'that follows would be one text'
                ) from None
            inside = "expected after '" in str(error)
            why = 'a quote inside quotes (in a text in quotes, they are written twice)' if inside else str(error)
            # Each line counts: a quote that is not closed in its own row takes rows with it.
            for lost in range(max(line, header + 1), reader.line_num + 1):
                yield Record(lost, None, why)
            continue
        if line > header and fields:
            yield _record(line, fields, separator, columns)


def _record(line: int, fields: Sequence[str], separator: str, columns: tuple[str, ...]) -> Record:
    if len(fields) != len(columns):
        commas = ' (a text with commas stands in quotes)' if separator == ',' and len(fields) > len(columns) else ''
        there = number_of(len(fields), 'field')
        return Record(line, None, f'{there} where the header has {len(columns)}{commas}')
    problem = _encoding_problem(''.join(fields))
    return Record(line, None if problem else dict(zip(columns, fields, strict=True)), problem)


def _jsonl(file: Path, content: str) -> Table:
    if content.lstrip().startswith('['):
        raise UserError(
            f'{str(file)!r} is one JSON list, not JSON lines; write each of its objects in a line of its own, as with '
            "jq -c '.[]'"
        )
    # Not splitlines(), which also ends a line at characters that may stand in a JSON text.
    lines = ((line, text) for line, text in enumerate(content.split('\n'), 1) if text.strip())
    records = _counted((Record(line, *_json_object(text)) for line, text in lines), content)
    columns: dict[str, None] = {}
    for record in records:
        columns |= dict.fromkeys(record.values or ())
    return Table(tuple(columns), records)


def _counted(records: Iterator[Record], content: str) -> list[Record]:
    """All records, with a progress bar over the lines of the file."""
    found = []
    with display.progress() as bar:
        task = bar.add_task('reading texts', total=content.count('\n') + 1, note='', brief=True)
        for record in records:
            found.append(record)
            if len(found) % _AT_ONCE == 0:
                bar.update(task, completed=record.line)
        bar.update(task, completed=content.count('\n') + 1)
    return found


def _json_object(text: str) -> tuple[dict[str, Any] | None, str]:
    problem = _encoding_problem(text)
    if problem:
        return None, problem
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        return None, f'broken JSON ({error.msg}, column {error.colno})'
    except (ValueError, RecursionError) as error:
        return None, f'broken JSON ({type(error).__name__})'
    return (found, '') if isinstance(found, dict) else (None, 'no JSON object')


def _has(columns: Sequence[str], wanted: str) -> bool:
    return wanted in columns or ({*_several(wanted)} <= {*columns})


def _several(wanted: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in wanted.split(','))


def columns_of(wanted: str, key: str, columns: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns that a name means: the one of this name, or several with commas between.

    Args:
        wanted: the name.
        key: the config key that has it.
        columns: all that there are.
        where: where they are, in words.

    Raises:
        UserError: there is none of a name; the nearest is suggested.
    """
    names = (wanted,) if wanted in columns else _several(wanted)
    for name in names:
        if columns.count(name) > 1:
            raise UserError(f'{columns.count(name)} columns of {where} are named {name!r} (config key {key})')
        if name not in columns:
            shown = [each if len(each) < 40 else f'{each[:40]}…' for each in columns]
            first = '; its first line names them' if re.search(r'\.[ct]sv', where.lower()) else ''
            raise UserError(f'{unknown(f"column of {where}", name, shown)} (config key {key}{first})')
    return names


def column_of(wanted: str, key: str, columns: Sequence[str], where: str) -> str:
    """The one column that a name means; arguments as for ``columns_of``.

    Raises:
        UserError: see ``columns_of``; or the name means several.
    """
    first, *others = columns_of(wanted, key, columns, where)
    if others:
        raise UserError(f'config key {key} is {wanted!r}, which are several columns of {where}; name one of them')
    return first


def joined(values: Sequence[Any]) -> Any:
    """Several texts with spaces between, or the first value that is none."""
    if len(values) == 1:
        return values[0]
    odd = [each for each in values if each is not None and not isinstance(each, str)]
    return odd[0] if odd else ' '.join(each.strip() for each in values if each and each.strip())
