"""Checkpoints by orbax, behind the few calls that training needs.

A checkpoint is one directory, named by its step, that appears under that name only when all of it is on disk::

    <step>/default/         the arrays, a tree of orbax
    <step>/metadata.json    what training wants to know besides (position in the data, sums of the epoch, ...)
    <step>/checksums.json   size and SHA-256 of every file above

Names with a suffix are no checkpoints: ``<step>.unfinished`` is being written or deleted, ``<step>.replaced`` gives way
to another one of its step, ``<step>.damaged`` failed its checksums and was moved aside.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint.options import AsyncOptions

from backbones.errors import UserError
from backbones.pretrained.checksums import find_damage, flush, write_checksums
from experiments.training import orbax_storage

STATE = 'default'
METADATA = 'metadata.json'

T = TypeVar('T')

_REPLACED = '.replaced'
_LEFTOVER = re.compile(r'\d+\.(unfinished|replaced|orbax-checkpoint-tmp.*)')  # the last of earlier versions


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
        self._contexts = contextlib.ExitStack()
        # One that makes directories in the background waits five minutes for those that cannot be made.
        options = AsyncOptions(create_directories_asynchronously=False)
        self._handler = ocp.StandardCheckpointHandler()
        self._orbax = ocp.AsyncCheckpointer(
            self._handler, async_options=options, temporary_path_class=orbax_storage.then(self._finish)
        )
        if jax.process_index() == 0 and self._directory.is_dir():
            self._clean_up()

    def _clean_up(self) -> None:
        """Remove what a killed training left; a step that it was about to replace becomes that step again."""
        for path in list(self._directory.iterdir()):
            if not _LEFTOVER.fullmatch(path.name):
                continue
            if path.suffix == _REPLACED and not path.with_suffix('').exists():
                # Where nothing may be renamed, nothing can be saved either, and saving says so.
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(''))
            else:
                shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> 'Checkpoints':
        self._contexts.enter_context(orbax_storage.quiet())
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
            self._contexts.close()

    def save(self, step: int, state: PyTree, metadata: dict, score: float | None = None) -> None:
        """Start saving; a step that is saved already is replaced.

        What is saved is what ``state`` and ``metadata`` are now: they may be changed or donated afterwards.

        Args:
            step: number of the training step.
            state: a tree with at least one array, none of them empty; random keys may be among them.
            metadata: anything that fits into JSON.
            score: the higher, the better; for ``keep_best``.

        Raises:
            UserError: the checkpoint, or the one before, cannot be written (no space, no permission, ...).
            TypeError: ``metadata`` does not fit into JSON.
            ValueError: ``state`` cannot be stored.
        """
        self._settle()
        step = int(step)
        score = None if score is None else float(score)
        self._description = json.dumps({'step': step, 'score': score, 'metadata': metadata}, indent=1)
        self._failure = None
        orbax_storage.check_storable(state)
        state = jax.tree.map(orbax_storage.storable, state)
        if jax.process_index() == 0:
            shutil.rmtree(self._unfinished(step), ignore_errors=True)
        try:
            self._orbax.save(self._unfinished(step) / STATE, args=ocp.args.StandardSave(state))
        except OSError as error:
            raise self._failed(step, orbax_storage.reason(error)) from error
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
            final = unfinished.with_suffix('')
            if final.exists():
                final.rename(final.with_suffix(_REPLACED))
            unfinished.rename(final)
            flush(self._directory)
            shutil.rmtree(final.with_suffix(_REPLACED), ignore_errors=True)
        # Raised in here, it would leave the other processes waiting for this one.
        except OSError as error:
            self._failure = orbax_storage.reason(error)

    def _settle(self, alone: bool = False) -> None:
        """Wait for the save in the background; then there may be one checkpoint too many."""
        if self._saving is None:
            return
        step = self._saving
        try:
            self._orbax.wait_until_finished()
        # The storage below orbax raises its own types: "no space left" is a ValueError.
        except Exception as error:
            raise self._failed(step, orbax_storage.reason(error)) from error
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
                # What cannot be deleted does no harm; the next save tries again.
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
                    problem = f'{METADATA} cannot be read: {error!r}'
            damaged.append((step, f'{self._path(step)}/{problem}'))
        return {'step': None, 'metadata': None, 'damaged': damaged}

    def _move_aside(self, step: int, problem: str, taken: int) -> str:
        target = self._directory / f'{step}.damaged'
        warning = f'the checkpoint of step {step} is damaged ({problem}); falling back to step {taken}'
        try:
            shutil.rmtree(target, ignore_errors=True)
            self._path(step).rename(target)
        except OSError as error:
            return f'{warning}; it cannot be moved aside ({orbax_storage.reason(error)})'
        return f'{warning}; the damaged one is now {target.name} and may be deleted'

    def _restore(self, step: int, abstract: PyTree) -> PyTree:
        path = self._path(step)
        target = jax.tree.map(orbax_storage.placed, abstract)
        self._check_fit(path, target)
        try:
            state = self._orbax.restore(path / STATE, args=ocp.args.StandardRestore(target))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path} is the checkpoint of another config: {" ".join(str(error).split())}') from error
        return jax.tree.map(orbax_storage.usable, abstract, state)

    def _check_fit(self, path: Path, target: PyTree) -> None:
        there = orbax_storage.described(self._handler.metadata(epath.Path(path / STATE)).tree)
        here = orbax_storage.described(target)
        for name in (*here, *there):
            if there.get(name) != here.get(name):
                raise UserError(
                    f'{path} is the checkpoint of another config: {name} is {there.get(name, "absent")} there and '
                    f'{here.get(name, "absent")} here; take the config that it was saved with, or another directory'
                )


def _from_first_process(make: Callable[[], T]) -> T:
    """What ``make`` returns in process 0, the only one to call it; it must fit into JSON."""
    if jax.process_count() == 1:
        return make()
    text = json.dumps(make()).encode() if jax.process_index() == 0 else b''
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(size), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)))
