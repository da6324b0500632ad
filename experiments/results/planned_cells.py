"""The cells that an ablation was last started for, so that what is left can be told without the trainer."""

import json
from collections.abc import Iterable
from pathlib import Path

from experiments.cli import atomic_files
from experiments.results.axes import Cell

FILE = 'planned_cells.json'


def write(workdir: Path, cells: Iterable[Cell]) -> None:
    """Record the planned cells of a work directory, replacing earlier ones.

    Raises:
        OSError: the file cannot be written.
    """
    atomic_files.write_json(workdir / FILE, [cell.key() for cell in cells])


def read(workdir: Path) -> frozenset[str] | None:
    """Keys of the planned cells (``Cell.key``); ``None`` where there is no readable file, as of earlier versions."""
    try:
        found = json.loads((workdir / FILE).read_text())
    except (OSError, ValueError):
        return None
    return frozenset(map(str, found)) if isinstance(found, list) else None
