"""Object detection: boxes with classes, learned and scored as the head and COCO define it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int, Key

import backbones
from backbones import assembly, necks
from backbones.errors import UserError, unknown
from backbones.inputs import AnyPreprocessing
from backbones.letterbox_placement import letterbox_placement
from backbones.model import Model
from backbones.prediction.prediction import Prediction
from backbones.prediction.text_predictor import TextPrediction
from backbones.preprocessing import Preprocessing
from experiments.data.dataset import Dataset
from experiments.data.joint_augmentation import JointAugmentation, augment
from experiments.data.truth import Boxes, Targets, TruthKind
from experiments.results import coco_metrics, precision_recall, voc_metrics
from experiments.results.detected_boxes import DetectedBoxes
from experiments.results.scores import Predicted, ScoreKind
from experiments.tasks import dense
from experiments.tasks.dense import Options
from experiments.tasks.task import Batch

# Objects in an image where the data are not known yet.
_OBJECTS = 100


@dataclasses.dataclass(frozen=True)
class Detection:
    """See ``tasks.Task``.

    Attributes:
        num_classes: number of classes of objects.
        objects: largest number of objects in an image.
        preprocessing: the preprocessing of the model's input.
        augmentation: of images and boxes together.
        head: a row of ``assembly.DETECTION_HEADS``.
        neck: a row of ``necks.TABLE``, or ``'none'`` for a head that can do without one.
        neck_options, head_options: theirs.
    """

    num_classes: int
    objects: int
    preprocessing: Preprocessing
    augmentation: JointAugmentation
    head: str = 'fcos'
    neck: str = 'fpn'
    neck_options: Options = ()
    head_options: Options = ()

    name: ClassVar[str] = 'detection'
    primary: ClassVar[str] = 'AP'
    collections: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ('boxes', 'classes', 'valid')
    fit: ClassVar[str | None] = 'letterbox'
    head_regime: ClassVar[str] = 'frozen'
    truth: ClassVar[TruthKind] = 'boxes'
    is_dense: ClassVar[bool] = True
    heads: ClassVar[tuple[str, ...]] = tuple(assembly.DETECTION_HEADS)
    model_keys: ClassVar[tuple[str, ...]] = (*dense.MODEL_KEYS, 'head_depth', 'score_threshold', 'max_detections')
    keys: ClassVar[tuple[str, ...]] = (*model_keys, *dense.AUGMENTATION_KEYS)

    @classmethod
    def create(
        cls,
        config: ml_collections.ConfigDict,
        num_classes: int,
        preprocessing: AnyPreprocessing,
        dataset: Dataset | None = None,
        indices: Int[np.ndarray, ' training'] | None = None,
    ) -> 'Detection':
        """Create the task from a config.

        Raises:
            UserError: there is no class, no neck, or no object in a split or the share of the labels; or see ``dense``.
        """
        if num_classes < 1:
            raise UserError('detection needs at least 1 class, but the data set has none')
        head = config.head or cls.heads[0]
        if config.neck == 'none' and head not in assembly.NECKLESS_STRIDES:
            raise unknown('neck of a detector', config.neck, necks.TABLE)
        assert isinstance(preprocessing, Preprocessing), 'tasks.input_preprocessing refuses others'
        objects = _OBJECTS
        if dataset is not None:
            assert isinstance(dataset.truth, Boxes)
            objects = dataset.truth.classes.shape[1]
            for which, chosen in dense.needed(dataset, indices):
                found = dataset.truth.of(chosen)
                if not ((found.classes >= 0) & ~found.crowd).any():
                    raise UserError(f'there is no object in {which}; a detector needs some')
        options: dict[str, Any] = {
            'score_threshold': config.score_threshold,
            'max_detections': config.max_detections,
        }
        channels = config.head_channels or config.neck_channels
        options |= {'channels': channels} if channels else {}
        options |= {'depth': config.head_depth} if config.head_depth else {}
        return cls(
            num_classes=num_classes,
            objects=objects,
            preprocessing=preprocessing,
            # Four images hold more objects than one; few of them as many as the fullest.
            augmentation=dataclasses.replace(
                dense.augmentation(config, preprocessing.size), max_objects=2 * objects if config.mosaic else None
            ),
            head=head,
            neck=config.neck,
            neck_options=dense.neck_options(config, preprocessing.size, assembly.detector_strides(head)),
            head_options=tuple(options.items()),
        )

    def model(self, backbone: str, options: Mapping[str, Any]) -> Model:
        """Create the detector."""
        dtype = jnp.dtype(options['dtype'])
        return backbones.create_detector(backbone, num_classes=self.num_classes, dtype=dtype, **self.model_arguments())

    def model_arguments(self) -> dict[str, Any]:
        """Head and neck, with their options."""
        neck = None if self.neck == 'none' else self.neck
        return dense.model_arguments(self.head, neck, self.neck_options, self.head_options)

    def _head(self) -> nn.Module:
        """The head, for what it computes without parameters."""
        return assembly.DETECTION_HEADS[self.head](num_classes=self.num_classes, **dict(self.head_options))

    def batch_spec(self, stored_shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        """The spec of a batch: image, boxes with classes, the image's place and original size, and weight."""
        shapes = {
            'image': (stored_shape, jnp.uint8),
            'target': ((), jnp.int32),
            'boxes': ((self.objects, 4), jnp.float32),
            'classes': ((self.objects,), jnp.int32),
            'placement': ((4,), jnp.float32),
            'size': ((2,), jnp.int32),
            'weight': ((), jnp.float32),
        }
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}

    def prepare(self, key: Key[Array, ''] | None, batch: Batch, train: bool) -> Batch:
        """Prepare model inputs, and boxes in their pixels; ``'placement'`` then leads from the original to these."""
        images, boxes, classes, weight = (batch[name] for name in ('image', 'boxes', 'classes', 'weight'))
        if train:
            assert key is not None, 'training needs a random key'
            image, _, boxes, classes = augment(key, images, boxes, classes, self.augmentation)
            assert boxes is not None and classes is not None
            changed = {'image': self.preprocessing(image), 'boxes': boxes, 'classes': classes}
        else:
            _, height, width, _ = images.shape
            placement = letterbox_placement((height, width), self.preprocessing.size)
            factors, shifts = np.split(np.array(placement, np.float32), 2)
            before, moved = jnp.split(batch['placement'], 2, axis=-1)
            changed = {
                'image': self.preprocessing(images),
                'boxes': boxes * np.tile(factors, 2) + np.tile(shifts, 2),
                'classes': classes,
                'placement': jnp.concatenate([before * factors, moved * factors + shifts], -1),
                'size': batch['size'],
            }
        return {**changed, 'weight': weight, 'valid': weight}

    def loss(
        self, outputs: Any, batch: Batch, sown: Mapping[str, Any]
    ) -> tuple[Float[Array, ' batch'], dict[str, Float[Array, ' batch']]]:
        """The sum of the head's losses, and each of them."""
        valid = (batch['valid'] > 0).astype(jnp.float32)
        truth = {'boxes': batch['boxes'], 'classes': batch['classes'], 'valid': valid}
        parts = self._head().losses(outputs, truth, batch['image'].shape[1:3])
        return sum(parts.values(), jnp.zeros_like(valid)), parts

    def predict(self, outputs: Any, batch: Batch) -> dict[str, Array]:
        """Detections in pixels of the original images, best first; ``'found'`` marks those that are any."""
        found = self._head().detections(outputs, batch['image'].shape[1:3])
        factors, shifts = (jnp.tile(part, 2)[:, None] for part in jnp.split(batch['placement'], 2, axis=-1))
        largest = jnp.tile(batch['size'][:, ::-1], 2)[:, None].astype(jnp.float32)
        boxes = jnp.clip((found.boxes - shifts) / factors, 0, largest)
        # A box in the border of a letterbox shows nothing of the image, and is not there for it.
        inside = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        return {'boxes': boxes, 'scores': found.scores, 'labels': found.classes, 'found': found.valid & inside}

    @staticmethod
    def kept(
        result: Prediction | TextPrediction, dataset: Dataset, index: int, matching: Int[np.ndarray, ' model']
    ) -> dict[str, np.ndarray]:
        """Detections in pixels of the original image, without those of classes that the data set does not have."""
        assert isinstance(dataset.truth, Boxes)
        assert isinstance(result, Prediction)
        assert result.boxes is not None and result.scores is not None and result.classes is not None
        truth = dataset.truth.of(np.array([index]))
        boxes, labels = result.boxes, matching[result.classes]
        height, width = truth.sizes[0]
        if result.size != (height, width):  # from stored pixels
            factors, shifts = np.split(truth.placements(dataset.stored_size)[0], 2)
            boxes = (boxes - np.tile(shifts, 2)) / np.tile(factors, 2)
            boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
        found = (labels >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(-1)
        return {'boxes': boxes, 'scores': result.scores, 'labels': labels, 'found': found}

    @staticmethod
    def score(predictions: Mapping[str, np.ndarray], targets: Targets, classes: Sequence[str] = ()) -> dict[str, float]:
        """COCO's metrics, and VOC's where annotations have difficult objects, which only VOC leaves out."""
        return _metrics(_evaluate(predictions, targets, classes), predictions, targets, classes)

    @staticmethod
    def every_metric(
        predictions: Mapping[str, np.ndarray],
        targets: Targets,
        classes: Sequence[str],
        score_kind: ScoreKind = 'logits',
        validation: Predicted | None = None,
    ) -> dict[str, float]:
        """See ``score``; and the best F1 of all detections together (``results.precision_recall``)."""
        evaluation = _evaluate(predictions, targets, classes)
        curve = precision_recall.curve(evaluation.matches)
        best = {} if curve is None else curve.best_f1()
        return {**_metrics(evaluation, predictions, targets, classes), **best}

    @staticmethod
    def resampled(
        predictions: Mapping[str, np.ndarray], targets: Targets, samples: int, seed: int
    ) -> Float[np.ndarray, ' samples']:
        """AP of bootstrap samples of the images."""
        assert isinstance(targets, Boxes)
        classes = tuple(map(str, range(max(0, int(targets.classes.max())) + 1)))
        return _evaluate(predictions, targets, classes).resampled(samples, seed)[:, 0]


def _metrics(
    evaluation: coco_metrics.CocoEvaluation,
    predictions: Mapping[str, np.ndarray],
    targets: Targets,
    classes: Sequence[str],
) -> dict[str, float]:
    assert isinstance(targets, Boxes)
    metrics = dict(evaluation.metrics)
    if targets.difficult.any():
        metrics |= voc_metrics.evaluate(targets, _detections(predictions), classes)
    return {'AP': 0.0, **dense.known(metrics)}


def _evaluate(
    predictions: Mapping[str, np.ndarray], targets: Targets, classes: Sequence[str]
) -> coco_metrics.CocoEvaluation:
    assert isinstance(targets, Boxes)
    return coco_metrics.evaluate(targets, _detections(predictions), classes)


def _detections(predictions: Mapping[str, np.ndarray]) -> DetectedBoxes:
    return DetectedBoxes(*(predictions[name] for name in ('boxes', 'scores', 'labels', 'found')))
