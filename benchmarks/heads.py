"""Heads on stored features: what all of them cost beside the one pass that makes the features.

    python -m benchmarks.heads [--peers .venv-peers/bin/python] [--repetitions 3]

Of the 5,000 images of mnist5k, efficientnet_lite0's features are computed once, in an empty store. Then, on these:

- ``200 heads``: eight training subsets, each solved for all 25 values of C of ``linear``'s own grid, to a gradient norm
  of 1e-5 of that at zero (``linear.tolerance``; less for separable classes).
- ``scikit-learn``: ``LogisticRegression`` for the same subsets and values of C, each started from the one before, on
  the same standardised features, in float64: in float32 it stops at up to a hundred times that norm. It looks at the
  largest component of the gradient, so its ``tol`` is a tenth of the norm that ours stops at. The norms that both
  reach are printed.
- ``ridge``: 45 penalties; ``knn``: six numbers of neighbours; both on all labels, with what validation selects.
- ``torch loop``: the same heads trained with the frozen backbone inside the loop: the forward pass of one batch in
  torch, times the batches of ten epochs of each subset, times 25. Multiplied, not run: it would take days.

Medians over the repetitions, including compilation in the first; the ratios beside them are those of the medians.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.peers.client import ForwardPasses
from experiments.ablation import cells
from experiments.cli import command_line
from experiments.data import loading
from experiments.data.dataset import Dataset
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.probes import knn, linear, logistic, ridge, sweeps
from experiments.probes.common import ProbeData, Subset, standardisation

BACKBONE, WEIGHTS = 'efficientnet_lite0', 'pip:efficientnet-lite0'
# Seed and share of the training labels.
SUBSETS = ((0, 1.0), (0, 0.5), (0, 0.2), (1, 0.2), (2, 0.2), (0, 0.05), (1, 0.05), (2, 0.05))
EPOCHS = 10


def share_right(scores: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy, in [0, 1]."""
    return float((scores.argmax(-1) == labels).mean())


def extract(dataset: Dataset) -> np.ndarray:
    """The features of every image, by one pass into an empty store."""
    with tempfile.TemporaryDirectory() as cache:
        extractor = Extractor(cells.default_config(), Store(Path(cache)), Path(cache))
        extracted, _ = extractor(FrozenBackbone(BACKBONE, WEIGHTS), dataset, lambda count: None)
        return np.array(extracted.values)


def paths(data: ProbeData, subsets: list[Subset]) -> list[float]:
    """Solve every head; the gradient norms reached, relative to that at zero."""
    config = linear.with_defaults(sweeps.linear())
    config.patience_decades = 99.0  # no path ends early
    norms = []
    for subset in subsets:
        problem, frame = logistic.prepare(data.features, data.labels, subset.rows)
        validation = frame.apply(data.features[data.validation])
        points = linear.solve_path(problem, validation, data, linear.grid_of_c(config), config, lambda text: None)
        norms += [point.gradient_norm for point in points]
    return norms


def scikit_learn(data: ProbeData, subsets: list[Subset]) -> list[float]:
    """Solve the same heads; the gradient norms reached, relative to that at zero."""
    tolerance, norms = sweeps.linear().tolerance, []
    for subset in subsets:
        mean, factor = standardisation(data.features, subset.rows)
        x = (data.features[subset.rows].astype(np.float64) - mean) * factor
        y = data.labels[subset.rows]
        ones = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
        zero = np.zeros((ones.shape[1], data.num_classes))
        at_zero = _gradient_norm(ones, y, zero, np.inf)
        head = LogisticRegression(tol=tolerance * at_zero / 10, max_iter=10_000, warm_start=True)
        for c in linear.grid_of_c(sweeps.linear()):
            head.set_params(C=c).fit(x, y)
            found = np.concatenate([head.coef_.T, head.intercept_[None]])
            norms.append(_gradient_norm(ones, y, found, c) / at_zero)
    return norms


def _gradient_norm(x: np.ndarray, labels: np.ndarray, weights: np.ndarray, c: float) -> float:
    logits = x @ weights
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    shares[np.arange(len(labels)), labels] -= 1
    penalty = np.concatenate([weights[:-1], np.zeros_like(weights[-1:])]) / (c * len(labels))
    return float(np.linalg.norm(x.T @ shares / len(labels) + penalty))


def torch_loop(peers: ForwardPasses, subsets: list[Subset], repetitions: int) -> float:
    """Seconds of the heads with the backbone inside the loop; NaN without torch."""
    batch = 16
    if 'torch' not in peers.prepare(BACKBONE, batch, 224):
        return float('nan')
    peers.seconds('torch')
    of_batch = statistics.median(peers.seconds('torch') for _ in range(repetitions + 2))
    images = sum(len(subset.rows) for subset in subsets)
    return of_batch / batch * images * EPOCHS * len(linear.grid_of_c(sweeps.linear()))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', type=Path, metavar='PYTHON', help='of an environment with peers/requirements.txt')
    parser.add_argument('--repetitions', type=int, default=3, help='of each measurement but those of scikit-learn (3)')
    arguments = parser.parse_args()
    dataset = loading.load('mnist5k')
    seconds: dict[str, list[float]] = {}

    def timed(what: str, compute: Callable[[], object], repetitions: int = arguments.repetitions) -> object:
        result = None
        for _ in range(repetitions):
            begin = time.perf_counter()
            result = compute()
            seconds.setdefault(what, []).append(time.perf_counter() - begin)
            print(f'{what}: {seconds[what][-1]:.1f} s', flush=True)
        return result

    features = timed('feature pass', lambda: extract(dataset))
    assert isinstance(features, np.ndarray)
    splits = dataset.splits
    data = ProbeData(
        features, dataset.targets, len(dataset.classes), splits['validation'], splits['test'], share_right,
        retrieves=False,
    )  # fmt: skip
    subsets = [Subset(seed, share, dataset.labelled(share, 0, seed)) for seed, share in SUBSETS]
    ours = timed('200 heads', lambda: paths(data, subsets))
    whole = subsets[:1]
    penalties = sweeps.ridge()
    penalties.penalties = 45
    timed('ridge, 45 penalties', lambda: ridge.run(data, whole, penalties, lambda text: None))
    timed('knn, 6 numbers of neighbours', lambda: knn.run(data, whole, sweeps.knn(), lambda text: None))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        theirs = timed('scikit-learn, 200 heads', lambda: scikit_learn(data, subsets), 1)
    assert isinstance(ours, list) and isinstance(theirs, list)
    seconds[f'torch loop, {EPOCHS} epochs, multiplied'] = [torch_loop(ForwardPasses(arguments.peers), subsets, 5)]
    median = {what: statistics.median(each) for what, each in seconds.items()}
    one_pass, heads = median['feature pass'], median['200 heads']
    table = Table(title=f'{len(features):,} images, {features.shape[1]:,} features', title_justify='left')
    for column in ('what', 'seconds', 'of the pass', 'of 200 heads', 'of pass and heads'):
        table.add_column(column, justify='left' if column == 'what' else 'right')
    for what, each in median.items():
        ratios = (each / one_pass, each / heads, each / (one_pass + heads))
        table.add_row(what, f'{each:,.1f}', *(f'{ratio:,.2f}' for ratio in ratios))
    Console(width=140).print(table)
    for name, norms in (('ours', ours), ('scikit-learn', theirs)):
        print(f'{name}: {len(norms)} heads, gradient norm relative to that at zero: largest {max(norms):.1e}, '
              f'median {statistics.median(norms):.1e}')  # fmt: skip


if __name__ == '__main__':
    command_line.run(lambda _: main())
