"""Data sets by name: ``mnist5k``, ``digits``, ``tfds:NAME``, ``folder:PATH``. A new data set is one function here."""

from collections.abc import Callable
from pathlib import Path

from backbones.errors import unknown
from experiments.data import embedded, folder, tfds
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions

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


def load(name: str, data_directory: Path | None = None, options: ReadingOptions | None = None, **values) -> Dataset:
    """Load a data set.

    Args:
        name: one of the embedded ones, ``tfds:NAME`` or ``folder:PATH``.
        data_directory: directory of prepared TFDS data sets; ``None``: TFDS's own default.
        options: how it is read.
        **values: or some of the options by name.

    Raises:
        UserError: no such data set (the nearest names are suggested), or too much of it cannot be read.
    """
    check_name(name)
    options = options or ReadingOptions(**values)
    if name in EMBEDDED:
        return EMBEDDED[name]()
    kind, _, rest = name.partition(':')
    if kind == 'tfds':
        return tfds.load(rest, data_directory or tfds.default_directory(), options)
    return folder.load(rest, options)
