"""Robustness to corruptions: the score of the test split with each corruption and severity, and what sums it up."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from experiments.results.rows import Row
from experiments.results.seeds_and_images import Repeated

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


def repeated_at_severity(
    correct: Mapping[str, Bool[np.ndarray, 'seeds test']],
    severity: int,
    seeds: Sequence[int],
    depends_on_seed: bool = True,
) -> Repeated | None:
    """The score of ``at_severity`` per seed, and what it owes to single images: each one's mean over the corruptions.

    Args:
        correct: corruption and severity, such as ``fog/3`` → whether the prediction is right.
        seeds: which seeds.
        depends_on_seed: whether another seed could give another score.

    Returns:
        ``None`` if there is nothing of this severity.
    """
    found = [each for condition, each in correct.items() if condition.endswith(f'/{severity}')]
    return Repeated.of_examples(np.mean(found, 0), seeds, depends_on_seed) if found else None
