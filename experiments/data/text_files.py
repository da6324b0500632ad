"""``csv:PATH`` and ``jsonl:PATH``: the user's own texts, one to a row, with a column of texts and one of labels.

``PATH`` is a file, with a column that says the split or without one, or a folder with ``train.csv``, ``test.csv`` and
``validation.csv`` (``folder_tree`` says which other names are understood). Files may be compressed by gzip.
"""

import difflib
import hashlib
import itertools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from backbones.errors import UserError, listed
from experiments.data import text_rows, text_tables
from experiments.data.dataset import Dataset
from experiments.data.folder_tree import SPLITS, is_noise, printable, split_names
from experiments.data.options import ReadingOptions
from experiments.data.text_rows import Row
from experiments.data.text_tables import Record, Table

# Kind → how its files end, each also with ``.gz``.
SUFFIXES = {'csv': ('.csv', '.tsv'), 'jsonl': ('.jsonl', '.ndjson')}
IN_WORDS = {'csv': 'CSV', 'jsonl': 'JSON lines'}
TEXT, LABEL, SPLIT = 'text', 'label', 'split'


class _Files(NamedTuple):
    """Which files are read.

    Attributes:
        splits: split → file; one file of the split ``''`` where there are none.
    """

    root: Path
    splits: Mapping[str, Path]
    left_out: Mapping[str, tuple[str, ...]]
    guessed: tuple[str, ...]


def load(kind: str, path: str, options: ReadingOptions) -> Dataset:
    """Read a file or folder of texts.

    Args:
        kind: a row of ``SUFFIXES``.
        path: of the file or folder.
        options: the columns, and what ``text_rows.dataset_of`` heeds.

    Raises:
        UserError: nothing is there, it is not of this kind or not in UTF-8, a column is missing (the nearest is
            suggested), or see ``text_rows.dataset_of``.
    """
    files = _find(kind, path)
    rows: list[Row] = []
    guessed = list(files.guessed)
    for split, file in files.splits.items():
        table = text_tables.read(kind, file, options.text_column or TEXT, options.bad_files_limit)
        guessed += table.guessed
        rows += _rows(file.name, split, table, options, guessed)
    if not any(row.split in ('', 'train') for row in rows):
        raise UserError(f'{kind}:{path} has no training texts')
    return text_rows.dataset_of(
        f'{kind}:{path}',
        rows,
        f'{IN_WORDS[kind]} {printable(files.root.name)}',
        options,
        left_out=files.left_out,
        guessed=guessed,
    )


def texts(kind: str, path: str, text_column: str = '') -> dict[str, str]:
    """Id → text of every row that has one, whatever its label.

    Raises:
        UserError: nothing is there, or a file cannot be read or lacks the column.
    """
    found = {}
    for file in _find(kind, path).splits.values():
        table = text_tables.read(kind, file, text_column or TEXT, sys.maxsize)
        names = text_tables.columns_of(text_column or TEXT, 'text_column', table.columns, printable(file.name))
        for record in table.records:
            values = record.values or {}
            text = text_tables.joined([values[name] for name in names]) if {*names} <= values.keys() else None
            if isinstance(text, str):
                found[_id(file.name, record)] = text
    return found


def _id(file: str, record: Record) -> str:
    return f'{printable(file)}:{record.line}'


def stamp(kind: str, path: str) -> str | None:
    """A hash of the names, sizes and times of the files that are read; ``None`` where they cannot be."""
    digest = hashlib.sha256()
    try:
        for split, file in sorted(_find(kind, path).splits.items()):
            status = file.stat()
            line = f'{split} {file.name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n'
            digest.update(os.fsencode(line))
    except (OSError, UserError):
        return None
    return digest.hexdigest()


def kind_of(path: Path) -> str | None:
    """The kind of a file by its name."""
    return next((kind for kind in SUFFIXES if _stem(kind, path.name) is not None), None)


def is_folder_of(kind: str, root: Path) -> bool:
    """Whether a folder has a file of training texts."""
    return any(SPLITS.get((_stem(kind, each.name) or '').lower()) == 'train' for each in root.iterdir())


def _stem(kind: str, name: str) -> str | None:
    """The name of a file of a kind without its suffixes; ``None`` for another file."""
    lower = name.lower().removesuffix('.gz')
    suffix = next((each for each in SUFFIXES[kind] if lower.endswith(each)), None)
    return None if suffix is None else name[: len(lower) - len(suffix)]


def _find(kind: str, path: str) -> _Files:
    try:
        return _found(kind, path)
    except (OSError, RuntimeError) as error:  # the second where ~ names nobody's home
        raise UserError(f'{path!r} cannot be read: {getattr(error, "strerror", None) or error}') from None


