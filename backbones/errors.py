"""Errors whose message is meant for the person who launched the program."""

import difflib
from collections.abc import Iterable, Sequence
from numbers import Integral


class UserError(ValueError):
    """Bad input. The message names the value, what was expected and the nearest valid choice; no traceback needed."""


class ImageSizeError(UserError):
    """Images of a size that a network does not take.

    Attributes:
        problem: the first half of the message, without advice.
        sizes: heights and widths near theirs that it takes, increasing.
    """

    def __init__(self, problem: str, sizes: Sequence[tuple[int, ...]], advice: str):
        several = len(sizes) > 1
        nearest = ' and '.join(f'{height}x{width}' for height, width in sizes)
        super().__init__(
            f'{problem}; the nearest size{"s" if several else ""} that do{"" if several else "es"} '
            f'{"are" if several else "is"} {nearest}{advice}'
        )
        self.problem, self.sizes = problem, tuple(sizes)


class AbsentWeightsError(UserError):
    """Published weights that are not on this machine, and cannot be fetched at present."""


class MissingPartError(UserError):
    """A part of a model that its source of weights does not hold."""


class MisfitWarning(UserWarning):
    """What does not fit and would be an error, if weights were not read with ``strict=False``."""


def unknown(kind: str, value: object, choices: Iterable[str]) -> UserError:
    """An error for a name that is not among ``choices``; it suggests the nearest ones."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(map(repr, near))}?' if near else f'valid choices: {", ".join(choices)}'
    return UserError(f'unknown {kind} {value!r}; {hint}')


def listed(names: Iterable[str], most: int = 3, separator: str = ', ') -> str:
    """The first names and how many more there are: ``'a, b, c and 1,234 more'``; empty for none."""
    names = list(names)
    # Behind semicolons, the last name may itself contain an 'and'.
    more = f'{separator.rstrip(", ")} and {len(names) - most:,} more' if len(names) > most else ''
    return separator.join(names[:most]) + more


def check_images(shape: tuple[int, ...]) -> None:
    """Refuse what is no batch of images ``[batch, height, width, channels]``, such as the tokens of texts.

    Raises:
        UserError: the shape has not four axes.
    """
    if len(shape) != 4:
        hints = {2: '; tokens of texts are for a text encoder', 3: '; a single image is a batch as images[None]'}
        raise UserError(
            f'images must have the shape [batch, height, width, channels], not {list(shape)}{hints.get(len(shape), "")}'
        )


def check_image_size(shape: tuple[int, ...], least: int) -> None:
    """Refuse images ``[batch, height, width, channels]`` that a network's pools would reduce to nothing.

    Raises:
        UserError: a side is shorter than ``least`` pixels, or they are no images.
    """
    check_images(shape)
    if min(shape[1:3]) < least:
        raise UserError(f'images must be at least {least}x{least} pixels, not {shape[1]}x{shape[2]}')


def check_whole_patches(shape: tuple[int, ...], patch: int, can_pad: bool = True, noun: str = 'patches') -> None:
    """Refuse images ``[batch, height, width, channels]`` that do not divide into square patches.

    Args:
        shape: of the images.
        patch: side of a patch in pixels.
        can_pad: whether the network has an option ``pad``.
        noun: what the network's authors call them.

    Raises:
        ImageSizeError: a side is not a multiple of ``patch`` pixels.
        UserError: they are no images.
    """
    check_images(shape)
    sides = shape[1:3]
    if any(side % patch for side in sides):
        smaller, larger = (
            tuple(max(count, 1) * patch for count in counts)
            for counts in ((side // patch for side in sides), (-(-side // patch) for side in sides))
        )
        raise ImageSizeError(
            f'images of {sides[0]}x{sides[1]} pixels do not divide into {noun} of {patch}',
            sorted({smaller, larger}),
            ', and pad=True fills them up with zeros' if can_pad else '',
        )


def check_output_stride(stride: int | None, possible: Sequence[int]) -> None:
    """Refuse an output stride that a network cannot have.

    Raises:
        UserError: it is neither ``None`` nor possible.
    """
    if stride is not None and (type(stride) is not int or stride not in possible):
        raise UserError(f'output_stride must be one of {", ".join(map(str, possible))}, or None, not {stride!r}')


def check_batch_size(batch_size: int) -> int:
    """The number of examples in a batch.

    Raises:
        UserError: it is not a positive whole number.
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise UserError(f'batch_size must be at least 1, not {batch_size!r}')
    return int(batch_size)
