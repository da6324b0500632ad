"""Checkpoints by orbax, behind the few calls that training needs."""

import dataclasses
from pathlib import Path
from typing import cast

import jax
import orbax.checkpoint as ocp

from experiments.training.step import TrainState


class Checkpoints:
    """The checkpoints of one training, the newest few of them; saving runs in the background.

    A checkpoint whose saving was interrupted is never seen by ``restore_latest``. Use it as a context manager, so
    that leaving it waits for the last save.
    """

    def __init__(self, directory: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Start saving the state under its step."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(_without_key(state)))

    def restore_latest(self, state: TrainState) -> TrainState | None:
        """The newest saved state, or ``None``; ``state`` gives structure, shapes, types and placement."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _without_key(state))
        restored = cast(TrainState, self._manager.restore(step, args=ocp.args.StandardRestore(abstract)))
        return dataclasses.replace(restored, key=jax.random.wrap_key_data(restored.key))


def _without_key(state: TrainState) -> TrainState:
    """Orbax stores arrays, not typed random keys."""
    return dataclasses.replace(state, key=jax.random.key_data(state.key))
