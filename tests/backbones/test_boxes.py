"""Boxes against plain loops over numpy, for whatever hypothesis comes up with."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.boxes import assignment, coding
from backbones.boxes.anchors import cell_anchors, grid_anchors
from backbones.boxes.iou import area, clip, giou_loss, iou, pairwise_iou
from backbones.boxes.nms import suppress

# Whole and half pixels, so that ties and touching sides come up, and areas are exact.
coordinate = st.integers(0, 60).map(lambda value: value / 2)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
few = settings(max_examples=60, deadline=None)

# Fixed shapes: one program for all examples.
ROWS = 6


def padded(boxes, rows=ROWS) -> tuple[np.ndarray, np.ndarray]:
    result = np.zeros((rows, 4), np.float32)
    result[: len(boxes)] = np.reshape(boxes, (-1, 4))
    return result, np.arange(rows) < len(boxes)


def overlap(a, b) -> float:
    """Intersection over union of two boxes, as its definition says."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return np.float32(shared) / np.float32(union) if union else 0.0


jitted_pairwise = jax.jit(pairwise_iou)


@few
@given(st.lists(box, max_size=ROWS), st.lists(box, max_size=ROWS))
def test_pairwise_iou(left, right):
    (a, _), (b, _) = padded(left), padded(right)
    result = np.asarray(jitted_pairwise(a, b))
    assert result == pytest.approx(np.array([[overlap(x, y) for y in b] for x in a]), abs=1e-6)
    assert (result >= 0).all()
    assert (result <= 1).all()


jitted_giou = jax.jit(jax.value_and_grad(giou_loss))


@few
@given(box, box)
def test_giou_loss_is_that_of_its_definition(a, b):
    around = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    enclosing = (around[2] - around[0]) * (around[3] - around[1])
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    expected = 1 - (shared / (union + 1e-7) - (enclosing - union) / (enclosing + 1e-7))
    value, gradient = jitted_giou(np.array(a, np.float32), np.array(b, np.float32))
    assert float(value) == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(gradient).all()


def test_iou_of_boxes_without_an_area_is_zero():
    point = jnp.array([3.0, 3.0, 3.0, 3.0])
    assert float(iou(point, point)) == 0
    assert np.isfinite(jax.grad(lambda box: iou(box, point))(point)).all()


def test_area_and_clip():
    boxes = jnp.array([[-5.0, 2.0, 30.0, 50.0], [40.0, 1.0, 60.0, 2.0]])
    assert area(boxes).tolist() == [35 * 48, 20]
    assert clip(boxes, jnp.array([20.0, 25.0])).tolist() == [[0, 2, 25, 20], [25, 1, 25, 2]]


def larger(box) -> np.ndarray:
    """With sides of at least a pixel."""
    return np.add(box, (0, 0, 1, 1)).astype(np.float32)


class TestCoding:
    @few
    @given(box, box)
    def test_distances_come_back(self, a, anchor):
        anchor = larger(anchor)
        codes = coding.encode_distances(jnp.array(a), jnp.asarray(anchor))
        assert np.asarray(coding.decode_distances(codes, jnp.asarray(anchor))) == pytest.approx(np.array(a), abs=1e-3)

    @few
    @given(box, box)
    def test_deltas_come_back(self, a, anchor):
        a, anchor = larger(a), larger(anchor)
        codes = coding.encode_deltas(jnp.asarray(a), jnp.asarray(anchor))
        assert np.asarray(coding.decode_deltas(codes, jnp.asarray(anchor))) == pytest.approx(a, abs=1e-3)

    def test_a_box_is_at_most_so_much_larger_than_its_anchor(self):
        anchor = jnp.array([10.0, 10.0, 26.0, 26.0])
        decoded = coding.decode_deltas(jnp.array([0.5, 0.0, 9.0, math.log(2)]), anchor)
        # The centre moves by half a width; the width is 16 * 1000 / 16, the height 32.
        assert np.asarray(decoded) == pytest.approx(np.array([26 - 500, 2, 26 + 500, 34]), rel=1e-5)

    def test_values_of_both_codes(self):
        anchor, target = jnp.array([8.0, 8.0, 24.0, 16.0]), jnp.array([10.0, 4.0, 18.0, 20.0])
        assert np.asarray(coding.encode_distances(target, anchor)) == pytest.approx([6 / 16, 8 / 8, 2 / 16, 8 / 8])
        assert np.asarray(coding.encode_deltas(target, anchor)) == pytest.approx(
            [-2 / 16, 0, math.log(0.5), math.log(2)], abs=1e-6
        )


