"""The store in several processes: the main process reads, locks and writes, and all take part in the computation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from backbones.errors import UserError
from experiments.features.entry_files import Bounds, Shard, StoredFeatures
from experiments.features.store import Announce, Compute, Store, Wanted


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


def fetch(store: Store, wanted: Sequence[Wanted], compute: Compute, announce: Announce) -> list[StoredFeatures]:
    """``Store.fetch``, called by every process; ``compute`` runs in all of them, and the main process writes.

    Raises:
        UserError: the main process cannot write; raised in all processes.
    """
    if jax.process_count() == 1:
        return store.fetch(wanted, compute, announce)
    if jax.process_index() == 0:
        return _Main().fetch(store, wanted, compute, announce)
    *flags, good = _from_main([False] * (sum(len(each.bounds) for each in wanted) + 1))
    _check(good)
    there = iter(flags)
    found, missing = [], []
    for each in wanted:
        known = [next(there) for _ in each.bounds]
        found.append([number for number, stored in enumerate(known) if stored])
        missing.append([number for number, stored in enumerate(known) if not stored])
    announce(found)
    shards = compute(missing) if any(missing) else iter(())
    for _ in range(sum(map(len, missing))):
        try:
            next(shards)
        except BaseException:
            _from_main([False])  # it fails in the main process as well
            raise
        _check(_from_main([False])[0])
    _check(_from_main([False])[0])
    return [_of_main(store, each.identity, each.bounds) for each in wanted]


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

    def __init__(self):
        self._announced = self._told_failure = False

    def fetch(
        self, store: Store, wanted: Sequence[Wanted], compute: Compute, announce: Announce
    ) -> list[StoredFeatures]:
        def tell_found(found: Sequence[Sequence[int]]) -> None:
            flags = [
                number in numbers
                for each, numbers in zip(wanted, found, strict=True)
                for number in range(len(each.bounds))
            ]
            _from_main([*flags, True])
            self._announced = True
            announce(found)

        try:
            stored = store.fetch(wanted, lambda missing: self._tell_written(compute(missing)), tell_found)
        except BaseException:
            if not self._announced:
                _from_main([False] * (sum(len(each.bounds) for each in wanted) + 1))
            elif not self._told_failure:
                _from_main([False])
            raise
        _from_main([True])
        return stored

    def _tell_written(self, shards: Iterator[tuple[int, Shard]]) -> Iterator[tuple[int, Shard]]:
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
