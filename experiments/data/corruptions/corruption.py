"""The table of corruptions, and how one is applied to a batch."""

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8, UInt32

from backbones.errors import UserError, unknown
from experiments.data.corruptions import blur, digital, filters, jpeg, noise, spatter, weather
from experiments.data.corruptions.filters import Image, Numbers, Shape
from experiments.data.corruptions.severities import SEVERITIES, Constants, constants


def _no_noise(numbers: Numbers, shape: Shape, settings: Any) -> None:
    return None


def _scalars(of: Constants) -> Any:
    """The constants themselves, where they are numbers."""
    return jax.tree.map(jnp.float32, of.values)


def _one_per_value(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]


@dataclasses.dataclass(frozen=True)
class _Functions:
    """The parts of one corruption.

    Attributes:
        apply: an image with values from 0 to 1, its noise, and settings → the image, which may leave that range.
        settings: constants → what ``apply`` needs of them, as arrays whose shapes are the same for all severities.
        noise: random numbers from 0 to 1, the shape of the image, and settings → what is random.
        numbers: shape of the image → how many numbers ``noise`` takes.
    """

    apply: Callable[[Image, Any, Any], Image]
    settings: Callable[[Constants], Any] = _scalars
    noise: Callable[[Numbers, Shape, Any], Any] = _no_noise
    numbers: Callable[[Shape], int] = lambda shape: 0


TABLE: Mapping[str, _Functions] = {
    'gaussian_noise': _Functions(noise.gaussian_noise, noise=noise.draw_normal, numbers=_one_per_value),
    'shot_noise': _Functions(noise.shot_noise, noise=noise.draw_uniform, numbers=_one_per_value),
    'impulse_noise': _Functions(
        noise.impulse_noise, noise=noise.draw_impulses, numbers=lambda shape: 2 * _one_per_value(shape)
    ),
    'defocus_blur': _Functions(blur.defocus_blur, blur.disk),
    'glass_blur': _Functions(blur.glass_blur, blur.glass, blur.draw_neighbours, blur.count_of_glass),
    'motion_blur': _Functions(blur.motion_blur, blur.line, blur.draw_angle, lambda shape: 1),
    'zoom_blur': _Functions(blur.zoom_blur, blur.zooms),
    'snow': _Functions(weather.snow, weather.snowfall, weather.draw_flakes, lambda shape: shape[0] * shape[1] + 1),
    'fog': _Functions(weather.fog, noise=weather.draw_heights, numbers=weather.count_of_fog),
    'brightness': _Functions(weather.brightness),
    'contrast': _Functions(digital.contrast),
    'elastic_transform': _Functions(
        digital.elastic_transform, digital.elasticity, digital.draw_deformation, digital.count_of_deformation
    ),
    'pixelate': _Functions(digital.pixelate, digital.boxes),
    'jpeg_compression': _Functions(jpeg.jpeg_compression, jpeg.tables),
    'speckle_noise': _Functions(noise.speckle_noise, noise=noise.draw_normal, numbers=_one_per_value),
    'gaussian_blur': _Functions(blur.gaussian_blur, blur.gaussian),
    'spatter': _Functions(spatter.spatter, spatter.drops, spatter.draw_drops, lambda shape: shape[0] * shape[1]),
    'saturate': _Functions(digital.saturate),
}
# Those that ImageNet-C keeps apart, to try methods on.
EXTRA = ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate')
ALL = tuple(TABLE)
# Those that its benchmark averages over, without frost.
BENCHMARK = tuple(name for name in ALL if name not in EXTRA)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One corruption at one severity.

    Attributes:
        name: one of ``ALL``.
        severity: from 1 to 5.

    Raises:
        UserError: there is no such corruption or severity.
    """

    name: str
    severity: int

    def __post_init__(self):
        if self.name not in TABLE:
            if self.name == 'frost':
                raise UserError("the corruption 'frost' needs photographs of frost, which are not part of this project")
            raise unknown('corruption', self.name, ALL)
        if type(self.severity) is not int or self.severity not in SEVERITIES:
            raise UserError(f'severities of corruptions go from 1 to {SEVERITIES[-1]}, not {self.severity!r}')

    @property
    def label(self) -> str:
        """Its name and severity, such as ``fog/3``."""
        return f'{self.name}/{self.severity}'

    def __call__(
        self, images: Shaped[Array, 'batch height width channels'], seeds: UInt32[Array, ' batch']
    ) -> Shaped[Array, 'batch height width channels']:
        """See ``corrupt``."""
        return corrupt(images, seeds, self)


def corrupt(
    images: UInt8[Array, 'batch height width channels'] | Float[Array, 'batch height width channels'],
    seeds: UInt32[Array, ' batch'],
    corruption: Corruption,
) -> Shaped[Array, 'batch height width channels']:
    """Corrupt a batch, each image by itself: what becomes of one depends only on its pixels and its seed.

    The constants are those for the image's size (``severities``). All severities of a corruption draw the same random
    numbers for a seed, so that they differ in severity alone, and are one program.

    Args:
        images: RGB, or one channel, which stays one; as ``uint8``, or with values from 0 to 1.
        seeds: one per image, such as ``seeds_of`` its name.

    Returns:
        Images of the same type. Those of ``uint8`` are cut off to 8 bits, not rounded, as the reference does.
    """
    shape, functions = _shape_of_one(images), TABLE[corruption.name]
    settings = functions.settings(constants(corruption.name, corruption.severity, *shape[:2]))
    # As many numbers for each of them, so that drawing is one program too.
    count = max(each.numbers(shape) for each in TABLE.values()) if functions.numbers(shape) else 0
    drawn = _draw(seeds, np.uint32(zlib.crc32(corruption.name.encode())), count)
    return _apply(images, drawn, settings, corruption.name)


@functools.partial(jax.jit, static_argnames='count')
def _draw(seeds: UInt32[Array, ' batch'], number: UInt32[Array, ''], count: int) -> Float[Array, 'batch numbers']:
    """Random numbers for each image, from a key made of its seed and the number of the corruption."""
    key = jax.random.key(number)
    return jax.vmap(lambda seed: jax.random.uniform(jax.random.fold_in(key, seed), (count,)))(seeds)


@functools.partial(jax.jit, static_argnames='name')
def _apply(
    images: Shaped[Array, 'batch height width channels'],
    numbers: Float[Array, 'batch numbers'],
    settings: Any,
    name: str,
) -> Shaped[Array, 'batch height width channels']:
    functions, shape = TABLE[name], _shape_of_one(images)

    def of_one(image: Image, numbers: Numbers) -> Image:
        return functions.apply(image, functions.noise(numbers, shape, settings), settings)

    if images.dtype != jnp.uint8:
        return jnp.clip(jax.vmap(of_one)(images, numbers), 0, 1).astype(images.dtype)
    corrupted = jax.vmap(of_one)(images.astype(jnp.float32) / 255, numbers)
    return jnp.round(255 * filters.to_8_bits(corrupted, rounded=False)).astype(jnp.uint8)


def _shape_of_one(images: Shaped[Array, 'batch height width channels']) -> Shape:
    _, height, width, channels = images.shape
    return height, width, channels


def seeds_of(ids: Sequence[str]) -> UInt32[np.ndarray, ' examples']:
    """A seed for each example, made of its name alone."""
    digests = b''.join(hashlib.blake2b(each.encode('utf-8', 'surrogateescape'), digest_size=4).digest() for each in ids)
    return np.frombuffer(digests, '<u4').astype(np.uint32)
