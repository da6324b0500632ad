"""Where the runs below a directory lie, and how large and how old their files are."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments.cli import json_files, work_directories
from experiments.results import curves, shards
from experiments.results import rows as result_rows

REPORT = 'report.html'
# What a report writes, which is no progress of the run.
_OF_REPORTS = frozenset({REPORT, 'table.md', 'table.csv', 'table.tex', 'score_vs_cost.png', 'index.html'})
# Of a run's own directories: no other run lies in one of them.
_OF_RUNS = frozenset(
    {
        'checkpoints', 'data', 'pictures', 'predictions', 'profile', 'tensorboard', 'wandb',
        curves.TRAININGS, shards.DIRECTORY,
    }
)  # fmt: skip
_PROGRESS = frozenset({result_rows.RESULTS, result_rows.RESULT, curves.METRICS})


def modified(path: Path) -> float | None:
    """When a file or directory was last written, in seconds since 1970; ``None`` if it cannot be read."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def work_directories_below(root: Path) -> Iterator[tuple[Path, str]]:
    """Work directories, and directories that cannot be read with the reason, each once and in their order."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                names = {entry.name: _is_directory(entry) for entry in entries}
        except OSError as error:
            yield path, error.strerror or str(error)
            continue
        is_run = _is_work_directory(path, names)
        if is_run:
            yield path, ''
        skipped = _OF_RUNS if is_run else ()
        below = (name for name, is_dir in names.items() if is_dir and name not in skipped and not name.startswith('.'))
        waiting += [path / name for name in sorted(below, reverse=True)]


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_work_directory(path: Path, names: Mapping[str, bool]) -> bool:
    if names.keys() & {result_rows.RESULTS, result_rows.RESULT, curves.METRICS, curves.TRAININGS}:
        return True
    if work_directories.CONFIG not in names:
        return shards.DIRECTORY in names and bool(shards.of(path))
    try:
        config = json_files.parse((path / work_directories.CONFIG).read_text())
    except (OSError, ValueError):
        return True  # told with the reason
    # Models of others lie in directories with a file of this name.
    return isinstance(config, dict) and ('backbones' in config or {'backbone', 'regime'} <= config.keys())


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files in a work directory.

    Attributes:
        size: bytes of all of them.
        first, last: when the first and the last were written, those of reports left out; ``None`` if there is none.
        longest_pause: longest time in seconds between the last writes of results, metrics, predictions and
            checkpoints.
        has_results: whether there is any of these.
        has_tables: whether the tables are at least as new as the results.
    """

    size: int
    first: float | None
    last: float | None
    longest_pause: float
    has_results: bool
    has_tables: bool

    @staticmethod
    def of(workdir: Path) -> 'RunFiles':
        """Those of a work directory; what is removed meanwhile, or may not be read, is left out."""
        size, times, progress = 0, [], []
        newest: dict[str, float] = {}
        waiting = [workdir]
        while waiting:
            path = waiting.pop()
            for entry in _entries(path):
                try:
                    status, is_directory = entry.stat(follow_symlinks=False), entry.is_dir(follow_symlinks=False)
                except OSError:
                    continue
                if is_directory:
                    # Another run may lie in a directory that is none of this run's own.
                    if path != workdir or entry.name in _OF_RUNS:
                        waiting.append(Path(entry.path))
                    if path.name == 'checkpoints':
                        progress.append(status.st_mtime)
                    continue
                size += status.st_size
                if path == workdir:
                    newest[entry.name] = status.st_mtime
                    if entry.name in _OF_REPORTS:
                        continue
                if path.name == 'pictures':  # of reports too
                    continue
                times.append(status.st_mtime)
                if entry.name in _PROGRESS or path.name == 'predictions':
                    progress.append(status.st_mtime)
        progress.sort()
        pauses = [after - before for before, after in itertools.pairwise(progress)]
        return RunFiles(
            size=size,
            first=min(times, default=None),
            last=max(times, default=None),
            longest_pause=max(pauses, default=0.0),
            has_results=bool(progress),
            has_tables=newest.get('table.md', 0.0) >= newest.get(result_rows.RESULTS, float('inf')),
        )


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []
