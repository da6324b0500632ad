"""Metrics of classification beside the accuracy, from the scores of the classes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from experiments.results import calibration
from experiments.results.scores import ScoreKind, Scores

_TOP = 5


def metrics(
    scores: Float[np.ndarray, 'examples outputs'],
    targets: Int[np.ndarray, ' examples'],
    classes: Sequence[str],
    score_kind: ScoreKind = 'logits',
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, float]:
    """Metrics of all images together.

    Args:
        scores: outputs; the first are those of the classes, and any others are always wrong.
        targets: class of each example.
        classes: names of the classes.
        score_kind: what the scores are.
        validation: scores and classes of the validation split, on which a temperature is fitted.

    Returns:
        ``accuracy``; ``top5_accuracy``, where there are more than five outputs (one that is always minus infinity is
        none); see ``of_predictions``; ``auroc``, the mean over the classes of the area under the ROC curve of each
        against all others (for two classes both areas are the same), by their probability or else by their score; and
        see ``calibration.metrics``. These last are left out where scores are no numbers (or plus infinity), as after a
        training that diverged.
    """
    predicted = scores.argmax(-1)
    found = {'accuracy': float(np.mean(predicted == targets))}
    if np.count_nonzero(~np.isneginf(scores).all(0)) > _TOP:
        best = np.argpartition(-scores, _TOP, axis=-1)[:, :_TOP]
        found['top5_accuracy'] = _share_among(best, targets)
    found |= of_predictions(predicted, targets, classes)
    if calibration.are_numbers(scores):
        found |= _of_scores(scores, targets, score_kind, validation)
    # Those of single classes last, as they are many.
    return dict(sorted(found.items(), key=lambda item: '/' in item[0]))


def _of_scores(
    scores: Float[np.ndarray, 'examples outputs'],
    targets: Int[np.ndarray, ' examples'],
    score_kind: ScoreKind,
    validation: tuple[np.ndarray, np.ndarray] | None,
) -> dict[str, float]:
    found = {}
    present = np.unique(targets)
    if len(present) > 1:
        shares = calibration.probabilities(scores, score_kind)
        found['auroc'] = float(areas_under_roc(scores if shares is None else shares, targets, present).mean())
    held_out = validation if validation is not None and calibration.are_numbers(validation[0]) else None
    return found | calibration.metrics(scores, targets, score_kind, held_out)


def areas_under_roc(
    scores: Float[np.ndarray, 'examples outputs'], targets: Int[np.ndarray, ' examples'], classes: Int[np.ndarray, ' c']
) -> Float[np.ndarray, ' c']:
    """Area under the ROC curve of each class against all others, by the ranks of its examples (Hanley & McNeil 1982).

    Equal scores share their mean rank, so the area is that of scikit-learn's ``roc_auc_score``, which took a tenth of
    the time of a whole ablation.

    Args:
        scores: one column per class.
        classes: those wanted; there are examples of each, and of others.
    """
    from scipy.stats import rankdata  # imported late: it takes a second

    own = targets[:, None] == classes
    positives = own.sum(0, dtype=np.float64)
    ranks = (rankdata(scores[:, classes], axis=0) * own).sum(0)
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(targets) - positives))


def of_predictions(
    predicted: Int[np.ndarray, ' examples'], targets: Int[np.ndarray, ' examples'], classes: Sequence[str]
) -> dict[str, float]:
    """Metrics that need only the predicted classes.

    Returns:
        ``balanced_accuracy`` (the mean of the recalls) and ``macro_f1`` over the classes that there are examples of;
        ``recall/CLASS`` and ``precision/CLASS``.
    """
    from sklearn.metrics import precision_recall_fscore_support  # imported late: it takes a second

    present = np.unique(targets)
    precision, recall, f1, _ = precision_recall_fscore_support(targets, predicted, labels=present, zero_division=0.0)
    found = {'balanced_accuracy': float(recall.mean()), 'macro_f1': float(f1.mean())}
    for kind, values in (('recall', recall), ('precision', precision)):
        found |= {f'{kind}/{classes[index]}': float(value) for index, value in zip(present, values, strict=True)}
    return found


def of_kept(
    kept: Scores, known: Mapping[str, float], classes: Callable[[], Sequence[str]], score_kind: ScoreKind
) -> dict[str, float]:
    """Add the metrics of kept scores that a row of an older version lacks, or one of many classes.

    Args:
        kept: the scores of a row.
        known: the metrics that the row has.
        classes: reads their names; where they are too few, their numbers take their place.
        score_kind: what the scores are.

    Returns:
        ``known`` and what could be added; with more than ``scores.MANY_CLASSES`` classes, nothing that would take the
        scores of all of them.
    """
    computable = kept.logits is not None and kept.classes is None
    lacks_scores = computable and ('auroc' if score_kind == 'values' else 'nll') not in known
    lacks_classes = not any(name.startswith('recall/') for name in known)
    if kept.predictions is None or kept.targets is None or not (lacks_scores or lacks_classes):
        return dict(known)
    named = classes()
    largest = int(max(kept.predictions.max(), kept.targets.max())) + 1
    names = [*named, *map(str, range(len(named), largest))]
    # Not from the scores: rounded to half precision, the two largest may be equal.
    found = of_predictions(kept.predictions, kept.targets, names)
    if lacks_scores:
        held_out = None
        if kept.validation is not None and kept.validation.targets is not None:
            held_out = np.asarray(kept.validation.logits, np.float32), kept.validation.targets
        found = metrics(np.asarray(kept.logits, np.float32), kept.targets, names, score_kind, held_out) | found
    elif kept.classes is not None:
        found['top5_accuracy'] = _share_among(kept.classes[:, :_TOP], kept.targets)
    return {**found, **known}


def _share_among(best: Int[np.ndarray, 'examples some'], targets: Int[np.ndarray, ' examples']) -> float:
    """The share of examples whose class is among some."""
    return float((best == targets[:, None]).any(-1).mean())