class TestAnchors:
    def test_cells_are_rounded_half_to_even(self):
        # A side of 5 is 2.5 to both sides, one of 7 is 3.5.
        assert cell_anchors([5, 7]).tolist() == [[-2, -2, 2, 2], [-4, -4, 4, 4]]

    def test_ratios_come_before_sizes(self):
        # Height over width of 0.5: 32 * sqrt(2) by 32 / sqrt(2).
        cells = cell_anchors([32, 40], [0.5, 2.0])
        assert cells.tolist() == [[-23, -11, 23, 11], [-28, -14, 28, 14], [-11, -23, 11, 23], [-14, -28, 14, 28]]

    def test_steps_are_whole_pixels_of_each_axis_on_its_own(self):
        anchors = grid_anchors(cell_anchors([64]), (13, 21), (800, 1333))
        assert anchors.shape == (13, 21, 1, 4)
        assert anchors[12, 20, 0].tolist() == [20 * 63 - 32, 12 * 61 - 32, 20 * 63 + 32, 12 * 61 + 32]


def matched_slowly(boxes, real, anchors, foreground=0.5, background=0.4) -> list[int]:
    """Torchvision's matcher in loops."""
    count = sum(real)
    table = [[overlap(boxes[row], anchor) for anchor in anchors] for row in range(count)]
    result = []
    for column in range(len(anchors)):
        values = [table[row][column] for row in range(count)]
        best = max(values, default=-1)
        nearest = values.index(best) if values else -1
        most = any(values[row] == max(table[row]) > 0 for row in range(count))
        if best >= foreground or most:
            result.append(nearest)
        else:
            result.append(assignment.BACKGROUND if best < background else assignment.BETWEEN)
    return result


def centred_slowly(boxes, real, points, sides, bounds, radius=1.5) -> list[int]:
    """FCOS's choice in loops."""
    result = []
    for (x, y), side, (lower, upper) in zip(points, sides, bounds, strict=True):
        best, chosen = 0.0, assignment.BACKGROUND
        for row in range(sum(real)):
            left, top, right, bottom = boxes[row]
            distances = [x - left, y - top, right - x, bottom - y]
            near = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)) < radius * side
            preference = np.float32(1e8) - np.float32((right - left) * (bottom - top))
            if near and min(distances) > 0 and lower < max(distances) < upper and preference > best:
                best, chosen = preference, row
        result.append(chosen)
    return result


GRID = grid_anchors(cell_anchors([4, 9], [0.5, 1, 2]), (6, 5), (31, 31)).reshape(-1, 4)
jitted_by_iou = jax.jit(lambda boxes, real: assignment.assign_by_iou(boxes, real, GRID))

POINTS = grid_anchors(cell_anchors([8]), (4, 4), (31, 31)).reshape(-1, 4)
BOUNDS = np.tile([[0, 12], [8, np.inf]], (8, 1)).astype(np.float32)
CENTRES, SIDES = (POINTS[:, :2] + POINTS[:, 2:]) / 2, POINTS[:, 2] - POINTS[:, 0]
jitted_by_centre = jax.jit(lambda boxes, real: assignment.assign_by_centre(boxes, real, CENTRES, SIDES, BOUNDS))


