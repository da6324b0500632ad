"""The state that a training step reads and writes, and its transfer from one phase to the next."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Int, Key

from backbones import freezing
from experiments.training import optimizers


@flax.struct.dataclass
class TrainState:
    """The state that a step reads and writes.

    Attributes:
        step: number of finished steps.
        trainable, frozen: the parameters, split by the freezing mask.
        batch_stats: running statistics of every BatchNorm, frozen ones included.
        optimizer_state: optax's state for the trainable leaves only.
        average: exponential moving average of the trainable leaves; empty if there is none.
        key: root of all randomness; a step derives its own keys from it and never changes it.
    """

    step: Int[Array, '']
    trainable: dict
    frozen: dict
    batch_stats: dict
    optimizer_state: optax.OptState
    average: dict
    key: Key[Array, '']

    def variables(self) -> dict:
        """``{'params': …, 'batch_stats': …}``, as ``apply`` takes them; averaged if there is an average."""
        params = freezing.join(self.average or self.trainable, self.frozen)
        return {'params': params, 'batch_stats': self.batch_stats}


def create_state(
    variables: dict,
    mask: dict,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ''],
    averaged: bool = False,
) -> TrainState:
    """The state before the first step."""
    trainable, frozen = freezing.split(variables['params'], mask)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        frozen=frozen,
        batch_stats=variables.get('batch_stats', {}),
        optimizer_state=optimizer.init(trainable),
        average=jax.tree.map(jnp.copy, trainable) if averaged else {},
        key=key,
    )


def next_phase(state: TrainState, start: Callable[[dict, Any], TrainState]) -> tuple[TrainState, str]:
    """Derive the state at the beginning of a phase from the one at the end of the previous phase.

    Args:
        state: the state at the end of the previous phase.
        start: creates a fresh state of the new phase from variables and a random key.

    Returns:
        The state, and a sentence that says what was carried over, what is new and what was reset.
    """
    variables = {'params': freezing.join(state.trainable, state.frozen), 'batch_stats': state.batch_stats}
    fresh = start(variables, state.key)
    optimizer_state, kept = optimizers.carry_over(state.optimizer_state, fresh.optimizer_state)
    average = fresh.average
    if state.average:
        average = unflatten_dict({**flatten_dict(fresh.average), **flatten_dict(state.average)})
    new = len(jax.tree.leaves(fresh.trainable)) - len(jax.tree.leaves(state.trainable))
    fresh = dataclasses.replace(fresh, step=state.step, optimizer_state=optimizer_state, average=average)
    told = (
        f'carried over: parameters, statistics, step, random key, data position, {kept} arrays of the optimizer'
        f'{" and the average" if state.average else ""} of what trained before; '
        f'new: optimizer state{" and average" if state.average else ""} of {new} arrays that were frozen; '
        'reset: the learning-rate schedule'
    )
    return fresh, told
