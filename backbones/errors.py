"""Errors whose message is meant for the person who launched the program."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message names the value, what was expected and the nearest valid choice; no traceback needed."""


def unknown(kind: str, value: object, choices: Iterable[str]) -> UserError:
    """An error for a name that is not among ``choices``; it suggests the nearest ones."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(map(repr, near))}?' if near else f'valid choices: {", ".join(choices)}'
    return UserError(f'unknown {kind} {value!r}; {hint}')


def check_image_size(shape: tuple[int, ...], least: int) -> None:
    """Refuse images ``[batch, height, width, channels]`` that a network's pools would reduce to nothing.

    Raises:
        UserError: a side is shorter than ``least`` pixels.
    """
    if min(shape[1:3]) < least:
        raise UserError(f'images must be at least {least}x{least} pixels, not {shape[1]}x{shape[2]}')
