"""The model that is trained: a backbone, an optional neck, and the head of a task."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class Model(nn.Module):
    """``params`` are ``{'backbone': …, 'neck': …, 'head': …}``, without ``'neck'`` where there is none.

    A neck is called with the backbone's ``Features``. A head is called with the ``Features``, with what the neck
    returns (``None`` without one) and with the height and width of the images. Both are passed ``train``.

    Attributes:
        backbone: any module that returns ``Features``.
        neck: what comes between the two; ``None`` for no neck.
        head: the module that returns the model's output.
    """

    backbone: nn.Module
    neck: nn.Module | None
    head: nn.Module

    @property
    def num_classes(self) -> int:
        """Number of classes of the head."""
        return self.head.num_classes

    @nn.compact
    def __call__(self, images: Float[Array, 'batch height width channels'], train: bool = False) -> Any:  # noqa: D102
        features = self.backbone(images, train=train)
        maps = None if self.neck is None else self.neck(features, train=train)
        return self.head(features, maps, images.shape[1:3], train=train)
