"""The head that ``linear`` selects against the best C of scikit-learn, on features of the weights that come along."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.ablation import cells
from experiments.data import loading
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.probes import linear, logistic, sweeps
from experiments.probes.common import ProbeData, Subset, standardisation

POINTS = 0.003


def share_right(scores, labels) -> float:
    return float((scores.argmax(-1) == labels).mean())


@pytest.fixture(scope='module')
def extract(tmp_path_factory):
    directory = tmp_path_factory.mktemp('features')
    return Extractor(cells.default_config(), Store(directory), directory)


@pytest.mark.parametrize(
    ('name', 'fraction', 'backbone'),
    [
        # A network and pixels, and both data sets; the others in rotation.
        pytest.param('digits', 0.3, 'resnet_micro', marks=pytest.mark.slow),
        pytest.param('digits', 0.3, 'vit_micro', marks=pytest.mark.exhaustive),
        pytest.param('digits', 0.3, 'pixels', marks=pytest.mark.slow),
        pytest.param('mnist5k', 0.05, 'resnet_micro', marks=pytest.mark.exhaustive),
        pytest.param('mnist5k', 0.05, 'vit_micro', marks=pytest.mark.exhaustive),
        pytest.param('mnist5k', 0.05, 'pixels', marks=pytest.mark.slow),
    ],
)
def test_selected_head_is_as_good_as_that_of_the_best_c_of_scikit_learn(extract, name, fraction, backbone):
    dataset, variant = loading.load(name), cells.parse_variant(backbone)
    extracted, _ = extract(FrozenBackbone(variant.backbone, variant.weights), dataset, lambda count: None)
    features = extracted.values.reshape(len(dataset.targets), -1)
    validation, test = dataset.splits['validation'], dataset.splits['test']
    labels, rows = dataset.targets, dataset.fraction(fraction, 0)
    assert len(test) > 1 / POINTS  # one image may differ

    config = sweeps.linear()
    config.update(smallest_c=1e-4, largest_c=10.0, values_of_c=11)
    data = ProbeData(features, labels, 10, validation, test, share_right)
    (ours,) = linear.run(data, [Subset(0, fraction, rows)], config, lambda text: None)

    mean, factor = standardisation(features, rows)
    x = (features.astype(np.float64) - mean) * factor
    head, heads = LogisticRegression(tol=1e-6, max_iter=10_000, warm_start=True), []
    for c in linear.grid_of_c(config):
        head.set_params(C=c).fit(x[rows], labels[rows])
        loss = -head.predict_log_proba(x[validation])[np.arange(len(validation)), labels[validation]].mean()
        heads.append((head.score(x[validation], labels[validation]), -loss, head.score(x[test], labels[test])))
    # The highest score on validation, and the lowest loss among equals.
    *_, theirs = max(heads)
    assert abs(share_right(ours.test_scores, labels[test]) - theirs) <= POINTS


def test_minima_along_the_path_are_predicted(monkeypatch):
    """Begun at the minimum before, each takes several times as many iterations; the minima are the same."""
    dataset = loading.load('digits')
    features = (dataset.images.reshape(len(dataset.targets), -1) / 16).astype(np.float32)
    rows, validation = dataset.splits['train'], dataset.splits['validation']
    data = ProbeData(features, dataset.targets, 10, validation, dataset.splits['test'], share_right)
    problem, frame = logistic.prepare(features, dataset.targets, rows)
    config = linear.with_defaults(sweeps.linear())
    solved, starts = [], []
    solve = logistic.solve

    def counting(problem, c, start, tolerance, iterations):
        begin = starts[-1] if starts else start
        solved.append(
            (solve(problem, c, start, tolerance, iterations), solve(problem, c, begin, tolerance, iterations))
        )
        starts.append(np.asarray(solved[-1][0].weights))
        return solved[-1][0]

    monkeypatch.setattr(logistic, 'solve', counting)
    grid = [c for c in linear.grid_of_c(config) if c >= 1e-2]
    linear.solve_path(problem, frame.apply(features[validation]), data, grid, config, lambda text: None)
    predicted, before = (sum(int(each.iterations) for each in every) for every in zip(*solved, strict=True))
    assert predicted < 0.6 * before
    for one, other in solved:
        assert float(one.objective) == pytest.approx(float(other.objective), rel=1e-3)
