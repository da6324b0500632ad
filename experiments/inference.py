"""A model applied to any number of stored images, with what it cost."""

import time
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from backbones.cost import forward_flops
from backbones.preprocessing import Preprocessing
from experiments.data.dataset import Images

Variables = Any


class Inference:
    """``apply(variables, model input) → array`` over examples, in padded batches of one size: one program is compiled.

    Preprocessing runs on the device in a program of its own, so the cost is the model's alone.

    Attributes:
        batch_size: examples per call of the compiled program.
        flops_per_image: as ``backbones.cost`` counts them; 0 before the first batch.
    """

    def __init__(self, apply: Callable[[Variables, Array], Array], preprocessing: Preprocessing, batch_size: int):
        self.batch_size = batch_size
        self.flops_per_image = 0.0
        self._prepare = jax.jit(preprocessing)
        self._apply = jax.jit(apply)
        self._compiled = None
        self._seconds: list[float] = []

    @property
    def images_per_second(self) -> float:
        """Median throughput of the compiled model over its batches; 0 before the first batch."""
        return self.batch_size / float(np.median(self._seconds)) if self._seconds else 0.0

    def __call__(
        self,
        variables: Variables,
        images: Images,
        indices: Int[np.ndarray, ' examples'],
        advance: Callable[[int], None] = lambda count: None,
    ) -> Float[np.ndarray, 'examples *rest']:
        """The outputs for the given examples, in their order.

        Args:
            advance: is told the number of examples after each batch.
        """
        parts = []
        for start in range(0, len(indices), self.batch_size):
            chunk = indices[start : start + self.batch_size]
            padded = np.pad(chunk, (0, self.batch_size - len(chunk)), mode='edge')
            prepared = jax.block_until_ready(self._prepare(images[padded]))
            if self._compiled is None:
                self._compiled = self._apply.lower(variables, prepared).compile()
                self.flops_per_image = forward_flops(self._apply, variables, prepared[:1])
                jax.block_until_ready(self._compiled(variables, prepared))  # the first call also loads the program
            started = time.perf_counter()
            outputs = jax.block_until_ready(self._compiled(variables, prepared))
            self._seconds.append(time.perf_counter() - started)
            parts.append(np.asarray(outputs)[: len(chunk)])
            advance(len(chunk))
        return np.concatenate(parts)


def logits_of(model: nn.Module, preprocessing: Preprocessing, batch_size: int = 256) -> Inference:
    """Logits of a classifier in inference mode."""

    def apply(variables: Variables, images: Array) -> Array:
        return cast(Array, model.apply(variables, images, train=False))

    return Inference(apply, preprocessing, batch_size)
