"""Robustness of the selected heads: the test split again, under every corruption and severity that a config names."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import ml_collections
import numpy as np
from jaxtyping import Float

from backbones.errors import UserError
from experiments import tasks
from experiments.data.corrupted import corrupted
from experiments.data.corruptions import ALL, BENCHMARK, Corruption
from experiments.data.dataset import Dataset
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.probes.common import Head, Outcome, ProbeData, each_normalised
from experiments.results.corrupted_scores import CorruptedScores
from experiments.tasks import Task

Work = Callable[[], contextlib.AbstractContextManager[None]]

_GROUPS = {'all': ALL, 'benchmark': BENCHMARK}


def conditions(config: ml_collections.ConfigDict) -> tuple[Corruption, ...]:
    """The corruptions of a config, each at every severity.

    Args:
        config: an ablation's, with ``corruptions`` and ``severities``.

    Raises:
        UserError: an unknown name or severity, no severity, or a task other than classification.
    """
    names, severities = config.corruptions, config.severities
    for key, values in (('corruptions', names), ('severities', severities)):
        if not isinstance(values, tuple):
            raise UserError(f'config key {key!r} takes a tuple such as ({values!r},), not {values!r}')
    if not names:
        return ()
    task = tasks.find(config.training.task)
    if task.is_dense:
        raise UserError(
            f'corruptions of the test images need the task classification, not {task.name}: boxes and masks would have '
            'to move with the pixels; set corruptions=()'
        )
    if not severities:
        raise UserError("config key 'severities' is empty; it needs at least one value from 1 to 5")
    chosen = dict.fromkeys(name for each in names for name in _GROUPS.get(each, (each,)))
    return tuple(Corruption(name, severity) for name in chosen for severity in dict.fromkeys(severities))


def features(
    extract: Extractor,
    backbone: FrozenBackbone,
    dataset: Dataset,
    seen: Dataset,
    data: ProbeData,
    condition: Corruption,
    advance: Callable[[int], None] = lambda count: None,
    beside: Callable[[Corruption], Sequence[str]] = lambda condition: (),
) -> Float[np.ndarray, 'test *features']:
    """The features of the test split with a corruption, from the store or from a pass that is then stored.

    Args:
        dataset: its clean training images give the statistics of random weights.
        seen: the data set without unreadable examples.
        data: what the heads were fitted on, which says what their features look like.
        condition: the corruption.
        advance: called with the number of examples that were finished.
        beside: other taps at which the features under a corruption will be wanted.
    """
    stored, _ = extract.stored(
        backbone, corrupted(seen, condition), advance, calibrated_on=dataset, beside=beside(condition)
    )
    if len(data.features.shape) > 2:  # those of positions stay on disk, and are normalised where they are read
        return cast(np.ndarray, stored)
    return each_normalised(stored.array().reshape(len(seen.splits['test']), -1), data.normalisation)


def of_heads(
    outcomes: Sequence[Outcome],
    conditions: Sequence[Corruption],
    features_of: Callable[[Corruption], np.ndarray],
    score: Callable[[np.ndarray], CorruptedScores],
    report: Callable[[str], None] = lambda text: None,
    work: Work = contextlib.nullcontext,
) -> list[dict[Corruption, CorruptedScores]]:
    """What each head scores under every condition; the features of only one condition are held at a time.

    Args:
        outcomes: of heads on stored features; equal ones of several seeds are applied once.
        features_of: reads or computes the features of the corrupted test examples.
        score: scores of the test examples, one per class → what is kept of them.
        report: called with a short progress text.
        work: the context in which each condition is computed.
    """
    found: list[dict[Corruption, CorruptedScores]] = [{} for _ in outcomes]
    for condition in conditions:
        report(condition.label)
        with work():
            features = features_of(condition)
            known: dict[Head, CorruptedScores] = {}
            for outcome, scores in zip(outcomes, found, strict=True):
                assert outcome.apply is not None, 'every head on stored features can be applied'
                if outcome.apply not in known:
                    known[outcome.apply] = score(outcome.apply(features))
                scores[condition] = known[outcome.apply]
    return found


def of_training(
    evaluate: Callable[[Dataset], np.ndarray],
    dataset: Dataset,
    conditions: Iterable[Corruption],
    score: Callable[[np.ndarray], CorruptedScores],
    work: Work = contextlib.nullcontext,
) -> dict[Corruption, CorruptedScores]:
    """What a trained model scores under every condition.

    Args:
        evaluate: data set → scores of its test examples, one per class.
        dataset: without unreadable examples.
        score, work: see ``of_heads``.
    """
    found = {}
    for condition in conditions:
        with work():
            found[condition] = score(evaluate(corrupted(dataset, condition)))
    return found


def scored(task: type[Task], logits: np.ndarray, targets: np.ndarray) -> CorruptedScores:
    """The primary metric, and which examples are right."""
    return CorruptedScores(task.score({'logits': logits}, targets)[task.primary], logits.argmax(-1) == targets)


def as_row(found: Mapping[Corruption, CorruptedScores], primary: str) -> dict[str, dict[str, dict[str, float]]]:
    """The scores as ``Row.robustness`` holds them."""
    row: dict[str, dict[str, dict[str, float]]] = {}
    for condition, scores in found.items():
        row.setdefault(condition.name, {})[str(condition.severity)] = {primary: scores.score}
    return row
