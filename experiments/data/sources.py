"""Data sets by name: ``mnist5k``, ``digits``, ``tfds:NAME``, ``folder:PATH``. A new data set is one function here."""

from collections.abc import Callable
from pathlib import Path

from backbones.errors import unknown
from experiments.data import embedded, tfds
from experiments.data.dataset import Dataset

EMBEDDED: dict[str, Callable[[], Dataset]] = {
    'mnist5k': embedded.load_mnist5k,
    'digits': embedded.load_digits,
}


def load(name: str, data_directory: Path | None = None, stored_size: int = 256, bad_files_limit: int = 10) -> Dataset:
    """Load a data set.

    Args:
        name: one of the embedded ones, ``tfds:NAME`` or ``folder:PATH``.
        data_directory: where prepared TFDS data sets lie; ``None``: TFDS's own default.
        stored_size: side to which images are brought where they have several sizes.
        bad_files_limit: number of unreadable files of a folder that are skipped before it is an error.

    Raises:
        UserError: no such data set (the nearest names are offered), or it can't be read.
    """
    kind, colon, rest = name.partition(':')
    if colon and kind == 'tfds':
        return tfds.load(rest, data_directory or tfds.default_directory(), stored_size)
    if name in EMBEDDED:
        return EMBEDDED[name]()
    raise unknown('data set', name, (*EMBEDDED, 'tfds:NAME', 'folder:PATH'))
