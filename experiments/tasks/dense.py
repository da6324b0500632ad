"""What the dense tasks share: neck and head from a config, and masks into and out of the input's letterbox."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float, Int

from backbones.errors import UserError
from backbones.letterbox import letterbox_geometry
from experiments.data.dataset import Dataset
from experiments.data.joint_augmentation import JointAugmentation

# Options of a module, hashable.
Options = tuple[tuple[str, Any], ...]

# Config keys that every dense task reads: of neck and head, and of the augmentation.
MODEL_KEYS = ('head', 'neck', 'strides', 'neck_channels', 'head_channels')
AUGMENTATION_KEYS = ('smallest_scale', 'largest_scale', 'mosaic', 'colour_jitter')


def neck_options(config: ml_collections.ConfigDict, size: tuple[int, int], usual: Sequence[int]) -> Options:
    """Those that the config sets; the others keep the neck's defaults.

    Args:
        config: of a training.
        size: height and width of the input.
        usual: strides of the levels where the config names none.

    Raises:
        UserError: there are strides without a neck, not even the finest level has two points on each side, or a level
            is coarser than the input.
    """
    strides = tuple(config.strides)
    if config.neck == 'none':
        for key, nothing in (('strides', ()), ('neck_channels', 0)):
            if config[key] != nothing:
                raise UserError(
                    f"config key {key!r} is {config[key]!r}, but the neck is 'none'; leave it at {nothing!r}, or "
                    'name a neck'
                )
        return ()
    if min(strides or usual) >= min(size):
        stated = strides or f'(), which means {tuple(usual)}'
        raise UserError(
            f"config key 'strides' is {stated}, but the input has {size[1]}x{size[0]} pixels, and even the finest "
            'map would be a single point on one side; choose smaller strides, or a larger image_size'
        )
    if strides and max(strides) > max(size):
        raise UserError(
            f"config key 'strides' is {strides}, but the input has only {size[1]}x{size[0]} pixels; leave out "
            f'{max(strides)}, or choose a larger image_size'
        )
    options: dict[str, Any] = {'strides': strides} if strides else {}
    if config.neck_channels:
        options['channels'] = config.neck_channels
    return tuple(options.items())


def model_arguments(head: str, neck: str | None, neck_options: Options, head_options: Options) -> dict[str, Any]:
    """What ``create_segmenter`` and ``create_detector`` are called with, as ``description.json`` keeps it too."""
    return {
        'head': head,
        'neck': neck,
        'neck_options': dict(neck_options),
        'head_options': dict(head_options),
    }


def augmentation(config: ml_collections.ConfigDict, size: tuple[int, int]) -> JointAugmentation:
    """How training images and their targets are changed together on the way to an input of this size.

    Raises:
        UserError: the smallest scale is more than the largest.
    """
    if config.smallest_scale > config.largest_scale:
        raise UserError(
            f'config key smallest_scale is {config.smallest_scale}, more than largest_scale, {config.largest_scale}'
        )
    return JointAugmentation(
        size=size,
        flip=config.flip,
        scale=(config.smallest_scale, config.largest_scale),
        mosaic=config.mosaic,
        colour=config.colour_jitter,
    )


def needed(dataset: Dataset, training: Int[np.ndarray, ' training'] | None) -> list[tuple[str, np.ndarray]]:
    """What must hold something to learn or to score: each split, and the images that are trained on; in words first."""
    found = [(f'the {split} images of {dataset.name!r}', chosen) for split, chosen in dataset.splits.items()]
    if training is not None and len(training) < len(dataset.splits['train']):
        shown = f'the {len(training):,} training images of {dataset.name!r} that config key fraction leaves'
        found.append((shown, training))
    return found


def known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that have a value: a class of which there is no object, or pixel, has none."""
    return {name: value for name, value in metrics.items() if value is not None}


def put_into_letterbox(
    mask: Int[Array, 'batch height width'], size: tuple[int, int], fill: int
) -> Int[Array, 'batch rows columns']:
    """A mask where the letterbox puts its image, by nearest neighbours."""
    _, height, width = mask.shape
    (rows, columns), pads = letterbox_geometry((height, width), size)
    for axis, have, want in ((1, height, rows), (2, width, columns)):
        if have != want:
            mask = jnp.take(mask, np.minimum((np.arange(want) + 0.5) * have / want, have - 1).astype(int), axis)
    return jnp.pad(mask, ((0, 0), *pads), constant_values=fill)


def out_of_letterbox(x: Float[Array, 'b rows columns c'], stored: Sequence[int]) -> Float[Array, 'b r2 c2 c']:
    """The part of a map of the input's size that lies on the image."""
    (stored_height, stored_width), (_, height, width, _) = stored, x.shape
    (rows, columns), ((top, _), (left, _)) = letterbox_geometry((stored_height, stored_width), (height, width))
    return x[:, top : top + rows, left : left + columns]
