"""Where an image lies in a letterbox: whole, in the middle, with grey around it."""

# The grey that fills a letterbox, of 255 (ultralytics/data/augment.py, LetterBox).
LETTERBOX_GREY = 114


def letterbox_geometry(
    shape: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]:
    """Place an image in a letterbox: its height and width there, and the padding above and below, left and right.

    Where the padding of a side is odd, the larger part comes last.

    Source: ultralytics/data/augment.py, ``LetterBox`` with its defaults (centred, small images enlarged).

    Args:
        shape: height and width of the image.
        size: height and width of the input.
    """
    ratio = min(want / have for want, have in zip(size, shape, strict=True))
    # However long an image is, its shorter side keeps at least one pixel.
    rows, columns = (max(round(have * ratio), 1) for have in shape)
    rests = (size[0] - rows) / 2, (size[1] - columns) / 2
    above, left = (round(rest - 0.1) for rest in rests)
    below, right = (round(rest + 0.1) for rest in rests)
    return (rows, columns), ((above, below), (left, right))
