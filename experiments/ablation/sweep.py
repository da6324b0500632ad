"""The sweep over learning rates that validation selects from, for regimes that train the backbone."""

from collections.abc import Callable, Sequence

from experiments.cli import display
from experiments.training.loop import Diverged, Trained

_HALF_DECADES = tuple(float(f'{10 ** (exponent / 2):.1g}') for exponent in range(-40, 41))


def sweep(
    rates: Sequence[float], extra: int, train: Callable[[float], Trained]
) -> tuple[float, Trained, tuple[float, ...]]:
    """Train at every learning rate and, while the best one is the lowest or the highest, at further ones beyond it.

    Further rates are the next ones of the series 1, 3, 10, 30, … A rate at which training diverges loses; where all do,
    lower ones are tried.

    Args:
        rates: learning rates to begin with; a single one offers no choice, so none is added.
        extra: at most so many rates are added beyond an end.
        train: trains at a rate.

    Returns:
        The rate with the highest validation score (the earliest tried, among equals), what it trained, and all rates.

    Raises:
        Diverged: at every rate.
    """
    tried: list[float] = []
    best: tuple[float, Trained] | None = None
    failure: Diverged | None = None

    def attempt(rate: float) -> None:
        nonlocal best, failure
        tried.append(rate)
        try:
            trained = train(rate)
        except Diverged as error:
            display.console.print(f'a learning rate of {rate:g} loses: training diverges')
            failure = error
            return
        if best is None or trained.validation_score > best[1].validation_score:
            best = rate, trained

    for rate in rates:
        attempt(rate)
    may_add = extra if len(set(rates)) > 1 else 0
    for _ in range(may_add):
        if best is None:
            attempt(beyond(min(tried), -1))
    if best is None:
        assert failure is not None, 'the sweep has at least one learning rate'
        raise failure
    for outermost, step in ((min, -1), (max, 1)):
        while best[0] == outermost(tried) and len(tried) < len(rates) + may_add:
            attempt(beyond(best[0], step))
    return *best, tuple(tried)


def beyond(rate: float, step: int) -> float:
    """The next value of the series 1, 3, 10, 30, … below (``step`` -1) or above (1) ``rate``."""
    if step < 0:
        return max(value for value in _HALF_DECADES if value < rate)
    return min(value for value in _HALF_DECADES if value > rate)
