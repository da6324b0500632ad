"""The training step: a pure function of state and batch, whatever is frozen.

Only the trainable leaves are differentiated. Frozen leaves have no gradient, no optimizer state and no share in the
gradient norm; frozen modules run in inference mode.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, Key

from backbones import freezing
from backbones.errors import UserError, unknown

Batch = dict[str, Array]  # 'image': uint8[batch, height, width, channels], 'label': int[batch]
Metrics = dict[str, Float[Array, '']]

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
        key: root of all randomness; a step derives its own from it and never changes it.
    """

    step: Int[Array, '']
    trainable: dict
    frozen: dict
    batch_stats: dict
    optimizer_state: optax.OptState
    key: Key[Array, '']

    def variables(self) -> dict:
        """``{'params': …, 'batch_stats': …}``, as ``apply`` takes them."""
        return {'params': freezing.join(self.trainable, self.frozen), 'batch_stats': self.batch_stats}


def decay_mask(params: dict) -> dict:
    """Weight decay acts on kernels, not on biases, scales, positions and tokens."""
    return unflatten_dict({path: path[-1] == 'kernel' for path in flatten_dict(params)})


def make_optimizer(
    name: str, schedule: optax.Schedule, weight_decay: float, clip_norm: float = 0.0
) -> optax.GradientTransformation:
    """An optax optimizer by name (``'adamw'`` or ``'sgd'``), with gradient clipping if ``clip_norm`` is positive."""
    if name == 'adamw':
        optimizer = optax.adamw(schedule, weight_decay=weight_decay, mask=decay_mask)
    elif name == 'sgd':
        decay = optax.add_decayed_weights(weight_decay, mask=decay_mask)
        optimizer = optax.chain(decay, optax.sgd(schedule, momentum=0.9, nesterov=True))
    else:
        raise unknown('optimizer', name, ('adamw', 'sgd'))
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer


def create_state(
    variables: dict, mask: dict, optimizer: optax.GradientTransformation, key: Key[Array, '']
) -> TrainState:
    """The state before the first step."""
    trainable, frozen = freezing.split(variables['params'], mask)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        frozen=frozen,
        batch_stats=variables.get('batch_stats', {}),
        optimizer_state=optimizer.init(trainable),
        key=key,
    )


def make_train_step(
    model: nn.Module,
    mask: dict,
    optimizer: optax.GradientTransformation,
    prepare: Callable[[Key[Array, ''], Array], Float[Array, 'batch height width 3']],
    label_smoothing: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Build ``train_step(state, batch) → (state, metrics)``; jit it with ``donate_argnums=0``.

    Args:
        model: returns logits.
        mask: which parameters train (``freezing.mask``).
        prepare: ``(key, stored images) → model input``: augmentation and preprocessing.
        label_smoothing: share of the target that is spread over all classes.

    The logits that a model sows into the collection ``auxiliary_logits`` add their loss, weighted by
    ``AUXILIARY_WEIGHT``.

    Raises:
        UserError: when the step is traced, auxiliary logits of another number of classes than the classifier's.
    """

    def cross_entropy(logits: Array, labels: Array) -> Float[Array, '']:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    def loss_of(trainable: dict, state: TrainState, images: Array, labels: Array, dropout_key: Array):
        variables = {'params': freezing.join(trainable, state.frozen), 'batch_stats': state.batch_stats}
        with freezing.inference_where_frozen(mask):
            logits, updates = model.apply(
                variables,
                images,
                train=True,
                mutable=['batch_stats', 'auxiliary_logits'],
                rngs={'dropout': dropout_key},
            )
        loss = cross_entropy(logits, labels)
        for auxiliary in jax.tree.leaves(updates.get('auxiliary_logits', {})):
            classes, expected = auxiliary.shape[-1], logits.shape[-1]
            if classes != expected:
                raise UserError(
                    f'the auxiliary heads have {classes} classes and the classifier has {expected}; '
                    f'create it with auxiliary_classes={expected}'
                )
            loss += AUXILIARY_WEIGHT * cross_entropy(auxiliary, labels)
        return loss, (logits, updates.get('batch_stats', {}))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        prepare_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        images = prepare(prepare_key, batch['image'])
        (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.trainable, state, images, batch['label'], dropout_key
        )
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trainable)
        metrics = {
            'loss': loss,
            'accuracy': (logits.argmax(-1) == batch['label']).mean(),
            'gradient_norm': optax.tree.norm(gradients),
        }
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            trainable=optax.apply_updates(state.trainable, updates),
            batch_stats=batch_stats,
            optimizer_state=optimizer_state,
        )
        return state, metrics

    return train_step
