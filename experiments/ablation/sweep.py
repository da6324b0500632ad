"""The sweep over learning rates that validation selects from, for regimes that train the backbone."""

import math
from collections.abc import Callable, Sequence

from experiments.cli import display
from experiments.training.loop import Diverged, Trained


def sweep(
    rates: Sequence[float], extra: int, train: Callable[[float], Trained]
) -> tuple[float, Trained, tuple[float, ...]]:
    """Train at every learning rate and, while the best one is the lowest or the highest, at further ones beyond it.

    Further rates are of the series 1, 3, 10, 30, … A rate at which training diverges loses.

    Args:
        rates: learning rates to begin with; a single one offers no choice, so none is added.
        extra: number of rates that may be added at each end.
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
            display.console.print(f'training diverges at a learning rate of {rate:g}: {error}')
            failure = error
            return
        if best is None or trained.validation_score > best[1].validation_score:
            best = rate, trained

    for rate in rates:
        attempt(rate)
    if best is None:
        assert failure is not None, 'the sweep has at least one learning rate'
        raise failure
    if len(set(rates)) > 1:
        for outermost, step in ((min, -1), (max, 1)):
            for _ in range(extra):
                if best[0] != outermost(tried):
                    break
                attempt(beyond(best[0], step))
    return *best, tuple(tried)


def beyond(rate: float, step: int) -> float:
    """The next value of the series 1, 3, 10, 30, … below (``step`` -1) or above (1) the one nearest to ``rate``."""
    half_decades = round(2 * math.log10(rate)) + step
    return float(f'{10 ** (half_decades / 2):.1g}')
