"""Pictures of predictions: what is written can be read, and labels hide neither boxes nor each other."""

import numpy as np
import pytest
from PIL import Image

from backbones.prediction import drawing, labels
from backbones.prediction.prediction import Prediction

GREY = (200, 200, 200)


def blank(width, height):
    return Image.new('RGB', (width, height), GREY)


def with_boxes(picture, boxes, names, classes=None, scores=None):
    classes = np.arange(len(boxes)) if classes is None else np.array(classes)
    return np.asarray(drawing.with_boxes(picture, np.array(boxes, np.float32), names, classes, scores))


def outline(box):
    """Which pixels of rows and columns the outermost line of a box takes."""
    left, top, right, bottom = box
    across, down = np.arange(left, right + 1), np.arange(top, bottom + 1)
    rows = np.concatenate([np.full_like(across, top), np.full_like(across, bottom), down, down])
    return rows, np.concatenate([across, across, np.full_like(down, left), np.full_like(down, right)])


def gaps(ink):
    """Widths of the runs without ink between the first and the last column that has some."""
    columns = np.flatnonzero(ink.any(0))
    steps = np.diff(columns) - 1
    return np.sort(steps[steps > 0])


# --- Names. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['Zähler', 'хлеб', 'αβγ', 'czołg', "l'œuf"])
def test_letters_of_many_languages_are_written(name):
    assert labels.written(name, 3) == name
    font = labels.font(blank(400, 300))
    unknown = bytes(font.getmask('\uffff'))
    assert all(bytes(font.getmask(letter)) != unknown for letter in name)


@pytest.mark.parametrize('name', ['白血球', '한국', 'cell 白', 'two\nlines', ''])
def test_a_name_that_the_font_lacks_is_the_number_of_its_class(name):
    assert labels.written(name, 3) == 'class 3'
    names, numbered = ('a', 'b', 'c', name), ('a', 'b', 'c', 'class 3')
    image, box = np.full((30, 40, 3), 200, np.uint8), np.array([[5.0, 9, 30, 25]])
    mask = np.full((30, 40), 3)
    for results in (
        {'boxes': box, 'scores': np.ones(1), 'classes': np.array([3])},
        {'mask': mask},
        {'probabilities': np.array([0.1, 0.1, 0.1, 0.7])},
    ):
        one, other = (np.asarray(Prediction(image, (30, 40), each, **results).plot()) for each in (names, numbered))
        np.testing.assert_array_equal(one, other)


def test_a_name_that_is_too_long_is_shortened_and_its_score_stays():
    name = 'a name of many words ' * 20
    box, scores = [[10, 40, 200, 120]], np.array([0.5])
    shown = with_boxes(blank(400, 150), box, [name], scores=scores)
    font = labels.font(blank(400, 150))
    short = labels.shortened(name, font, 300)
    assert short.endswith('…') and name.startswith(short[:-1]) and 280 < font.getlength(short) <= 300
    assert labels.shortened('short', font, 300) == 'short'
    # The number ends within the picture: to the right of its last digit is the margin of the label.
    ink = shown[24:40].min(-1) > 205
    assert 380 < np.flatnonzero(ink.any(0)).max() < 399 and gaps(ink).max() >= 8
    legend = np.asarray(drawing.with_mask(blank(400, 150), np.zeros((150, 400), np.uint8), [name]))[152:]
    assert legend.shape[1] == 400 and (legend[:, -3:] == 255).all() and (legend[:, 300:] < 128).any()


# --- Numbers. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(448, 336), (640, 480), (1600, 1200)])
def test_a_score_stands_apart_from_its_name(size):
    box = [[40, 100, 300, 300]]
    height = labels.line_height(labels.font(blank(*size)))

    def widest_gap(name, scores):
        shown = with_boxes(blank(*size), box, [name], scores=scores)
        return gaps(shown[100 - height : 100].min(-1) > 205).max()  # white letters on blue; the picture is less bright

    assert widest_gap('1', np.array([0.11])) >= 1.4 * widest_gap('1 0.11', None)


def test_probabilities_have_a_column_of_their_own():
    probabilities = np.array([0.096, 0.5, 0.3, 0.1, 0.004])
    image = np.full((30, 40, 3), 200, np.uint8)
    result = Prediction(image, (30, 40), ('1', '2', 'a longer name', '10', '3'), probabilities=probabilities)
    shown = np.asarray(result.plot())
    below = shown[30 * drawing.enlargement((30, 40)) :].min(-1) < 200
    filled = np.flatnonzero(np.diff(np.r_[0, below.any(1), 0]))
    rows = [below[start:end] for start, end in filled.reshape(-1, 2)]
    assert len(rows) == 5
    ends = [np.flatnonzero(row.any(0)).max() for row in rows]
    starts = [np.flatnonzero(row.any(0)).min() for row in rows]
    assert max(ends) - min(ends) <= 1 and max(starts) - min(starts) <= 2
    assert all(gaps(row).max() >= 12 for row in rows)


