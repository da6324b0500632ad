"""Checkpoints by orbax, behind the few calls that training needs.

A checkpoint is one directory, named by its step, that appears under that name only when all of it is on disk::

    <step>/default/         the arrays, a tree of orbax
    <step>/metadata.json    what training wants to know besides (position in the data, sums of the epoch, ...)
    <step>/checksums.json   size and SHA-256 of every file above

Names with a suffix are no checkpoints: ``<step>.unfinished`` is being written or deleted, ``<step>.damaged`` failed its
checksums and was moved aside.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint.options import AsyncOptions

from backbones.errors import UserError
from backbones.pretrained.checksums import find_damage, flush, write_checksums

STATE = 'default'
METADATA = 'metadata.json'

T = TypeVar('T')

_LEFTOVER = re.compile(r'\d+\.(unfinished|orbax-checkpoint-tmp.*)')  # the latter of earlier versions


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was read back.

    Attributes:
        step: the step under which it was saved.
        state: shaped and placed as the abstract state asked for.
        metadata: what was saved with it.
        warnings: one text for each newer checkpoint that was damaged; each names the file.
    """

    step: int
    state: PyTree
    metadata: dict
    warnings: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one training; saving runs in the background.

    A context manager: leaving it waits for the last save. If it is left by an exception, that one is raised, and a
    save that failed becomes a note on it. In a run of several processes all of them make the same calls, on a
    directory that they share. Only one training may use a directory at a time: what looks like the leftovers of a
    killed one is removed when the object is made.

    Args:
        directory: where the steps lie; made by the first save.
        keep: how many of the newest checkpoints stay; never fewer than 2, so that there is one to fall back to.
        keep_best: the checkpoint with the highest score stays as well, of equal ones the first.
    """

    def __init__(self, directory: Path, keep: int = 2, keep_best: bool = False):
        self._directory = directory.resolve()
        self._keep = max(keep, 2)
        self._keep_best = keep_best
        self._saving: int | None = None
        self._description = ''
        self._failure: str | None = None
        # One that makes directories in the background waits five minutes for those that can not be made.
        options = AsyncOptions(create_directories_asynchronously=False)
        self._handler = ocp.StandardCheckpointHandler()
        self._orbax = ocp.AsyncCheckpointer(
            self._handler, async_options=options, temporary_path_class=_then(self._finish)
        )
        if jax.process_index() == 0 and self._directory.is_dir():
            for path in self._directory.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> 'Checkpoints':
        self._hook, sys.unraisablehook = sys.unraisablehook, _quiet_about_closed_loops
        for name in ('absl', 'asyncio'):
            logging.getLogger(name).addFilter(_is_not_of_orbax)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
                return
            try:
                # Not wait(): the other processes may not be leaving.
                self._settle(alone=True)
            except UserError as failure:
                error.add_note(str(failure))
        finally:
            # What became of the saves is known by now; orbax would say it again in its own words.
            with contextlib.suppress(Exception):
                self._orbax.close()
            sys.unraisablehook = self._hook

    def save(self, step: int, state: PyTree, metadata: dict, score: float | None = None) -> None:
        """Start saving; a step that is saved already is left as it is.

        What is saved is what ``state`` and ``metadata`` are now: they may be changed or donated afterwards.

        Args:
            step: number of the training step.
            state: a tree with at least one array, none of them empty; random keys may be among them.
            metadata: anything that fits into JSON.
            score: the higher, the better; for ``keep_best``.

        Raises:
            UserError: the checkpoint, or the one before, can not be written (no space, no permission, ...).
            TypeError: ``metadata`` does not fit into JSON.
            ValueError: ``state`` can not be stored.
        """
        self._settle()
        step = int(step)
        if _from_first_process(lambda: self._path(step).exists()):
            return
        score = None if score is None else float(score)
        self._description = json.dumps({'step': step, 'score': score, 'metadata': metadata}, indent=1)
        self._failure = None
        _check_storable(state)
        state = jax.tree.map(_storable, state)
        if jax.process_index() == 0:
            shutil.rmtree(self._unfinished(step), ignore_errors=True)
        try:
            self._orbax.save(self._unfinished(step) / STATE, args=ocp.args.StandardSave(state))
        except OSError as error:
            raise self._failed(step, _reason(error)) from error
        self._saving = step

    def wait(self) -> None:
        """Return when the last save is on disk, visible to all processes.

        Raises:
            UserError: it failed.
        """
        self._settle()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('checkpoint saved')

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first; they may be damaged."""
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if re.fullmatch(r'0|[1-9]\d*', path.name))

    def restore_latest(self, abstract_of: Callable[[dict], PyTree]) -> Restored | None:
        """The newest intact checkpoint; ``None`` if nothing was ever saved.

        Every file is compared with its checksum first. A damaged checkpoint is renamed to ``<step>.damaged``, so that
        its step can be saved again, and the next older one is taken.

        Args:
            abstract_of: from the metadata to the tree of ``jax.ShapeDtypeStruct`` to restore into. Arrays are placed
                by its shardings, whatever they had when they were saved; without one, on the first local device.

        Raises:
            UserError: there are checkpoints but none is intact (the files are named), or the intact one does not fit
                the abstract tree (the first leaf that differs is named): it is another config's.
        """
        self._settle()
        found = _from_first_process(self._find_intact)
        damaged = dict(found['damaged'])
        if found['step'] is None:
            if not damaged:
                return None
            raise UserError(
                f'none of the checkpoints in {self._directory} is intact: {"; ".join(damaged.values())}; put the files '
                f'back from a copy, or delete the directory to train from the start'
            )
        step, metadata = found['step'], found['metadata']
        abstract = abstract_of(metadata)
        state = self._restore(step, abstract)
        warnings = _from_first_process(lambda: [self._move_aside(*each, step) for each in damaged.items()])
        return Restored(step, state, metadata, tuple(warnings))

    def restore_best(self, abstract_of: Callable[[dict], PyTree]) -> Restored | None:
        """The checkpoint with the highest score, of equal ones the first; ``None`` if none has a score.

        Raises:
            UserError: it is damaged (the file is named), or does not fit the abstract tree.
        """
        self._settle()
        found = _from_first_process(self._find_best)
        if found is None:
            return None
        step, problem, metadata = found
        if problem:
            raise UserError(f'the best checkpoint is damaged: {self._path(step)}/{problem}; put the file back')
        return Restored(step, self._restore(step, abstract_of(metadata)), metadata, ())

    def _find_best(self) -> tuple[int, str | None, dict] | None:
        best = self._best()
        if best is None:
            return None
        problem = find_damage(self._path(best))
        return best, problem, {} if problem else json.loads((self._path(best) / METADATA).read_text())['metadata']

    def _best(self) -> int | None:
        scores = {step: score for step in self.steps() if (score := self._score(step)) is not None}
        # The first of equal ones; a score that is not a number is none.
        return min(scores, key=lambda step: (-scores[step], step), default=None)

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _unfinished(self, step: int) -> Path:
        return self._directory / f'{step}.unfinished'

    def _finish(self, state: Path) -> None:
        """Called in the background of process 0 when orbax has written the arrays."""
        unfinished = state.parent
        try:
            (unfinished / METADATA).write_text(self._description)
            write_checksums(unfinished)
            unfinished.rename(unfinished.with_suffix(''))
            flush(self._directory)
        # Raised in here, it would leave the other processes waiting for this one.
        except OSError as error:
            self._failure = _reason(error)

    def _settle(self, alone: bool = False) -> None:
        """Wait for the save in the background; then there may be one checkpoint too many."""
        if self._saving is None:
            return
        step = self._saving
        try:
            self._orbax.wait_until_finished()
        # The storage below orbax raises its own types: "no space left" is a ValueError.
        except Exception as error:
            raise self._failed(step, _reason(error)) from error
        finally:
            self._saving = None
        failure = self._failure if alone else _from_first_process(lambda: self._failure)
        if failure:
            raise self._failed(step, failure)
        if jax.process_index() == 0:
            self._prune()

    def _failed(self, step: int, reason: str) -> UserError:
        if jax.process_index() == 0:
            shutil.rmtree(self._unfinished(step), ignore_errors=True)
        rest = f'the last good one is step {self.steps()[-1]}' if self.steps() else 'there is none yet'
        return UserError(f'cannot save the checkpoint of step {step} in {self._directory}: {reason}; {rest}')

    def _prune(self) -> None:
        steps = self.steps()
        kept = set(steps[-self._keep :])
        if self._keep_best:
            kept.update(step for step in (self._best(),) if step is not None)
        for step in steps:
            if step not in kept:
                # What can not be deleted does no harm; the next save tries again.
                with contextlib.suppress(OSError):
                    self._delete(step)

    def _delete(self, step: int) -> None:
        # Under its own name a directory is whole at any moment.
        shutil.rmtree(self._unfinished(step), ignore_errors=True)
        self._path(step).rename(self._unfinished(step))
        shutil.rmtree(self._unfinished(step), ignore_errors=True)

    def _score(self, step: int) -> float | None:
        try:
            score = json.loads((self._path(step) / METADATA).read_text())['score']
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return score if isinstance(score, float) and not np.isnan(score) else None

    def _find_intact(self) -> dict:
        """Step and metadata of the newest intact checkpoint, and what is wrong with the newer ones."""
        damaged = []
        for step in reversed(self.steps()):
            problem = find_damage(self._path(step))
            if problem is None:
                try:
                    metadata = json.loads((self._path(step) / METADATA).read_text())['metadata']
                    return {'step': step, 'metadata': metadata, 'damaged': damaged}
                except (OSError, ValueError, KeyError, TypeError) as error:
                    problem = f'{METADATA} can not be read: {error!r}'
            damaged.append((step, f'{self._path(step)}/{problem}'))
        return {'step': None, 'metadata': None, 'damaged': damaged}

    def _move_aside(self, step: int, problem: str, taken: int) -> str:
        target = self._directory / f'{step}.damaged'
        warning = f'the checkpoint of step {step} is damaged ({problem}); falling back to step {taken}'
        try:
            shutil.rmtree(target, ignore_errors=True)
            self._path(step).rename(target)
        except OSError as error:
            return f'{warning}; it can not be moved aside ({_reason(error)}), so step {step} will not be saved again'
        return f'{warning}; the damaged one is now {target.name} and may be deleted'

    def _restore(self, step: int, abstract: PyTree) -> PyTree:
        path = self._path(step)
        target = jax.tree.map(_placed, abstract)
        self._check_fit(path, target)
        try:
            state = self._orbax.restore(path / STATE, args=ocp.args.StandardRestore(target))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path} is the checkpoint of another config: {" ".join(str(error).split())}') from error
        return jax.tree.map(_usable, abstract, state)

    def _check_fit(self, path: Path, target: PyTree) -> None:
        there, here = _leaves(self._handler.metadata(epath.Path(path / STATE)).tree), _leaves(target)
        for name in (*here, *there):
            if there.get(name) != here.get(name):
                raise UserError(
                    f'{path} is the checkpoint of another config: {name} is {there.get(name, "absent")} there and '
                    f'{here.get(name, "absent")} here; take the config that it was saved with, or another directory'
                )


