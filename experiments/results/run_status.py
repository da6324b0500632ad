"""Whether a run is finished, under way, interrupted, failed or not started, by what it left in its work directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.cli import work_directories
from experiments.results import curves, file_systems, shards
from experiments.results.run_files import RunFiles

Status = Literal['under way', 'finished', 'interrupted', 'failed', 'not started', 'unreadable']

_EVENTS = 'events.jsonl'
# Where locks tell nothing, a run is taken to be interrupted after so many of the longest pause between its writes,
_PATIENCE = 3.0
# and not before so many seconds.
_SHORTEST_PATIENCE = 600.0


def status(workdir: Path, config: Mapping[str, Any], finished: bool, files: RunFiles, now: float) -> tuple[Status, str]:
    """The status of a run, and what tells it or why.

    A run holds the lock of its work directory (``work_directories.used``). On a file system of this machine alone that
    decides whether it is under way. A lock that another machine holds may not be seen; there a run is under way, too,
    while the time since its last write is short against the pauses between its writes.

    Args:
        workdir: its work directory.
        config: its config.
        finished: whether it has all its results.
        files: those in its work directory.
        now: the present time, in seconds since 1970.
    """
    if any(map(work_directories.in_use, shards.parts(workdir))):
        return 'under way', 'it holds the lock of its work directory'
    if finished:
        return 'finished', ''
    ended = _end(workdir, config)
    if ended is not None:
        return ended
    if not files.has_results:
        return 'not started', 'there is a config, and nothing has been computed'
    limit = max(_SHORTEST_PATIENCE, _PATIENCE * files.longest_pause)
    if files.last is not None and now - files.last < limit and not file_systems.is_local(workdir):
        return 'under way', f'no lock is seen here, but its last write is less than {limit / 60:.0f} minutes old'
    return 'interrupted', 'it holds no lock of its work directory, and is not finished'


def _end(workdir: Path, config: Mapping[str, Any]) -> tuple[Status, str] | None:
    """What the last event says, if it is an end."""
    try:
        events = [row for row in curves.read_lines(workdir / _EVENTS) if row.get('event') != 'unreadable']
    except OSError:
        return None
    last = events[-1] if events else {}
    text = str(last.get('text', ''))
    if last.get('event') == 'preempted':
        return 'interrupted', text
    # Earlier versions recorded no failure but this one; others go on after it.
    stops = last.get('event') == 'not finite' and config.get('non_finite', 'stop') == 'stop'
    return ('failed', text) if stops or last.get('event') == 'failed' else None
