"""Models applied to images: maps, predictions and pooled features, by the functions of ``backbones.explanation``."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from backbones.errors import UserError
from backbones.explanation import methods, principal_components
from backbones.explanation.grad_cam import grad_cam
from backbones.explanation.heat_maps import Window
from backbones.explanation.observation import observe
from backbones.explanation.rollout import attention_rollout
from backbones.model import Model
from backbones.prediction import fitting
from experiments.explanation.explained_models import ExplainedModel, has_head


@dataclasses.dataclass(frozen=True)
class Column:
    """A model and how it is explained: a column of a contact sheet.

    Attributes:
        model: the model.
        method: a name of ``methods.METHODS``.
        stage: of the method; ``None`` for one that is of the whole backbone.
        class_index: the class that Grad-CAM is of; ``None``: the predicted one.
    """

    model: ExplainedModel
    method: str
    stage: str | None
    class_index: int | None = None

    @property
    def label(self) -> str:
        """Method and stage, for people."""
        label = methods.METHODS[self.method].label
        return f'{label} · {self.stage}' if self.stage else label


@dataclasses.dataclass(frozen=True)
class Explained:
    """One image, explained by one model.

    Attributes:
        values: a heat map, or red, green and blue from 0 to 1.
        window: top, left, bottom and right of the map in pixels of the image.
        probabilities: of the classes; ``None`` without a head.
        pooled: the pooled features.
    """

    values: Float[np.ndarray, 'rows columns *colours']
    window: Window
    probabilities: Float[np.ndarray, ' classes'] | None
    pooled: Float[np.ndarray, ' channels']


def column(model: ExplainedModel, label: str, method: str | None, stage: str | None, target: str | None) -> Column:
    """Choose how a model is explained.

    Args:
        model: the model.
        label: what messages call it.
        method: ``None``: its usual one.
        stage: ``None``: the deepest that the method can be of.
        target: name of the class that Grad-CAM is of; ``None``: the predicted one.

    Raises:
        UserError: the model has no such method, stage or class.
    """
    chosen = method or methods.usual(model.network)
    methods.check(chosen, label, model.network)
    of_stage = methods.chosen_stage(chosen, label, model.network, model.variables, stage)
    of_class = model.class_index(target) if target is not None and chosen == methods.GRAD_CAM else None
    return Column(model, chosen, of_stage, of_class)


class Explainer:
    """One column's program; it is compiled once for each shape of the model's input.

    Args:
        column: what it computes.
    """

    def __init__(self, column: Column):
        self.column = column
        self._variables = jax.device_put(column.model.variables)
        self._program = jax.jit(_program(column))
        self._pooled = jax.jit(_pooled(column.model))

    def __call__(self, image: UInt8[np.ndarray, 'height width 3'], name: str) -> Explained:
        """Explain an image; of PCA, the map of features that ``together`` makes colours of.

        Args:
            image: upright.
            name: for the message.

        Raises:
            UserError: the outputs are not finite.
        """
        fitted = fitting.fit(image, self.column.model.input)
        found = jax.device_get(self._program(self._variables, fitted.pixels[None]))
        if not all(np.isfinite(each).all() for each in found.values()):
            raise UserError(f'{name}: outputs of {self.column.model.name} are not finite; its weights are damaged')
        probabilities = found['probabilities'][0] if 'probabilities' in found else None
        return Explained(found['values'][0], fitted.window, probabilities, found['pooled'][0])

    def pooled(self, pixels: np.ndarray) -> Float[np.ndarray, 'batch channels']:
        """The pooled features of fitted images."""
        return np.asarray(self._pooled(self._variables, pixels))


def together(column: Column, explained: Sequence[Explained]) -> list[Explained]:
    """All images of a column; PCA is one for all of them."""
    if column.method != methods.PCA:
        return list(explained)
    colours = principal_components.colours([jnp.asarray(each.values) for each in explained])
    pairs = zip(explained, colours, strict=True)
    return [dataclasses.replace(each, values=np.asarray(colour)) for each, colour in pairs]


def _program(column: Column) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    network, stage = column.model.network, column.stage

    def run(variables: Any, pixels: jax.Array) -> dict[str, jax.Array]:
        images = _normalised(column.model, pixels)
        if column.method == methods.ROLLOUT:
            values, seen = attention_rollout(network, variables, images)
        elif column.method == methods.GRAD_CAM:
            assert stage is not None and isinstance(network, Model), 'as the table of methods says'
            chosen = None if column.class_index is None else jnp.full(len(images), column.class_index)
            values, seen = grad_cam(network, variables, images, stage, chosen)
        else:
            assert stage is not None, 'as the table of methods says'
            seen = observe(network, variables, images)
            values = seen.features.stages[stage]
        found = {'values': values, 'pooled': seen.features.pooled.astype(jnp.float32)}
        return found | ({'probabilities': jax.nn.softmax(seen.outputs)} if has_head(column.model) else {})

    return run


def _pooled(model: ExplainedModel) -> Callable[[Any, jax.Array], jax.Array]:
    def run(variables: Any, pixels: jax.Array) -> jax.Array:
        return observe(model.network, variables, _normalised(model, pixels)).features.pooled.astype(jnp.float32)

    return run


def _normalised(model: ExplainedModel, pixels: jax.Array) -> jax.Array:
    normalise = fitting.normalisation(model.input, pixels.shape[1:3])
    return (pixels if normalise is None else normalise(pixels)).astype(jnp.float32)
