"""Optimizers by name, and the learning-rate schedule.

Optimizers have a learning rate of 1; the step multiplies their updates by the schedule's rate and by each leaf's own
factor. So one number gives the learning rate at any step for every optimizer, and a resumed run or a second phase does
not need a counter in the optimizer state to find it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from backbones.errors import unknown

Path = tuple[str, ...]


def decay_mask(params: dict) -> dict:
    """Mask for weight decay: kernels, but not biases, scales, positions, tokens or adapters."""
    return unflatten_dict({path: path[-1] == 'kernel' for path in flatten_dict(params)})


def _adamw(weight_decay: float) -> optax.GradientTransformation:
    return optax.adamw(1.0, weight_decay=weight_decay, mask=decay_mask)


def _sgd(weight_decay: float) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(weight_decay, mask=decay_mask)
    return optax.chain(decay, optax.sgd(1.0, momentum=0.9, nesterov=True))


def _lamb(weight_decay: float) -> optax.GradientTransformation:
    return optax.lamb(1.0, weight_decay=weight_decay, mask=decay_mask)


OPTIMIZERS: Mapping[str, Callable[[float], optax.GradientTransformation]] = {
    'adamw': _adamw,
    'sgd': _sgd,
    'lamb': _lamb,
}


def make_optimizer(
    name: str, weight_decay: float, clip_norm: float = 0.0, kept: frozenset[Path] = frozenset()
) -> optax.GradientTransformation:
    """Create an optimizer with a learning rate of 1, preceded by gradient clipping if ``clip_norm`` is positive.

    Args:
        kept: paths of the leaves that an earlier phase of the run trained. They get an optimizer of their own, which
            continues from that phase's state (``carry_over``), while the other leaves start with a fresh one: Adam
            corrects its moments by its number of steps, which is one counter per optimizer.

    Raises:
        UserError: no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise unknown('optimizer', name, OPTIMIZERS)
    optimizer = OPTIMIZERS[name](weight_decay)
    if kept:

        def age(params: dict) -> dict:
            return unflatten_dict({path: 'kept' if path in kept else 'new' for path in flatten_dict(params)})

        optimizer = optax.partition({'kept': optimizer, 'new': OPTIMIZERS[name](weight_decay)}, age)
    return optax.chain(optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(), optimizer)


def make_schedule(learning_rate: float, warmup: int, steps: int, first: int = 0) -> optax.Schedule:
    """A linear warm-up from 0, then a half cosine to 0, over ``steps`` steps starting at step ``first``.

    The warm-up takes ``warmup`` steps, but at most half of ``steps``.
    """
    inner = optax.warmup_cosine_decay_schedule(0.0, learning_rate, min(warmup, steps // 2), steps)
    return lambda step: inner(step - first)


def carry_over(old: Any, new: Any) -> tuple[Any, int]:
    """Carry over the optimizer state of the leaves that continue to train.

    Args:
        old: the state at the end of a phase, from an optimizer without kept leaves.
        new: the fresh state of the next phase's optimizer, which was made with ``kept``.

    Returns:
        The new state with the old arrays of the kept leaves, and the number of these arrays.
    """
    clip, partition = new
    before = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old[1])}
    kept = partition.inner_states['kept']
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(kept.inner_state)]
    filled = jax.tree.unflatten(jax.tree.structure(kept.inner_state), [before[path] for path in paths])
    states = {**partition.inner_states, 'kept': kept._replace(inner_state=filled)}
    return (clip, partition._replace(inner_states=states)), len(paths)
