"""The record of a data set in a work directory: what its results were computed from, down to every file.

A run that continues compares it with the data that are there now, and names what differs::

    data/NAME.json            classes, splits, fingerprint, and the account that was printed
    data/NAME.examples.csv.gz id, class, split, and size and digest of the file of each example, and of its annotation
"""

import csv
import dataclasses
import datetime
import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL

from backbones.errors import UserError, listed
from backbones.images import ImageReading
from experiments.cli import atomic_files, json_files
from experiments.data import account, texts
from experiments.data.dataset import Dataset

_VERSION = 1


class _Example(NamedTuple):
    label: str
    split: str
    bytes: str
    digest: str
    annotation: str = ''


@dataclasses.dataclass(frozen=True)
class Record:
    """What a work directory remembers of a data set.

    Attributes:
        fingerprint: that of the data set.
        classes: their names, in order.
        stored: how images were brought to the stored size, in words.
        reading: how their files became 8-bit RGB.
        pillow: version of Pillow that decoded the images.
        stamp: ``loading.stamp`` when it was written; ``None`` if unknown.
        examples: id → class, split, size and digest of its file, and digest of its annotation (boxes or mask).
    """

    fingerprint: str
    classes: tuple[str, ...]
    stored: str
    reading: ImageReading
    pillow: str
    stamp: str | None
    examples: dict[str, _Example]


def file_of(workdir: Path, name: str) -> Path:
    """The file that describes a data set; a name may hold what no file name can."""
    readable = re.sub('[^A-Za-z0-9._-]+', '_', name)[-60:].strip('_')
    return workdir / 'data' / f'{readable}.{hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]}.json'


def training_examples(workdir: Path, name: str) -> int | None:
    """Number of training examples of a data set; ``None`` where nothing says it."""
    try:
        return sum(map(int, json_files.parse(file_of(workdir, name).read_text())['examples']['train'])) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def account_lines(workdir: Path, name: str, inputs: str) -> list[account.Line]:
    """The account of a data set, whose inputs are ``'images'`` or ``'texts'``; empty where nothing says it."""
    try:
        lines = account.lines(_document(file_of(workdir, name)), inputs)
        return [account.Line(line.kind, str(line.text)) for line in lines]
    except (AttributeError, KeyError, TypeError, ValueError):  # another program's
        return []


def write(workdir: Path, dataset: Dataset, stamp: str | None = None, changes: Sequence[str] = ()) -> None:
    """Record a data set, replacing an earlier record of the same name.

    Args:
        pillow: version of Pillow that decoded the images.
        stamp: ``loading.stamp`` of its files, if it has one.
        changes: what differs from the earlier record and was accepted; it is kept.

    Raises:
        OSError: it cannot be written.
    """
    file = file_of(workdir, dataset.name)
    known = _document(file).get('changes', [])
    if changes:
        known = [*known, {'time': datetime.datetime.now().astimezone().isoformat(), 'changes': list(changes)}]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(('id', *_Example._fields))
    writer.writerows((example, *row) for example, row in _examples(dataset).items())
    with atomic_files.atomic_write(file.with_suffix('.examples.csv.gz'), 'wb') as binary:
        binary.write(gzip.compress(stream.getvalue().encode(), compresslevel=1, mtime=0))
    document: dict[str, Any] = {
        'version': _VERSION,
        'name': dataset.name,
        'fingerprint': dataset.fingerprint(),
        'classes': list(dataset.classes),
        'shape': list(dataset.images.shape),
        'stored_size': dataset.stored_size and list(dataset.stored_size),
        'reading': dataset.reading.as_json(),
        'pillow': PIL.__version__,
        'stamp': stamp,
        'changes': known,
        **account.as_json(dataset),
    }
    atomic_files.write_json(file, document)


