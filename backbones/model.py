"""The model that is trained: a backbone, an optional neck, and the head of a task."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class Model(nn.Module):
    """``params`` are ``{'backbone': …, 'neck': …, 'head': …}``, without ``'neck'`` where there is none.

    A neck is called with the backbone's ``Features``. A head is called with the ``Features``, with what the neck
    returns (``None`` without one) and with the height and width of the images. Both are passed ``train``. A head whose
    attribute ``takes`` names them is also passed ``extents`` and ``truth``; for the others these make no difference.

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
    def __call__(
        self,
        images: Float[Array, 'batch height width channels'],
        train: bool = False,
        extents: Float[Array, 'batch 2'] | None = None,
        truth: Mapping[str, Array] | None = None,
    ) -> Any:
        """The output of the head.

        Args:
            images: the input of the backbone.
            train: whether BatchNorm and dropout work as in training.
            extents: height and width of each image without its padding; ``None``: that of the batch.
            truth: what is to be learned from these images, for a head that chooses among it while it computes.
        """
        features = self.backbone(images, train=train)
        maps = None if self.neck is None else self.neck(features, train=train)
        given = {'extents': extents, 'truth': truth}
        taken = {name: given[name] for name in getattr(self.head, 'takes', ())}
        return self.head(features, maps, images.shape[1:3], train=train, **taken)
