"""A persistent store of features, addressed by what the features depend on.

The store's directory holds one entry per address (``addresses.address``)::

    ADDRESS/00000.npy …    shards, memory-mapped when read
    ADDRESS/00000.json …   checksum of each finished shard, until all are finished
    ADDRESS/about.json     description of the entry, until all shards are finished
    ADDRESS/manifest.json  written last: identity, checksums, examples that could not be read
    ADDRESS.lock           shared lock of all users of the entry; its modification time is the last use
    ADDRESS.build          held by the one process that computes what is missing

Every file is written under a temporary name and renamed. Finished shards are kept when a pass is interrupted. Each
shard is compared with its checksum before use; a damaged one is reported and recomputed.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from experiments.cli import atomic_files, cache_directory, display
from experiments.features import locks
from experiments.features.addresses import address
from experiments.features.entry_files import (
    MANIFEST,
    Bounds,
    EntryFiles,
    Shard,
    StoredFeatures,
    read_about,
    read_manifest,
)

DEFAULT_LIMIT = '20GB'
_NOTES = ('weights', 'throughput')

# The numbers of the missing shards of each entry → the computed ones, each with the place of its entry.
Compute = Callable[[Sequence[Sequence[int]]], Iterator[tuple[int, Shard]]]
Announce = Callable[[Sequence[Sequence[int]]], None]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An entry that is asked for.

    Attributes:
        identity: everything that the features depend on.
        about: a description for the user.
        bounds: the bounds of the shards.
    """

    identity: Mapping[str, Any]
    about: Mapping[str, str]
    bounds: Bounds


@dataclasses.dataclass(frozen=True)
class StoredEntry:
    """Summary of one entry.

    Attributes:
        address: its name in the store.
        about: a description: ``'backbone'``, ``'data'``, ``'tap'``, …; empty if it is missing or damaged.
        size: bytes on disk.
        last_use: seconds since 1970.
        complete: whether all shards are present.
        in_use: whether a process is using it.
    """

    address: str
    about: Mapping[str, str]
    size: int
    last_use: float
    complete: bool
    in_use: bool


def parse_size(text: str) -> int:
    """Parse ``'20GB'``, ``'500MB'``, ``'1TB'`` or a number of bytes.

    Raises:
        UserError: the text is not a size.
    """
    units = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'TB': 10**12, 'B': 1}
    stripped = text.strip().upper()
    unit = next((each for each in units if stripped.endswith(each)), '')
    try:
        size = float(stripped.removesuffix(unit)) * units.get(unit, 1)
        if not 0 <= size < float('inf'):
            raise ValueError
    except ValueError:
        raise UserError(f'{text!r} is not a size; expected a number with B, KB, MB, GB or TB, such as 20GB') from None
    return int(size)


def format_size(size: float) -> str:
    """Format a size so that ``parse_size`` can read it."""
    for unit in ('B', 'KB', 'MB', 'GB'):
        if size < 1000:
            return f'{size:.0f}{unit}' if unit == 'B' else f'{size:.1f}{unit}'
        size /= 1000
    return f'{size:.1f}TB'


