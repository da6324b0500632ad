"""The interface of tasks; the step, evaluation, checkpoints and tables use only this, whatever the task."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from backbones.model import Model
from backbones.preprocessing import Preprocessing

# Arrays whose first axis runs over the examples. As read: 'image', 'target', and 'weight', which is 0 for rows that are
# not examples. As returned by ``prepare``: 'image' is the model's input, 'valid' is the 'weight' that was read, and
# 'weight' is the example's weight in the loss.
Batch = dict[str, Array]


class Task(Protocol):
    """A task. It must be frozen and hashable, since equal tasks share compiled programs.

    Attributes:
        name: its row in ``tasks.TABLE``.
        primary: the metric used for selection; higher is better.
        preprocessing: the preprocessing of the model's input.
        collections: collections that its models sow in training, for ``loss``.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def primary(self) -> str: ...  # noqa: D102
    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102
    @property
    def collections(self) -> tuple[str, ...]: ...  # noqa: D102

    def model(self, backbone: str, options: Mapping[str, Any]) -> Model:
        """Create the model for a backbone.

        Args:
            backbone: its registered name.
            options: options of the run, including ``dtype`` and ``dropout``.
        """
        ...

    def batch_spec(self, stored_shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
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

    # The same for all instances of a task, so that it needs no model.
    def score(self, predictions: Mapping[str, np.ndarray], targets: np.ndarray) -> dict[str, float]:
        """Compute every metric of the task, including ``primary``, on the host."""
        ...