class TestAssignment:
    @few
    @given(st.lists(box, max_size=ROWS))
    def test_by_overlap(self, boxes):
        boxes, real = padded(boxes)
        assert jitted_by_iou(boxes, real).tolist() == matched_slowly(boxes, real, GRID)

    @few
    @given(st.lists(box, max_size=ROWS))
    def test_by_centre(self, boxes):
        boxes, real = padded(boxes)
        assert jitted_by_centre(boxes, real).tolist() == centred_slowly(boxes, real, CENTRES, SIDES, BOUNDS)

    def test_the_first_of_areas_that_float32_cannot_tell_apart(self):
        # 1e8 - 98 and 1e8 - 96 are the same in float32, 1e8 - 80 is not.
        first, second, third = (0, 0, 10, 9.8), (0, 0, 10, 9.6), (0, 0, 10, 8)
        for boxes, expected in (((first, second), 0), ((second, first), 0), ((first, third), 1)):
            table, real = padded(boxes)
            point = jnp.array([[5.0, 4.5]])
            bounds = jnp.array([[0.0, 64.0]])
            assert assignment.assign_by_centre(table, real, point, jnp.array([8.0]), bounds).tolist() == [expected]

    def test_without_low_quality_only_the_overlap_counts(self):
        boxes, real = padded([(0, 0, 30, 30), (100, 100, 120, 120)])
        anchors = jnp.array([[0.0, 0, 30, 10], [0, 0, 30, 15], [0, 0, 30, 16], [200, 0, 210, 5]])
        for low_quality, expected in ((False, [-1, 0, 0, -1]), (True, [-1, 0, 0, -1])):
            found = assignment.assign_by_iou(boxes, real, anchors, 0.5, 0.5, low_quality)
            assert found.tolist() == expected
        assert assignment.assign_by_iou(boxes, real, anchors[:1], 0.5, 0.5, False).tolist() == [assignment.BACKGROUND]
        assert assignment.assign_by_iou(boxes, real, anchors[:1], 0.5, 0.5).tolist() == [0]

    def test_an_object_that_overlaps_no_anchor_makes_none_foreground(self):
        boxes, real = padded([(100, 100, 120, 120)])
        assert set(jitted_by_iou(boxes, real).tolist()) == {assignment.BACKGROUND}


def suppressed_slowly(boxes, scores, classes, valid, threshold, most) -> list[int]:
    """Greedy suppression in loops; indices, best first."""
    left = sorted((i for i in range(len(boxes)) if valid[i]), key=lambda i: -scores[i])
    kept = []
    for index in left:
        if all(classes[k] != classes[index] or overlap(boxes[k], boxes[index]) <= threshold for k in kept):
            kept.append(index)
    return kept[:most]


jitted_suppress = jax.jit(lambda *table: suppress(*table, threshold=0.5, most=5))
row = st.tuples(box, st.integers(1, 9), st.integers(0, 2), st.booleans())


class TestSuppression:
    @few
    @given(st.lists(row, max_size=12))
    def test_as_in_loops(self, rows):
        boxes, _ = padded([each[0] for each in rows], 12)
        scores, classes, valid = np.zeros(12, np.float32), np.zeros(12, np.int32), np.zeros(12, bool)
        for index, (_, score, label, there) in enumerate(rows):
            scores[index], classes[index], valid[index] = score / 10, label, there
        found = jitted_suppress(boxes, scores, classes, valid)
        kept = suppressed_slowly(boxes, scores, classes, valid, 0.5, 5)
        count = len(kept)
        assert found.valid.tolist() == [True] * count + [False] * (5 - count)
        assert found.boxes[:count].tolist() == boxes[kept].tolist()
        assert found.scores[:count].tolist() == scores[kept].tolist()
        assert found.classes.tolist() == classes[kept].tolist() + [-1] * (5 - count)
        assert not found.boxes[count:].any()
        assert not found.scores[count:].any()

    def test_more_than_torchvision_moves_apart(self):
        random = np.random.RandomState(0)
        corners = random.uniform(0, 80, (1500, 2))
        boxes = np.concatenate([corners, corners + random.uniform(5, 40, (1500, 2))], 1).astype(np.float32)
        scores = random.permutation(1500).astype(np.float32) / 1500
        classes = random.randint(0, 3, 1500)
        valid = scores > 0.1
        found = jax.jit(lambda *table: suppress(*table, threshold=0.6, most=40))(boxes, scores, classes, valid)
        kept = suppressed_slowly(boxes.tolist(), scores, classes, valid, 0.6, 40)
        assert found.boxes.tolist() == boxes[kept].tolist()

    def test_vmap(self):
        boxes = jnp.array([[[0.0, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 30]]] * 2)
        scores = jnp.array([[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        classes = jnp.array([[0, 0, 0], [1, 0, 0]])
        valid = jnp.array([[True, True, True], [True, True, False]])
        found = jax.vmap(lambda *table: suppress(*table, threshold=0.5, most=4))(boxes, scores, classes, valid)
        assert found.valid.sum(1).tolist() == [2, 2]
        assert np.asarray(found.scores) == pytest.approx(np.array([[0.9, 0.7, 0, 0], [0.3, 0.1, 0, 0]]))
