"""The texts of a few test examples, read from their data set once and then kept in the work directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from experiments.cli import atomic_files, json_files
from experiments.data import examples_by_id, record, text_account
from experiments.results.rows import Row

DIRECTORY = 'texts'
# Characters that are kept of a text: encoders read no more of most.
LONGEST = 4000


def read(workdir: Path, row: Row, ids: Sequence[str]) -> dict[str, str]:
    """The texts of some test examples of a row, by id, cut after ``LONGEST`` characters; those that cannot be read, or
    have changed since, are left out.

    Args:
        workdir: its work directory, which keeps them.
        row: says which data set.
        ids: of the examples.

    Raises:
        UserError: none can be read; the reason is named.
    """
    file = workdir / DIRECTORY / record.file_of(workdir, row.cell.dataset).name
    kept = _kept(file, row.data['fingerprint'])
    missing = [example for example in ids if example not in kept]
    if missing:
        try:
            found = _found(workdir, row, missing)
        except UserError:
            if len(missing) == len(ids):
                raise
            return {example: kept[example] for example in ids if example in kept}
        kept |= found
        _keep(file, row.data['fingerprint'], {example: kept[example] for example in ids if example in kept})
    return {example: kept[example] for example in ids if example in kept}


def _found(workdir: Path, row: Row, ids: Sequence[str]) -> dict[str, str]:
    name = row.cell.dataset
    there = examples_by_id.read_texts(name, ids, row.config.get('text_column') or '')
    same = _unchanged(workdir, name, there)
    if not same:
        raise UserError(f'the texts of {name!r} have changed since they were read: {ids[0]!r} is another now')
    return {example: _cut(text) for example, text in same.items()}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}…'


def _unchanged(workdir: Path, name: str, found: Mapping[str, str]) -> dict[str, str]:
    """The texts that are those of the record: an id is the number of a line, which a new line before it shifts."""
    try:
        known = record.read(workdir, name)
    except UserError:
        known = None
    if known is None:
        return dict(found)
    digests = {example: row.digest for example, row in known.examples.items()}
    return {
        example: text
        for (example, text), digest in zip(found.items(), text_account.digests([*found.values()]), strict=True)
        if not digests.get(example) or digest.startswith(digests[example])
    }


def _kept(file: Path, fingerprint: str) -> dict[str, str]:
    """Earlier texts of the same data; what is damaged is read again."""
    try:
        document: dict[str, Any] = json_files.parse(file.read_text())
        if document['fingerprint'] != fingerprint:
            return {}
        return {example: text for example, text in document['texts'].items() if isinstance(text, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(file: Path, fingerprint: str, texts: Mapping[str, str]) -> None:
    try:
        atomic_files.write_json(file, {'fingerprint': fingerprint, 'texts': dict(texts)})
    except (OSError, ValueError):
        return  # a directory of somebody else's: the next report reads them again
