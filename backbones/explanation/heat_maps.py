"""Explanations drawn on the image that they are of, smoothly enlarged, where the backbone saw it."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# Perceptually uniform, and readable with any colour vision (Nuñez, Anderton and Renslow 2018, "cividis"; Smith and
# van der Walt 2015, "viridis", "inferno").
COLOUR_MAP = 'inferno'
# Share of the colour where a map is drawn over an image.
_OPACITY = 0.6
# What the backbone did not see is paler.
_PALE = 0.65

Window = tuple[float, float, float, float]


def over(picture: Image.Image, values: Float[np.ndarray, 'rows columns'], window: Window) -> Image.Image:
    """An image in grey under a heat map in colour.

    Args:
        picture: is not changed.
        values: the least is drawn dark, the greatest bright; all alike, or not finite, as the least.
        window: top, left, bottom and right of the map in pixels of the picture; may lie partly outside.
    """
    shades = np.asarray(picture.convert('L'), np.float32)[..., None].repeat(3, -1)
    colours = colour_table()[np.floor(_enlarged(_scaled(values), window, picture.size) * 255 + 0.5).astype(np.uint8)]
    return _where_seen(picture, (1 - _OPACITY) * shades + _OPACITY * colours, window)


def in_place_of(picture: Image.Image, colours: Float[np.ndarray, 'rows columns 3'], window: Window) -> Image.Image:
    """A map of colours in place of an image.

    Args:
        picture: is not changed.
        colours: red, green and blue from 0 to 1.
        window: see ``over``.
    """
    planes = [_enlarged(colours[..., index], window, picture.size) for index in range(3)]
    return _where_seen(picture, 255 * np.stack(planes, -1), window)


@functools.cache
def colour_table() -> UInt8[np.ndarray, '256 3']:
    """Red, green and blue for values from least to greatest."""
    import matplotlib  # only pictures need it

    return np.floor(matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)


def _scaled(values: Float[np.ndarray, 'rows columns']) -> Float[np.ndarray, 'rows columns']:
    values = np.nan_to_num(np.asarray(values, np.float32), nan=np.nanmin(values) if np.isfinite(values).any() else 0)
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def _enlarged(
    values: Float[np.ndarray, 'rows columns'], window: Window, size: Sequence[int]
) -> Float[np.ndarray, 'height width']:
    """Values from 0 to 1 where a map lies in a picture, and those at its border outside."""
    width, height = size
    top, left, bottom, right = window
    rows, columns = values.shape
    # One more cell on each side, so that pixels between the border and the centres of its cells have neighbours.
    padded = Image.fromarray(np.pad(np.asarray(values, np.float32), 1, mode='edge'))
    scale = (right - left) / columns, (bottom - top) / rows
    coefficients = (1 / scale[0], 0, 1 - left / scale[0], 0, 1 / scale[1], 1 - top / scale[1])
    resized = padded.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized), 0, 1)


def _where_seen(picture: Image.Image, drawn: Float[np.ndarray, 'height width 3'], window: Window) -> Image.Image:
    image = np.asarray(picture.convert('RGB'), np.float32)
    top, left, bottom, right = window
    rows, columns = np.arange(image.shape[0])[:, None] + 0.5, np.arange(image.shape[1]) + 0.5
    seen = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    grey = image.mean(-1, keepdims=True)
    mixed = np.where(seen[..., None], drawn, _PALE * 255 + (1 - _PALE) * grey)
    return Image.fromarray(np.floor(np.clip(mixed, 0, 255) + 0.5).clip(0, 255).astype(np.uint8))
