"""A detector's input; that it samples as torchvision does, the references of tests/parity/detection show."""

import jax.numpy as jnp
import numpy as np
import pytest

from backbones.boxes.nms import Detections
from backbones.detection_input import DetectionInput, InputBatch, resize
from backbones.errors import UserError
from backbones.layers.normalisation import GroupNorm


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((480, 640), (800, 1066)),
        ((427, 640), (800, 1199)),
        ((300, 1200), (333, 1333)),  # the longer side decides
        ((800, 800), (800, 800)),
        # 201 * (1333 / 1000) is 267.933; torchvision cuts it off.
        ((1000, 201), (1333, 267)),
        ((1, 4000), (1, 1333)),  # torchvision would leave no row
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]):
    assert DetectionInput().resized(*size) == expected


def test_a_batch_is_normalised_and_padded_with_zeros():
    prepare = DetectionInput(20, 40, multiple=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    images = [np.full((10, 14, 3), 255, np.uint8), np.zeros((40, 20, 3), np.uint8)]
    batch = prepare(images)
    assert batch.images.shape == (2, 48, 32, 3)
    assert batch.images.dtype == np.float32
    assert batch.extents.tolist() == [[20, 28], [40, 20]]
    assert batch.sizes.tolist() == [[10, 14], [40, 20]]
    assert np.allclose(batch.images[0, :20, :28], [2, 1, 0.5])
    assert np.allclose(batch.images[1, :40, :20], [-2, -1, -0.5])
    assert not batch.images[0, 20:].any()
    assert not batch.images[0, :, 28:].any()


@pytest.mark.parametrize('size', [(7, 5), (13, 4), (3, 11), (20, 2)])
def test_resize_interpolates_between_the_four_nearest_pixels(size: tuple[int, int]):
    image = np.random.RandomState(0).normal(size=(7, 5, 2)).astype(np.float32)
    result = resize(image, size)
    assert result.dtype == np.float32
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (
                max((at + 0.5) * have / want - 0.5, 0) for at, have, want in ((row, 7, size[0]), (column, 5, size[1]))
            )
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 6), min(left + 1, 4)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
            assert result[row, column] == pytest.approx(upper * (1 - (y - top)) + lower * (y - top), abs=1e-5)


def test_detections_come_back_in_pixels_of_the_images():
    batch = InputBatch(np.zeros((1, 32, 32, 3)), np.array([[20.0, 30.0]]), np.array([[10.0, 60.0]]))
    boxes = jnp.array([[[3.0, 4.0, 30.0, 20.0], [0, 0, 0, 0]]])
    found = batch.restore(Detections(boxes, jnp.array([[0.5, 0]]), jnp.array([[1, -1]]), jnp.array([[True, False]])))
    assert found.boxes.tolist() == [[[6, 2, 60, 10], [0, 0, 0, 0]]]
    assert found.classes.tolist() == [[1, -1]]


def test_what_is_refused():
    prepare = DetectionInput()
    with pytest.raises(UserError, match='a batch needs at least one image'):
        prepare([])
    with pytest.raises(UserError, match=r'images must be uint8 \[height, width, 3\], not float32 \[4, 4, 3\]'):
        prepare([np.zeros((4, 4, 3), np.float32)])
    with pytest.raises(UserError, match=r'not uint8 \[4, 4\]'):
        prepare([np.zeros((4, 4), np.uint8)])


@pytest.mark.parametrize(('channels', 'groups'), [(64, 32), (256, 32), (24, 6), (20, 5), (7, 1), (2, 1), (48, 12)])
def test_group_norm_has_fewer_groups_where_32_do_not_divide(channels: int, groups: int):
    x = np.random.RandomState(0).normal(2, 3, (2, 5, 4, channels)).astype(np.float32)
    scale, bias = np.linspace(0.5, 2, channels), np.linspace(-1, 1, channels)
    result = GroupNorm().apply({'params': {'scale': scale, 'bias': bias}}, jnp.asarray(x))
    split = x.astype(np.float64).reshape(2, 20, groups, -1)
    mean, variance = split.mean((1, 3), keepdims=True), split.var((1, 3), keepdims=True)
    expected = ((split - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
    assert np.asarray(result) == pytest.approx(expected, abs=1e-5)
