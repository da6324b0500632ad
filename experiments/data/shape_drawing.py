"""Outlines and textures of the generated data set ``shapes``.

Only sums, products, quotients, roots and roundings of float32 are used, which every platform computes alike: no sines,
powers or sums over many numbers.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32

Plane = Float32[np.ndarray, 'height width']

# Cosines and sines of the directions to the corners of a regular pentagon, and to the sides of a triangle.
_PENTAGON = ((0.0, -1.0), (0.95105652, -0.30901699), (0.58778525, 0.80901699), (-0.58778525, 0.80901699))
_PENTAGON = (*_PENTAGON, (-0.95105652, -0.30901699))
_TRIANGLE = ((0.0, 1.0), (0.8660254, -0.5), (-0.8660254, -0.5))


def _along(x: Plane, y: Plane, directions: tuple[tuple[float, float], ...]) -> list[Plane]:
    return [x * np.float32(cosine) + y * np.float32(sine) for cosine, sine in directions]


def _disc(x: Plane, y: Plane, radius: float, form: float) -> Plane:
    return np.sqrt(x * x + y * y) - radius


def _square(x: Plane, y: Plane, radius: float, form: float) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius


def _triangle(x: Plane, y: Plane, radius: float, form: float) -> Plane:
    first, second, third = _along(x, y, _TRIANGLE)
    return np.maximum(np.maximum(first, second), third) - 0.68 * radius


def _star(x: Plane, y: Plane, radius: float, form: float) -> Plane:
    # A point lies in a star if it is on the inner side of at least four of the five lines through its edges.
    largest, *others = _along(x, y, _PENTAGON)
    second = np.full_like(largest, -np.inf)
    for each in others:
        second = np.maximum(second, np.minimum(largest, each))
        largest = np.maximum(largest, each)
    return second - (0.42 + 0.12 * form) * radius


def _ring(x: Plane, y: Plane, radius: float, form: float) -> Plane:
    half = (0.16 + 0.12 * form) * radius
    return np.abs(np.sqrt(x * x + y * y) - (1.1 * radius - half)) - half


def _cross(x: Plane, y: Plane, radius: float, form: float) -> Plane:
    x, y = np.abs(x), np.abs(y)
    length, half = 1.12 * radius, (0.28 + 0.14 * form) * radius
    return np.minimum(np.maximum(x - length, y - half), np.maximum(y - length, x - half))


# Shape → about how far a point is outside (negative: inside), in pixels, of a shape of a radius; ``form`` from 0 to 1
# is how wide its parts are.
OUTLINES: dict[str, Callable[[Plane, Plane, float, float], Plane]] = {
    'disc': _disc,
    'square': _square,
    'triangle': _triangle,
    'star': _star,
    'ring': _ring,
    'cross': _cross,
}
# No shape reaches farther from its centre than this many radii.
EXTENT = 1.75


def _wave(x: Plane) -> Plane:
    """From 0 to 1 and back, with period 1."""
    return np.abs(2 * (x - np.floor(x)) - 1)


def _sharpened(x: Plane, sharpness: float) -> Plane:
    return np.clip((x - 0.5) * sharpness + 0.5, 0, 1)


def clouds(lattice: Float32[np.ndarray, 'cells cells'], y: Float[np.ndarray, ' height'], x: np.ndarray) -> Plane:
    """Values of a lattice, which repeats itself, interpolated smoothly at rows ``y`` and columns ``x`` (in cells)."""
    for places in (y, x):
        whole = np.floor(places)
        part = places - whole
        part = (part * part * (3 - 2 * part))[:, None]
        first = whole.astype(np.int64) % len(lattice)
        before, after = lattice[first], lattice[(first + 1) % len(lattice)]
        lattice = np.ascontiguousarray((before + (after - before) * part).T)
    return lattice


def _plain(x: Plane, y: Plane, cloud: Plane, sharpness: float) -> Plane:
    return 0.3 * cloud


def _clouded(x: Plane, y: Plane, cloud: Plane, sharpness: float) -> Plane:
    return _sharpened(cloud, 0.5 * sharpness)


def _stripes(x: Plane, y: Plane, cloud: Plane, sharpness: float) -> Plane:
    return _sharpened(_wave(x + cloud), sharpness)


def _checks(x: Plane, y: Plane, cloud: Plane, sharpness: float) -> Plane:
    return np.clip((_wave(x) - 0.5) * (_wave(y) - 0.5) * 4 * sharpness + 0.5, 0, 1)


def _dots(x: Plane, y: Plane, cloud: Plane, sharpness: float) -> Plane:
    return _sharpened(0.65 * (_wave(x) + _wave(y)) - 0.4 * cloud, 2 * sharpness)


# How much of the second colour there is, from 0 to 1, at coordinates in periods; ``cloud`` makes it irregular.
TEXTURES: tuple[Callable[[Plane, Plane, Plane, float], Plane], ...] = (_plain, _clouded, _stripes, _checks, _dots)


def colours(
    hue: Float[np.ndarray, '*shape'], saturation: Float[np.ndarray, '*shape'], value: Float[np.ndarray, '*shape']
) -> Float32[np.ndarray, '*shape 3']:
    """Red, green and blue from hue, saturation and value, all from 0 to 1."""
    place = hue[..., None] * 6 + np.array([5, 3, 1])
    place = place - 6 * np.floor(place / 6)
    less = np.clip(np.minimum(place, 4 - place), 0, 1)
    return (value[..., None] * (1 - saturation[..., None] * less)).astype(np.float32)
