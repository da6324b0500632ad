"""The training step: a pure function of state and batch, whatever trains and wherever it runs.

Only the trainable leaves are differentiated. Frozen leaves have no gradient, no optimizer state and no moving average.
They do not enter the gradient norm, nor the gradients that devices exchange. Frozen modules run in inference mode.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from backbones import freezing, lora, rematerialisation
from backbones.errors import UserError
from experiments.tasks.task import Batch, Task
from experiments.training.state import TrainState

Metrics = dict[str, Array]


class Layout(Protocol):
    """Sharding constraints that the step gives to the compiler (``mesh.DeviceMesh``)."""

    def gather(self, tree: Any) -> Any: ...  # noqa: D102
    def scatter(self, tree: Any) -> Any: ...  # noqa: D102
    def shard_batch(self, tree: Any, axis: int) -> Any: ...  # noqa: D102


class OneDevice:
    """The layout without any constraint."""

    def gather(self, tree: Any) -> Any:  # noqa: D102
        return tree

    def scatter(self, tree: Any) -> Any:  # noqa: D102
        return tree

    def shard_batch(self, tree: Any, axis: int) -> Any:  # noqa: D102
        return tree


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a step learns, independent of the task.

    Attributes:
        accumulation: number of micro-batches that a batch is split into. They are processed in sequence. Without
            BatchNorm and dropout the update is that of the whole batch; BatchNorm sees one micro-batch at a time, and
            so does a loss that is divided by what the examples of a batch hold together (objects, pixels that count).
        ema_decay: decay of the moving average of the parameters; 0: none.
        adapter_scale: scale of the low-rank adapters.
        gradient_checkpointing: whether blocks are recomputed in the backward pass.
        unrolled: whether the loop over the micro-batches is unrolled; they still run one after the other.
    """

    accumulation: int = 1
    ema_decay: float = 0.0
    adapter_scale: float = 1.0
    gradient_checkpointing: bool = False
    unrolled: bool = False


