"""The interface of tasks; the step, evaluation, checkpoints and tables use only this, whatever the task."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int, Key

from backbones.inputs import AnyPreprocessing
from backbones.model import Model
from backbones.prediction.prediction import Prediction
from backbones.prediction.text_predictor import TextPrediction
from experiments.data.dataset import Dataset
from experiments.data.truth import Targets, TruthKind
from experiments.results.scores import Predicted, ScoreKind

# Arrays whose first axis runs over the examples. As read: 'image', 'target', what a ``truth`` adds, and 'weight', which
# is 0 for rows that are not examples. As returned by ``prepare``: 'image' is the model's input, 'valid' is the 'weight'
# that was read, and 'weight' is the example's weight in the loss.
Batch = dict[str, Array]


class Task(Protocol):
    """A task. It must be frozen and hashable, since equal tasks share compiled programs.

    Attributes:
        name: its row in ``tasks.TABLE``.
        primary: the metric used for selection; higher is better.
        preprocessing: the preprocessing of the model's input.
        collections: collections that its models sow in training, for ``loss``.
        shown: parts of a prepared batch that its models see in training beside the images (``truth`` of ``Model``).
        fit: how images are fitted to the input, with their targets; ``None``: as the config says, and images alone.
        head_regime: what the regime is called in which everything but the backbone trains.
        truth: what it needs to know about an image.
        is_dense: whether it predicts something at many places of an image: neck and head work on maps, whose cost
            counts, and heads on stored features, which classify images, are none for it.
        heads: names of its heads, the usual one first; empty: there is no choice.
        keys: config keys that it reads, of those that not every task reads.
        model_keys: those of them that say what its neck and head are; their values are kept with the weights.
    """

    def __hash__(self) -> int: ...

    name: ClassVar[str]
    primary: ClassVar[str]
    collections: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]]
    fit: ClassVar[str | None]
    head_regime: ClassVar[str]
    truth: ClassVar[TruthKind]
    is_dense: ClassVar[bool]
    heads: ClassVar[tuple[str, ...]]
    keys: ClassVar[tuple[str, ...]]
    model_keys: ClassVar[tuple[str, ...]]

    @property
    def preprocessing(self) -> AnyPreprocessing: ...  # noqa: D102

    @classmethod
    def create(
        cls,
        config: ml_collections.ConfigDict,
        num_classes: int,
        preprocessing: AnyPreprocessing,
        dataset: Dataset | None = None,
        indices: Int[np.ndarray, ' training'] | None = None,
    ) -> 'Task':
        """Create the task from a config.

        Args:
            config: see ``training.config``.
            num_classes: number of classes in the data set.
            preprocessing: the preprocessing of the model's input.
            dataset: what it is trained on; ``None``: not known yet, which does not change compilation but for the
                number of objects.
            indices: its training examples.

        Raises:
            UserError: values that do not fit each other or the data.
        """
        ...

    def model(self, backbone: str, options: Mapping[str, Any]) -> Model:
        """Create the model for a backbone.

        Args:
            backbone: its registered name.
            options: options of the run, including ``dtype`` and ``dropout``.
        """
        ...

    def model_arguments(self) -> dict[str, Any]:
        """What ``model`` creates it with, beside the backbone, its options and the number of classes.

        It is kept with the weights, so that a model can be made of them; empty for a classifier.
        """
        ...

    def batch_spec(self, stored_shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        """Name → shape (without the batch axis) and type of each array in a batch as read."""
        ...

    def prepare(self, key: Key[Array, ''] | None, batch: Batch, train: bool) -> Batch:
        """Augment (in training only) and preprocess images and targets together, on the device."""
        ...

    def loss(
        self, outputs: Any, batch: Batch, sown: Mapping[str, Any]
    ) -> tuple[Float[Array, ' batch'], dict[str, Float[Array, ' batch']]]:
        """The loss of each example, and its metrics, whose means are shown during training."""
        ...

    def predict(self, outputs: Any, batch: Batch) -> dict[str, Array]:
        """What is kept of each example, from which any metric can be computed; shapes are static and padded."""
        ...

    # The same for all instances of a task, so that they need no model.
    @staticmethod
    def kept(
        result: Prediction | TextPrediction, dataset: Dataset, index: int, matching: Int[np.ndarray, ' model']
    ) -> dict[str, np.ndarray]:
        """What ``predict`` gives of an example, from the result of a predictor, whatever model it has.

        Args:
            result: of the example's file, or of its stored pixels.
            dataset: that has the example.
            index: of the example.
            matching: the data set's class of each class of the model, or -1.
        """
        ...

    @staticmethod
    def score(predictions: Mapping[str, np.ndarray], targets: Targets, classes: Sequence[str] = ()) -> dict[str, float]:
        """Compute every metric of the task, including ``primary``, on the host.

        Args:
            predictions: from ``predict``, of some examples.
            targets: theirs (``Dataset.targets_of``).
            classes: names of the classes.
        """
        ...

    @staticmethod
    def every_metric(
        predictions: Mapping[str, np.ndarray],
        targets: Targets,
        classes: Sequence[str],
        score_kind: ScoreKind = 'logits',
        validation: Predicted | None = None,
    ) -> dict[str, float]:
        """Whatever can be told, ``score`` included; ``KIND/CLASS`` for a class alone.

        Args:
            predictions, targets, classes: as for ``score``.
            score_kind: what the ``'logits'`` are, if there are any.
            validation: predictions of the validation split, for what is fitted on them.
        """
        ...

    @staticmethod
    def resampled(
        predictions: Mapping[str, np.ndarray], targets: Targets, samples: int, seed: int
    ) -> Float[np.ndarray, ' samples'] | None:
        """``primary`` of that many bootstrap samples of the examples; equal seeds draw the same examples.

        ``None`` for a metric that is a mean over examples, whose interval needs no resampling.
        """
        ...