class Store:
    """Entries by address in one directory, which processes and machines may share.

    Args:
        directory: created when the first entry is written; ``None``: the default directory.
        limit: size in bytes to which the store is pruned after a new entry, least recently used entries first, but
            never an entry in use. ``None``: no limit.

    Raises:
        UserError: a file is in the way of the directory.
    """

    def __init__(self, directory: Path | None = None, limit: int | None = None):
        self.directory = cache_directory.features() if directory is None else Path(directory)
        self.limit = limit
        with contextlib.suppress(OSError):  # told where it is written
            if any(each.is_file() for each in (self.directory, *self.directory.parents)):
                raise UserError(
                    f'the feature store {str(self.directory)!r} is, or lies in, a file; choose a directory with '
                    '--cache_dir'
                )

    def fetch(
        self,
        wanted: Sequence[Wanted],
        compute: Compute,
        announce: Announce = lambda found: None,
    ) -> list[StoredFeatures]:
        """Get features from the store; missing or damaged shards are computed and stored.

        A second process that wants one of the entries at the same time waits for the first one.

        Args:
            wanted: distinct entries, whose shards are computed together.
            compute: yields the shards with the given numbers of each entry, those of one entry in the given order.
            announce: called with the numbers of the shards of each entry that need not be computed.

        Returns:
            The features of each entry.

        Raises:
            UserError: the directory cannot be written, or the disk is full; finished shards are kept.
        """
        stored = [self.find(each.identity, each.bounds) for each in wanted]
        entries = [
            EntryFiles(self.directory / address(each.identity), each.identity, each.about, each.bounds)
            for each in wanted
        ]
        # All processes lock in this order, so that no two wait for each other.
        absent = sorted(
            (place for place, found in enumerate(stored) if found is None), key=lambda place: entries[place].path
        )
        if not absent:
            announce([range(len(each.bounds)) for each in wanted])
            return [each for each in stored if each is not None]

        def kept() -> str:
            done = sum(len(entries[place].finished_files()) for place in absent)
            every = sum(len(entries[place].bounds) for place in absent)
            return (
                f'{done} of {every} shards of the features of {entries[absent[0]].what} are kept in {self.directory}; '
                'choose another directory with --cache_dir, or make room (python -m experiments.features prune --size '
                'SIZE), and the same command continues'
            )

        with contextlib.ExitStack() as stack:
            stack.enter_context(atomic_files.os_errors_as_user_errors(kept))
            self.directory.mkdir(parents=True, exist_ok=True)
            users = {}
            for place in absent:
                lock = locks.acquire(self._lock(entries[place]), shared=True, wait=True)
                assert lock is not None, 'whoever waits gets the lock'
                users[place] = stack.enter_context(lock)
            with contextlib.ExitStack() as building:
                for place in absent:
                    building.enter_context(self._building(entries[place]))
                records: dict[int, dict[int, dict]] = {}
                for place in absent:
                    entries[place].remove_temporary_files()
                    records[place] = entries[place].verified(say=True)
                found = [sorted(records.get(place, range(len(each.bounds)))) for place, each in enumerate(wanted)]
                announce(found)
                missing = [
                    [number for number in range(len(each.bounds)) if number not in there]
                    for each, there in zip(wanted, found, strict=True)
                ]
                with contextlib.closing(_generator(compute(missing) if any(missing) else iter(()))) as shards:
                    for place, shard in shards:
                        records[place][shard.number] = entries[place].write(shard)
                for place in absent:
                    if missing[place] or not entries[place].complete:
                        entries[place].finish(records[place])
            for place in absent:
                _touch(self._lock(entries[place]))
                stored[place] = entries[place].open(records[place], users[place])
            stack.pop_all()  # the features own the locks now
        if self.limit is not None:
            try:
                self.prune(limit=self.limit)
            except UserError as error:  # for example, entries of another user
                display.console.print(f'the feature store was not pruned: {error}', style='yellow', soft_wrap=True)
        return [each for each in stored if each is not None]

    def find(self, identity: Mapping[str, Any], bounds: Bounds) -> StoredFeatures | None:
        """Get complete and undamaged features, even from a read-only store; ``None`` if there are none.

        Args:
            identity, bounds: see ``fetch``.
        """
        name = address(identity)
        entry = EntryFiles(self.directory / name, identity, {}, bounds)
        if not (entry.path / MANIFEST).exists():
            return None
        lock = None
        with contextlib.suppress(OSError):
            lock = locks.acquire(self.directory / f'{name}.lock', shared=True, wait=True)
        records = entry.verified(say=False)
        if len(records) < len(entry.bounds) or not entry.complete:
            if lock is not None:
                lock.close()
            return None
        _touch(self.directory / f'{name}.lock')
        return entry.open(records, lock)

    def holds(self, identity: Mapping[str, Any]) -> bool:
        """Whether there are complete features; whether they are undamaged is only known when they are read."""
        return (self.directory / address(identity) / MANIFEST).exists()

    def _lock(self, entry: EntryFiles) -> Path:
        return entry.path.with_name(f'{entry.path.name}.lock')

    @contextlib.contextmanager
    def _building(self, entry: EntryFiles) -> Generator[None]:
        path = entry.path.with_name(f'{entry.path.name}.build')
        stream = locks.acquire(path, shared=False, wait=False)
        if stream is None:
            display.console.print(f'another process is computing the features of {entry.what}; waiting', soft_wrap=True)
            stream = locks.acquire(path, shared=False, wait=True)
        assert stream is not None, 'whoever waits gets the lock'
        with stream:
            yield
            # A waiting process finds that the file is gone, and opens it again.
            path.unlink(missing_ok=True)

    def entries(self) -> list[StoredEntry]:
        """All entries, most recently used first.

        Raises:
            UserError: the directory cannot be read.
        """
        if not self.directory.is_dir():
            return []
        with atomic_files.os_errors_as_user_errors(lambda: 'the feature store cannot be read'):
            found = [self._entry(path) for path in self.directory.iterdir() if path.is_dir() and _is_address(path.name)]
        return sorted(found, key=lambda entry: -entry.last_use)

    def _entry(self, path: Path) -> StoredEntry:
        manifest, complete = read_manifest(path)
        lock = path.with_name(f'{path.name}.lock')
        files = [file.stat() for file in path.iterdir() if file.is_file()]
        times = [lock.stat().st_mtime] if lock.exists() else [file.st_mtime for file in files]
        alone = locks.acquire(lock, shared=False, wait=False) if lock.exists() and os.access(lock, os.W_OK) else None
        in_use = lock.exists() and os.access(lock, os.W_OK) and alone is None
        if alone is not None:
            alone.close()
        about = manifest.get('about') or read_about(path)
        size, last_use = sum(each.st_size for each in files), max(times, default=0.0)
        return StoredEntry(path.name, about, size, last_use, complete, in_use)

    def prune(
        self, limit: int | None = None, unused_since: float | None = None
    ) -> tuple[list[StoredEntry], list[StoredEntry]]:
        """Remove entries that no process uses.

        Args:
            limit: bytes that may stay; the least recently used entries are removed first.
            unused_since: seconds since 1970; entries that were not used after it are removed.

        Returns:
            The removed entries, and those that were not removed because they are in use.

        Raises:
            UserError: an entry cannot be removed.
        """
        entries = self.entries()
        doomed = [entry for entry in entries if unused_since is not None and entry.last_use <= unused_since]
        if limit is not None:
            total = sum(entry.size for entry in entries if entry not in doomed)
            for entry in reversed(entries):
                if total <= limit:
                    break
                if entry not in doomed:
                    doomed.append(entry)
                    total -= 0 if entry.in_use else entry.size
        removed, kept = [], []
        with atomic_files.os_errors_as_user_errors(lambda: f'{len(removed)} entries were removed'):
            for entry in doomed:
                (removed if self._remove(entry.address) else kept).append(entry)
        return removed, kept

    def note(self, kind: str, name: str) -> Path:
        """The file of a note: something small, kept next to the entries only to save time.

        Args:
            kind: ``'weights'`` or ``'throughput'``.
            name: an address.
        """
        return self.directory / kind / f'{name}.json'

    def forget_notes(self) -> None:
        """Remove all notes."""
        for kind in _NOTES:
            shutil.rmtree(self.directory / kind, ignore_errors=True)

    def _remove(self, name: str) -> bool:
        lock = locks.acquire(self.directory / f'{name}.lock', shared=False, wait=False)
        if lock is None:
            return False
        with lock:
            # The manifest first, so that a half-removed entry counts as an interrupted one.
            (self.directory / name / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.directory / name)
            for suffix in ('build', 'lock'):
                (self.directory / f'{name}.{suffix}').unlink(missing_ok=True)
        return True


def _generator(shards: Iterator[tuple[int, Shard]]) -> Generator[tuple[int, Shard]]:
    """Wrap an iterator in a generator, which can be closed."""
    yield from shards


def _is_address(name: str) -> bool:
    return len(name) == 32 and set(name) <= set('0123456789abcdef')


def _touch(lock: Path) -> None:
    """Record the use of an entry, except in a read-only store."""
    with contextlib.suppress(OSError):
        os.utime(lock)
