"""One label per image: cross-entropy, accuracy."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

import backbones
from backbones.errors import UserError
from backbones.model import Model
from backbones.preprocessing import Preprocessing
from experiments.data import sampling
from experiments.data.augmentation import augment, mix
from experiments.tasks.task import Batch

# Share of each auxiliary head's loss in the total (Szegedy et al. 2015, section 5).
AUXILIARY_WEIGHT = 0.3


@dataclasses.dataclass(frozen=True)
class Classification:
    """See ``tasks.Task``.

    Attributes:
        num_classes: number of classes; targets are ``int32``, from 0 to ``num_classes - 1``.
        preprocessing: what the model's input needs.
        flip, shift, crop_scale: see ``augmentation.augment``.
        mixup, cutmix: see ``augmentation.mix``.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: what an example of each class counts in the loss; empty: all the same.
    """

    num_classes: int
    preprocessing: Preprocessing
    flip: bool = False
    shift: int = 0
    crop_scale: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    name: ClassVar[str] = 'classification'
    primary: ClassVar[str] = 'accuracy'
    collections: ClassVar[tuple[str, ...]] = ('auxiliary_logits',)

    @classmethod
    def create(
        cls,
        config: ml_collections.ConfigDict,
        num_classes: int,
        preprocessing: Preprocessing,
        training_targets: Int[np.ndarray, ' training'] | None = None,
    ) -> 'Classification':
        """The task of a training, from its config.

        Args:
            config: see ``training.config``.
            num_classes: of the data set.
            preprocessing: what the model's input needs.
            training_targets: that class weights are counted on; without them they are all 1, which compiles alike.

        Raises:
            UserError: fewer than two classes, unknown class weights, or a class without an example to be balanced.
        """
        if num_classes < 2:
            raise UserError(f'classification needs at least 2 classes, and the data set has {num_classes}')
        weights = ()
        if config.class_weights != 'none':
            counted = np.ones(num_classes)
            if training_targets is not None:
                every = np.arange(len(training_targets))
                counted = sampling.class_weights(config.class_weights, training_targets, every, num_classes)
            weights = tuple(map(float, counted))
        return cls(
            num_classes=num_classes,
            preprocessing=preprocessing,
            flip=config.flip,
            shift=config.shift,
            crop_scale=config.crop_scale,
            mixup=config.mixup,
            cutmix=config.cutmix,
            label_smoothing=config.label_smoothing,
            class_weights=weights,
        )

    def model(self, backbone: str, options: Mapping[str, Any]) -> Model:
        """A linear classifier on the pooled features."""
        dtype = jnp.dtype(options['dtype'])
        return backbones.create_classifier(backbone, self.num_classes, dtype=dtype, dropout=options['dropout'])

    def batch_spec(self, stored_shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
        """An image, a class, and a weight."""
        shapes = {'image': (stored_shape, jnp.uint8), 'target': ((), jnp.int32), 'weight': ((), jnp.float32)}
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}

    def prepare(self, key: Key[Array, ''] | None, batch: Batch, train: bool) -> Batch:
        """Model inputs; while training also ``'distribution'``, the targets as ``float32[batch, classes]``."""
        target = batch['target']
        weight = valid = batch['weight'] if 'weight' in batch else jnp.ones(target.shape)
        if not train:
            image = self.preprocessing(batch['image'])
            return {'image': image, 'target': target, 'weight': weight, 'valid': valid}
        assert key is not None, 'training needs a random key'
        augment_key, mix_key = jax.random.split(key)
        size = max(self.preprocessing.size) if self.crop_scale else 0
        image = augment(augment_key, batch['image'], self.flip, self.shift, self.crop_scale, size)
        distribution = optax.smooth_labels(jax.nn.one_hot(target, self.num_classes), self.label_smoothing)
        if self.class_weights:
            weight = weight * jnp.asarray(self.class_weights)[target]
        image, distribution = mix(mix_key, self.preprocessing(image), distribution, self.mixup, self.cutmix)
        return {'image': image, 'target': target, 'weight': weight, 'valid': valid, 'distribution': distribution}

    def loss(
        self, outputs: Float[Array, 'batch classes'], batch: Batch, sown: Mapping[str, Any]
    ) -> tuple[Float[Array, ' batch'], dict[str, Float[Array, ' batch']]]:
        """Cross-entropy, with that of auxiliary heads at ``AUXILIARY_WEIGHT`` each, and whether an example is right.

        Raises:
            UserError: the auxiliary heads have another number of classes.
        """
        losses = _cross_entropy(outputs, batch)
        for auxiliary in jax.tree.leaves(sown.get('auxiliary_logits', {})):
            if auxiliary.shape != outputs.shape:
                raise UserError(
                    f'the auxiliary heads have {auxiliary.shape[-1]} classes and the classifier has '
                    f'{outputs.shape[-1]}; create it with auxiliary_classes={outputs.shape[-1]}'
                )
            losses += AUXILIARY_WEIGHT * _cross_entropy(auxiliary, batch)
        return losses, {'accuracy': outputs.argmax(-1) == batch['target']}

    def predict(self, outputs: Float[Array, 'batch classes'], batch: Batch) -> dict[str, Array]:
        """The logits."""
        return {'logits': outputs}

    @staticmethod
    def score(predictions: Mapping[str, np.ndarray], targets: Int[np.ndarray, ' examples']) -> dict[str, float]:
        """The share of the examples whose largest logit is their class's."""
        correct = int((predictions['logits'].argmax(-1) == targets).sum())
        return {'accuracy': correct / max(len(targets), 1)}


def _cross_entropy(logits: Float[Array, 'batch classes'], batch: Batch) -> Float[Array, ' batch']:
    if 'distribution' in batch:
        return optax.softmax_cross_entropy(logits, batch['distribution'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['target'])
