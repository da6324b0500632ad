"""The store in several processes: the main process reads, locks and writes, and all take part in the computation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from backbones.errors import UserError
from experiments.features.entry_files import Bounds, Shard, StoredFeatures
from experiments.features.store import Store

Compute = Callable[[Sequence[int]], Iterator[Shard]]
Announce = Callable[[Sequence[int]], None]


def find(store: Store, identity: Mapping[str, Any], bounds: Bounds) -> StoredFeatures | None:
    """``Store.find`` with the same answer in every process.

    Raises:
        UserError: this process does not see what the main process has stored.
    """
    found = store.find(identity, bounds) if jax.process_index() == 0 else None
    if jax.process_count() == 1:
        return found
    if not _from_main([found is not None])[0]:
        return None
    return found or _of_main(store, identity, bounds)


def fetch(
    store: Store,
    identity: Mapping[str, Any],
    about: Mapping[str, str],
    bounds: Bounds,
    compute: Compute,
    announce: Announce,
) -> StoredFeatures:
    """``Store.fetch``, called by every process; ``compute`` runs in all of them, and the main process writes.

    Raises:
        UserError: the main process cannot write; raised in all processes.
    """
    if jax.process_count() == 1:
        return store.fetch(identity, about, bounds, compute, announce)
    if jax.process_index() == 0:
        return _Main(len(bounds)).fetch(store, identity, about, bounds, compute, announce)
    *found, good = _from_main([False] * (len(bounds) + 1))
    _check(good)
    announce([number for number, there in enumerate(found) if there])
    missing = [number for number, there in enumerate(found) if not there]
    shards = compute(missing) if missing else iter(())
    for _ in missing:
        try:
            next(shards)
        except BaseException:
            _from_main([False])  # it fails in the main process as well
            raise
        _check(_from_main([False])[0])
    _check(_from_main([False])[0])
    return _of_main(store, identity, bounds)


def of_main_process(text: str | None) -> str | None:
    """Broadcast a short text of the main process, since a file may appear between two processes' look-ups."""
    if jax.process_count() == 1:
        return text
    encoded = np.zeros(256, np.uint8)
    own = (text or '').encode()
    encoded[: len(own)] = np.frombuffer(own, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(encoded))).rstrip(b'\0').decode() or None


class _Main:
    """The main process: it tells the others what is stored and, after each shard, whether it was written."""

    def __init__(self, bounds: int):
        self._bounds = bounds
        self._announced = self._told_failure = False

    def fetch(
        self,
        store: Store,
        identity: Mapping[str, Any],
        about: Mapping[str, str],
        bounds: Bounds,
        compute: Compute,
        announce: Announce,
    ) -> StoredFeatures:
        def tell_found(found: Sequence[int]) -> None:
            _from_main([number in found for number in range(self._bounds)] + [True])
            self._announced = True
            announce(found)

        try:
            stored = store.fetch(
                identity, about, bounds, lambda missing: self._tell_written(compute(missing)), tell_found
            )
        except BaseException:
            if not self._announced:
                _from_main([False] * (self._bounds + 1))
            elif not self._told_failure:
                _from_main([False])
            raise
        _from_main([True])
        return stored

    def _tell_written(self, shards: Iterator[Shard]) -> Iterator[Shard]:
        for shard in shards:
            written = False
            try:
                yield shard
                written = True
            finally:  # the generator is closed here if the store could not write the shard
                self._told_failure = not written
                _from_main([written])


def _from_main(values: Sequence[bool]) -> list[bool]:
    """Broadcast the values of the main process."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.array(values))).tolist()


def _check(good: bool) -> None:
    if not good:
        raise UserError('process 0 could not store the features; see its error')


def _of_main(store: Store, identity: Mapping[str, Any], bounds: Bounds) -> StoredFeatures:
    found = store.find(identity, bounds)
    if found is None:
        raise UserError(
            f'process {jax.process_index()} does not see what process 0 has stored in {str(store.directory)!r}; '
            '--cache_dir must name a directory that all processes see'
        )
    return found
