"""Checkpoints written by orbax, reduced to the few calls that training needs.

A checkpoint is a directory named by its step. It appears under that name only once all of it is on disk::

    <step>/default/         the arrays, a tree of orbax
    <step>/metadata.json    what else training needs (position in the data, sums over the epoch, ...), and what the
                            run keeps with its weights (``backbones.pretrained.description``)
    <step>/checksums.json   size and SHA-256 of every file above

Names with a suffix are not checkpoints: ``<step>.unfinished`` is being written or deleted, ``<step>.replaced`` is being
replaced by a new save of the same step, and ``<step>.damaged`` failed its checksums and was moved aside.
"""

import contextlib
import errno
import json
import os
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
from backbones.pretrained.description import KEY, METADATA, Description
from backbones.pretrained.plain_paths import plain
from experiments.cli.atomic_files import DiskError
from experiments.training import orbax_storage

STATE = 'default'

T = TypeVar('T')

_REPLACED = '.replaced'
_LEFTOVER = re.compile(r'\d+\.(unfinished|replaced|orbax-checkpoint-tmp.*)')  # the last one is left by earlier versions


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was read back.

    Attributes:
        step: the step under which it was saved.
        state: arrays with the shapes and shardings of the abstract state.
        metadata: what was saved with it.
        warnings: one message per newer checkpoint that was damaged; it names the file.
    """

    step: int
    state: PyTree
    metadata: dict
    warnings: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one training run; saving happens in the background.

    Use it as a context manager: leaving it waits for the last save. If an exception leaves it, that exception is
    raised, and a failed save becomes a note on it. In a run of several processes, all of them must make the same calls
    on a shared directory. Only one training run may use a directory at a time: the constructor removes what looks like
    the leftovers of a killed one.

    Args:
        directory: where the checkpoints are; created by the first save.
        keep: how many of the newest checkpoints to keep; never fewer than 2, so that there is one to fall back to.
        keep_best: whether to keep the checkpoint with the highest score as well (the first one, in case of a tie).
        weights_description: what the run keeps with its weights, for process 0.
    """

    def __init__(
        self,
        directory: Path,
        keep: int = 2,
        keep_best: bool = False,
        weights_description: Description | None = None,
    ):
        self._kept = {} if weights_description is None else {KEY: weights_description.as_json()}
        self._directory = directory.resolve()
        self._name_for_orbax = self._directory
        self._keep = max(keep, 2)
        self._keep_best = keep_best
        self._saving: int | None = None
        self._description = ''
        self._arrays: dict[str, str] = {}
        self._failure: str | None = None
        self._contexts = contextlib.ExitStack()
        # If directories are created in the background, orbax waits five minutes for any that cannot be created.
        options = AsyncOptions(create_directories_asynchronously=False)
        self._handler = ocp.StandardCheckpointHandler()
        self._orbax = ocp.AsyncCheckpointer(
            self._handler, async_options=options, temporary_path_class=orbax_storage.then(self._finish)
        )
        if jax.process_index() == 0 and self._directory.is_dir():
            self._clean_up()

    def _clean_up(self) -> None:
        """Remove what a killed training run left; a step that it was about to replace gets its name back."""
        for path in list(self._directory.iterdir()):
            if not _LEFTOVER.fullmatch(path.name):
                continue
            if path.suffix == _REPLACED and not path.with_suffix('').exists():
                # If renaming is not permitted, saving fails as well and reports it.
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(''))
            else:
                shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> 'Checkpoints':
        self._contexts.enter_context(orbax_storage.quiet())
        self._name_for_orbax = self._contexts.enter_context(plain(self._directory))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
                return
            try:
                # Not wait(): the other processes may not be leaving the context.
                self._settle(alone=True)
            except UserError as failure:
                error.add_note(str(failure))
        finally:
            # Failed saves have been reported; orbax would report them again.
            with contextlib.suppress(Exception):
                self._orbax.close()
            self._contexts.close()

    def save(self, step: int, state: PyTree, metadata: dict, score: float | None = None) -> None:
        """Start saving; a checkpoint of the same step is replaced.

        ``state`` and ``metadata`` are saved as they are now and may be changed or donated afterwards.

        Args:
            step: number of the training step.
            state: a tree of at least one array, none of them empty; typed random keys are allowed.
            metadata: anything that JSON can represent.
            score: for ``keep_best``; higher is better.

        Raises:
            DiskError: this checkpoint or the previous one cannot be written (no space, no permission, ...).
            TypeError: JSON cannot represent ``metadata``.
            ValueError: ``state`` cannot be stored.
        """
        self._settle()
        step = int(step)
        score = None if score is None else float(score)
        self._description = json.dumps({'step': step, 'score': score, 'metadata': metadata, **self._kept}, indent=1)
        self._failure = None
        orbax_storage.check_storable(state)
        state = jax.tree.map(orbax_storage.storable, state)
        self._arrays = orbax_storage.described(state)
        if jax.process_index() == 0:
            shutil.rmtree(self._unfinished(step), ignore_errors=True)
        unfinished = self._name_for_orbax / self._unfinished(step).name
        try:
            self._directory.mkdir(parents=True, exist_ok=True)  # orbax cannot make it through a link
            self._orbax.save(unfinished / STATE, args=ocp.args.StandardSave(state))
        except OSError as error:
            raise self._failed(step, orbax_storage.reason(error)) from error
        self._saving = step

    def wait(self) -> None:
        """Wait until the last save is on disk and visible to all processes.

        Raises:
            DiskError: the save failed.
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
        its step can be saved again, and the next older one is used.

        Args:
            abstract_of: maps the metadata to the tree of ``jax.ShapeDtypeStruct`` to restore into. Its shardings place
                the arrays, whatever shardings they were saved with; without one, an array goes to the first local
                device.

        Raises:
            UserError: there are checkpoints but none is intact (the files are named), or the intact one does not fit
                the abstract tree because it is another config's (the first leaf that differs is named).
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
        """The checkpoint with the highest score (the first one, in case of a tie); ``None`` if none has a score.

        Raises:
            UserError: it is damaged (the file is named) or does not fit the abstract tree.
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
        # The first one, in case of a tie.
        return min(scores, key=lambda step: (-scores[step], step), default=None)

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _unfinished(self, step: int) -> Path:
        return self._directory / f'{step}.unfinished'

    def _finish(self, state: Path) -> None:
        """Complete a checkpoint; called in the background of process 0 once orbax has written the arrays."""
        unfinished = state.parent
        problem = orbax_storage.unreadable(self._handler, state, self._arrays)
        if problem:
            self._failure = f'what was written cannot be read back ({problem})'
            return
        try:
            (unfinished / METADATA).write_text(self._description)
            write_checksums(unfinished)
            final = unfinished.with_suffix('')
            if final.exists():
                final.rename(final.with_suffix(_REPLACED))
            unfinished.rename(final)
            flush(self._directory)
            shutil.rmtree(final.with_suffix(_REPLACED), ignore_errors=True)
        # If it were raised here, the other processes would wait for this one forever.
        except OSError as error:
            self._failure = orbax_storage.reason(error)

    def _settle(self, alone: bool = False) -> None:
        """Wait for the background save, then delete checkpoints that need not be kept."""
        if self._saving is None:
            return
        step = self._saving
        try:
            self._orbax.wait_until_finished()
        # Tensorstore, which orbax uses, raises its own types: "no space left" is a ValueError.
        except Exception as error:
            raise self._failed(step, orbax_storage.reason(error)) from error
        finally:
            self._saving = None
        failure = self._failure if alone else _from_first_process(lambda: self._failure)
        if failure:
            raise self._failed(step, failure)
        if jax.process_index() == 0:
            self._prune()

    def _failed(self, step: int, reason: str) -> DiskError:
        if jax.process_index() == 0:
            shutil.rmtree(self._unfinished(step), ignore_errors=True)
        rest = f'the last good one is step {self.steps()[-1]}' if self.steps() else 'there is none yet'
        if reason in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)):
            rest += ', and the same command continues once there is room'
        return DiskError(f'cannot save the checkpoint of step {step} in {self._directory}: {reason}; {rest}')

    def _prune(self) -> None:
        steps = self.steps()
        kept = set(steps[-self._keep :])
        if self._keep_best:
            kept.update(step for step in (self._best(),) if step is not None)
        for step in steps:
            if step not in kept:
                # A checkpoint that cannot be deleted does no harm; the next save tries again.
                with contextlib.suppress(OSError):
                    self._delete(step)

    def _delete(self, step: int) -> None:
        # Renamed first, so that a directory is complete whenever it has its own name.
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
        """Step and metadata of the newest intact checkpoint, and the problems of the newer ones."""
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
        path, stored = self._path(step), self._name_for_orbax / str(step) / STATE
        target = jax.tree.map(orbax_storage.placed, abstract)
        self._check_fit(path, stored, target)
        try:
            state = self._orbax.restore(stored, args=ocp.args.StandardRestore(target))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path} is the checkpoint of another config: {" ".join(str(error).split())}') from error
        return jax.tree.map(orbax_storage.usable, abstract, state)

    def _check_fit(self, path: Path, stored: Path, target: PyTree) -> None:
        try:
            there = orbax_storage.described(self._handler.metadata(epath.Path(stored)).tree)
        except Exception as error:  # orbax raises whatever the storage below it raises
            raise UserError(
                f'the arrays in {path} cannot be read ({" ".join(orbax_storage.reason(error).split())}), although its '
                f'files are as they were written; move it away to continue from an earlier one or from the start'
            ) from error
        here = orbax_storage.described(target)
        for name in (*here, *there):
            if there.get(name) != here.get(name):
                raise UserError(
                    f'{path} is the checkpoint of another config: {name} is {there.get(name, "absent")} there and '
                    f'{here.get(name, "absent")} here; use the config that it was saved with, or another directory'
                )


def _from_first_process(make: Callable[[], T]) -> T:
    """Call ``make`` in process 0 only, and return its result, which JSON must represent, in every process."""
    if jax.process_count() == 1:
        return make()
    text = json.dumps(make()).encode() if jax.process_index() == 0 else b''
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(size), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)))
