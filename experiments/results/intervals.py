"""Intervals and comparisons behind the tables."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % t interval; the half-width is ``None`` for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    from scipy import stats  # imported late: it takes a second

    factor = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return mean, float(factor * np.std(values, ddof=1) / math.sqrt(len(values)))


def apart(a: tuple[float, float | None], b: tuple[float, float | None]) -> bool:
    """Whether two intervals do not overlap; an unknown one overlaps everything."""
    if a[1] is None or b[1] is None:
        return False
    return abs(a[0] - b[0]) > a[1] + b[1]


def paired_difference_is_significant(
    correct_a: Bool[np.ndarray, 'seeds_a test'], correct_b: Bool[np.ndarray, 'seeds_b test']
) -> bool:
    """Whether two systems differ on the same test images by more than a 95 % interval over images.

    Each image counts by its share of correct seeds, so the interval covers other images of the same kind. An interval
    over seeds does not.
    """
    difference = correct_a.mean(0) - correct_b.mean(0)
    if len(difference) < 2:
        return False
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return bool(abs(difference.mean()) > NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error)


def resamples(examples: int, samples: int, seed: int) -> Int[np.ndarray, 'samples examples']:
    """How often each example occurs in random samples with replacement, each as large as the whole (a bootstrap)."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return np.stack(
        [np.bincount(generator.integers(0, examples, examples), minlength=examples) for _ in range(samples)]
    )


def percentile_interval(values: Float[np.ndarray, ' samples']) -> tuple[float, float] | None:
    """The middle 95 % of a metric over samples; ``None`` if no sample has the metric (all are NaN)."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
