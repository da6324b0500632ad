"""Random augmentation of images together with their boxes or masks, on the device, from an explicit key.

Each model input is placed by one affine map, so that pixels are interpolated once. With everything off, images lie as
``Preprocessing`` with ``fit='letterbox'`` places them.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from backbones.errors import UserError
from backbones.letterbox import LETTERBOX_GREY
from backbones.letterbox_placement import letterbox_placement
from experiments.data import placement
from experiments.data.placement import Axis
from experiments.data.truth import IGNORE

_TILES = ((0, 0), (0, 1), (1, 0), (1, 1))
# Where the four images of a mosaic meet, as shares of each side (ultralytics draws it from the same range).
_MEETING = (0.25, 0.75)
# Red, green and blue in grey (ITU-R BT.601, as in Pillow).
_GREY = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class JointAugmentation:
    """How training images and their targets are augmented.

    Attributes:
        size: height and width of the input.
        flip: mirror each image left to right with probability one half.
        scale: smallest and largest size of an image, as multiples of the largest that fits; where they are not both
            1, it is placed at random, and cut off or surrounded by grey (large-scale jitter: Ghiasi et al. 2021,
            "Simple Copy-Paste", use 0.1 to 2; they place a small image in the corner).
        mosaic: probability of showing four images, each cut off at a common corner (Bochkovskiy et al. 2020,
            "YOLOv4"): those of four successive rows of the batch, whose order is random anyway.
        colour: brightness, contrast and saturation are each multiplied by 1 plus or minus up to this.
        smallest_share: an object is dropped if less of its area is left.
        max_objects: objects per input; the smallest are dropped where there are more. ``None``: as many as before.

    Raises:
        UserError: a value is outside of its range.
    """

    size: tuple[int, int]
    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    mosaic: float = 0.0
    colour: float = 0.0
    smallest_share: float = 0.1
    max_objects: int | None = None

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high:
            raise UserError(f'the scale of augmented images must be two increasing positive numbers, not {self.scale}')
        for name in ('mosaic', 'colour', 'smallest_share'):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f'{name} of the augmentation must lie from 0 to 1, not {getattr(self, name)}')
        if self.max_objects is not None and self.max_objects < 1:
            raise UserError(f'max_objects of the augmentation must be positive, not {self.max_objects}')


def augment(
    key: Key[Array, ''],
    images: UInt8[Array, 'batch height width channels'],
    boxes: Float[Array, 'batch objects 4'] | None,
    classes: Int[Array, 'batch objects'] | None,
    options: JointAugmentation,
) -> tuple[
    UInt8[Array, 'batch new_height new_width 3'],
    Int[Array, 'batch new_height new_width'] | None,
    Float[Array, 'batch kept 4'] | None,
    Int[Array, 'batch kept'] | None,
]:
    """Augment a batch: the images, the masks if there are any, and the boxes and their classes if there are any.

    Args:
        key: of all random choices.
        images: RGB, or RGB and the class of each pixel (``IGNORE``: none), interpolated as the nearest one.
        boxes: left, top, right, bottom in pixels of ``images``.
        classes: of the boxes; -1 where there is none, and in the result also where one was dropped.
        options: what is done.

    Raises:
        UserError: a mosaic of a batch whose size is no multiple of four.
    """
    batch, height, width, channels = images.shape
    flip_key, place_key, colour_key = jax.random.split(key, 3)
    if options.flip:
        flipped = jax.random.bernoulli(flip_key, shape=(batch, 1, 1))
        images = jnp.where(flipped[..., None], images[:, :, ::-1], images)
        if boxes is not None:
            left, top, right, bottom = jnp.moveaxis(boxes, -1, 0)
            boxes = jnp.where(flipped, jnp.stack([width - right, top, width - left, bottom], -1), boxes)
    group = 4 if options.mosaic else 1
    if batch % group:
        raise UserError(f'a mosaic joins four images and needs a batch_size divisible by 4, not {batch}')
    rows, columns = _places(place_key, batch, (height, width), options)
    # Images of a mosaic stay on one device if devices hold whole groups of four.
    members = jnp.arange(group)
    tiles = jnp.stack([(members + tile) % group for tile in range(4)], -1).reshape(group, 2, 2)
    x_scale, y_scale, _, _ = letterbox_placement((height, width), options.size)
    needed = [placement.taps_needed(options.scale[0] * scale) for scale in (y_scale, x_scale)]
    colours = _colour_changes(colour_key, images, options.colour) if options.colour else None

    def input_of(images: Array, tiles: Array, rows: Axis, columns: Axis, colours) -> tuple[Array, Array | None]:
        from_rows = placement.taps(rows, height, options.size[0], needed[0])
        from_columns = placement.taps(columns, width, options.size[1], needed[1])
        inside = from_rows.inside[:, None] & from_columns.inside
        pixels = placement.resample(images[..., :3], tiles, from_rows, from_columns)
        if options.colour:
            matrix, offset = colours
            pixels = (pixels.reshape(-1, 3) @ matrix).reshape(pixels.shape) + offset
        pixels = jnp.where(inside[..., None], jnp.clip(jnp.floor(pixels + 0.5), 0, 255), LETTERBOX_GREY)
        if channels == 3:
            return pixels.astype(jnp.uint8), None
        mask = placement.nearest(images[..., 3], tiles, from_rows, from_columns)
        return pixels.astype(jnp.uint8), jnp.where(inside, mask, IGNORE).astype(jnp.int32)

    def grouped(tree):
        return jax.tree.map(lambda x: x.reshape(batch // group, group, *x.shape[1:]), tree)

    of_group = jax.vmap(input_of, (None, 0, 0, 0, 0))
    inputs, masks = jax.tree.map(
        lambda x: x.reshape(batch, *x.shape[2:]),
        jax.vmap(of_group, (0, None, 0, 0, 0))(
            grouped(images), tiles, grouped(rows), grouped(columns), grouped(colours)
        ),
    )
    if boxes is None or classes is None:
        return inputs, masks, None, None
    of_group = jax.vmap(lambda *each: _objects(*each, options=options), (None, None, 0, 0, 0))
    kept = jax.vmap(of_group, (0, 0, None, 0, 0))(
        grouped(boxes), grouped(classes), tiles.reshape(group, 4), grouped(rows), grouped(columns)
    )
    boxes, classes = (each.reshape(batch, *each.shape[2:]) for each in kept)
    return inputs, masks, boxes, classes


def _places(key: Key[Array, ''], batch: int, shape: tuple[int, int], options: JointAugmentation) -> tuple[Axis, Axis]:
    """The placement of every input along its rows and columns."""
    scale_key, shift_key, mosaic_key, meeting_key = jax.random.split(key, 4)
    low, high = options.scale
    factor = jax.random.uniform(scale_key, (batch,), minval=low, maxval=high)
    drawn = jax.random.uniform(shift_key, (2, batch))
    joined = jax.random.bernoulli(mosaic_key, options.mosaic, (batch,))
    meeting = jax.random.uniform(meeting_key, (2, batch), minval=_MEETING[0], maxval=_MEETING[1])
    x_scale, y_scale, left, top = letterbox_placement(shape, options.size)
    axes = []
    for length, size, scale, shift, draw, share in zip(
        shape, options.size, (y_scale, x_scale), (top, left), drawn, meeting, strict=True
    ):
        scales = jnp.full((batch,), scale) if low == high == 1 else scale * factor
        alone = jnp.full((batch,), float(shift)) if low == high == 1 else draw * (size - scales * length)
        border = jnp.where(joined, jnp.round(share * size), float(size))
        shifts = jnp.stack([jnp.where(joined, border - scales * length, alone), border], -1)
        axes.append(Axis(scales, shifts, border))
    return axes[0], axes[1]


def _objects(
    boxes: Float[Array, 'sources objects 4'],
    classes: Int[Array, 'sources objects'],
    tiles: Int[Array, ' 4'],
    rows: Axis,
    columns: Axis,
    options: JointAugmentation,
) -> tuple[Float[Array, 'kept 4'], Int[Array, ' kept']]:
    """The objects of an input, from its images."""
    shown = _TILES if options.mosaic else _TILES[:1]
    placed, labels = [], []
    for source, tile in zip(tiles, shown, strict=False):
        moved, left = placement.place_boxes(boxes[source], tile, rows, columns, options.size, options.smallest_share)
        placed.append(moved)
        labels.append(jnp.where(left, classes[source], -1))
    moved, label = jnp.concatenate(placed), jnp.concatenate(labels)
    wanted = options.max_objects or boxes.shape[1]
    if wanted < len(label):
        area = (moved[:, 2:] - moved[:, :2]).prod(1)
        _, largest = lax.top_k(jnp.where(label < 0, -1.0, area), wanted)
        moved, label = moved[largest], label[largest]
    missing = wanted - len(label)
    moved = jnp.pad(jnp.where(label[:, None] < 0, 0, moved), ((0, missing), (0, 0)))
    return moved, jnp.pad(label, (0, missing), constant_values=-1)


def _colour_changes(
    key: Key[Array, ''], images: UInt8[Array, 'batch height width channels'], strength: float
) -> tuple[Float[Array, 'batch 3 3'], Float[Array, ' batch']]:
    """Brightness, contrast (about the image's mean) and saturation as one affine map of colours.

    As in torchvision's ``ColorJitter``, but values are clipped once, at the end.
    """
    batch = images.shape[0]
    factors = jax.random.uniform(key, (3, batch), minval=1 - strength, maxval=1 + strength)
    brightness, contrast, saturation = factors[:, :, None, None]
    grey = jnp.asarray(_GREY)
    matrix = brightness * contrast * (saturation * jnp.eye(3) + (1 - saturation) * grey[:, None])
    mean = images[:, ::8, ::8, :3].mean((1, 2)) @ grey  # some of the pixels are enough for it
    return matrix, (factors[0] * (1 - factors[1])) * mean