def _then(finish: Callable[[Path], None]) -> type[ocp.path.atomicity.AtomicRenameTemporaryPath]:
    """Orbax's way of writing a directory, followed by ``finish``; nothing of orbax touches the directory after that."""

    class Followed(ocp.path.atomicity.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            await super().finalize()
            finish(Path(self.get_final()))

    return Followed


def _quiet_about_closed_loops(unraisable: Any) -> None:
    """Orbax stops waiting at the first array that can not be written; tensorstore complains about each other."""
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Orbax's threads log the traceback of what they raise, and asyncio those of the arrays nobody waits for."""
    forgotten = record.getMessage().startswith('Task exception was never retrieved')
    return not (forgotten or (record.exc_info and 'orbax' in record.pathname))


def _reason(error: Exception) -> str:
    """In the words of the operating system if it was the one to refuse."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's
    return os.strerror(int(code.group(1))) if code else str(error) or type(error).__name__


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _check_storable(state: PyTree) -> None:
    """Orbax notices some of these late, and mixes up arrays of the same name unnoticed."""
    leaves = ocp.tree.to_flat_dict(state)
    if not leaves or () in leaves:
        raise ValueError('a state must be a tree with at least one array')
    names: dict[str, tuple] = {}
    for path, leaf in leaves.items():
        if np.size(leaf) == 0:
            raise ValueError(f'orbax can not store {"/".join(map(str, path))}: it has no elements')
        # What orbax calls it, which is a directory of tensorstore.
        name = re.sub('/+', '/', '.'.join(map(str, path))).rstrip('/')
        if name in names:
            raise ValueError(f'orbax has the same name for {names[name]} and {path}')
        names[name] = path
    for name, path in names.items():
        for slash in re.finditer('/', name):
            if above := names.get(name[: slash.start()]):
                raise ValueError(f'orbax would write {path} into the directory of {above}')


def _storable(leaf: Any) -> Any:
    """Orbax stores arrays, not typed random keys; and it may read numpy's after ``save`` has returned."""
    if not isinstance(leaf, jax.Array):
        return np.array(leaf)
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What ``_storable`` makes of such a leaf, on a device of this process if nothing else is asked for."""
    stored = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype, sharding=sharding)


def _usable(leaf: jax.ShapeDtypeStruct, array: jax.Array) -> jax.Array:
    if not _is_key(leaf):
        return array
    names: list[str] = []
    # A traced key tells its implementation, an abstract one does not.
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), leaf)
    return jax.random.wrap_key_data(array, impl=names[0])


def _leaves(tree: PyTree) -> dict[str, str]:
    """Path → type and shape, of arrays as of orbax's descriptions of them."""
    return {
        '/'.join(map(str, path)): f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
        for path, leaf in ocp.tree.to_flat_dict(tree).items()
    }


def _from_first_process(make: Callable[[], T]) -> T:
    """What ``make`` returns in process 0, the only one to call it; it must fit into JSON."""
    if jax.process_count() == 1:
        return make()
    text = json.dumps(make()).encode() if jax.process_index() == 0 else b''
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(size), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)))
