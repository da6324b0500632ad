"""A persistent store of features, addressed by what the features depend on.

The store's directory holds one entry per address (``identity.address``)::

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
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from jaxtyping import Float, Int

from backbones.errors import UserError
from backbones.pretrained.checksums import flush
from experiments.cli import atomic_files, display
from experiments.features import locks
from experiments.features.identity import address
from experiments.features.locks import Lock

CACHE_VARIABLE = 'VISION_BACKBONES_CACHE'
DEFAULT_LIMIT = '20GB'
_APPLICATION = 'vision-backbones'
_MANIFEST = 'manifest.json'
_ABOUT = 'about.json'
_VERSION = 1
_NOTES = ('weights', 'throughput')

# Shard → first example and one past the last.
Bounds = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A computed part of the features.

    Attributes:
        number: its index among the bounds.
        values: one row per example.
        unreadable: index of an example in the data set → why it could not be read; its row is zero.
    """

    number: int
    values: Float[np.ndarray, 'examples *rest']
    unreadable: Mapping[int, str]


class StoredFeatures:
    """Features of all examples, memory-mapped from the store; the entry stays in use while this object exists.

    Attributes:
        unreadable: index → why the example could not be read; its features are zero.
    """

    def __init__(self, shards: Sequence[np.ndarray], unreadable: Mapping[int, str], lock: Lock | None):
        self._shards = tuple(shards)
        self._starts = np.cumsum([0, *map(len, self._shards)])
        self._lock = lock
        self.unreadable = dict(unreadable)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features, examples first."""
        return int(self._starts[-1]), *self._shards[0].shape[1:]

    def __getitem__(self, indices: Int[np.ndarray, ' count']) -> Float[np.ndarray, 'count *rest']:
        """The features of some examples; only these are read from disk."""
        indices = np.asarray(indices)
        out = np.empty((len(indices), *self.shape[1:]), self._shards[0].dtype)
        places = np.searchsorted(self._starts, indices, side='right') - 1
        for number in np.unique(places):
            rows = places == number
            out[rows] = self._shards[number][indices[rows] - self._starts[number]]
        return out

    def array(self) -> Float[np.ndarray, 'examples *rest']:
        """All features, in memory."""
        return np.concatenate(self._shards)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What ``list`` shows of an entry.

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


def default_directory() -> Path:
    """``VISION_BACKBONES_CACHE``, or the platform's cache directory."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir(_APPLICATION)) / 'features'


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
    """

    def __init__(self, directory: Path | None = None, limit: int | None = None):
        self.directory = default_directory() if directory is None else Path(directory)
        self.limit = limit

    def fetch(
        self,
        identity: Mapping[str, Any],
        about: Mapping[str, str],
        bounds: Bounds,
        compute: Callable[[Sequence[int]], Iterator[Shard]],
        announce: Callable[[Sequence[int]], None] = lambda found: None,
    ) -> StoredFeatures:
        """Get features from the store; missing or damaged shards are computed and stored.

        A second process that wants the same entry at the same time waits for the first one.

        Args:
            identity: everything that the features depend on.
            about: a description for the user.
            bounds: the bounds of the shards.
            compute: yields the shards with the given numbers, in the given order.
            announce: called with the numbers of the shards that need not be computed.

        Raises:
            UserError: the directory cannot be written, or the disk is full; finished shards are kept.
        """
        stored = self.find(identity, bounds)
        name = address(identity)
        entry = _Directory(self.directory / name, identity, about, bounds)
        if stored is not None:
            announce(range(len(bounds)))
            return stored

        def kept() -> str:
            done = len(entry.finished_files())
            return (
                f'{done} of {len(bounds)} shards of the features of {entry.what} are kept in {self.directory}, and the '
                'same command continues. Choose another directory with --cache_dir, or make room: '
                'python -m experiments.features prune --size SIZE'
            )

        with contextlib.ExitStack() as stack:
            stack.enter_context(atomic_files.os_errors_as_user_errors(kept))
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = locks.acquire(self.directory / f'{name}.lock', shared=True, wait=True)
            assert lock is not None, 'whoever waits gets the lock'
            stack.enter_context(lock)
            with self._building(name, entry.what):
                entry.remove_temporary_files()
                records = entry.verified(say=True)
                announce(sorted(records))
                missing = [number for number in range(len(bounds)) if number not in records]
                with contextlib.closing(_generator(compute(missing) if missing else iter(()))) as shards:
                    for shard in shards:
                        records[shard.number] = entry.write(shard)
                if missing or not entry.complete:
                    entry.finish(records)
            _touch(self.directory / f'{name}.lock')
            stored = entry.open(records, lock)
            stack.pop_all()  # the features own the lock now
        if self.limit is not None:
            try:
                self.prune(limit=self.limit)
            except UserError as error:  # for example, entries of another user
                display.console.print(f'the feature store was not pruned: {error}', style='yellow', soft_wrap=True)
        return stored

    def find(self, identity: Mapping[str, Any], bounds: Bounds) -> StoredFeatures | None:
        """Get complete and undamaged features, even from a read-only store; ``None`` if there are none.

        Args:
            identity, bounds: see ``fetch``.
        """
        name = address(identity)
        entry = _Directory(self.directory / name, identity, {}, bounds)
        if not (entry.path / _MANIFEST).exists():
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

    @contextlib.contextmanager
    def _building(self, name: str, what: str) -> Generator[None]:
        path = self.directory / f'{name}.build'
        stream = locks.acquire(path, shared=False, wait=False)
        if stream is None:
            display.console.print(f'another process is computing the features of {what}; waiting', soft_wrap=True)
            stream = locks.acquire(path, shared=False, wait=True)
        assert stream is not None, 'whoever waits gets the lock'
        with stream:
            yield
            # A waiting process finds that the file is gone, and opens it again.
            path.unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """All entries, most recently used first.

        Raises:
            UserError: the directory cannot be read.
        """
        if not self.directory.is_dir():
            return []
        with atomic_files.os_errors_as_user_errors(lambda: 'the feature store cannot be read'):
            found = [self._entry(path) for path in self.directory.iterdir() if path.is_dir() and _is_address(path.name)]
        return sorted(found, key=lambda entry: -entry.last_use)

    def _entry(self, path: Path) -> Entry:
        manifest, complete = _read_manifest(path)
        lock = path.with_name(f'{path.name}.lock')
        files = [file.stat() for file in path.iterdir() if file.is_file()]
        times = [lock.stat().st_mtime] if lock.exists() else [file.st_mtime for file in files]
        alone = locks.acquire(lock, shared=False, wait=False) if lock.exists() and os.access(lock, os.W_OK) else None
        in_use = lock.exists() and os.access(lock, os.W_OK) and alone is None
        if alone is not None:
            alone.close()
        about = manifest.get('about') or _read_about(path)
        return Entry(path.name, about, sum(each.st_size for each in files), max(times, default=0.0), complete, in_use)

    def prune(self, limit: int | None = None, unused_since: float | None = None) -> tuple[list[Entry], list[Entry]]:
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
            (self.directory / name / _MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.directory / name)
            for suffix in ('build', 'lock'):
                (self.directory / f'{name}.{suffix}').unlink(missing_ok=True)
        return True


class _Directory:
    """The files of one entry."""

    def __init__(self, path: Path, identity: Mapping[str, Any], about: Mapping[str, str], bounds: Bounds):
        self.path, self.identity, self.about, self.bounds = path, identity, about, bounds
        self.complete = False

    @property
    def what(self) -> str:
        return f'{self.about.get("backbone", "?")} on {self.about.get("data", "?")}'

    def finished_files(self) -> list[Path]:
        return sorted(self.path.glob('*.npy')) if self.path.is_dir() else []

    def verified(self, say: bool) -> dict[int, dict]:
        """Shard → its record, for all shards whose file matches the record.

        Args:
            say: whether to print what is damaged and will be recomputed.
        """
        manifest, self.complete = _read_manifest(self.path)
        if manifest and manifest.get('identity') != json.loads(json.dumps(self.identity)):
            manifest, self.complete = {}, False
        if (self.path / _MANIFEST).exists() and not self.complete and say:
            self._say(f'{_MANIFEST} is damaged')
        records = {}
        for number in range(len(self.bounds)):
            candidates = [record for record in (manifest.get('shards') or [])[number : number + 1] if record]
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                record = json.loads(self._file(number, 'json').read_text())
                own = record.pop('record_sha256')
                # An empty record has no bounds, so it counts as damaged.
                candidates.append(record if own == _own_digest(record) else {})
            if not candidates and not self._file(number, 'npy').exists():
                continue
            problems = [self._problem(number, record) for record in candidates] or ['has no checksum']
            good = [record for record, problem in zip(candidates, problems, strict=False) if problem is None]
            if good:
                records[number] = good[0]
            elif say and (candidates or self.complete):
                self._say(f'{self._file(number, "npy").name} {problems[0]}')
        return records

    def _say(self, problem: str) -> None:
        text = f'stored features of {self.what}: {problem}; recomputing it'
        display.console.print(text, style='yellow', soft_wrap=True)

    def _problem(self, number: int, record: Any) -> str | None:
        """Why a shard cannot be used; ``None`` if it can."""
        file = self._file(number, 'npy')
        try:
            if tuple(record['examples']) != tuple(self.bounds[number]):
                return 'holds other examples'
            size = file.stat().st_size
            if size != record['bytes']:
                return f'has another size: {size} of {record["bytes"]} bytes'
            with file.open('rb') as stream:
                same = hashlib.file_digest(stream, 'sha256').hexdigest() == record['sha256']
            return None if same else 'has changed: its SHA-256 is another'
        except FileNotFoundError:
            return 'is missing'
        except OSError as error:
            return f'cannot be read: {error.strerror or error}'
        except (KeyError, TypeError):
            return 'has a damaged checksum'

    def remove_temporary_files(self) -> None:
        """Remove what a killed process was writing. Only the process that builds the entry may call it."""
        if self.path.is_dir():
            for file in self.path.glob('.*'):
                file.unlink(missing_ok=True)

    def write(self, shard: Shard) -> dict:
        """Write a finished shard and return its record."""
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(shard.values))
        content = stream.getvalue()
        if not (self.path / _ABOUT).exists():
            atomic_files.write_json(self.path / _ABOUT, dict(self.about))
        with atomic_files.atomic_write(self._file(shard.number, 'npy'), 'wb') as file:
            file.write(content)
        record = {
            'examples': list(self.bounds[shard.number]),
            'bytes': len(content),
            'sha256': hashlib.sha256(content).hexdigest(),
            'unreadable': {str(index): reason for index, reason in shard.unreadable.items()},
        }
        atomic_files.write_json(self._file(shard.number, 'json'), {**record, 'record_sha256': _own_digest(record)})
        return record

    def finish(self, records: Mapping[int, dict]) -> None:
        """Write the manifest, and remove the files that it replaces."""
        manifest = {
            'version': _VERSION,
            'identity': self.identity,
            'about': self.about,
            'created': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'shards': [records[number] for number in range(len(self.bounds))],
        }
        atomic_files.write_json(self.path / _MANIFEST, {**manifest, 'sha256': _own_digest(manifest)})
        flush(self.path)
        for number in range(len(self.bounds)):
            self._file(number, 'json').unlink(missing_ok=True)
        (self.path / _ABOUT).unlink(missing_ok=True)

    def open(self, records: Mapping[int, dict], lock: Lock | None) -> StoredFeatures:
        """Memory-map the shards."""
        shards = [np.load(self._file(number, 'npy'), mmap_mode='r') for number in range(len(self.bounds))]
        unreadable = {
            int(index): reason for record in records.values() for index, reason in record['unreadable'].items()
        }
        return StoredFeatures(shards, unreadable, lock)

    def _file(self, number: int, suffix: str) -> Path:
        return self.path / f'{number:05d}.{suffix}'


def _generator(shards: Iterator[Shard]) -> Generator[Shard]:
    """Wrap an iterator in a generator, which can be closed."""
    yield from shards


def _read_manifest(path: Path) -> tuple[dict, bool]:
    """The manifest, and whether it is intact."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        own = manifest.pop('sha256')
        intact = own == _own_digest(manifest) and manifest['version'] == _VERSION
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, False
    return (manifest, True) if intact else ({}, False)


def _read_about(path: Path) -> dict[str, str]:
    try:
        about = json.loads((path / _ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in about.items()} if isinstance(about, dict) else {}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _is_address(name: str) -> bool:
    return len(name) == 32 and set(name) <= set('0123456789abcdef')


def _touch(lock: Path) -> None:
    """Record the use of an entry, except in a read-only store."""
    with contextlib.suppress(OSError):
        os.utime(lock)
