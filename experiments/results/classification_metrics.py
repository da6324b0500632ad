"""Metrics of classification beside the accuracy, from logits, by scikit-learn."""

from collections.abc import Sequence

import numpy as np
import sklearn.metrics
from jaxtyping import Float, Int


def metrics(
    logits: Float[np.ndarray, 'examples outputs'], targets: Int[np.ndarray, ' examples'], classes: Sequence[str]
) -> dict[str, float]:
    """Metrics of all images together.

    Args:
        logits: outputs; the first are those of the classes, and any others are always wrong.
        targets: class of each example.
        classes: names of the classes.

    Returns:
        ``accuracy``; ``top5_accuracy``, where there are more than five outputs (one that is always minus infinity is
        none); ``balanced_accuracy`` (the mean of the recalls) and ``macro_f1`` over the classes that there are examples
        of; ``recall/CLASS`` and ``precision/CLASS``.
    """
    predicted = logits.argmax(-1)
    present = np.unique(targets)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        targets, predicted, labels=present, zero_division=0.0
    )
    found = {'accuracy': float(np.mean(predicted == targets))}
    if np.count_nonzero(~np.isneginf(logits).all(0)) > 5:
        best = np.argpartition(-logits, 5, axis=-1)[:, :5]
        found['top5_accuracy'] = float((best == targets[:, None]).any(-1).mean())
    found |= {'balanced_accuracy': float(recall.mean()), 'macro_f1': float(f1.mean())}
    for kind, values in (('recall', recall), ('precision', precision)):
        found |= {f'{kind}/{classes[index]}': float(value) for index, value in zip(present, values, strict=True)}
    return found