def make_train_step(
    model: nn.Module,
    task: Task,
    mask: dict,
    optimizer: optax.GradientTransformation,
    recipe: Recipe | None = None,
    scales: dict | None = None,
    layout: Layout | None = None,
) -> Callable[[TrainState, Batch, Float[Array, '']], tuple[TrainState, Metrics]]:
    """Build ``train_step(state, batch, learning_rate) → (state, metrics)``; jit it with ``donate_argnums=0``.

    Args:
        model: the task's model.
        task: prepares the batch and computes the loss.
        mask: which parameters train (``freezing.mask``).
        optimizer: has a learning rate of 1 (``optimizers.make_optimizer``).
        recipe: how the step learns.
        scales: a learning-rate factor for every parameter, in a tree like theirs; ``None``: 1.
        layout: how arrays are sharded over the devices.

    The metrics are ``loss`` (the weighted mean over the examples), the means of the task's metrics over the examples,
    ``gradient_norm``, ``learning_rate`` and ``finite``. A step with a non-finite loss or gradient changes nothing but
    the step number.

    Raises:
        UserError: while the step is traced, if a batch cannot be split into equal micro-batches or the task rejects
            the model.
    """
    recipe = recipe or Recipe()
    placement: Layout = layout or OneDevice()

    def forward(params: dict, batch_stats: dict, part: Batch, key: Key[Array, '']):
        shown: dict[str, Any] = {'truth': {name: part[name] for name in task.shown}} if task.shown else {}
        with ExitStack() as contexts:
            contexts.enter_context(freezing.inference_where_frozen(mask))
            contexts.enter_context(lora.applied(recipe.adapter_scale))
            if recipe.gradient_checkpointing:
                contexts.enter_context(rematerialisation.checkpointed())
            return model.apply(
                {'params': params, 'batch_stats': batch_stats},
                part['image'],
                train=True,
                mutable=['batch_stats', *task.collections],
                rngs={'dropout': key, 'sampling': key},
                **shown,
            )

    def loss_of(trainable: dict, frozen: dict, batch_stats: dict, part: Batch, key: Key[Array, '']):
        outputs, updates = forward(freezing.join(trainable, frozen), batch_stats, part, key)
        losses, metrics = task.loss(outputs, part, updates)
        sums = {name: (values * part['valid']).sum() for name, values in metrics.items()}
        return (losses * part['weight']).sum(), (sums, updates.get('batch_stats', {}))

    def prepared(batch: Batch, key: Key[Array, '']) -> Batch:
        """Model inputs and targets, with weights that sum to one."""
        batch = task.prepare(key, batch, train=True)
        weight, valid = batch['weight'], batch['valid']
        # If every example of a batch is unreadable, all weights are zero.
        return {
            **batch,
            'weight': weight / jnp.maximum(weight.sum(), 1e-12),
            'valid': valid / jnp.maximum(valid.sum(), 1),
        }

    def gradients_of(trainable: dict, frozen: dict, batch_stats: dict, batch: Batch, key: Key[Array, '']):
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        if recipe.accumulation == 1:
            (loss, (sums, batch_stats)), gradients = gradient(trainable, frozen, batch_stats, batch, key)
            return loss, sums, batch_stats, placement.scatter(gradients)

        parts = recipe.accumulation
        size = batch['weight'].shape[0]
        if size % parts:
            raise UserError(f'a batch of {size} cannot be split into {parts} equal micro-batches (accumulation)')
        # Each micro-batch takes examples at regular intervals, so no example moves to another device.
        batch = {
            name: placement.shard_batch(jnp.moveaxis(array.reshape(size // parts, parts, *array.shape[1:]), 1, 0), 1)
            for name, array in batch.items()
        }

        def add(carry: tuple, part_and_key: tuple):
            loss, batch_stats, total = carry
            part, part_key = part_and_key
            if recipe.unrolled:
                part = {**part, 'image': _after(total, part['image'])}
            (more, (sums, batch_stats)), gradients = gradient(trainable, frozen, batch_stats, part, part_key)
            total = jax.tree.map(jnp.add, total, placement.scatter(gradients))
            return (loss + more, batch_stats, total), sums

        zeros = placement.scatter(jax.tree.map(jnp.zeros_like, trainable))
        (loss, batch_stats, gradients), sums = lax.scan(
            add, (jnp.zeros(()), batch_stats, zeros), (batch, jax.random.split(key, parts)), unroll=recipe.unrolled
        )
        return loss, jax.tree.map(lambda each: each.sum(0), sums), batch_stats, gradients

    def train_step(state: TrainState, batch: Batch, learning_rate: Float[Array, '']) -> tuple[TrainState, Metrics]:
        example_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        whole = placement.gather((state.trainable, state.frozen))
        loss, means, batch_stats, gradients = gradients_of(
            *whole, state.batch_stats, prepared(batch, example_key), dropout_key
        )
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        rate = jnp.asarray(learning_rate, jnp.float32)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trainable)
        if scales is None:
            updates = jax.tree.map(lambda update: rate * update, updates)
        else:
            factors, _ = freezing.split(scales, mask)
            updates = jax.tree.map(lambda update, factor: rate * factor * update, updates, factors)
        trainable = optax.apply_updates(state.trainable, updates)
        average = jax.tree.map(
            lambda old, new: recipe.ema_decay * old + (1 - recipe.ema_decay) * new,
            state.average,
            trainable if state.average else {},
        )
        new = dataclasses.replace(
            state,
            trainable=trainable,
            batch_stats=batch_stats,
            optimizer_state=optimizer_state,
            average=average,
        )
        kept = dataclasses.replace(_choose(finite, new, state), step=state.step + 1, key=state.key)
        metrics = {
            'loss': loss,
            **means,
            'gradient_norm': norm,
            'learning_rate': rate,
            'finite': finite,
        }
        return kept, metrics

    return train_step


def _after(before: dict, value: Array) -> Array:
    """A value that the compiler must compute after something else, although it does not depend on it.

    Otherwise an unrolled loop keeps what the gradients of all micro-batches need at once, and saves no memory: XLA's
    CPU compiler drops the barriers of ``lax.optimization_barrier``.
    """
    seen = sum((leaf.ravel()[0] for leaf in jax.tree.leaves(before)), jnp.zeros(()))
    # Never true, which the compiler does not know.
    return jnp.where(jnp.isnan(seen) & jnp.isinf(seen), jnp.zeros_like(value), value)


def _choose(condition: Bool[Array, ''], new: TrainState, old: TrainState) -> TrainState:
    """Select one state as a whole; frozen leaves are the same in both."""
    fields = ('trainable', 'batch_stats', 'optimizer_state', 'average')
    chosen = jax.tree.map(
        lambda left, right: jnp.where(condition, left, right),
        *[tuple(getattr(state, field) for field in fields) for state in (new, old)],
    )
    return dataclasses.replace(old, **dict(zip(fields, chosen, strict=True)))


def make_evaluation_step(
    model: nn.Module, task: Task, adapter_scale: float = 1.0, layout: Layout | None = None
) -> Callable[[dict, Batch], dict[str, Any]]:
    """Build ``evaluate(variables, batch)``, which returns the task's predictions for each row and the summed loss.

    ``valid`` marks the rows that are examples. ``loss`` is the sum over them and ``count`` is their number: added over
    all batches and divided once, they give the exact mean for any number of examples and devices, unless the loss is
    divided by what the examples of a batch hold together.
    """
    layout = layout or OneDevice()

    def evaluate(variables: dict, batch: Batch) -> dict[str, Any]:
        variables = {**variables, 'params': layout.gather(variables['params'])}
        batch = task.prepare(None, batch, train=False)
        with lora.applied(adapter_scale):
            outputs = model.apply(variables, batch['image'], train=False)
        losses, _ = task.loss(outputs, batch, {})
        valid = batch['valid'] > 0
        return {
            'predictions': task.predict(outputs, batch),
            'valid': valid,
            'loss': jnp.where(valid, losses, 0).sum(),
            'count': valid.sum(),
        }

    return evaluate
