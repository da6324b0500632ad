"""Normalisation of frozen features, against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn import preprocessing
from sklearn.linear_model import LogisticRegression
from test_probes import make_data, make_subsets, silent
from tiny import make_config, make_dataset

from backbones import UserError
from experiments.ablation import cells
from experiments.ablation.engine import Engine
from experiments.probes import adamw, linear, logistic, ridge, sweeps
from experiments.probes.common import NORMALISATIONS
from experiments.results import rows


def oracle(how, features, chosen):
    """The features of all examples, normalised by scikit-learn and JAX."""
    if how == 'standardise':  # shrunk towards the mean variance
        scaler = preprocessing.StandardScaler().fit(features[chosen])
        return (features - scaler.mean_) / np.sqrt(scaler.var_ + 0.01 * scaler.var_.mean())
    if how == 'centre':
        return preprocessing.StandardScaler(with_std=False).fit(features[chosen]).transform(features)
    if how == 'l2':
        return preprocessing.normalize(features)
    if how == 'layer_norm':
        return np.asarray(jax.nn.standardize(features, epsilon=0.0))
    return features


@pytest.mark.parametrize('how', NORMALISATIONS)
def test_heads_see_what_scikit_learn_gives(how):
    data = make_data(noise=3.0)
    subset = make_subsets(data)[1]
    given = data.normalised(how)
    problem, frame = logistic.prepare(given.features, given.labels, subset.rows, given.normalisation)
    expected = oracle(how, data.features.astype(np.float64), subset.rows)
    np.testing.assert_allclose(
        (given.features - frame.mean) * frame.factor, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max()
    )
    # Rotations change no product of two examples.
    inner = problem.inputs[:, :-1] @ problem.inputs[:, :-1].T
    chosen = expected[subset.rows]
    np.testing.assert_allclose(inner, chosen @ chosen.T, rtol=1e-3, atol=1e-3 * np.abs(inner).max())


@pytest.mark.parametrize('how', ['centre', 'l2'])
def test_the_solved_head_is_scikit_learns_on_these_features(how):
    data = make_data(noise=3.0)
    subset = make_subsets(data)[1]
    config = sweeps.linear()
    config.smallest_c = config.largest_c = 0.1
    (outcome,) = linear.run(data.normalised(how), [subset], config, silent)
    features = oracle(how, data.features.astype(np.float64), subset.rows)
    head = LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000).fit(features[subset.rows], data.labels[subset.rows])
    wanted = head.decision_function(features[data.test])
    scores = outcome.test_scores - outcome.test_scores.mean(1, keepdims=True)
    np.testing.assert_allclose(scores, wanted, atol=0.01 * np.abs(wanted).max())


@pytest.mark.parametrize('how', NORMALISATIONS)
@pytest.mark.parametrize('head', [ridge, adamw], ids=['ridge', 'adamw'])
def test_other_linear_heads_heed_it(head, how):
    data = make_data(noise=3.0)
    subset = make_subsets(data)[1]
    config = sweeps.linear() if head is adamw else sweeps.ridge()
    if head is adamw:
        config.learning_rates, config.weight_decays, config.steps = (1e-2,), (0.0,), 20
    (found,) = head.run(data.normalised(how), [subset], config, silent)
    assert np.isfinite(found.test_scores).all()
    if how != 'standardise':
        (usual,) = head.run(data, [subset], config, silent)
        assert np.abs(found.test_scores - usual.test_scores).max() > 1e-4


def test_an_example_of_zeros_stays_finite():
    data = make_data()
    data.features[0] = 0
    for how in ('l2', 'layer_norm'):
        assert not data.normalised(how).features[0].any()


def test_it_is_an_axis_of_linear_heads_alone(tmp_path):
    config = make_config(
        backbones=('pixels',), regimes=('ridge', 'knn'), fractions=(1.0,), seeds=(0,), normalisation=('l2', 'none')
    )
    Engine(config, tmp_path, make_dataset).run(cells.plan(config))
    found = {(row.cell.regime, row.cell.settings): row.test['accuracy'] for row in rows.read(tmp_path)}
    assert found.keys() == {('ridge', (('normalisation', 'l2'),)), ('ridge', (('normalisation', 'none'),)), ('knn', ())}
    with pytest.raises(UserError, match="unknown normalisation 'l3'; did you mean 'l2'"):
        cells.plan(make_config(normalisation='l3'))