def _document(file: Path) -> dict[str, Any]:
    try:
        found = json_files.parse(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def classes(workdir: Path, name: str) -> tuple[str, ...]:
    """The names of a data set's classes; empty if they are not known, as in work directories of older versions."""
    return tuple(map(str, _document(file_of(workdir, name)).get('classes', ())))


def is_unchanged(workdir: Path, name: str, stamp: str | None) -> bool:
    """Whether the files of a data set have the stamp that its record has, so that it need not be read to know it."""
    return stamp is not None and _document(file_of(workdir, name)).get('stamp') == stamp


def read(workdir: Path, name: str) -> Record | None:
    """The record of a data set; ``None`` if there is none, as in work directories of older versions.

    Raises:
        UserError: it is damaged.
    """
    file = file_of(workdir, name)
    if not file.exists():
        return None
    try:
        document = json_files.parse(file.read_text())
        rows = csv.reader(io.StringIO(gzip.decompress(file.with_suffix('.examples.csv.gz').read_bytes()).decode()))
        next(rows)
        examples = {example: _Example(*row) for example, *row in rows}
        return Record(
            document['fingerprint'],
            tuple(document['classes']),
            document.get('stored') or '',
            ImageReading.from_json(document['reading']),
            document['pillow'],
            document.get('stamp'),
            examples,
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration, EOFError, zlib.error) as error:
        raise UserError(
            f'the record of the data in {file} is damaged ({type(error).__name__}: {error}), so it cannot be '
            'compared; put the file back from a copy, choose another --workdir, or remove it to take the data as they '
            'are now'
        ) from None


def check(workdir: Path, dataset: Dataset, accepted: bool = False) -> list[str]:
    """Compare a data set with its record.

    Args:
        workdir: the work directory.
        accepted: whether the user accepts that the data have changed.

    Returns:
        What differs, in words; empty if nothing does, or if there is no record.

    Raises:
        UserError: it differs, and that is not accepted; or the classes differ, so that labels mean something else.
    """
    before = read(workdir, dataset.name)
    if before is None or before.fingerprint == dataset.fingerprint():
        return []
    found = differences(before, dataset)
    told = f'the data of {dataset.name!r} have changed since {str(workdir)!r} was begun: {"; ".join(found)}'
    if before.classes != dataset.classes:
        raise UserError(f'{told}. Its labels would mean other classes: restore the folder, or choose another --workdir')
    if not accepted:
        raise UserError(
            f'{told}. Undo this, choose another --workdir, or go on with the data as they are: --accept_changed_data'
        )
    return found


def differences_from(workdir: Path, dataset: Dataset) -> list[str]:
    """What differs from the record in a work directory; empty if there is none."""
    before = read(workdir, dataset.name)
    if before is None or before.fingerprint == dataset.fingerprint():
        return []
    return differences(before, dataset)


def differences(before: Record, dataset: Dataset) -> list[str]:
    """What differs between a record and the data set as it is now, in words, the most important first."""
    now, then = _examples(dataset), before.examples
    of_texts = texts.are_texts(dataset)
    shifted: dict[str, str] = {}
    if of_texts:
        then, shifted = _under_present_ids(then, now)
    what = 'text' if of_texts else 'image'
    found = [*_of_classes(before.classes, dataset.classes, then, now)]
    # An image whose class folder was renamed has another id, but it is neither gone nor new.
    moved_ids = _moved(then, now)
    unreadable = {example for example, _ in dataset.skipped}
    spoilt = [example for example in then if example in unreadable]
    gone = [example for example in then if example not in now and example not in (moved_ids.keys() | unreadable)]
    heirs = set(moved_ids.values())
    new = [example for example in now if example not in then and example not in heirs]
    both = [example for example in then if example in now]
    replaced = [
        each for each in both if then[each].digest != now[each].digest and then[each].digest and now[each].digest
    ]
    # Records of earlier versions keep no annotations of some kinds of data.
    kept = any(row.annotation for row in then.values())
    annotated = [each for each in both if kept and then[each].annotation != now[each].annotation]
    relabelled = [each for each in both if then[each].label != now[each].label]
    moved = [each for each in both if then[each].split != now[each].split]
    for names, how in (
        (gone, 'removed'),
        (spoilt, 'no longer used' if of_texts else 'no longer readable'),
        (new, 'added'),
        (replaced, 'changed' if of_texts else 'replaced under the same name'),
        (annotated, 'with another annotation'),
        (relabelled, 'in another class'),
        (list(moved_ids), 'moved or renamed'),
    ):
        if names:
            found.append(f'{account.number_of(len(names), what)} {how} ({listed(names)})')
    # Removing or adding images of a class moves one or two others between its splits, which is no news of its own.
    if moved and not (gone or new or moved_ids):
        found.append(f'{account.number_of(len(moved), what)} in another split ({listed(moved)})')
    # So does adding or removing a line of a file to all that follow.
    if shifted and not (gone or new):
        places = (f'{before} → {after}' for before, after in shifted.items())
        found.append(f'{account.number_of(len(shifted), what)} in another place ({listed(places)})')
    stored = dataset.account.stored if dataset.account else ''
    if before.stored and stored and stored != before.stored:
        found.append(f'images were stored {before.stored}, and now {stored}')
    for what, was, is_now in (
        ('the values of deep grey images that become 0 and 255', before.reading.grey_range, dataset.reading.grey_range),
        ('the background of transparent images', before.reading.background, dataset.reading.background),
    ):
        if was != is_now:
            found.append(f'{what}: {was} then, {is_now} now')
    if not found and before.pillow != PIL.__version__ and not of_texts:
        found.append(f'Pillow {before.pillow} read them then, and {PIL.__version__} now')
    if not found:
        inputs = 'texts' if of_texts else 'pixels'
        found.append(f'the {inputs} differ (fingerprint {before.fingerprint} then, {dataset.fingerprint()} now)')
    return found


def _of_classes(
    then: Sequence[str], now: Sequence[str], before: dict[str, _Example], after: dict[str, _Example]
) -> list[str]:
    gone, new = [name for name in then if name not in now], [name for name in now if name not in then]
    found = []
    for name in list(gone):
        digests = Counter(row.digest for row in before.values() if row.label == name and row.digest)
        heirs = Counter(row.label for row in after.values() if row.digest in digests and row.label in new)
        heir, shared = heirs.most_common(1)[0] if heirs else ('', 0)
        if shared > digests.total() / 2:
            found.append(f'the class {name!r} is called {heir!r} now')
            gone.remove(name)
            new.remove(heir)
    found += [f'the class {name!r} is gone' for name in gone] + [f'the class {name!r} is new' for name in new]
    if not found and tuple(then) != tuple(now):
        found.append(f'the classes have another order ({", ".join(now)})')
    return found


def _moved(then: dict[str, _Example], now: dict[str, _Example]) -> dict[str, str]:
    """Id then → id now, of the files that have another name or folder but the same content."""
    places: dict[str, list[str]] = {}
    for example, row in now.items():
        if example not in then and row.digest:
            places.setdefault(row.digest, []).append(example)
    return {
        example: places[row.digest].pop()
        for example, row in then.items()
        if example not in now and places.get(row.digest)
    }


def _under_present_ids(
    then: Mapping[str, _Example], now: Mapping[str, _Example]
) -> tuple[dict[str, _Example], dict[str, str]]:
    """The examples of a record of texts under the ids that the same texts have now.

    The id of a text is its line in a file, which another line before it shifts; so an example is known by its text
    first, and by its id only where its text is nowhere else.

    Returns:
        Id → example, where one that is gone keeps an id that is no other's; and id then → id now, where they differ.
    """
    taken = {example for example, row in then.items() if example in now and now[example].digest == row.digest}
    places: dict[str, list[str]] = {}
    for example, row in reversed([*now.items()]):
        if example not in taken:
            places.setdefault(row.digest, []).append(example)
    shifted: dict[str, str] = {}
    for example, row in then.items():
        if example not in taken and row.digest and places.get(row.digest):
            shifted[example] = places[row.digest].pop()
    heirs = {*shifted.values()}
    found = {}
    for example, row in then.items():
        present = shifted.get(example, example)
        found[f'{example} (then)' if example not in shifted and example in heirs else present] = row
    return found, shifted


def _examples(dataset: Dataset) -> dict[str, _Example]:
    splits = {int(index): split for split, indices in dataset.splits.items() for index in indices}
    nothing = [''] * len(dataset.ids)
    labels = [dataset.classes[label] for label in dataset.targets] if dataset.truth is None else nothing
    columns = (
        labels,
        dataset.file_sizes or nothing,
        dataset.digests or nothing,
        dataset.annotation_digests or nothing,
    )
    return {
        dataset.ids[index]: _Example(label, splits.get(index, ''), str(size), digest[:16], annotation[:16])
        for index, (label, size, digest, annotation) in enumerate(zip(*columns, strict=True))
    }
