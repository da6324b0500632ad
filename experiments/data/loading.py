"""Data sets by name: ``mnist5k``, ``digits``, ``tfds:NAME``, ``folder:PATH``. A new data set is one function here."""

from collections.abc import Callable
from pathlib import Path

from backbones.errors import UserError, unknown
from experiments.data import embedded, folder, tfds
from experiments.data.dataset import Dataset

EMBEDDED: dict[str, Callable[[], Dataset]] = {
    'mnist5k': embedded.load_mnist5k,
    'digits': embedded.load_digits,
}


def check_name(name: str) -> None:
    """Check the name of a data set without reading anything.

    Raises:
        UserError: no such name; the nearest ones are suggested.
    """
    kind, colon, rest = name.partition(':')
    if name not in EMBEDDED and not (colon and kind in ('tfds', 'folder') and rest):
        raise unknown('data set', name, (*EMBEDDED, 'tfds:NAME', 'folder:PATH'))


def load(
    name: str,
    data_directory: Path | None = None,
    stored_size: int = 256,
    bad_files_limit: int = 10,
    fit: str = 'crop',
) -> Dataset:
    """Load a data set.

    Args:
        name: one of the embedded ones, ``tfds:NAME`` or ``folder:PATH``.
        data_directory: directory of prepared TFDS data sets; ``None``: TFDS's own default.
        stored_size: side of the squares that images of several sizes become.
        bad_files_limit: unreadable files or records are named, counted and skipped up to this number.
        fit: how they become square: ``'crop'``, ``'squash'`` or ``'letterbox'``.

    Raises:
        UserError: no such data set (the nearest names are suggested), too much of it cannot be read, or ``stored_size``
            is not positive.
    """
    check_name(name)
    if stored_size < 1:
        raise UserError(f'stored_size must be a positive number of pixels, not {stored_size}')
    if name in EMBEDDED:
        return EMBEDDED[name]()
    kind, _, rest = name.partition(':')
    if kind == 'tfds':
        return tfds.load(rest, data_directory or tfds.default_directory(), stored_size, bad_files_limit, fit)
    return folder.load(rest, stored_size, bad_files_limit, fit)
