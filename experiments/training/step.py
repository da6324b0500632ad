"""The training step: a pure function of state and batch, whatever trains and wherever it runs.

Only the trainable leaves are differentiated. Frozen leaves have no gradient, no optimizer state, no moving average and
no share in the gradient norm or in what devices exchange; frozen modules run in inference mode.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from backbones import freezing, lora, rematerialisation
from backbones.errors import UserError
from experiments.training.augmentation import mix

# 'image': uint8[batch, height, width, channels], 'label': int[batch], 'weight': float[batch], 0 for what is no example
Batch = dict[str, Array]
Metrics = dict[str, Array]

# Share of each auxiliary head's loss in the total (Szegedy et al. 2015, section 5).
AUXILIARY_WEIGHT = 0.3


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
        step: number of finished steps.
        trainable, frozen: the parameters, split by the freezing mask.
        batch_stats: running statistics of every BatchNorm, frozen ones included.
        optimizer_state: optax's state, of the trainable leaves only.
        average: exponential moving average of the trainable leaves; empty if there is none.
        key: root of all randomness; a step derives its own from it and never changes it.
    """

    step: Int[Array, '']
    trainable: dict
    frozen: dict
    batch_stats: dict
    optimizer_state: optax.OptState
    average: dict
    key: Key[Array, '']

    def variables(self) -> dict:
        """``{'params': …, 'batch_stats': …}``, as ``apply`` takes them; averaged where there is an average."""
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


class Layout(Protocol):
    """Where the step tells the compiler how arrays lie over devices (``mesh.DeviceMesh``)."""

    def gather(self, tree: Any) -> Any: ...  # noqa: D102
    def scatter(self, tree: Any) -> Any: ...  # noqa: D102
    def shard_batch(self, tree: Any, axis: int) -> Any: ...  # noqa: D102


class OneDevice:
    """The layout that says nothing."""

    def gather(self, tree: Any) -> Any:  # noqa: D102
        return tree

    def scatter(self, tree: Any) -> Any:  # noqa: D102
        return tree

    def shard_batch(self, tree: Any, axis: int) -> Any:  # noqa: D102
        return tree


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a step learns; the defaults are plain cross-entropy.

    Attributes:
        label_smoothing: share of the target that is spread over all classes.
        class_weights: what an example of each class counts in the loss; empty: all the same.
        mixup, cutmix: see ``augmentation.mix``.
        accumulation: parts that a batch is worked off in. Without BatchNorm and dropout the update is that of the
            whole batch; BatchNorm sees the parts one after the other.
        ema_decay: of the moving average of the parameters; 0: none.
        adapter_scale: factor of low-rank adapters.
        gradient_checkpointing: whether blocks are computed again in the backward pass.
        unrolled: whether the parts are written out one after the other instead of as a loop.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    mixup: float = 0.0
    cutmix: float = 0.0
    accumulation: int = 1
    ema_decay: float = 0.0
    adapter_scale: float = 1.0
    gradient_checkpointing: bool = False
    unrolled: bool = False


def cross_entropy(
    logits: Float[Array, 'batch classes'], targets: Float[Array, 'batch classes'], weights: Float[Array, ' batch']
) -> Float[Array, '']:
    """The sum over examples, each times its weight."""
    return (optax.softmax_cross_entropy(logits, targets) * weights).sum()


