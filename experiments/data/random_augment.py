"""RandAugment on the host (Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search
space", https://arxiv.org/abs/1909.13719): a few random operations per image, all of one magnitude.

Operations and their ranges are those of torchvision's ``RandAugment``: 14 operations, magnitudes from 0 to 30,
nearest-neighbour interpolation, black outside the image.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from backbones.errors import UserError

MAXIMUM = 30
TRANSLATION = 150 / 331  # share of the side: 150 of the 331 pixels of AutoAugment's ImageNet images


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation on an image.

    Attributes:
        apply: image and strength → image. The strength is ``magnitude / 30``, with a sign if ``signed``.
        signed: whether the operation goes both ways, each with probability one half.
    """

    apply: Callable[[Image.Image, float], Image.Image]
    signed: bool = False


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0.3 * strength, 0, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * strength, 1, 0))


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, -int(TRANSLATION * image.width * strength), 0, 1, 0))


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, -int(TRANSLATION * image.height * strength)))


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength, Image.Resampling.NEAREST)


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Change the image towards or away from ``enhancer``'s image without the property."""
    return Operation(lambda image, strength: enhancer(image).enhance(1 + 0.9 * strength), signed=True)


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * strength))


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, 255 * (1 - strength))  # ty: ignore[invalid-argument-type]


OPERATIONS: dict[str, Operation] = {
    'identity': Operation(lambda image, strength: image),
    'shear_x': Operation(_shear_x, signed=True),
    'shear_y': Operation(_shear_y, signed=True),
    'translate_x': Operation(_translate_x, signed=True),
    'translate_y': Operation(_translate_y, signed=True),
    'rotate': Operation(_rotate, signed=True),
    'brightness': _enhance(ImageEnhance.Brightness),
    'color': _enhance(ImageEnhance.Color),
    'contrast': _enhance(ImageEnhance.Contrast),
    'sharpness': _enhance(ImageEnhance.Sharpness),
    'posterize': Operation(_posterize),
    'solarize': Operation(_solarize),
    'autocontrast': Operation(lambda image, strength: ImageOps.autocontrast(image)),
    'equalize': Operation(lambda image, strength: ImageOps.equalize(image)),
}
_NAMES = tuple(OPERATIONS)


def random_augment(
    generator: np.random.Generator, image: UInt8[np.ndarray, 'h w c'], layers: int, magnitude: float
) -> UInt8[np.ndarray, 'h w c']:
    """Apply ``layers`` operations, drawn with replacement, one after the other.

    Args:
        generator: the only source of randomness.
        image: ``uint8[height, width, 1 or 3]``.
        layers: number of operations, the paper's N.
        magnitude: the paper's M, from 0 (least change) to 30; whole numbers are torchvision's 31 bins.

    Raises:
        UserError: a value outside its range, or an image that is neither grey nor RGB.
    """
    if layers < 0:
        raise UserError(f'the number of layers of RandAugment must not be negative, and {layers} is')
    if not 0 <= magnitude <= MAXIMUM:
        raise UserError(f'the magnitude of RandAugment must lie between 0 and {MAXIMUM}, not {magnitude}')
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
        raise UserError(f'RandAugment takes uint8[height, width, 1 or 3], not {image.dtype}{list(image.shape)}')
    # Pillow has no third axis for one channel.
    changed = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for _ in range(layers):
        operation = OPERATIONS[_NAMES[generator.integers(len(_NAMES))]]
        strength = magnitude / MAXIMUM
        if operation.signed and generator.integers(2):
            strength = -strength
        changed = operation.apply(changed, strength)
    return np.asarray(changed).reshape(image.shape)
