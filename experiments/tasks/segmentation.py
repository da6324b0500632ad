"""Semantic segmentation: a class for every pixel, learned by cross-entropy and Dice, scored by mIoU."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

import backbones
from backbones import assembly, losses, necks
from backbones.errors import UserError, unknown
from backbones.inputs import AnyPreprocessing
from backbones.layers.resizing import resize
from backbones.model import Model
from backbones.prediction.prediction import Prediction
from backbones.prediction.text_predictor import TextPrediction
from backbones.preprocessing import Preprocessing
from experiments.data.dataset import Dataset
from experiments.data.joint_augmentation import JointAugmentation, augment
from experiments.data.truth import IGNORE, Masks, Targets, TruthKind
from experiments.results import segmentation_metrics
from experiments.results.scores import Predicted, ScoreKind
from experiments.tasks import dense
from experiments.tasks.dense import Options
from experiments.tasks.task import Batch

# Pixels of the longer side of the masks that are kept of each image, to be looked at.
THUMBNAIL = 96


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """See ``tasks.Task``.

    Attributes:
        num_classes: number of classes; masks hold 0 to ``num_classes - 1``, or ``IGNORE``.
        preprocessing: the preprocessing of the model's input.
        augmentation: of images and masks together.
        head: a row of ``assembly.SEGMENTATION_HEADS``.
        neck: a row of ``necks.TABLE``; ``None`` for none.
        neck_options, head_options: theirs.
        output_stride: of the backbone's last map; 0: as ``create_segmenter`` has it.
        dice: weight of the Dice loss beside the cross-entropy.
    """

    num_classes: int
    preprocessing: Preprocessing
    augmentation: JointAugmentation
    head: str = 'fcn'
    neck: str | None = None
    neck_options: Options = ()
    head_options: Options = ()
    output_stride: int = 0
    dice: float = 0.0

    name: ClassVar[str] = 'segmentation'
    primary: ClassVar[str] = 'mIoU'
    collections: ClassVar[tuple[str, ...]] = ('auxiliary_logits',)
    shown: ClassVar[tuple[str, ...]] = ()
    fit: ClassVar[str | None] = 'letterbox'
    head_regime: ClassVar[str] = 'frozen'
    truth: ClassVar[TruthKind] = 'masks'
    is_dense: ClassVar[bool] = True
    heads: ClassVar[tuple[str, ...]] = tuple(assembly.SEGMENTATION_HEADS)
    model_keys: ClassVar[tuple[str, ...]] = (*dense.MODEL_KEYS, 'output_stride', 'auxiliary_head')
    keys: ClassVar[tuple[str, ...]] = (*model_keys, *dense.AUGMENTATION_KEYS, 'dice', 'ignore_label')

    @classmethod
    def create(
        cls,
        config: ml_collections.ConfigDict,
        num_classes: int,
        preprocessing: AnyPreprocessing,
        dataset: Dataset | None = None,
        indices: Int[np.ndarray, ' training'] | None = None,
    ) -> 'Segmentation':
        """Create the task from a config.

        Raises:
            UserError: there are fewer than two classes, no pixel that counts in a split or the share of the labels, or
                options that neck or head do not have.
        """
        assert isinstance(preprocessing, Preprocessing), 'tasks.input_preprocessing refuses others'
        if num_classes < 2:
            raise UserError(f'segmentation needs at least 2 classes, but the data set has {num_classes}')
        if dataset is not None and isinstance(dataset.truth, Masks):
            for which, chosen in dense.needed(dataset, indices):
                if not dataset.truth.pixels[chosen, :-1].any():
                    raise UserError(f'no pixel counts in {which}: all are ignored; a segmenter needs some')
        if config.neck not in (*necks.TABLE, 'none'):
            raise unknown('neck', config.neck, (*necks.TABLE, 'none'))
        head = config.head or cls.heads[0]
        kind = assembly.SEGMENTATION_HEADS[head]
        # An ablation of several heads has one value for all, and a linear one has no width.
        has_width = config.head_channels and hasattr(kind, 'channels')
        options: dict[str, Any] = {'channels': config.head_channels} if has_width else {}
        if config.auxiliary_head and not hasattr(kind, 'auxiliary'):
            raise UserError(f"config key 'auxiliary_head' is True, but the head {head!r} has none; leave it at False")
        if hasattr(kind, 'auxiliary'):
            options['auxiliary'] = config.auxiliary_head
        return cls(
            num_classes=num_classes,
            preprocessing=preprocessing,
            augmentation=dense.augmentation(config, preprocessing.size),
            head=head,
            neck=None if config.neck == 'none' else config.neck,
            neck_options=dense.neck_options(config, preprocessing.size, assembly.SEGMENTER_STRIDES),
            head_options=tuple(options.items()),
            output_stride=config.output_stride,
            dice=config.dice,
        )

    def model(self, backbone: str, options: Mapping[str, Any]) -> Model:
        """Create the segmenter.

        Raises:
            UserError: a stride of the last map for a backbone that cannot be dilated.
        """
        if self.output_stride and not hasattr(backbones.create(backbone), 'output_stride'):
            raise UserError(
                f"config key 'output_stride' is {self.output_stride}, but the backbone {backbone} cannot be dilated; "
                'leave it at 0'
            )
        dtype = jnp.dtype(options['dtype'])
        return backbones.create_segmenter(backbone, num_classes=self.num_classes, dtype=dtype, **self.model_arguments())

    def model_arguments(self) -> dict[str, Any]:
        """Head and neck with their options, and the stride of the backbone's last map."""
        stride = {'output_stride': self.output_stride} if self.output_stride else {}
        return dense.model_arguments(self.head, self.neck, self.neck_options, self.head_options) | stride

    def batch_spec(self, stored_shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        """The spec of a batch: image with its mask, and weight."""
        shapes = {
            'image': ((*stored_shape[:2], 4), jnp.uint8),
            'target': ((), jnp.int32),
            'weight': ((), jnp.float32),
        }
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}

    def prepare(self, key: Key[Array, ''] | None, batch: Batch, train: bool) -> Batch:
        """Prepare model inputs and ``'mask'``, ``int32`` of their size; without augmentation also that as stored."""
        images, weight = batch['image'], batch['weight']
        if train:
            assert key is not None, 'training needs a random key'
            image, mask, _, _ = augment(key, images, None, None, self.augmentation)
            assert mask is not None, 'images of segmentation have a fourth channel'
            return {'image': self.preprocessing(image), 'mask': mask, 'weight': weight, 'valid': weight}
        stored = images[..., 3].astype(jnp.int32)
        mask = dense.put_into_letterbox(stored, self.preprocessing.size, IGNORE)
        image = self.preprocessing(images[..., :3])
        return {'image': image, 'mask': mask, 'stored_mask': stored, 'weight': weight, 'valid': weight}

    def loss(
        self, outputs: Float[Array, 'batch height width classes'], batch: Batch, sown: Mapping[str, Any]
    ) -> tuple[Float[Array, ' batch'], dict[str, Float[Array, ' batch']]]:
        """Cross-entropy over the pixels of the batch, the weighted Dice loss, and that of an auxiliary head."""
        total = self._loss(outputs, batch)
        share = getattr(assembly.SEGMENTATION_HEADS[self.head], 'auxiliary_weight', 0.0)
        for auxiliary in jax.tree.leaves(sown.get('auxiliary_logits', {})):
            total += share * self._loss(auxiliary, batch)
        counted = batch['mask'] != IGNORE
        right = (outputs.argmax(-1) == batch['mask']) & counted
        return total, {'pixel_accuracy': right.sum((1, 2)) / jnp.maximum(counted.sum((1, 2)), 1)}

    def _loss(self, logits: Array, batch: Batch) -> Float[Array, ' batch']:
        valid = (batch['valid'] > 0).astype(jnp.float32)
        total = losses.pixel_cross_entropy(logits, batch['mask'], valid, IGNORE)
        return total + self.dice * losses.soft_dice(logits, batch['mask'], valid, IGNORE) if self.dice else total

    def predict(self, outputs: Float[Array, 'batch height width classes'], batch: Batch) -> dict[str, Array]:
        """What is kept of each image.

        ``'confusion'`` is its confusion matrix over the stored pixels, ``int32[batch, true class, predicted class]``;
        ``'truth_thumbnail'`` and ``'predicted_thumbnail'`` are masks of at most ``THUMBNAIL`` pixels a side, ``uint8``,
        with ``IGNORE`` where the truth is ignored.
        """
        truth = batch['stored_mask']
        seen = dense.out_of_letterbox(outputs, truth.shape[1:3])
        predicted = resize(seen, truth.shape[1:3]).argmax(-1)
        small = _thumbnails(jnp.stack([truth, jnp.where(truth == IGNORE, IGNORE, predicted)]))
        return {
            'confusion': confusion_matrices(truth, predicted, self.num_classes),
            'truth_thumbnail': small[0],
            'predicted_thumbnail': small[1],
        }

    @staticmethod
    def kept(
        result: Prediction | TextPrediction, dataset: Dataset, index: int, matching: Int[np.ndarray, ' model']
    ) -> dict[str, np.ndarray]:
        """The confusion matrix.

        Raises:
            UserError: the model has classes that the data set does not have: their pixels would belong to none.
        """
        assert isinstance(result, Prediction) and result.mask is not None
        if (matching < 0).any():
            raise UserError(
                f'the segmenter has {len(matching)} classes and the data set has {len(dataset.classes)}: a pixel of '
                'another class has no place in the metrics'
            )
        truth = jnp.asarray(dataset.images[np.array([index])][..., 3], jnp.int32)
        predicted = jnp.asarray(matching[result.mask][None])
        return {'confusion': np.asarray(confusion_matrices(truth, predicted, len(dataset.classes))[0])}

    @staticmethod
    def score(predictions: Mapping[str, np.ndarray], targets: Targets, classes: Sequence[str] = ()) -> dict[str, float]:
        """See ``results.segmentation_metrics.metrics``."""
        return {'mIoU': 0.0, **dense.known(segmentation_metrics.metrics(predictions['confusion'], classes))}

    @classmethod
    def every_metric(
        cls,
        predictions: Mapping[str, np.ndarray],
        targets: Targets,
        classes: Sequence[str],
        score_kind: ScoreKind = 'logits',
        validation: Predicted | None = None,
    ) -> dict[str, float]:
        """See ``score``."""
        return cls.score(predictions, targets, classes)

    @staticmethod
    def resampled(
        predictions: Mapping[str, np.ndarray], targets: Targets, samples: int, seed: int
    ) -> Float[np.ndarray, ' samples']:
        """mIoU of bootstrap samples of the images."""
        return segmentation_metrics.resampled(predictions['confusion'], samples, seed)[:, 0]


def _thumbnails(masks: Int[Array, '*batch height width']) -> UInt8[Array, '*batch rows columns']:
    """Masks of at most ``THUMBNAIL`` pixels a side, each the one in the middle of what it stands for."""
    *_, height, width = masks.shape
    factor = max(1.0, max(height, width) / THUMBNAIL)
    rows, columns = (
        np.clip(((np.arange(round(side / factor)) + 0.5) * factor).astype(int), 0, side - 1) for side in (height, width)
    )
    return masks[..., rows[:, None], columns].astype(jnp.uint8)


def confusion_matrices(
    truth: Int[Array, 'batch height width'], predicted: Int[Array, 'batch height width'], classes: int
) -> Int[Array, 'batch classes classes']:
    """Each image's numbers of pixels by true and predicted class; pixels without a class are not counted."""
    cells = jnp.where(truth < classes, truth * classes + predicted, classes * classes)

    def count(image: Array) -> Array:
        return jnp.zeros(classes * classes + 1, jnp.int32).at[image.ravel()].add(1)[:-1]

    return jax.vmap(count)(cells).reshape(-1, classes, classes)