def _found(kind: str, path: str) -> _Files:
    root = Path(path).expanduser()
    if root.is_file():
        other = kind_of(root)
        if other not in (None, kind):
            raise UserError(
                f"{path!r} is named as a file of {IN_WORDS[other or '']}, which is read as '{other}:{path}'"
            )
        return _Files(root, {'': root}, {}, ())
    if root.exists() and not root.is_dir():
        raise UserError(
            f'{path!r} is no regular file, such as a pipe, which can be read only once; write it to a file (which may '
            'be compressed by gzip)'
        )
    if not root.is_dir():
        near = _near(kind, root)
        hint = f'; did you mean {" or ".join(repr(str(each)) for each in near)}?' if near else ''
        raise UserError(f'there is no file or folder {path!r}{hint}')
    names = sorted(each.name for each in root.iterdir() if each.is_file() and not is_noise(each.name))
    stems = {name: stem for name in names if (stem := _stem(kind, name)) is not None}
    expected = f'a file, or a folder with {" and ".join(f"{each}{SUFFIXES[kind][0]}" for each in ("train", "test"))}'
    if not stems:
        inside = listed(names) or 'no files'
        raise UserError(f'there is no file of {IN_WORDS[kind]} in {path!r} ({inside}); expected {expected}')
    named = split_names([*stems.values()])
    if not named:
        if len(stems) > 1:
            raise UserError(
                f'{path!r} has {len(stems)} files of {IN_WORDS[kind]} ({listed(stems)}), of which none is named '
                f'{", ".join(SPLITS)}; name one of them, as in {kind}:{root / next(iter(stems))}'
            )
        return _Files(root, {'': root / next(iter(stems))}, {}, ())
    splits: dict[str, Path] = {}
    guessed, others = [], []
    for name, stem in stems.items():
        split = named.get(stem)
        if split is None:
            others.append(printable(name))
        elif split in splits:
            raise UserError(f'both {splits[split].name} and {name} in {path!r} name the {split} split; move one away')
        else:
            splits[split] = root / name
            if stem.lower() not in ('train', 'validation', 'val', 'test'):
                guessed.append(f'{printable(name)} is the {split} split')
    if 'train' not in splits:
        raise UserError(
            f'{path!r} has {listed(each.name for each in splits.values())} but no file of training texts; expected '
            f'{expected}'
        )
    ordered = {split: splits[split] for split in ('train', 'validation', 'test') if split in splits}
    return _Files(root, ordered, {'file that is no split': tuple(others)} if others else {}, tuple(guessed))


def _near(kind: str, missing: Path) -> list[Path]:
    """Files of a kind, and folders that hold one, whose names are like that of a path where nothing is."""
    siblings = [each.name for each in missing.parent.iterdir()] if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, siblings, n=max(len(siblings), 1), cutoff=0.5)
    places = (missing.parent / each for each in near if not is_noise(each))
    return [*itertools.islice((each for each in places if _holds(kind, each)), 3)]


def _holds(kind: str, place: Path) -> bool:
    try:
        files = place.iterdir() if place.is_dir() else (place,)
        return any(_stem(kind, each.name) is not None and each.is_file() for each in files)
    except OSError:  # a folder that cannot be listed is no suggestion
        return False


# --- From records to rows. --------------------------------------------------------------------------------------------


def _rows(file: str, split: str, table: Table, options: ReadingOptions, guessed: list[str]) -> list[Row]:
    where = printable(file)
    texts = text_tables.columns_of(options.text_column or TEXT, 'text_column', table.columns, where)
    label = options.label_column or LABEL
    if split in ('', 'train') or label in table.columns:
        label = text_tables.column_of(label, 'label_column', table.columns, where)
    split_column = '' if split else _split_column(table, options, where, guessed)
    if split and options.split_column:
        raise UserError(
            f"config key 'split_column' is {options.split_column!r}, but the names of the files say the splits "
            f'({where}); leave it empty'
        )
    found = []
    for record in table.records:
        of_row, problem = split, record.problem
        values = record.values or {}
        if split_column and not problem:
            value = str(values.get(split_column) or '').strip()
            of_row = SPLITS.get(value.lower(), '')
            problem = '' if of_row else f'{value!r} is no split' if value else 'no split'
        absent = [name for name in texts if name not in values]
        if absent and not problem:
            problem = f'no {absent[0]!r}'
        text = text_tables.joined([values[name] for name in texts]) if not problem else None
        of_row = of_row or ('train' if split_column else '')
        found.append(Row(_id(file, record), of_row, text, values.get(label), problem))
    return found


def _split_column(table: Table, options: ReadingOptions, where: str, guessed: list[str]) -> str:
    """The column that says the splits; empty if there is none.

    Raises:
        UserError: it says the split of a few rows, and most of the others are empty.
    """
    if options.split_column:
        return text_tables.column_of(options.split_column, 'split_column', table.columns, where)
    if SPLIT not in table.columns:
        return ''
    values = [str((record.values or {}).get(SPLIT) or '').strip() for record in table.records if not record.problem]
    odd = sorted(value for value in values if value.lower() not in SPLITS)
    # Where most are splits, the others are slips, which their rows tell: to ignore them all would mix up the splits.
    if 2 * len(odd) > len(values):
        empty, named = odd.count(''), [value for value in values if value.lower() in SPLITS]
        if named and 2 * empty > len(odd):
            raise UserError(
                f'the column {SPLIT!r} of {where} is empty in {empty:,} of {len(values):,} rows, but says '
                f'{listed(dict.fromkeys(map(repr, named)))} in {len(named):,}; say the split of every row, or name '
                'another column that does (config key split_column)'
            )
        guessed.append(f'the column {SPLIT!r} of {where} names no splits, as it holds {odd[0]!r}')
        return ''
    guessed.append(f'the column {SPLIT!r} of {where} names the splits')
    return SPLIT
