"""The linear probe against scikit-learn's logistic regression and against AdamW, on the same features.

    python benchmarks/linear_probe.py [mnist5k digits shapes folder:PATH …]

Prints one row per data set and backbone: test accuracy of the head that validation selected, for each of three solvers
with the same standardised features, splits and selection rule.

- ``solved``: the default of ``linear`` (L-BFGS in float32, a path of C that ends when validation stops improving).
- ``scikit-learn``: ``LogisticRegression`` in float64, with a tolerance of 1e-6, for every C of the same grid,
  each started from the one before.
- ``AdamW``: the other solver of ``linear``, with its default sweep.

``shapes`` is a folder of images that this script draws. Times are for one run, including compilation.
"""

import argparse
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from experiments.ablation import cells
from experiments.data import loading
from experiments.data.dataset import Dataset
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.probes import linear, sweeps
from experiments.probes.common import Outcome, ProbeData, Subset, select, standardisation

BACKBONES = ('pixels', 'resnet_micro', 'vit_micro', 'resnet_micro@random', 'vit_micro@random', 'efficientnet_lite0')
DATASETS = ('digits', 'mnist5k', 'shapes')
_SHAPES = ('circle', 'cross', 'ring', 'square', 'triangle')


@dataclasses.dataclass(frozen=True)
class Measured:
    """One solver's selected head.

    Attributes:
        test_accuracy: in [0, 1].
        seconds: for the whole sweep.
        selected: its hyper-parameters and any notes.
    """

    test_accuracy: float
    seconds: float
    selected: str


def features_of(dataset: Dataset, backbone: str) -> np.ndarray:
    """``float32[examples, channels]``: the only place that knows where features come from."""
    with tempfile.TemporaryDirectory() as cache:
        variant = cells.parse_variant(backbone)
        extract = Extractor(cells.default_config(), Store(Path(cache)), Path(cache))
        extracted, _ = extract(FrozenBackbone(variant.backbone, variant.weights), dataset, lambda count: None)
        return np.array(extracted.values).reshape(len(dataset.targets), -1)


def draw_shapes(directory: Path, per_class: int = 400, side: int = 64) -> None:
    """Draw a folder of noisy shapes, one directory per shape, with several sizes, places and colours."""
    generator = np.random.default_rng(0)
    for name in _SHAPES:
        (directory / name).mkdir(parents=True)
        for index in range(per_class):
            image = Image.new('RGB', (side, side), tuple(generator.integers(0, 90, 3).tolist()))
            pen = ImageDraw.Draw(image)
            colour = tuple(generator.integers(130, 256, 3).tolist())
            radius = generator.uniform(16, 24)
            x, y = generator.uniform(24, side - 24, 2)
            box = (x - radius, y - radius, x + radius, y + radius)
            if name == 'circle':
                pen.ellipse(box, fill=colour)
            elif name == 'ring':
                pen.ellipse(box, outline=colour, width=4)
            elif name == 'cross':
                pen.line((x - radius, y, x + radius, y), fill=colour, width=5)
                pen.line((x, y - radius, x, y + radius), fill=colour, width=5)
            else:
                corners = 4 if name == 'square' else 3
                pen.regular_polygon((x, y, radius), corners, rotation=generator.uniform(-20, 20), fill=colour)
            noisy = np.asarray(image) + generator.normal(0, 20, (side, side, 3))
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(directory / name / f'{index:04d}.png')


def by_our_solver(data: ProbeData, subset: Subset, solver: str) -> Measured:
    """The head that ``linear`` selects."""
    config = sweeps.linear()
    config.solver = solver
    outcome, seconds = _timed(lambda: linear.run(data, [subset], config, lambda text: None)[0])
    accuracy = (outcome.test_scores.argmax(-1) == data.labels[data.test]).mean()
    return Measured(float(accuracy), seconds, _described(outcome))


