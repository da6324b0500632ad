"""Boxes from the original image to the stored one and back, and the size in which images are stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.letterbox import letterbox_geometry
from experiments.data.decoding import stored_size_of
from experiments.data.dense.annotations import AnnotatedObject
from experiments.data.dense.object_checks import check_objects
from experiments.data.truth import Boxes

PROPERTY = settings(max_examples=100, deadline=None)
sides = st.integers(1, 3000)
shares = st.floats(0, 1, width=32)


@st.composite
def images_with_boxes(draw) -> Boxes:
    """Images of several sizes, each with up to four boxes that lie in it."""
    sizes = draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=4))
    objects = []
    for height, width in sizes:
        ends = draw(st.lists(st.tuples(shares, shares, shares, shares), max_size=4))
        boxes = [
            (min(a, b) * width, min(c, d) * height, max(a, b) * width, max(c, d) * height)
            for a, c, b, d in ends
        ]  # fmt: skip
        objects.append([AnnotatedObject('x', box) for box in boxes])
    names = [str(place) for place in range(len(sizes))]
    return check_objects(objects, np.array(sizes), names, ['x']).boxes


@PROPERTY
@given(truth=images_with_boxes(), size=st.one_of(st.none(), st.tuples(st.integers(1, 600), st.integers(1, 600))))
def test_boxes_return_from_the_stored_image(truth, size):
    """Stored boxes lie in the stored image, and their way back ends where they began."""
    stored, placements = truth.stored(size), truth.placements(size)
    factors, shifts = np.tile(placements[:, None, :2], 2), np.tile(placements[:, None, 2:], 2)
    present = truth.classes >= 0
    back = (stored.astype(np.float64) - shifts) / factors
    scale = truth.sizes.max() * (1 if size is None else 1 + 1 / placements[:, :2].min())
    np.testing.assert_allclose(back[present], truth.boxes[present], atol=1e-5 * scale)
    if size is not None:
        assert (stored[present] >= 0).all()
        assert (stored[present] <= np.tile(size[::-1], 2) + 1e-3).all()


@PROPERTY
@given(shape=st.tuples(sides, sides), side=st.integers(1, 600))
def test_images_of_one_size_are_stored_without_a_border(shape, side):
    size = stored_size_of([shape, shape], side)
    if size is None:
        assert max(shape) <= side
        return
    inside, pads = letterbox_geometry(shape, size)
    assert inside == size
    assert pads == ((0, 0), (0, 0))
    # Rounding costs the longer side little: with a short side of r pixels, less than one part in 2r.
    assert side - side / (2 * min(size)) - 1.5 <= max(size) <= side


def test_images_of_several_sizes_are_stored_in_squares():
    assert stored_size_of([(10, 20), (20, 10)], 64) == (64, 64)
    assert stored_size_of([(480, 640)] * 3, 256) == (192, 256)
    assert stored_size_of([(480, 640)] * 3, 640) is None


@pytest.mark.parametrize('area', [0, 37.5])
def test_the_area_of_a_mask_counts_where_there_is_one(area):
    objects = [[AnnotatedObject('x', (10, 10, 20, 20), area=area)], []]
    found = check_objects(objects, np.array([[50, 50], [9, 9]]), ['a', 'b'], ['x']).boxes
    assert found.area.tolist() == [[area or 100], [0]]
    assert found.classes.tolist() == [[0], [-1]]


def test_nothing_but_images():
    found = check_objects([[], []], np.array([[5, 5], [9, 9]]), ['a', 'b'], ['x'])
    assert found.boxes.boxes.shape == (2, 0, 4)
    assert found.bad == {}
