"""Checks of single config values: each raises a ``UserError`` that names the key."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from backbones.errors import UserError, unknown

Check = Callable[[str, Any], None]


def positive(key: str, value: float) -> None:
    """Reject 0 and negative values, and those that are not finite."""
    if not 0 < value < math.inf:
        raise UserError(f'config key {key!r} must be positive{"" if value <= 0 else " and finite"}, not {value}')


def not_negative(key: str, value: float) -> None:
    """Reject negative values, and those that are not finite."""
    if not 0 <= value < math.inf:
        raise UserError(f'config key {key!r} must {"not be negative" if value < 0 else "be finite"}, but is {value}')


def text_length(key: str, value: int) -> None:
    """Reject lengths of texts that leave no room for a token between the first and the last; 0 is none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value in (1, 2):
        raise UserError(f'config key {key!r} is {value!r}; expected 0, or a number of tokens from 3 on')


def seed(key: str, value: int) -> None:
    """Reject values that cannot seed the random number generators."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise UserError(f'config key {key!r} must lie between 0 and 4294967295, not {value!r}')


def share(key: str, value: float) -> None:
    """Reject what lies outside of [0, 1)."""
    if not 0 <= value < 1:
        raise UserError(f'config key {key!r} must lie in [0, 1), not {value}')


def positive_share(key: str, value: float) -> None:
    """Reject what lies outside of (0, 1]."""
    if not 0 < value <= 1:
        raise UserError(f'config key {key!r} must lie in (0, 1], not {value}')


def closed_share(key: str, value: float) -> None:
    """Reject what lies outside of [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f'config key {key!r} must lie in [0, 1], not {value}')


def magnitude(key: str, value: float) -> None:
    """Reject magnitudes that RandAugment does not have."""
    if not 0 <= value <= 30:
        raise UserError(f'config key {key!r} must lie in [0, 30], not {value}')


def _up_to(most: int, reason: str) -> Check:
    """Reject negative values, and those above ``most``, for a reason."""

    def check(key: str, value: int) -> None:
        not_negative(key, value)
        if value > most:
            raise UserError(f'config key {key!r} must be at most {most}, not {value}: {reason}')

    return check


# Sides of an input, channels of a neck or head, convolutions of a tower.
side = _up_to(8192, 'a square image of that side has 67 million pixels')
channels = _up_to(4096, 'a 3x3 convolution of so many channels has 151 million parameters')
depth = _up_to(16, 'published detectors have towers of 4 convolutions')


def scale(key: str, value: float) -> None:
    """Reject factors by which an image, or the input that shows it, becomes next to nothing."""
    if not 0.1 <= value <= 10:
        covered, by = ('input', 'image') if value < 0.1 else ('image', 'input')
        raise UserError(
            f'config key {key!r} must lie in [0.1, 10], not {value}: beyond that, the {by} covers less than a '
            f'hundredth of the {covered}'
        )


# As many as a level of a one-stage head contributes to an image; COCO's metrics count a hundred of them.
_MOST_DETECTIONS = 1000


def detections(key: str, value: int) -> None:
    """Reject 0, negative values, and more detections than the metrics have a use for."""
    if not 1 <= value <= _MOST_DETECTIONS:
        raise UserError(
            f'config key {key!r} must lie in [1, {_MOST_DETECTIONS}], not {value}: each takes memory and time in every '
            "image, and COCO's metrics count the best 100"
        )


def all_or_positive(key: str, value: int) -> None:
    """Reject 0 and negative values other than -1."""
    if value != -1 and value <= 0:
        raise UserError(f'config key {key!r} must be positive or -1 (all devices), not {value}')


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A check that rejects values that are not among the choices."""

    choices: tuple[str, ...]

    def __call__(self, key: str, value: str) -> None:
        """Reject ``value`` if it is none of the choices."""
        if value not in self.choices:
            raise unknown(key, value, self.choices)


def one_of(*choices: str) -> OneOf:
    """Reject values that are not among the choices."""
    return OneOf(choices)


def anything(key: str, value: Any) -> None:
    """Reject nothing."""
