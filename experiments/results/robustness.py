"""Robustness to corruptions: the score of the test split with each corruption and severity, and what sums it up."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from experiments.results.rows import Row

# Corruption → severity → the primary metric on the test split with it, averaged over the seeds.
Robustness = Mapping[str, Mapping[int, float]]


def of_rows(rows: Sequence[Row]) -> Robustness:
    """The mean over rows of different seeds, of the corruptions and severities that all of them have."""
    return {
        name: {
            int(severity): float(np.mean([row.robustness[name][severity][row.primary] for row in rows]))
            for severity in severities
            if all(severity in row.robustness.get(name, {}) for row in rows)
        }
        for name, severities in rows[0].robustness.items()
        if all(name in row.robustness for row in rows)
    }


def severities(robustness: Robustness) -> list[int]:
    """The severities that every corruption has."""
    found = [set(each) for each in robustness.values()]
    return sorted(set.intersection(*found)) if found else []


def at_severity(robustness: Robustness) -> dict[int, float]:
    """Severity → the mean over the corruptions."""
    return {
        severity: float(np.mean([each[severity] for each in robustness.values()]))
        for severity in severities(robustness)
    }


def of_corruption(robustness: Robustness) -> dict[str, float]:
    """Corruption → the mean over its severities."""
    return {name: float(np.mean(list(each.values()))) for name, each in robustness.items()}


def mean(robustness: Robustness) -> float:
    """The mean over corruptions and severities."""
    return float(np.mean(list(of_corruption(robustness).values())))


def relative_drop(robustness: Robustness, clean: float) -> float | None:
    """The share of the clean score that is lost, on average; ``None`` if there is nothing to lose."""
    return 1 - mean(robustness) / clean if clean > 0 else None


def relative_error(robustness: Robustness, baseline: Robustness) -> float | None:
    """The error as a multiple of another method's, per corruption over all severities, and then averaged.

    Hendrycks & Dietterich 2019 call it the mean corruption error where the other method is AlexNet on ImageNet.

    Returns:
        ``None`` if the two have different corruptions or severities, or the other makes no error with one of them.
    """
    if {name: set(each) for name, each in robustness.items()} != {name: set(each) for name, each in baseline.items()}:
        return None
    errors, others = (
        {name: 1 - score for name, score in of_corruption(each).items()} for each in (robustness, baseline)
    )
    if not errors or min(others.values()) <= 0:
        return None
    return float(np.mean([errors[name] / others[name] for name in errors]))


def of_examples(
    robustness: Robustness, correct: Mapping[str, Bool[np.ndarray, ' examples']]
) -> Float[np.ndarray, ' examples'] | None:
    """What each test example adds to ``mean``: the share of right predictions, averaged over the corruptions.

    Args:
        robustness: which corruptions and severities.
        correct: corruption and severity, such as ``fog/3`` → whether the prediction is right.

    Returns:
        ``None`` if one of them is not known.
    """
    wanted = {name: [f'{name}/{severity}' for severity in each] for name, each in robustness.items() if each}
    if not wanted or not {*itertools.chain(*wanted.values())} <= correct.keys():
        return None
    return np.mean([np.mean([correct[each] for each in conditions], 0) for conditions in wanted.values()], 0)
