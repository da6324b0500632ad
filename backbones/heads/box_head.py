"""What is in a box, and where its sides are better drawn: the second stage of a two-stage detector.

Source: torchvision/models/detection/faster_rcnn.py, ``TwoMLPHead``, ``FastRCNNConvFCHead`` and ``FastRCNNPredictor``.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from backbones.layers.attention import Dense
from backbones.layers.convolution import Conv, torch_uniform
from backbones.layers.padded_normalisation import PaddedBatchNorm


class BoxHead(nn.Module):
    """Convolutions with BatchNorm, fully connected layers, and two predictions.

    Attributes:
        num_classes: number of classes of objects.
        convolutions: number of 3x3 convolutions.
        channels: channels of each; ``None``: those of the maps.
        layers: number of fully connected layers.
        features: outputs of each.
        dtype: type of the computation; outputs are float32.
    """

    num_classes: int
    convolutions: int = 0
    channels: int | None = None
    layers: int = 2
    features: int = 1024
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, 'batch n rows columns c'], there: Bool[Array, 'batch n'], train: bool = False
    ) -> tuple[Float[Array, 'batch n classes'], Float[Array, 'batch n classes 4']]:
        """Logits of the background and the classes, and the deltas of a box of each of them.

        Args:
            x: the part of the maps inside each box.
            there: which boxes there are; the others do not count in the statistics of BatchNorms.
            train: whether BatchNorms use the statistics of these boxes.
        """
        batch, boxes = x.shape[:2]
        x = x.reshape(-1, *x.shape[2:])
        for number in range(1, self.convolutions + 1):
            x = Conv(self.channels or x.shape[-1], 3, dtype=self.dtype, name=f'conv{number}')(x)
            norm = PaddedBatchNorm(dtype=self.dtype, name=f'norm{number}')
            x = nn.relu(norm(x, train=train, there=there.reshape(-1)))
        x = x.reshape(batch, boxes, -1)
        for number in range(1, self.layers + 1):
            x = nn.relu(Dense(self.features, torch_uniform, self.dtype, name=f'dense{number}')(x))
        count = self.num_classes + 1
        logits = Dense(count, torch_uniform, self.dtype, name='class_logits')(x)
        deltas = Dense(4 * count, torch_uniform, self.dtype, name='box_deltas')(x)
        return logits.astype(jnp.float32), deltas.astype(jnp.float32).reshape(batch, boxes, count, 4)
