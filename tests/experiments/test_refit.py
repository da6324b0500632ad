"""Heads that are fitted again on training and validation examples."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from test_probes import make_data, make_subsets, silent
from tiny import make_config, make_dataset

from backbones import UserError
from experiments import probes
from experiments.ablation import cells
from experiments.ablation.engine import Engine
from experiments.probes import adamw, knn, linear, ridge, sweeps
from experiments.probes.refit import refit
from experiments.results import aggregates, rows, tables


@pytest.mark.parametrize(
    ('run', 'config'),
    [
        pytest.param(linear.run, sweeps.linear(), id='linear', marks=pytest.mark.exhaustive),
        pytest.param(adamw.run, sweeps.linear(), id='adamw'),
        pytest.param(ridge.run, sweeps.ridge(), id='ridge'),
        pytest.param(knn.run, sweeps.knn(), id='knn'),
    ],
)
def test_only_the_predictions_are_others(run, config):
    if run is adamw.run:
        config.steps, config.learning_rates = 30, (1e-3, 1e-2)
    data = make_data(noise=3.0)
    subsets = make_subsets(data)
    outcomes = run(data, subsets, config, silent)
    again = refit(run, data, subsets, outcomes, config, silent)
    for before, after in zip(outcomes, again, strict=True):
        assert dataclasses.replace(after, predictions=before.predictions, apply=before.apply) == before
        assert np.abs(after.test_scores - before.test_scores).max() > 0


def test_the_head_is_that_of_all_examples():
    data = make_data(noise=3.0)
    subset, config = make_subsets(data)[1], sweeps.ridge()
    outcomes = ridge.run(data, [subset], config, silent)
    (again,) = refit(ridge.run, data, [subset], outcomes, config, silent)
    chosen = np.union1d(subset.rows, data.validation)
    mean, deviation = data.features[chosen].mean(0), data.features[chosen].std(0)
    scaled = (data.features - mean) / np.sqrt(deviation**2 + 0.01 * (deviation**2).mean())
    penalty = outcomes[0].selected['penalty'] * np.linalg.eigvalsh(scaled[chosen].T @ scaled[chosen]).mean()
    head = Ridge(alpha=penalty).fit(scaled[chosen], np.eye(3)[data.labels[chosen]])
    np.testing.assert_allclose(again.test_scores, head.predict(scaled[data.test]), atol=1e-3)


def test_every_hyper_parameter_can_be_fixed():
    data = make_data(noise=3.0)
    heads = {'linear': linear, 'ridge': ridge, 'knn': knn}
    for name in probes.TABLE.keys() & heads.keys():
        (outcome,) = probes.TABLE[name](data, make_subsets(data)[1:], sweeps.TABLE[name](), silent)
        (again,) = refit(probes.TABLE[name], data, make_subsets(data)[1:], [outcome], sweeps.TABLE[name](), silent)
        assert again.selected == outcome.selected


def test_a_head_without_a_seed_is_fitted_once_and_the_test_images_are_ranked_once(monkeypatch):
    data = make_data(noise=3.0)
    whole = make_subsets(data)[-1]
    subsets = [dataclasses.replace(whole, seed=seed, fraction=1.0) for seed in range(3)]
    fitted, ranked = [], []
    metrics = knn.retrieval.metrics
    monkeypatch.setattr(knn.retrieval, 'metrics', lambda *given: ranked.append(1) or metrics(*given))

    def run(data, subsets, config, report):
        fitted.extend(subsets)
        return knn.run(data, subsets, config, report)

    outcomes = knn.run(data, subsets, sweeps.knn(), silent)
    again = refit(run, data, subsets, outcomes, sweeps.knn(), silent)
    assert (len(fitted), len(ranked)) == (1, 1)
    assert all(each.test_metrics == outcomes[0].test_metrics != {} for each in again)
    # Where seeds matter, each has its own.
    outcomes = [dataclasses.replace(each, depends_on_seed=True) for each in outcomes]
    refit(run, data, subsets, outcomes, sweeps.knn(), silent)
    assert len(fitted) == 1 + 3


def test_an_ablation_does_it(tmp_path):
    few = make_dataset().with_validation(8).splits['validation']
    assert len(few) == 8
    assert set(few) < set(make_dataset().splits['validation'])
    values = {'backbones': ('pixels',), 'regimes': ('ridge', 'knn'), 'fractions': (1.0,), 'seeds': (0,)}
    config = make_config(**values, refit=(False, True), validation_images=8, shots=3)
    Engine(config, tmp_path, make_dataset).run(cells.plan(config))
    found = {(row.cell.regime, dict(row.cell.settings)['refit']): row for row in rows.read(tmp_path)}
    assert len(found) == 4
    assert {row.data['validation_examples'] for row in found.values()} == {8}
    for regime in ('ridge', 'knn'):
        assert found[regime, True].selected == found[regime, False].selected
        assert found[regime, True].validation == found[regime, False].validation
    note = tables.view(aggregates.load(tmp_path), 'digits').note()
    assert 'fitted again on training and validation images (refit, of those whose settings say so)' in note
    with pytest.raises(UserError, match=r"are for heads on stored features .* and the regimes have 'finetune'"):
        cells.plan(make_config(regimes=('knn', 'finetune'), backbones=('vit_micro',), refit=True))
