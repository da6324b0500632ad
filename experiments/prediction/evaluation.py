"""Every metric of a model on examples of a data set, from what it predicts of their files."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from backbones.errors import UserError
from backbones.prediction.prediction import Prediction
from backbones.prediction.predictor import Predictor
from backbones.prediction.text_predictor import TextPrediction, TextPredictor
from experiments import tasks
from experiments.cli import display
from experiments.data.dataset import Dataset
from experiments.prediction import splits


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        metrics: every metric of the task.
        examples: indices of those that could be predicted.
        left_out: names of the others.
        cut: of texts, how many of the examples were cut off.
    """

    metrics: dict[str, Any]
    examples: np.ndarray
    left_out: list[str]
    cut: int = 0


def evaluate(
    predictor: Predictor | TextPredictor, dataset: Dataset, indices: np.ndarray, matching: np.ndarray, what: str
) -> Evaluation:
    """Predict examples and compare with the truth.

    Args:
        predictor: the model.
        dataset: with classes that ``matching`` relates to those of the model.
        indices: the examples.
        matching: see ``class_matching.match``.
        what: is evaluated, for the progress bar.

    Raises:
        UserError: no example can be predicted.
    """
    task = tasks.find(predictor.model.task)
    kept, read, left_out, cut = [], [], [], 0
    results = _results(predictor, dataset, indices)
    with display.progress() as bar:
        shown = bar.add_task(f'evaluating {what}', total=len(indices), note='')
        for index, result in zip(indices, results, strict=True):
            bar.advance(shown)
            if isinstance(result, UserError):
                left_out.append(dataset.ids[index])
                display.console.print(f'left out: {result}', style='yellow', markup=False, soft_wrap=True)
                continue
            kept.append(task.kept(result, dataset, index, matching))
            read.append(index)
            cut += isinstance(result, TextPrediction) and result.is_cut
    if not read:
        raise UserError(f'none of the {len(indices):,} examples can be read; the reasons are above')
    examples = np.array(read)
    metrics = task.every_metric(_together(kept), dataset.targets_of(examples), dataset.classes)
    return Evaluation(metrics, examples, left_out, cut)


def _results(
    predictor: Predictor | TextPredictor, dataset: Dataset, indices: np.ndarray
) -> Iterator[Prediction | TextPrediction | UserError]:
    if isinstance(predictor, TextPredictor):
        return predictor.stream(dataset.images[indices])
    return predictor.stream(splits.images(dataset, indices, predictor.model.reading))


def _together(kept: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What was kept of each example, in one array each; those of different lengths (boxes) are padded with zeros."""
    found = {}
    for name in kept[0]:
        arrays = [each[name] for each in kept]
        most = max(len(array) for array in arrays)
        padded = [np.pad(each, [(0, most - len(each)), *[(0, 0)] * (each.ndim - 1)]) for each in arrays]
        found[name] = np.stack(padded)
    return found
