"""Where to write the names of marks so that they hide little."""

from collections.abc import Sequence

# Left, top, right and bottom, in pixels.
Box = tuple[float, float, float, float]

_HEIGHT, _WIDTH_OF_LETTER = 12.0, 6.3
_NEVER = 1000


def beside(
    marks: Sequence[tuple[float, float]], texts: Sequence[str], obstacles: Sequence[Box], frame: Box
) -> list[tuple[float, float] | None]:
    """A place for the name of each mark, one after the other: of eight around it the one that hides the fewest things.

    Args:
        marks: places of the marks, in pixels.
        texts: their names.
        obstacles: what should not be hidden.
        frame: what the names should stay in.

    Returns:
        Per mark, the place of the left end of its name's baseline, relative to the mark; ``None`` where it would hide
        another name wherever it is.
    """
    names: list[Box] = []
    places: list[tuple[float, float] | None] = []
    for (x, y), text in zip(marks, texts, strict=True):
        width = _WIDTH_OF_LETTER * len(text)
        around = [
            (-width - 8, -6), (-width / 2, -11), (9, 16), (9, -7), (-width - 9, 4), (9, 4), (-width / 2, 21),
            (-width - 8, 16),
        ]  # fmt: skip
        boxes = [(x + dx, y + dy - _HEIGHT, x + dx + width, y + dy + 2) for dx, dy in around]
        hidden = [
            sum(_meet(box, other) for other in obstacles)
            + (0 if _within(box, frame) else 5)
            + (_NEVER if any(_meet(box, other) for other in names) else 0)
            for box in boxes
        ]
        best = hidden.index(min(hidden))
        if hidden[best] >= _NEVER:
            places.append(None)
        else:
            places.append(around[best])
            names.append(boxes[best])
    return places


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(box: Box, frame: Box) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]
