"""Classification with one label per image or text: cross-entropy and accuracy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

import backbones
from backbones.errors import UserError
from backbones.inputs import AnyPreprocessing
from backbones.model import Model
from backbones.prediction.prediction import Prediction
from backbones.prediction.text_predictor import TextPrediction
from backbones.text.tokenising import Tokenising
from experiments.data import sampling
from experiments.data.augmentation import augment, mix
from experiments.data.dataset import Dataset
from experiments.data.truth import Targets, TruthKind
from experiments.results import classification_metrics
from experiments.results.scores import Predicted, ScoreKind
from experiments.tasks.task import Batch

# Keys of the augmentation of images, which texts do not have; ``flip`` is on by default, and does nothing to them.
_OF_IMAGES = ('shift', 'crop_scale', 'mixup', 'cutmix', 'rand_augment_layers')
# Share of each auxiliary head's loss in the total (Szegedy et al. 2015, section 5).
AUXILIARY_WEIGHT = 0.3


@dataclasses.dataclass(frozen=True)
class Classification:
    """See ``tasks.Task``.

    Attributes:
        num_classes: number of classes; targets are ``int32``, from 0 to ``num_classes - 1``.
        preprocessing: the preprocessing of the model's input.
        flip, shift, crop_scale: see ``augmentation.augment``.
        mixup, cutmix: see ``augmentation.mix``.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: weight in the loss of an example of each class; empty: all equal.
    """

    num_classes: int
    preprocessing: AnyPreprocessing
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
    shown: ClassVar[tuple[str, ...]] = ()
    fit: ClassVar[str | None] = None
    head_regime: ClassVar[str] = 'linear'
    truth: ClassVar[TruthKind] = 'class'
    is_dense: ClassVar[bool] = False
    heads: ClassVar[tuple[str, ...]] = ()
    keys: ClassVar[tuple[str, ...]] = (
        'sampler', 'class_weights', 'label_smoothing', 'dropout', 'mixup', 'cutmix', 'shift', 'crop_scale',
        'rand_augment_layers', 'rand_augment_magnitude', 'fit',
    )  # fmt: skip
    model_keys: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def create(
        cls,
        config: ml_collections.ConfigDict,
        num_classes: int,
        preprocessing: AnyPreprocessing,
        dataset: Dataset | None = None,
        indices: Int[np.ndarray, ' training'] | None = None,
    ) -> 'Classification':
        """Create the task from a config; class weights are computed from the training examples, and 1 without them.

        Raises:
            UserError: there are fewer than two classes, ``class_weights`` is unknown, a class to be balanced has no
                examples, or texts are to be augmented as images are.
        """
        if num_classes < 2:
            raise UserError(f'classification needs at least 2 classes, but the data set has {num_classes}')
        given = [key for key in _OF_IMAGES if config[key]] if isinstance(preprocessing, Tokenising) else []
        if given:
            raise UserError(
                f'config key {given[0]!r} is {config[given[0]]!r}, but it augments images, and {config.backbone} reads '
                'texts; leave it at 0'
            )
        weights = ()
        if config.class_weights != 'none':
            counted = np.ones(num_classes)
            if dataset is not None and indices is not None:
                counted = sampling.class_weights(config.class_weights, dataset.targets, indices, num_classes)
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
        """Create a linear classifier on the pooled features."""
        dtype = jnp.dtype(options['dtype'])
        return backbones.create_classifier(backbone, self.num_classes, dtype=dtype, dropout=options['dropout'])

    def model_arguments(self) -> dict[str, Any]:
        """None: every classifier is made alike."""
        return {}

    def batch_spec(self, stored_shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        """The spec of a batch: image or tokens, class and weight."""
        kind = jnp.int32 if isinstance(self.preprocessing, Tokenising) else jnp.uint8
        shapes = {'image': (stored_shape, kind), 'target': ((), jnp.int32), 'weight': ((), jnp.float32)}
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}

    def prepare(self, key: Key[Array, ''] | None, batch: Batch, train: bool) -> Batch:
        """Prepare model inputs; in training also ``'distribution'``, the targets as ``float32[batch, classes]``."""
        target = batch['target']
        weight = valid = batch['weight'] if 'weight' in batch else jnp.ones(target.shape)
        if not train:
            image = self.preprocessing(batch['image'])
            return {'image': image, 'target': target, 'weight': weight, 'valid': valid}
        distribution = optax.smooth_labels(jax.nn.one_hot(target, self.num_classes), self.label_smoothing)
        if self.class_weights:
            weight = weight * jnp.asarray(self.class_weights)[target]
        if isinstance(self.preprocessing, Tokenising):
            image = self.preprocessing(batch['image'])
        else:
            assert key is not None, 'training needs a random key'
            augment_key, mix_key = jax.random.split(key)
            size = max(self.preprocessing.size) if self.crop_scale else 0
            image = augment(augment_key, batch['image'], self.flip, self.shift, self.crop_scale, size)
            image, distribution = mix(mix_key, self.preprocessing(image), distribution, self.mixup, self.cutmix)
        return {'image': image, 'target': target, 'weight': weight, 'valid': valid, 'distribution': distribution}

    def loss(
        self, outputs: Float[Array, 'batch classes'], batch: Batch, sown: Mapping[str, Any]
    ) -> tuple[Float[Array, ' batch'], dict[str, Float[Array, ' batch']]]:
        """Cross-entropy plus ``AUXILIARY_WEIGHT`` times that of each auxiliary head, and whether each example is right.

        Raises:
            UserError: the auxiliary heads have a different number of classes.
        """
        losses = _cross_entropy(outputs, batch)
        for auxiliary in jax.tree.leaves(sown.get('auxiliary_logits', {})):
            if auxiliary.shape != outputs.shape:
                raise UserError(
                    f'the auxiliary heads have {auxiliary.shape[-1]} classes, but the classifier has '
                    f'{outputs.shape[-1]}; create it with auxiliary_classes={outputs.shape[-1]}'
                )
            losses += AUXILIARY_WEIGHT * _cross_entropy(auxiliary, batch)
        return losses, {'accuracy': outputs.argmax(-1) == batch['target']}

    def predict(self, outputs: Float[Array, 'batch classes'], batch: Batch) -> dict[str, Array]:
        """The logits."""
        return {'logits': outputs}

    @staticmethod
    def kept(
        result: Prediction | TextPrediction, dataset: Dataset, index: int, matching: Int[np.ndarray, ' model']
    ) -> dict[str, np.ndarray]:
        """Logarithms of the probabilities; those of classes that the data set does not have come last.

        Those of classes that the model does not have are minus infinity.
        """
        assert result.probabilities is not None
        logits = np.log(result.probabilities + np.finfo(np.float32).tiny)
        of_classes = np.full(len(dataset.classes), -np.inf, logits.dtype)
        of_classes[matching[matching >= 0]] = logits[matching >= 0]
        return {'logits': np.concatenate([of_classes, logits[matching < 0]])}

    @staticmethod
    def score(predictions: Mapping[str, np.ndarray], targets: Targets, classes: Sequence[str] = ()) -> dict[str, float]:
        """Accuracy: the share of examples whose largest logit is that of their class."""
        correct = int((predictions['logits'].argmax(-1) == targets).sum())
        return {'accuracy': correct / max(len(predictions['logits']), 1)}

    @staticmethod
    def every_metric(
        predictions: Mapping[str, np.ndarray],
        targets: Targets,
        classes: Sequence[str],
        score_kind: ScoreKind = 'logits',
        validation: Predicted | None = None,
    ) -> dict[str, float]:
        """See ``results.classification_metrics``."""
        held_out = validation and (validation.predictions['logits'], np.asarray(validation.targets))
        return classification_metrics.metrics(predictions['logits'], np.asarray(targets), classes, score_kind, held_out)

    @staticmethod
    def resampled(predictions: Mapping[str, np.ndarray], targets: Targets, samples: int, seed: int) -> None:
        """Accuracy is a mean over examples."""


def _cross_entropy(logits: Float[Array, 'batch classes'], batch: Batch) -> Float[Array, ' batch']:
    if 'distribution' in batch:
        return optax.softmax_cross_entropy(logits, batch['distribution'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch['target'])
