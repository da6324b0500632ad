"""Heads on frozen features, each against an independent implementation."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors

from backbones.errors import UserError
from experiments import probes
from experiments.probes import adamw, knn, linear, logistic, ridge, sweeps
from experiments.probes.common import ProbeData, Subset, at_edge, deterministic, select, standardisation


def share_right(scores, labels) -> float:
    return float((scores.argmax(-1) == labels).mean())


def make_data(examples=240, channels=12, classes=3, noise=1.0, seed=0) -> ProbeData:
    generator = np.random.default_rng(seed)
    labels = np.arange(examples, dtype=np.int32) % classes
    centres = generator.normal(size=(classes, channels))
    features = centres[labels] + noise * generator.normal(size=(examples, channels))
    features = (features * np.geomspace(0.1, 100, channels) + 7).astype(np.float32)
    order = generator.permutation(examples)
    return ProbeData(features, labels, classes, order[:60], order[60:120], share_right)


def make_subsets(data: ProbeData) -> list[Subset]:
    rest = np.setdiff1d(np.arange(len(data.labels)), np.concatenate([data.validation, data.test]))
    return [Subset(0, 0.5, rest[::2]), Subset(1, 1.0, rest)]


def silent(_text):
    pass


def config_of(regime):
    config = sweeps.TABLE[regime]()
    if regime == 'attentive':
        config.update(queries=2, learning_rates=(1e-3, 3e-2), weight_decays=(0.0,), steps=60, batch_size=32)
    return config


def for_regime(regime, data: ProbeData) -> ProbeData:
    """The features as the regime takes them: as they are, or at one of two positions."""
    if regime not in probes.TAPS_OF_POSITIONS:
        return data
    return dataclasses.replace(data, features=np.stack([data.features, np.zeros_like(data.features)], 1))


@pytest.mark.parametrize('regime', probes.TABLE)
def test_the_given_score_selects(regime):
    config = config_of(regime)
    data = for_regime(regime, make_data(noise=2.0))
    worst = dataclasses.replace(data, score=lambda scores, labels: -share_right(scores, labels))
    (usual,), (opposite,) = (
        probes.TABLE[regime](each, make_subsets(each)[1:], config, silent) for each in (data, worst)
    )
    assert opposite.selected != usual.selected
    assert -opposite.validation_score < usual.validation_score


@pytest.mark.parametrize('regime', probes.TABLE)
def test_every_probe_learns_and_reports_the_score_it_selected_by(regime):
    data = for_regime(regime, make_data(noise=0.3))
    config = config_of(regime)
    for subset, outcome in zip(
        make_subsets(data), probes.TABLE[regime](data, make_subsets(data), config, silent), strict=True
    ):
        assert outcome.test_scores.shape == (60, 3)
        assert (outcome.test_scores.argmax(-1) == data.labels[data.test]).mean() > 0.95, subset
        assert 0.95 < outcome.validation_score <= 1
        # The kept scores are those that it was selected by.
        validated = outcome.validation_predictions['logits']
        assert data.score(validated, data.labels[data.validation]) == outcome.validation_score
        if outcome.score_kind == 'probabilities':
            np.testing.assert_allclose(validated.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize('regime', probes.TABLE)
def test_a_probe_never_sees_the_labels_of_validation_and_test_while_it_trains(regime):
    """With one choice of hyper-parameters nothing is selected, so wrong labels outside the subset change nothing."""
    data = for_regime(regime, make_data())
    config = config_of(regime)
    if regime == 'linear':
        config.update(smallest_c=1.0, largest_c=1.0, values_of_c=1)
    elif regime == 'attentive':
        config.update(learning_rates=(0.01,), weight_decays=(0.1,))
    elif regime == 'ridge':
        config.update(smallest_penalty=0.1, largest_penalty=0.1, penalties=1)
    else:
        config.neighbours = (5,)
    wrong = data.labels.copy()
    outside = np.concatenate([data.validation, data.test])
    wrong[outside] = (wrong[outside] + 1) % 3
    changed = ProbeData(data.features, wrong, 3, data.validation, data.test, share_right)
    for one, other in zip(
        probes.TABLE[regime](data, make_subsets(data), config, silent),
        probes.TABLE[regime](changed, make_subsets(data), config, silent),
        strict=True,
    ):
        np.testing.assert_array_equal(one.test_scores, other.test_scores)


@pytest.mark.parametrize('regime', probes.TABLE)
def test_same_seed_same_bits(regime):
    data = for_regime(regime, make_data())
    config = config_of(regime)
    runs = [probes.TABLE[regime](data, make_subsets(data), config, silent) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.test_scores, other.test_scores)
        assert one.selected == other.selected


def test_standardisation_uses_the_subset_only():
    features = np.random.default_rng(0).normal(3, 5, (40, 4)).astype(np.float32)
    mean, factor = standardisation(features, np.arange(20))
    np.testing.assert_allclose(mean, features[:20].mean(0), rtol=1e-5)
    variance = features[:20].var(0)
    np.testing.assert_allclose(factor, 1 / np.sqrt(variance + 0.01 * variance.mean()), rtol=1e-5)


def test_select_breaks_ties_by_loss_and_then_by_order():
    assert select([0.5, 0.9, 0.9, 0.2], [0.1, 0.7, 0.3, 0.1]) == 2
    assert select([0.5, 0.5], [0.1, 0.1]) == 0


def standardised(data: ProbeData, subset: Subset) -> np.ndarray:
    mean, factor = standardisation(data.features, subset.rows)
    return np.asarray((data.features - mean) * factor, np.float64)


def in_channels(weights, frame) -> np.ndarray:
    """``float[channels + 1, classes]``: weights of standardised channels, and the intercept."""
    return np.concatenate([np.asarray(frame.axes) @ np.asarray(weights[:-1]), np.asarray(weights[-1:])])


def path_of(data, subset, config) -> list[linear.Point]:
    """The minima among which ``linear`` selects."""
    problem, frame = logistic.prepare(data.features, data.labels, subset.rows, data.normalisation)
    validation = frame.apply(data.features[data.validation])
    return linear.solve_path(problem, validation, data, linear.grid_of_c(config), config, silent)


class TestLinear:
    @pytest.mark.parametrize('c', [1e-4, 1e-2, 1.0, 100.0])
    def test_weights_equal_scikit_learn_in_float64(self, c):
        data = make_data(noise=2.0)
        subset = make_subsets(data)[1]
        problem, frame = logistic.prepare(data.features, data.labels, subset.rows)
        at_zero = logistic.gradient_norm_at_zero(problem, 3)
        found = logistic.solve(problem, c, jnp.zeros((13, 3)), 1e-6 * at_zero, 3000)
        assert found.gradient_norm <= 2e-6 * at_zero
        x, y = standardised(data, subset)[subset.rows], data.labels[subset.rows]
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
        weights = in_channels(found.weights, frame)
        scale = np.abs(reference.coef_).max()
        np.testing.assert_allclose(weights[:-1], reference.coef_.T, atol=1e-3 * scale)
        intercept = reference.intercept_ - reference.intercept_.mean()  # one number for all classes changes nothing
        np.testing.assert_allclose(weights[-1] - weights[-1].mean(), intercept, atol=1e-3 * scale)
        loss = -reference.predict_log_proba(x)[np.arange(len(y)), y].mean()
        objective = loss + 0.5 * np.square(reference.coef_).sum() / (c * len(y))
        np.testing.assert_allclose(found.objective, objective, rtol=1e-5)

    def test_gradient_is_that_of_the_objective(self):
        """By automatic differentiation of the objective as it is written down, at a point that is no minimum."""
        data = make_data()
        subset = make_subsets(data)[1]
        problem, _ = logistic.prepare(data.features, data.labels, subset.rows)
        start = jnp.asarray(np.random.default_rng(0).normal(size=(13, 3)), jnp.float32)

        def objective(weights):
            losses = optax.softmax_cross_entropy_with_integer_labels(problem.inputs @ weights, problem.labels)
            return losses.mean() + 0.5 * jnp.square(weights[:-1]).sum() / (0.1 * len(problem.labels))

        stated = logistic.solve(problem, 0.1, start, 0.0, 0)
        value, gradient = jax.value_and_grad(objective)(start)
        np.testing.assert_allclose(stated.objective, value, rtol=1e-5)
        np.testing.assert_allclose(stated.gradient_norm, jnp.linalg.norm(gradient), rtol=1e-4)

    @pytest.mark.parametrize('noise', [0.0, 0.3, 3.0])
    def test_states_a_gradient_norm_within_the_tolerance_also_of_classes_that_are_separated(self, noise):
        data, config = make_data(noise=noise), sweeps.linear()
        for subset in make_subsets(data):
            # Logits that were summed up may differ from those that are stated by rounding.
            assert 0 < max(point.gradient_norm for point in path_of(data, subset, config)) <= 1.2 * config.tolerance

    def test_selects_as_scikit_learn_would_from_the_same_grid(self):
        data, config = make_data(noise=2.0), sweeps.linear()
        config.update(smallest_c=1e-4, largest_c=1e2, values_of_c=7)
        subset = make_subsets(data)[1]
        (outcome,) = linear.run(data, [subset], config, silent)
        x, y = standardised(data, subset), data.labels
        grid = linear.grid_of_c(config)
        heads = [LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(x[subset.rows], y[subset.rows]) for c in grid]
        validation = x[data.validation], y[data.validation]
        losses = [-head.predict_log_proba(validation[0])[np.arange(60), validation[1]].mean() for head in heads]
        best = select([head.score(*validation) for head in heads], losses)
        assert outcome.selected == {'C': grid[best]}
        np.testing.assert_array_equal(outcome.test_scores.argmax(-1), heads[best].predict(x[data.test]))

    def test_the_path_ends_after_decades_without_improvement_and_says_where(self):
        data, config = make_data(noise=3.0), sweeps.linear()
        (whole,) = linear.run(data, make_subsets(data)[1:], config, silent)
        largest = path_of(data, make_subsets(data)[1], config)[-1].c
        assert whole.selected['C'] * 1000 <= largest * 1.01 < 1e6
        tried = []
        linear.run(data, make_subsets(data)[1:], config, tried.append)
        assert f'C = {largest:g}' in tried[-1]
        config.patience_decades = 100.0
        (without_patience,) = linear.run(data, make_subsets(data)[1:], config, silent)
        assert path_of(data, make_subsets(data)[1], config)[-1].c == 1e6
        assert without_patience.selected == whole.selected

    def test_equal_subsets_are_solved_once(self, monkeypatch):
        data, solved = make_data(), []
        prepare = logistic.prepare
        monkeypatch.setattr(logistic, 'prepare', lambda *arguments: solved.append(1) or prepare(*arguments))
        half, whole = make_subsets(data)
        again = [Subset(seed, 1.0, whole.rows[::-1]) for seed in (1, 2, 3)]
        outcomes = linear.run(data, [half, whole, *again], sweeps.linear(), silent)
        assert len(solved) == 2
        assert [outcome.depends_on_seed for outcome in outcomes] == [True, False, False, False, False]
        for outcome in outcomes[2:]:
            np.testing.assert_array_equal(outcome.test_scores, outcomes[1].test_scores)

    @pytest.mark.parametrize('smallest, largest, edge', [(1e-6, 1e-5, True), (1e3, 1e4, True), (1e-6, 1e6, False)])
    def test_a_selected_c_at_the_end_of_the_grid_is_said(self, smallest, largest, edge):
        data, config = make_data(noise=3.0), sweeps.linear()
        config.update(smallest_c=smallest, largest_c=largest, values_of_c=13)
        (outcome,) = linear.run(data, make_subsets(data)[1:], config, silent)
        assert outcome.at_edge == (('C',) if edge else ())

    @settings(max_examples=10, deadline=None)
    @given(st.randoms(use_true_random=False))
    def test_the_order_of_examples_and_the_names_of_classes_change_nothing(self, random):
        data, config = make_data(noise=2.0), sweeps.linear()
        config.update(smallest_c=1e-2, largest_c=1.0, values_of_c=3)
        subset = make_subsets(data)[1]
        (expected,) = linear.run(data, [subset], config, silent)
        order = np.array(random.sample(range(240), 240))  # new example i is old example order[i]
        names = np.array(random.sample(range(3), 3), np.int32)
        place = np.argsort(order)
        changed = ProbeData(
            data.features[order], names[data.labels[order]], 3, place[data.validation], place[data.test], share_right
        )
        (outcome,) = linear.run(changed, [Subset(0, 1.0, place[subset.rows])], config, silent)
        assert outcome.selected == expected.selected
        centred = [scores - scores.mean(-1, keepdims=True) for scores in (outcome.test_scores, expected.test_scores)]
        np.testing.assert_allclose(centred[0][:, names], centred[1], atol=2e-3)

    def test_two_examples_per_class_of_more_channels(self):
        data = make_data(noise=0.3)
        rest = make_subsets(data)[1].rows
        rows = np.concatenate([rest[data.labels[rest] == label][:2] for label in range(3)])
        subset, config = Subset(0, 0.05, rows), sweeps.linear()
        (outcome,) = linear.run(data, [subset], config, silent)
        assert (outcome.test_scores.argmax(-1) == data.labels[data.test]).mean() > 0.8
        assert max(point.gradient_norm for point in path_of(data, subset, config)) < 2e-5
        config.update(smallest_c=1.0, largest_c=1.0, values_of_c=1)
        (outcome,) = linear.run(data, [subset], config, silent)
        x = standardised(data, subset)
        reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[rows], data.labels[rows])
        np.testing.assert_allclose(
            np.asarray(jax.nn.softmax(outcome.test_scores)), reference.predict_proba(x[data.test]), atol=1e-3
        )

    def test_constant_features_give_the_shares_of_the_classes(self):
        data = dataclasses.replace(make_data(), features=np.ones((240, 12), np.float32))
        (outcome,) = linear.run(data, [Subset(0, 1.0, np.arange(120))], sweeps.linear(), silent)
        np.testing.assert_allclose(jax.nn.softmax(outcome.test_scores), 1 / 3, atol=1e-4)

    def test_keys_that_an_older_config_lacks_have_their_defaults(self):
        data = make_data()
        older = ml_collections.ConfigDict(
            {'learning_rates': (1e-2,), 'weight_decays': (0.1,), 'steps': 400, 'batch_size': 128}
        )
        (one,), (other,) = (
            linear.run(data, make_subsets(data)[1:], config, silent) for config in (older, sweeps.linear())
        )
        assert one.selected == other.selected
        np.testing.assert_array_equal(one.test_scores, other.test_scores)

    @pytest.mark.parametrize(
        'changes, message',
        [
            ({'solver': 'lbfsg'}, "'lbfsg'.*'lbfgs'"),
            ({'smallest_c': 0.0}, 'smallest_c'),
            ({'values_of_c': 0}, 'at least one value'),
        ],
    )
    def test_what_cannot_be_solved_is_refused(self, changes, message):
        config = sweeps.linear()
        config.update(changes)
        with pytest.raises(UserError, match=message):
            linear.run(make_data(), make_subsets(make_data()), config, silent)

    def test_trainable_parameters_are_kernel_and_bias(self):
        data = make_data()
        outcome = linear.run(data, make_subsets(data)[:1], sweeps.linear(), silent)[0]
        assert outcome.trainable_parameters == 13 * 3


class TestAdamW:
    def test_heads_trained_together_equal_a_head_trained_alone(self):
        """The vmapped program against a plain loop of optax steps."""
        data, steps, rate, decay = make_data(), 25, 0.01, 0.1
        subset = make_subsets(data)[0]
        orders = adamw.batch_orders(subset, steps, 16)
        mean, factor = standardisation(data.features, subset.rows)
        heads, validated, losses = adamw.train_heads(
            jnp.asarray(data.features),
            jnp.asarray(data.labels),
            np.stack([orders, orders[::-1]]),
            jnp.stack([mean, mean]),
            jnp.stack([factor, factor]),
            jnp.asarray([0.1, rate]),
            jnp.asarray([0.0, decay]),
            jnp.asarray(data.validation),
            3,
        )
        optimizer = optax.adamw(
            optax.cosine_decay_schedule(rate, steps), weight_decay=decay, mask={'kernel': True, 'bias': False}
        )
        head = {'kernel': jnp.zeros((12, 3)), 'bias': jnp.zeros(3)}
        state = optimizer.init(head)
        x, y = jnp.asarray((data.features - mean) * factor), jnp.asarray(data.labels)

        def loss_of(head, rows):
            logits = x[rows] @ head['kernel'] + head['bias']
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        gradient = jax.jit(jax.grad(loss_of))
        for rows in orders:
            updates, state = optimizer.update(gradient(head, rows), state, head)
            head = optax.apply_updates(head, updates)
        np.testing.assert_allclose(heads['kernel'][0, 1], head['kernel'], atol=2e-5)
        np.testing.assert_allclose(losses[0, 1], loss_of(head, data.validation), rtol=1e-4)
        logits = x[data.validation] @ head['kernel'] + head['bias']
        np.testing.assert_allclose(validated[0, 1], logits, atol=2e-4)
        labels = data.labels[data.validation]
        assert share_right(validated[0, 1], labels) == share_right(logits, labels)

    def test_subsets_that_take_turns_give_the_same_heads(self, monkeypatch):
        data, config = make_data(), sweeps.linear()
        config.update(solver='adamw', steps=50)
        together = linear.run(data, make_subsets(data), config, silent)
        monkeypatch.setattr(adamw, '_SHARE_OF_MEMORY', 1e-12)
        in_turn = linear.run(data, make_subsets(data), config, silent)
        for one, other in zip(together, in_turn, strict=True):
            assert one.selected == other.selected
            np.testing.assert_allclose(one.test_scores, other.test_scores, atol=1e-3)

    def test_as_many_subsets_train_together_as_memory_allows(self):
        def at_once(limit):
            return adamw.subsets_at_once(make_data(), 12, choices=6, steps=5, batch_size=16, limit=limit)

        assert at_once(float('inf')) == 12 and at_once(1.0) == 1
        counts = [at_once(limit) for limit in range(20_000, 300_001, 40_000)]
        assert counts == sorted(counts) and len(set(counts)) > 4 and {1, 12} == {counts[0], counts[-1]}

    def test_every_epoch_sees_every_example_once(self):
        subset = Subset(3, 1.0, np.array([4, 8, 15, 16, 23, 42]))
        rows = adamw.batch_orders(subset, steps=6, batch_size=4).reshape(4, 6)
        assert [sorted(epoch) for epoch in rows.tolist()] == [subset.rows.tolist()] * 4
        assert len({tuple(epoch) for epoch in rows.tolist()}) > 1

    def test_learns_and_says_that_the_order_of_batches_is_drawn(self):
        data, config = make_data(noise=0.3), sweeps.linear()
        config.update(solver='adamw', steps=50)
        outcomes = linear.run(data, make_subsets(data), config, silent)
        for outcome in outcomes:
            assert (outcome.test_scores.argmax(-1) == data.labels[data.test]).mean() > 0.9
            assert outcome.depends_on_seed
            assert set(outcome.at_edge) <= {'learning_rate', 'weight_decay'} == set(outcome.selected)


def test_edges_of_a_sweep():
    grids = {'a': (1, 2, 3), 'b': (0.1, 0.2), 'c': (7.0,)}
    assert at_edge({'a': 2, 'b': 0.1, 'c': 7.0}, grids) == ('b',)
    assert at_edge({'a': 3}, grids) == ('a',)
    assert at_edge({'a': 1}, grids, natural={'a': (1,)}) == ()


def test_outcomes_depend_on_the_seed_only_where_it_drew_the_subset():
    data = make_data()
    for regime in ('ridge', 'knn'):
        half, whole = probes.TABLE[regime](data, make_subsets(data), sweeps.TABLE[regime](), silent)
        assert half.depends_on_seed and not whole.depends_on_seed
    calls = []
    rows = np.arange(5)
    (linear_outcome,) = ridge.run(data, make_subsets(data)[:1], sweeps.ridge(), silent)
    deterministic(lambda subset: calls.append(1) or linear_outcome, [Subset(s, 1.0, rows) for s in range(4)])
    assert len(calls) == 1


class TestRidge:
    @pytest.mark.parametrize('examples', [8, 50])
    def test_primal_and_dual_equal_scikit_learn(self, examples):
        generator = np.random.default_rng(0)
        x = generator.normal(size=(examples, 12)).astype(np.float32)
        targets = np.eye(3, dtype=np.float32)[generator.integers(0, 3, examples)]
        penalties = np.array([0.01, 1.0, 100.0], np.float32)
        weights = ridge.solve(jnp.asarray(x), jnp.asarray(targets), jnp.asarray(penalties))
        gram = x.T @ x if examples > 12 else x @ x.T
        for penalty, found in zip(penalties, weights, strict=True):
            alpha = float(penalty * np.trace(gram) / len(gram))
            reference = Ridge(alpha=alpha, fit_intercept=False).fit(x, targets).coef_.T
            np.testing.assert_allclose(found, reference, atol=2e-4)


class TestKnn:
    def test_votes_equal_a_plain_implementation(self):
        data = make_data(noise=2.0)
        subset = make_subsets(data)[1]
        keys = np.asarray(knn.normalise(jnp.asarray(data.features)))
        labels = data.labels[subset.rows]
        found = knn._all_votes(
            jnp.asarray(keys[data.test]), jnp.asarray(keys[subset.rows]), jnp.asarray(labels), (1, 5, 20), 3, 0.07
        )
        search = NearestNeighbors(n_neighbors=20, metric='cosine').fit(keys[subset.rows])
        distance, index = search.kneighbors(keys[data.test])
        for choice, count in enumerate((1, 5, 20)):
            expected = np.zeros((60, 3))
            for query in range(60):
                for neighbour in range(count):
                    weight = np.exp((1 - distance[query, neighbour]) / 0.07)
                    expected[query, labels[index[query, neighbour]]] += weight
            expected /= expected.sum(-1, keepdims=True)
            np.testing.assert_allclose(found[choice], expected, atol=1e-3)

    def test_neighbours_beyond_the_subset_are_left_out(self):
        data, config = make_data(), sweeps.knn()
        few = Subset(0, 0.1, make_subsets(data)[1].rows[:7])
        (outcome,) = knn.run(data, [few], config, silent)
        assert outcome.selected['neighbours'] <= 7
        assert outcome.at_edge == (('neighbours',) if outcome.selected['neighbours'] == 5 else ())
        assert outcome.trainable_parameters == 0

    def test_chunks_of_queries_change_nothing(self, monkeypatch):
        data, config = make_data(), sweeps.knn()
        whole = knn.run(data, make_subsets(data), config, silent)
        monkeypatch.setattr(knn, '_BALLOTS_AT_ONCE', 7 * 200 * 3)
        chunked = knn.run(data, make_subsets(data), config, silent)
        for one, other in zip(whole, chunked, strict=True):
            np.testing.assert_allclose(one.test_scores, other.test_scores, atol=1e-6)

    def test_identical_features_do_not_underflow(self):
        labels, first = np.arange(30, dtype=np.int32) % 3, np.arange(6)
        data = ProbeData(np.ones((30, 4), np.float32), labels, 3, first, first, share_right)
        (outcome,) = knn.run(data, [Subset(0, 1.0, np.arange(6, 30))], sweeps.knn(), silent)
        assert np.isfinite(outcome.test_scores).all()