# --- Boxes and their labels. ------------------------------------------------------------------------------------------


def test_a_label_leaves_a_small_box_free():
    """The usual place of the label of the large box is where the small one is, and that of its own is outside."""
    small, large = (100, 2, 120, 14), (100, 16, 300, 200)
    shown = with_boxes(blank(400, 300), [large, small], ['large', 'small'], scores=np.array([0.9, 0.8]))
    assert (shown[outline(small)] == drawing.colour(1)).all()
    assert (shown[4:12, 103:117] == GREY).all()


def test_outlines_lie_on_labels():
    """A name as wide as the picture cannot but cross the other box."""
    name, across = 'wide ' * 40, (200, 0, 212, 99)
    shown = with_boxes(blank(400, 100), [(0, 50, 399, 99), across], [name, 'b'])
    above = slice(50 - labels.line_height(labels.font(blank(400, 100))), 50)
    assert (shown[above, 1] == drawing.colour(0)).all() and (shown[above, 380:] == drawing.colour(0)).any()
    # Letters alone lie on it.
    assert (shown[above, 200] == drawing.colour(1)).all(-1).mean() > 0.3


def test_labels_of_equal_boxes_find_room():
    box = (100, 100, 220, 200)
    places = labels.places(
        np.array([box, np.add(box, 2), box, np.subtract(box, 1)], np.float32), [70] * 4, 16, (400, 300)
    )
    assert None not in places and len(set(places)) == 4


def test_a_label_may_stand_below_its_box():
    """Above it ends the picture, and in it are small boxes."""
    inner = [(left, 1, left + 25, 39) for left in range(101, 200, 30)]
    places = labels.places(np.array([(100, 0, 220, 40), *inner], np.float32), [80] + [30] * 4, 16, (400, 300))
    assert places[0] == (100, 41, 180, 57)


def test_a_label_without_room_is_left_out():
    boxes = np.tile(np.array([[0, 0, 99, 39]], np.float32), (9, 1))
    places = labels.places(boxes, [90] * 9, 12, (100, 40))
    assert places[0] is not None and places[-1] is None
    assert labels.places(boxes[:1], [10], 50, (100, 40)) == [None]


@pytest.mark.parametrize('seed', range(4))
def test_labels_cover_no_label_and_little_of_a_box(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(-20, 380, (50, 2)) * (1, 0.75)
    boxes = np.concatenate([start, start + rng.uniform(0, 90, (50, 2))], 1)
    widths = rng.integers(30, 90, 50).tolist()
    places = labels.places(boxes, widths, 16, (400, 300))
    assert sum(place is not None for place in places) > 15
    labelled = np.zeros((300, 400), int)
    for place, width in zip(places, widths, strict=True):
        if place is None:
            continue
        left, top, right, bottom = place
        assert min(left, top) >= 0 and right <= 400 and bottom <= 300
        assert (right - left, bottom - top) == (width, 16)
        labelled[top:bottom, left:right] += 1
        for box in boxes:
            inside = np.zeros((300, 400), bool)
            x1, y1, x2, y2 = np.floor(box).astype(int)
            inside[max(y1, 0) : max(y2 + 1, 0), max(x1, 0) : max(x2 + 1, 0)] = True
            if inside.any():
                assert inside[top:bottom, left:right].sum() <= inside.sum() / 3
    assert labelled.max() == 1


@pytest.mark.parametrize('first', [0, 1])
def test_the_outline_of_a_small_box_lies_on_that_of_a_large_one(first):
    small, large = (290, 100, 310, 120), (100, 60, 300, 200)
    boxes = [small, large][:: 1 - 2 * first]
    shown = with_boxes(blank(400, 300), boxes, ['a', 'b'])
    assert (shown[outline(small)] == drawing.colour(first)).all()


def test_lines_do_not_fill_a_small_box():
    shown = with_boxes(blank(4000, 300), [(2000, 200, 2030, 230), (100, 150, 600, 290)], ['a', 'b'])
    assert (shown[206:224, 2006:2024] == GREY).all() and (shown[202, 2002:2028] == drawing.colour(0)).all()
    assert (shown[152:160, 300] == drawing.colour(1)).all()
    assert drawing.line_width(blank(400, 10)) == 2
