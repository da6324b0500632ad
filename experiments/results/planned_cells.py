"""The cells that an ablation was last started for, so that what is left can be told without the trainer.

They are those of the whole ablation, also where a command ran only some of them or a shard.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.cli import atomic_files, json_files
from experiments.results import shards
from experiments.results.axes import Cell

FILE = 'planned_cells.json'


def write(workdir: Path, cells: Iterable[Cell], tried: Iterable[Cell] = (), left_out: Iterable[Cell] = ()) -> None:
    """Record the planned cells of a work directory, replacing earlier ones.

    A command that runs only some of them knows of these alone whether they can be run, so it keeps what others have
    found of theirs.

    Args:
        workdir: the work directory, of the whole ablation.
        cells: all that its config spans.
        tried: those that this command runs or has finished.
        left_out: those that it found to be impossible, such as with a fraction that is too small for the data set.

    Raises:
        OSError: the file cannot be written.
    """
    with _alone(workdir / shards.DIRECTORY):
        found = {*_document(workdir).get('left_out', ()), *_keys(left_out)} - {*_keys(tried)}
        keys = _keys(cells)
        document = {
            'cells': [key for key in keys if key not in found],
            'left_out': [key for key in keys if key in found],
        }
        atomic_files.write_json(workdir / FILE, document)


def read(workdir: Path) -> frozenset[str] | None:
    """Keys of the planned cells (``Cell.key``); ``None`` where there is no readable file, as of earlier versions."""
    found = _document(workdir)
    if found.get('whole', True):
        return _cells(found)
    # Earlier versions recorded what each command ran, in its own directory.
    plans = [plan for part in shards.parts(workdir) if (plan := _cells(_document(part))) is not None]
    return frozenset().union(*plans) if plans else None


def _keys(cells: Iterable[Cell]) -> list[str]:
    return [cell.key() for cell in cells]


def _cells(document: Mapping[str, Any]) -> frozenset[str] | None:
    return frozenset(map(str, document['cells'])) if 'cells' in document else None


def _document(workdir: Path) -> dict[str, Any]:
    """What the file holds; that of an earlier version is a list, and may not be of the whole."""
    try:
        found = json_files.parse((workdir / FILE).read_text())
    except (OSError, ValueError):
        found = None
    if isinstance(found, list):
        return {'cells': found, 'whole': False}
    is_plan = isinstance(found, dict) and all(isinstance(found.get(key), list) for key in ('cells', 'left_out'))
    return found if is_plan else {'whole': False}


@contextlib.contextmanager
def _alone(directory: Path) -> Generator[None]:
    """A context in which one shard at a time reads and writes the plan, as far as there are shards and locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
