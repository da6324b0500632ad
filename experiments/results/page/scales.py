"""Scales of plots: numbers to places along an axis, and round numbers for its ticks."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Literal

# A hair beyond the ends of a scale still counts as its end.
_SLACK = 1e-9


@dataclasses.dataclass(frozen=True)
class Scale:
    """Numbers from ``low`` to ``high`` along an axis, linear, logarithmic, or by their logit (shares, near 0 and 1)."""

    low: float
    high: float
    kind: Literal['linear', 'log', 'logit'] = 'linear'

    @staticmethod
    def covering(
        values: Iterable[float],
        kind: Literal['linear', 'log', 'logit'] = 'linear',
        margin: float = 0.05,
        within: tuple[float, float] = (-math.inf, math.inf),
    ) -> 'Scale':
        """A scale on which all finite values have a place, and some room at both ends.

        Args:
            values: numbers; those without a place on the scale are left out.
            kind: of the scale.
            margin: room at each end, as a share of the axis.
            within: bounds that the room does not cross, such as 0 and 1 for shares.
        """
        transform = _TRANSFORMS[kind]
        places = [transform(value) for value in values if _has_place(value, kind)] or [transform(0.5)]
        low, high = min(places), max(places)
        room = margin * (high - low) or (0.5 if kind != 'linear' else 0.1 * abs(low) or 0.5)
        inverse = _INVERSES[kind]
        return Scale(max(inverse(low - room), within[0]), min(inverse(high + room), within[1]), kind)

    def place(self, value: float) -> float:
        """Where a number is: 0 at ``low``, 1 at ``high``; numbers beyond are put at the end."""
        transform = _TRANSFORMS[self.kind]
        if not _has_place(value, self.kind):
            return 0.0 if value < self.high else 1.0
        low, high = transform(self.low), transform(self.high)
        return min(max((transform(value) - low) / (high - low), 0.0), 1.0)

    def ticks(self, count: int = 6) -> list[float]:
        """About ``count`` round numbers within the scale, ascending."""
        if self.kind == 'log':
            return _log_ticks(self.low, self.high, count)
        if self.kind == 'logit':
            found = [tick for tick in _LOGIT_TICKS if self.low <= tick <= self.high]
            return _thinned(found, count) if len(found) > 2 else _linear_ticks(self.low, self.high, count)
        return _linear_ticks(self.low, self.high, count)


_TRANSFORMS: dict[str, Callable[[float], float]] = {
    'linear': float,
    'log': math.log,
    'logit': lambda value: math.log(value / (1 - value)),
}
_INVERSES: dict[str, Callable[[float], float]] = {
    'linear': float,
    'log': math.exp,
    'logit': lambda value: 1 / (1 + math.exp(-value)),
}
_LOGIT_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def _has_place(value: float, kind: str) -> bool:
    return math.isfinite(value) and (kind == 'linear' or (value > 0 and (kind == 'log' or value < 1)))


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - _SLACK))
    first, last = math.ceil(low / step - _SLACK), math.floor(high / step + _SLACK)
    return [float(f'{index * step:.12g}') for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [float(f'{factor}e{power}') for power in powers for factor in factors]
        found = [tick for tick in found if low * (1 - _SLACK) <= tick <= high * (1 + _SLACK)]
        if len(found) >= min(3, count):
            return _thinned(found, count)
    return _linear_ticks(low, high, min(count, 4))


def _thinned(ticks: list[float], count: int) -> list[float]:
    return ticks[:: math.ceil(len(ticks) / max(count, 1))]
