"""From the outputs of a model to what is told of an image, one class per kind of model."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from backbones.boxes.nms import Detections
from backbones.model import Model
from backbones.prediction.fitting import Fitted

# Name of a field of ``Prediction`` → its value.
Fields = dict[str, np.ndarray]


class Reading(Protocol):
    """How the outputs of a kind of model are read."""

    def on_device(
        self, model: Model, outputs: Any, size: Sequence[int], extents: Float[Array, 'batch 2']
    ) -> dict[str, Array]:
        """What is needed of a batch's outputs, as arrays whose first axis runs over the images.

        Args:
            model: whose outputs they are.
            outputs: of the model.
            size: height and width of the inputs.
            extents: of each input without its padding to the right and below.
        """
        ...

    def on_host(self, values: Mapping[str, np.ndarray], fitted: Fitted) -> Fields:
        """What is told of one image, in its own pixels."""
        ...


class Classes:
    """A probability of every class."""

    def on_device(self, model, outputs, size, extents):  # noqa: D102
        return {'probabilities': jax.nn.softmax(outputs.astype(jnp.float32))}

    def on_host(self, values, fitted):  # noqa: D102
        return {'probabilities': values['probabilities']}


class Mask:
    """A class of every pixel."""

    def on_device(self, model, outputs, size, extents):  # noqa: D102
        return {'logits': outputs.astype(jnp.float32)}

    def on_host(self, values, fitted):
        """Logits are resized, as the metric does, one class at a time: photographs have many pixels."""
        logits = values['logits']
        classes = logits.shape[-1]
        best = fitted.map_back(logits[..., 0])
        mask = np.zeros(best.shape, np.uint8 if classes <= 256 else np.int32)
        for index in range(1, classes):
            theirs = fitted.map_back(logits[..., index])
            mask[theirs > best] = index
            best = np.maximum(best, theirs)
        return {'mask': mask}


class Objects:
    """Boxes with classes and scores."""

    def on_device(self, model, outputs, size, extents):  # noqa: D102
        found: Detections = model.head.detections(outputs, size, extents)
        return {'boxes': found.boxes, 'scores': found.scores, 'classes': found.classes, 'valid': found.valid}

    def on_host(self, values, fitted):
        """A box in the border of a letterbox shows nothing of the image, and is left out."""
        boxes = fitted.boxes_back(values['boxes'])
        told = values['valid'] & (boxes[:, 2:] > boxes[:, :2]).all(-1)
        return {
            'boxes': boxes[told].astype(np.float32),
            'scores': values['scores'][told].astype(np.float32),
            'classes': values['classes'][told].astype(np.int32),
        }


# Task → how the outputs of its models are read.
READINGS: dict[str, Reading] = {'classification': Classes(), 'segmentation': Mask(), 'detection': Objects()}