def make_train_step(
    model: nn.Module,
    mask: dict,
    optimizer: optax.GradientTransformation,
    prepare: Callable[[Key[Array, ''], Array], Float[Array, 'batch height width channels']],
    schedule: optax.Schedule,
    recipe: Recipe | None = None,
    scales: dict | None = None,
    layout: Layout | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Build ``train_step(state, batch) → (state, metrics)``; jit it with ``donate_argnums=0``.

    Args:
        model: returns logits.
        mask: which parameters train (``freezing.mask``).
        optimizer: with a learning rate of 1 (``recipe.make_optimizer``).
        prepare: ``(key, stored images) → model input``: augmentation and preprocessing.
        schedule: step → learning rate.
        recipe: how it learns.
        scales: a factor on the learning rate for every parameter, in a tree like theirs; none: 1.
        layout: how arrays lie over the devices.

    The metrics are ``loss`` (the mean over the examples by weight), ``accuracy``, ``gradient_norm``,
    ``learning_rate`` and ``finite``. A step whose loss or gradient is not finite changes nothing but the step number.
    The logits that a model sows into the collection ``auxiliary_logits`` add their loss, weighted by
    ``AUXILIARY_WEIGHT``.

    Raises:
        UserError: when the step is traced, auxiliary logits of another number of classes than the classifier's, or a
            batch that can't be cut into equal parts.
    """
    recipe = recipe or Recipe()
    laid: Layout = layout or OneDevice()

    def forward(params: dict, batch_stats: dict, images: Array, key: Key[Array, '']):
        with ExitStack() as contexts:
            contexts.enter_context(freezing.inference_where_frozen(mask))
            contexts.enter_context(lora.applied(recipe.adapter_scale))
            if recipe.gradient_checkpointing:
                contexts.enter_context(rematerialisation.checkpointed())
            return model.apply(
                {'params': params, 'batch_stats': batch_stats},
                images,
                train=True,
                mutable=['batch_stats', 'auxiliary_logits'],
                rngs={'dropout': key},
            )

    def loss_of(trainable: dict, frozen: dict, batch_stats: dict, part: Batch, key: Key[Array, '']):
        logits, updates = forward(freezing.join(trainable, frozen), batch_stats, part['image'], key)
        loss = cross_entropy(logits, part['target'], part['weight'])
        for auxiliary in jax.tree.leaves(updates.get('auxiliary_logits', {})):
            classes, expected = auxiliary.shape[-1], logits.shape[-1]
            if classes != expected:
                raise UserError(
                    f'the auxiliary heads have {classes} classes and the classifier has {expected}; '
                    f'create it with auxiliary_classes={expected}'
                )
            loss += AUXILIARY_WEIGHT * cross_entropy(auxiliary, part['target'], part['weight'])
        correct = ((logits.argmax(-1) == part['label']) * part['valid']).sum()
        return loss, (correct, updates.get('batch_stats', {}))

    def examples(batch: Batch, key: Key[Array, '']) -> Batch:
        """Model inputs, target distributions, and weights that sum to one."""
        prepare_key, mix_key = jax.random.split(key)
        labels, classes = batch['label'], model.num_classes
        targets = optax.smooth_labels(jax.nn.one_hot(labels, classes), recipe.label_smoothing)
        weights = valid = batch['weight'] if 'weight' in batch else jnp.ones(labels.shape)
        if recipe.class_weights:
            weights = weights * jnp.asarray(recipe.class_weights)[labels]
        images = prepare(prepare_key, batch['image'])
        images, targets = mix(mix_key, images, targets, recipe.mixup, recipe.cutmix)
        # A batch of nothing but unreadable examples has weights of zero.
        return {
            'image': images,
            'target': targets,
            'label': labels,
            'weight': weights / jnp.maximum(weights.sum(), 1e-12),
            'valid': valid / jnp.maximum(valid.sum(), 1),
        }

    def gradients_of(trainable: dict, frozen: dict, batch_stats: dict, batch: Batch, key: Key[Array, '']):
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        if recipe.accumulation == 1:
            (loss, (correct, batch_stats)), gradients = gradient(trainable, frozen, batch_stats, batch, key)
            return loss, correct, batch_stats, laid.scatter(gradients)

        parts = recipe.accumulation
        size = batch['label'].shape[0]
        if size % parts:
            raise UserError(f'a batch of {size} cannot be cut into {parts} equal parts (accumulation)')
        # Every part takes examples from all over the batch, so each device keeps its own.
        batch = {
            name: laid.shard_batch(jnp.moveaxis(array.reshape(size // parts, parts, *array.shape[1:]), 1, 0), 1)
            for name, array in batch.items()
        }

        def add(carry: tuple, part_and_key: tuple):
            loss, correct, batch_stats, total = carry
            part, part_key = part_and_key
            (more, (right, batch_stats)), gradients = gradient(trainable, frozen, batch_stats, part, part_key)
            total = jax.tree.map(jnp.add, total, laid.scatter(gradients))
            return (loss + more, correct + right, batch_stats, total), None

        zeros = laid.scatter(jax.tree.map(jnp.zeros_like, trainable))
        start = (jnp.zeros(()), jnp.zeros(()), batch_stats, zeros)
        return lax.scan(add, start, (batch, jax.random.split(key, parts)), unroll=recipe.unrolled)[0]

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        example_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        whole = laid.gather((state.trainable, state.frozen))
        loss, correct, batch_stats, gradients = gradients_of(
            *whole, state.batch_stats, examples(batch, example_key), dropout_key
        )
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        rate = jnp.asarray(schedule(state.step), jnp.float32)
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
            'accuracy': correct,
            'gradient_norm': norm,
            'learning_rate': rate,
            'finite': finite,
        }
        return kept, metrics

    return train_step


def _choose(condition: Bool[Array, ''], new: TrainState, old: TrainState) -> TrainState:
    """All of one state or all of the other; frozen leaves are the same in both."""
    fields = ('trainable', 'batch_stats', 'optimizer_state', 'average')
    chosen = jax.tree.map(
        lambda left, right: jnp.where(condition, left, right),
        *[tuple(getattr(state, field) for field in fields) for state in (new, old)],
    )
    return dataclasses.replace(old, **dict(zip(fields, chosen, strict=True)))


def make_evaluation_step(
    model: nn.Module, prepare: Callable[[Array], Array], adapter_scale: float = 1.0, layout: Layout | None = None
) -> Callable[[dict, Batch], dict[str, Array]]:
    """Build ``evaluate(variables, batch)``: sums over those rows of a batch that are examples, and all logits.

    ``valid`` says which rows are examples. ``loss`` (cross-entropy) and ``correct`` are sums over them and ``count``
    their number: added over batches and divided once, they are exact for any number of examples and devices.
    """
    layout = layout or OneDevice()

    def evaluate(variables: dict, batch: Batch) -> dict[str, Array]:
        variables = {**variables, 'params': layout.gather(variables['params'])}
        with lora.applied(adapter_scale):
            logits = cast(Array, model.apply(variables, prepare(batch['image']), train=False))
        valid = batch['weight'] > 0
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['label'])
        return {
            'logits': logits,
            'valid': valid,
            'loss': jnp.where(valid, losses, 0).sum(),
            'correct': (valid & (logits.argmax(-1) == batch['label'])).sum(),
            'count': valid.sum(),
        }

    return evaluate
