"""Images as sequences: the patches of a vision transformer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from backbones.errors import check_images, check_whole_patches
from backbones.layers.convolution import patch_embedding


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each mapped linearly to the transformer's width.

    Attributes:
        patch: side of a patch in pixels.
        channels: width of the transformer.
        use_bias: whether a bias is added.
        pad: whether images are padded with zeros on the right and at the bottom (timm's ``dynamic_img_pad``).
        dtype: type of the computation.

    Raises:
        ImageSizeError: the image is not a multiple of the patch, and ``pad`` is not set.
        UserError: the input is no batch of images.
    """

    patch: int
    channels: int
    use_bias: bool = True
    pad: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, 'b height width c']) -> Float[Array, 'b rows columns channels']:
        check_images(images.shape)
        if self.pad:
            height, width = images.shape[1:3]
            images = jnp.pad(images, ((0, 0), (0, -height % self.patch), (0, -width % self.patch), (0, 0)))
        else:
            check_whole_patches(images.shape, self.patch)
        shape = (self.patch, self.patch, images.shape[-1], self.channels)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape, jnp.float32)
        x = patch_embedding(images.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            x += self.param('bias', nn.initializers.zeros, (self.channels,), jnp.float32).astype(self.dtype)
        return x
