"""What a task says to the step, the evaluation, the checkpoints and the tables, none of which ask which one it is."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from backbones.model import Model
from backbones.preprocessing import Preprocessing

# Arrays whose first axis runs over the examples. As it is read: 'image', 'target', and 'weight', 0 for what is no
# example. As ``prepare`` returns it: 'image' is the model's input, 'valid' is 'weight' as it was read, and 'weight'
# is what an example counts in the loss.
Batch = dict[str, Array]


class Task(Protocol):
    """Frozen and hashable: equal tasks share compiled programs.

    Attributes:
        name: its row in ``tasks.TABLE``.
        primary: the metric that selects; the higher, the better.
        preprocessing: what the model's input needs.
        collections: what its models sow while they train, for ``loss``.
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
        """The model of a backbone.

        Args:
            options: ``dtype`` and ``dropout`` among them.
        """
        ...

    def batch_spec(self, stored_shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Name → shape, without the batch's axis, and type of each array of a batch as it is read."""
        ...

    def prepare(self, key: Key[Array, ''] | None, batch: Batch, train: bool) -> Batch:
        """On the device: augmentation (only while training) and preprocessing of images and targets together."""
        ...

    def loss(
        self, outputs: Any, batch: Batch, sown: Mapping[str, Any]
    ) -> tuple[Float[Array, ' batch'], dict[str, Float[Array, ' batch']]]:
        """The loss of each example, and metrics of each, whose means are shown while a model trains."""
        ...

    def predict(self, outputs: Any, batch: Batch) -> dict[str, Array]:
        """What is kept of each example to compute any metric from: static shapes, padded."""
        ...

    # Of all tasks of a kind alike, so that no model is needed for it.
    def score(self, predictions: Mapping[str, np.ndarray], targets: np.ndarray) -> dict[str, float]:
        """Every metric of the task, on the host, ``primary`` among them."""
        ...
