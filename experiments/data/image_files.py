"""The image files of a data set, whatever its layout: which can be read, how, and what is noteworthy about them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from backbones import images
from backbones.errors import UserError, unknown
from backbones.images import ImageReading, Inspection
from experiments.cli import display
from experiments.data import account
from experiments.data.decoding import KnownFile, worker_threads
from experiments.data.options import ReadingOptions


def existing(path: str, expected: str) -> Path:
    """A folder that the user names.

    Args:
        path: as the user gives it.
        expected: what it should be, in words.

    Raises:
        UserError: it is not there (its neighbours are suggested), or is a file.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        return root
    siblings = [each.name for each in root.parent.iterdir() if each.is_dir()] if root.parent.is_dir() else []
    if root.exists():
        raise UserError(f'{path!r} is a file; expected {expected}')
    if siblings:
        raise unknown(f'folder in {root.parent}', root.name, siblings)
    raise UserError(f'there is no folder {path!r}')


def reading_of(
    inspections: Sequence[Inspection], ids: Sequence[str], options: ReadingOptions
) -> tuple[ImageReading, list[str]]:
    """The rules for files that leave a choice, and those that apply to these images in words.

    Raises:
        UserError: some deep images hold whole and some floating-point numbers, or colours of 16 bits are too dark.
    """
    deep = [(each, name) for each, name in zip(inspections, ids, strict=True) if each.deep_range]
    rules: list[str] = []
    grey_range = None
    if deep:
        kinds = {each.deep_is_float: name for each, name in reversed(deep)}
        if len(kinds) == 2:
            raise UserError(
                f'grey images of whole numbers ({kinds[False]}) and of floating-point numbers ({kinds[True]}) have no '
                'common scale; convert them to one type'
            )
        ranges = [each.deep_range for each, _ in deep if each.deep_range]
        grey_range, rule = images.grey_range(
            min(low for low, _ in ranges), max(high for _, high in ranges), deep[0][0].deep_is_float
        )
        rules.append(f'{account.number_of(len(deep), "deep grey image")}: {rule}')
    upper = [each.upper_bits for each in inspections if each.upper_bits is not None]
    if upper:
        if max(upper) < 64:
            first = next(name for each, name in zip(inspections, ids, strict=True) if each.upper_bits is not None)
            raise UserError(
                f'{len(upper):,} images have colours of 16 bits (such as {first}), of which only the upper 8 are read; '
                f'their largest value there is {max(upper)}, so they hold fewer bits and would be nearly black; '
                'convert them to 8 bits'
            )
        rules.append(f'{account.number_of(len(upper))} with colours of 16 bits: the upper 8 bits are read')
    transparent = sum('transparency' in each.kind for each in inspections)
    if transparent:
        rules.append(f'{account.number_of(transparent)} with transparency: put on {options.background}')
    return ImageReading(grey_range, options.colour), rules


def noticed(inspections: Sequence[Inspection], ids: Sequence[str]) -> list[str]:
    """What may need attention about images that can be read, one sentence each."""
    found = []
    for what, which in (
        ('with several frames or pages, of which the first is read', [each.frames for each in inspections]),
        ('with values that are NaN (read as the lowest value) or infinite', [each.not_finite for each in inspections]),
        ('of a single colour', [each.plain for each in inspections]),
    ):
        names = [name for name, holds in zip(ids, which, strict=True) if holds]
        if names:
            found.append(f'{account.number_of(len(names))} {what} (such as {names[0]})')
    return found


class Checked(NamedTuple):
    """A readable file: what it holds, the digest of its bytes, and a stamp that changes with them."""

    inspection: Inspection
    known: KnownFile

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.known.digest


_File = TypeVar('_File')
_Found = TypeVar('_Found')


def check_all(
    files: Mapping[str, _File], check: Callable[[_File], _Found | str]
) -> tuple[dict[str, _Found], dict[str, str]]:
    """Decode every file once.

    Args:
        files: what should be an image, by name.
        check: what reading it finds, or why it cannot be read.

    Returns:
        What was found in the readable ones, and why others are not, by name.
    """
    good, bad = {}, {}
    with worker_threads() as pool, display.progress() as bar:
        task = bar.add_task('checking images', total=len(files), note='')
        for name, outcome in zip(files, pool.map(check, files.values()), strict=True):
            if isinstance(outcome, str):
                bad[name] = outcome
            else:
                good[name] = outcome
            bar.advance(task)
    return good, bad


def check(path: Path, problem: str | None = None) -> Checked | str:
    """What reading an image finds, or why it cannot be read: the ``problem``, if that is known already."""
    if problem is not None:
        return problem
    content = b'?'
    try:
        known, content = KnownFile.read(path)
        return Checked(images.inspect(content), known) if content else 'empty file'
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        return images.why_unreadable(content, error)