def share_right(scores: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy, in [0, 1]."""
    return float((scores.argmax(-1) == labels).mean())


def by_scikit_learn(data: ProbeData, subset: Subset) -> Measured:
    """The best C of ``linear``'s grid, using only the standardisation and the selection rule of this project."""
    mean, factor = standardisation(data.features, subset.rows)
    x = (data.features.astype(np.float64) - mean) * factor
    y, validation, test = data.labels, data.validation, data.test
    grid = linear.grid_of_c(sweeps.linear())

    def sweep() -> tuple[list[float], list[float], list[float]]:
        head = LogisticRegression(tol=1e-6, max_iter=10_000, warm_start=True)
        accuracies, losses, tested = [], [], []
        for c in grid:
            head.set_params(C=c).fit(x[subset.rows], y[subset.rows])
            of_class = head.predict_log_proba(x[validation])[np.arange(len(validation)), y[validation]]
            accuracies.append(float(head.score(x[validation], y[validation])))
            losses.append(float(-of_class.mean()))
            tested.append(float(head.score(x[test], y[test])))
        return accuracies, losses, tested

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always', ConvergenceWarning)
        (accuracies, losses, tested), seconds = _timed(sweep)
    best = select(accuracies, losses)
    unconverged = sum(issubclass(each.category, ConvergenceWarning) for each in told)
    note = f'C={grid[best]:g}' + (f' ({unconverged} not converged)' if unconverged else '')
    return Measured(tested[best], seconds, note)


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = compute()
    return result, time.perf_counter() - started


def _described(outcome: Outcome) -> str:
    text = ' '.join(f'{name}={value:g}' for name, value in outcome.selected.items())
    return text + (f' (edge: {", ".join(outcome.at_edge)})' if outcome.at_edge else '')


def main() -> None:
    """Print each result as it is measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('datasets', nargs='*', default=DATASETS, help='mnist5k, digits, shapes, tfds:NAME, folder:PATH')
    parser.add_argument('--backbones', default=','.join(BACKBONES), help='separated by commas')
    arguments = parser.parse_args()
    table = Table(title='linear probe: test accuracy in per cent, seconds')
    for column in ('data set', 'features', 'solved', 'scikit-learn', 'difference', 'AdamW', 'difference'):
        table.add_column(column, justify='left' if column in ('data set', 'features') else 'right')
    for column in ('s solved', 's scikit-learn', 's AdamW'):
        table.add_column(column, justify='right')
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.datasets:
            if name == 'shapes':
                draw_shapes(Path(temporary) / 'shapes')
            dataset = loading.load(f'folder:{temporary}/shapes' if name == 'shapes' else name)
            for backbone in arguments.backbones.split(','):
                labels = dataset.targets
                splits = dataset.splits
                features = features_of(dataset, backbone)
                data = ProbeData(
                    features, labels, len(dataset.classes), splits['validation'], splits['test'], share_right
                )
                subset = Subset(0, 1.0, splits['train'])
                solved, adamw = (by_our_solver(data, subset, solver) for solver in linear.SOLVERS)
                reference = by_scikit_learn(data, subset)
                rows = {'solved': solved, 'scikit-learn': reference, 'AdamW': adamw}
                for solver, each in rows.items():
                    print(
                        f'{name} {backbone} {solver}: {each.test_accuracy:.2%} {each.seconds:.1f} s {each.selected}',
                        flush=True,
                    )
                table.add_row(
                    name,
                    backbone,
                    f'{100 * solved.test_accuracy:.2f}',
                    f'{100 * reference.test_accuracy:.2f}',
                    f'{100 * (solved.test_accuracy - reference.test_accuracy):+.2f}',
                    f'{100 * adamw.test_accuracy:.2f}',
                    f'{100 * (adamw.test_accuracy - reference.test_accuracy):+.2f}',
                    *(f'{each.seconds:.1f}' for each in (solved, reference, adamw)),
                )
    Console(width=160).print(table)


if __name__ == '__main__':
    main()
