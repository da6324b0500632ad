"""What is exported of a model: a function of a batch of images, what it returns, and what to know of it."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from backbones.errors import UserError
from backbones.prediction import fitting
from backbones.prediction.trained_model import TrainedModel
from backbones.preprocessing import Preprocessing, as_size
from experiments.features import taps

# The name of the input, by what it holds.
IMAGES, PIXELS = 'images', 'pixels'
# Float32 sums in another order; and resized pixels that lie between two whole numbers and are rounded to either.
_TOLERANCE, _ROUNDED = 1e-5, 1e-2
_DETECTIONS = ('boxes', 'scores', 'classes', 'valid')


@dataclasses.dataclass(frozen=True)
class Export:
    """A function to export.

    Attributes:
        function: from a batch of images to one array for each of ``outputs``.
        input: name of what it takes.
        images: its shape and type; the batch is symbolic.
        outputs: names of what it returns.
        metadata: what whoever runs it must know: task, names of the classes, how images become its input.
        tolerance: how far another program may be from JAX, in relation to the largest value.
    """

    function: Callable[[jax.Array], tuple[jax.Array, ...]]
    input: str
    images: jax.ShapeDtypeStruct
    outputs: tuple[str, ...]
    metadata: dict[str, Any]
    tolerance: float = _TOLERANCE

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """The input with a number of images."""
        return jax.ShapeDtypeStruct((batch, *self.images.shape[1:]), self.images.dtype)

    def results(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and types of what it returns."""
        return jax.eval_shape(self.function, self.images)


def export_of(
    model: TrainedModel,
    tap: str | None = None,
    pixels: tuple[int, int] | bool = False,
    image_size: int | tuple[int, int] | None = None,
    before_suppression: bool = False,
) -> Export:
    """What is exported of a model.

    Args:
        model: the model.
        tap: in place of the head's results, the features of the backbone there (``features.taps``).
        pixels: take ``uint8`` pixels, and normalise them inside: of the input's height and width, or of the height and
            width given, from which they are resized as in training.
        image_size: height and width of the input, where the model has none of its own.
        before_suppression: of a detector, the box and the scores of every anchor.

    Raises:
        UserError: the model has no size of its own, no such tap, or is no one-stage detector.
    """
    if before_suppression and (tap is not None or model.task != 'detection'):
        what = f'features of {model.source} are' if tap is not None else f'{model.source} is no detector: it has'
        raise UserError(f'{what} no boxes that could suppress each other; leave out --before_suppression')
    size = _size(model, image_size)
    network, variables = model.model, model.variables
    if tap is not None:
        taps.check(model.source, network.backbone, tap)
        take = taps.tapped(network.backbone, tap)
        variables = {name: tree['backbone'] for name, tree in variables.items() if 'backbone' in tree}
        compute, outputs = (lambda images: (take(variables, images),)), ('features',)
    elif model.task == 'detection':
        compute, outputs = _detector(model, size, before_suppression)
    else:
        outputs = ('logits',)

        def compute(images: jax.Array) -> tuple[jax.Array, ...]:
            return (jnp.asarray(network.apply(variables, images, train=False), jnp.float32),)

    prepare, taken = _preparation(model, size, pixels)
    (batch,) = export.symbolic_shape('batch')
    dtype = jnp.uint8 if pixels else jnp.float32
    metadata = {
        'task': 'features' if tap is not None else model.task,
        'source': model.source,
        'classes': list(model.names) if tap is None else [],
        'input_size': list(size),
        'normalised_inside': bool(pixels),
        'preprocessing': model.input.as_json() if isinstance(model.input, Preprocessing) else None,
    }
    return Export(
        lambda images: compute(prepare(images)),
        PIXELS if pixels else IMAGES,
        jax.ShapeDtypeStruct((batch, *taken, 3), dtype),
        outputs,
        metadata,
        _TOLERANCE if isinstance(pixels, bool) or pixels == size else _ROUNDED,
    )


def _size(model: TrainedModel, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    if image_size is not None:
        return as_size(image_size)
    if isinstance(model.input, Preprocessing):
        return model.input.size
    raise UserError(
        f'the input of {model.source} follows the size of each image, and a file has one: name it, such as '
        '--image_size 800x1088'
    )


def _preparation(
    model: TrainedModel, size: tuple[int, int], pixels: tuple[int, int] | bool
) -> tuple[Callable[[jax.Array], jax.Array], tuple[int, int]]:
    """From what the file takes to the model's input, and the height and width of what it takes."""
    if pixels is False:
        return (lambda images: images), size
    expected = model.input
    if pixels is not True:
        if not isinstance(expected, Preprocessing):
            raise UserError(f'how {model.source} resizes depends on each image; leave the size of --pixels out')
        whole = expected.for_stored_images().replace(size=size)
        return whole, pixels
    normalise = fitting.normalisation(model.image_input, size)
    return (lambda images: images.astype(jnp.float32)) if normalise is None else normalise, size


def _detector(
    model: TrainedModel, size: tuple[int, int], before_suppression: bool
) -> tuple[Callable[[jax.Array], tuple[jax.Array, ...]], tuple[str, ...]]:
    network, variables = model.model, model.variables
    if before_suppression and not hasattr(network.head, 'boxes_and_scores'):
        raise UserError(
            f'{model.source} suppresses boxes within the model, between its two stages; export it without '
            '--before_suppression'
        )

    def compute(images: jax.Array) -> tuple[jax.Array, ...]:
        outputs = network.apply(variables, images, train=False)
        if before_suppression:
            return network.head.boxes_and_scores(outputs, size)
        found = network.head.detections(outputs, size)
        return tuple(getattr(found, name) for name in _DETECTIONS)

    return compute, ('boxes', 'scores') if before_suppression else _DETECTIONS


def metadata_strings(metadata: dict[str, Any]) -> dict[str, str]:
    """Metadata as a file keeps them: text as it is, everything else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
