"""The files of one entry of the feature store: shards, their checksums and the manifest (see ``store``)."""

import contextlib
import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from backbones.pretrained.checksums import flush
from experiments.cli import atomic_files, display
from experiments.features.locks import Lock

MANIFEST = 'manifest.json'
_ABOUT = 'about.json'
_VERSION = 1

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
        self._places: Int[np.ndarray, ' examples'] | None = None
        self.unreadable = dict(unreadable)

    def reordered(self, places: Int[np.ndarray, ' examples']) -> 'StoredFeatures':
        """The same features where example ``i`` is the one that lies at ``places[i]``."""
        there = {int(place): index for index, place in enumerate(places)}
        other = StoredFeatures(self._shards, {there[at]: why for at, why in self.unreadable.items()}, self._lock)
        other._places = places
        return other

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features, examples first."""
        return int(self._starts[-1]), *self._shards[0].shape[1:]

    def __getitem__(self, indices: Int[np.ndarray, ' count']) -> Float[np.ndarray, 'count *rest']:
        """The features of some examples; only these are read from disk."""
        indices = np.asarray(indices) if self._places is None else self._places[indices]
        out = np.empty((len(indices), *self.shape[1:]), self._shards[0].dtype)
        places = np.searchsorted(self._starts, indices, side='right') - 1
        for number in np.unique(places):
            rows = places == number
            out[rows] = self._shards[number][indices[rows] - self._starts[number]]
        return out

    def array(self) -> Float[np.ndarray, 'examples *rest']:
        """All features, in memory."""
        values = np.concatenate(self._shards)
        return values if self._places is None else values[self._places]


class EntryFiles:
    """The directory of one entry.

    Args:
        path: the directory; it need not exist.
        identity: everything that the features depend on.
        about: a description.
        bounds: the bounds of the shards.

    Attributes:
        complete: whether ``verified`` found an intact manifest.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], about: Mapping[str, str], bounds: Bounds):
        self.path, self.identity, self.about, self.bounds = path, identity, about, bounds
        self.complete = False

    @property
    def what(self) -> str:
        """Backbone and data, for messages."""
        return f'{self.about.get("backbone", "?")} on {self.about.get("data", "?")}'

    def finished_files(self) -> list[Path]:
        """The files of the finished shards."""
        return sorted(self.path.glob('*.npy')) if self.path.is_dir() else []

    def verified(self, say: bool) -> dict[int, dict]:
        """Shard → its record, for all shards whose file matches the record.

        Args:
            say: whether to print what is damaged and will be recomputed.
        """
        manifest, self.complete = read_manifest(self.path)
        if manifest and manifest.get('identity') != json.loads(json.dumps(self.identity)):
            manifest, self.complete = {}, False
        if (self.path / MANIFEST).exists() and not self.complete and say:
            self._say(f'{MANIFEST} is damaged')
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
        atomic_files.write_json(self.path / MANIFEST, {**manifest, 'sha256': _own_digest(manifest)})
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


def read_manifest(path: Path) -> tuple[dict, bool]:
    """The manifest, and whether it is intact."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        own = manifest.pop('sha256')
        intact = own == _own_digest(manifest) and manifest['version'] == _VERSION
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, False
    return (manifest, True) if intact else ({}, False)


def read_about(path: Path) -> dict[str, str]:
    """The description of an unfinished entry; empty if it is missing or damaged."""
    try:
        about = json.loads((path / _ABOUT).read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in about.items()} if isinstance(about, dict) else {}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
