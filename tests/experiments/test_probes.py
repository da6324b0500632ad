"""Heads on frozen features, each against an independent implementation."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors

from experiments import probes
from experiments.probes import knn, linear, ridge
from experiments.probes.common import ProbeData, Subset, select, standardisation


def make_data(examples=240, channels=12, classes=3, noise=1.0, seed=0) -> ProbeData:
    generator = np.random.default_rng(seed)
    labels = np.arange(examples, dtype=np.int32) % classes
    centres = generator.normal(size=(classes, channels))
    features = centres[labels] + noise * generator.normal(size=(examples, channels))
    features = (features * np.geomspace(0.1, 100, channels) + 7).astype(np.float32)
    order = generator.permutation(examples)
    return ProbeData(features, labels, classes, validation=order[:60], test=order[60:120])


def make_subsets(data: ProbeData) -> list[Subset]:
    rest = np.setdiff1d(np.arange(len(data.labels)), np.concatenate([data.validation, data.test]))
    return [Subset(0, 0.5, rest[::2]), Subset(1, 1.0, rest)]


def silent(_text):
    pass


@pytest.mark.parametrize('regime', probes.TABLE)
def test_every_probe_learns_and_reports_the_accuracy_it_selected_by(regime):
    data = make_data(noise=0.3)
    config = {'linear': linear, 'ridge': ridge, 'knn': knn}[regime].default_config()
    for subset, outcome in zip(
        make_subsets(data), probes.TABLE[regime](data, make_subsets(data), config, silent), strict=True
    ):
        assert outcome.test_scores.shape == (60, 3)
        assert (outcome.test_scores.argmax(-1) == data.labels[data.test]).mean() > 0.95, subset
        assert 0.95 < outcome.validation_accuracy <= 1


@pytest.mark.parametrize('regime', probes.TABLE)
def test_a_probe_never_sees_the_labels_of_validation_and_test_while_it_trains(regime):
    """With one choice of hyper-parameters nothing is selected, so wrong labels outside the subset change nothing."""
    data = make_data()
    config = {'linear': linear, 'ridge': ridge, 'knn': knn}[regime].default_config()
    if regime == 'linear':
        config.update(learning_rates=(0.01,), weight_decays=(0.1,), steps=20)
    elif regime == 'ridge':
        config.update(smallest_penalty=0.1, largest_penalty=0.1, penalties=1)
    else:
        config.neighbours = (5,)
    wrong = data.labels.copy()
    outside = np.concatenate([data.validation, data.test])
    wrong[outside] = (wrong[outside] + 1) % 3
    changed = ProbeData(data.features, wrong, 3, data.validation, data.test)
    for one, other in zip(
        probes.TABLE[regime](data, make_subsets(data), config, silent),
        probes.TABLE[regime](changed, make_subsets(data), config, silent),
        strict=True,
    ):
        np.testing.assert_array_equal(one.test_scores, other.test_scores)


@pytest.mark.parametrize('regime', probes.TABLE)
def test_same_seed_same_bits(regime):
    data = make_data()
    config = {'linear': linear, 'ridge': ridge, 'knn': knn}[regime].default_config()
    runs = [probes.TABLE[regime](data, make_subsets(data), config, silent) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.test_scores, other.test_scores)
        assert one.selected == other.selected


def test_standardisation_uses_the_subset_only():
    features = np.random.default_rng(0).normal(3, 5, (40, 4)).astype(np.float32)
    mean, factor = standardisation(jnp.asarray(features), jnp.arange(20))
    np.testing.assert_allclose(mean, features[:20].mean(0), rtol=1e-5)
    variance = features[:20].var(0)
    np.testing.assert_allclose(factor, 1 / np.sqrt(variance + 0.01 * variance.mean()), rtol=1e-5)


def test_select_breaks_ties_by_loss_and_then_by_order():
    assert select([0.5, 0.9, 0.9, 0.2], [0.1, 0.7, 0.3, 0.1]) == 2
    assert select([0.5, 0.5], [0.1, 0.1]) == 0


class TestLinear:
    def test_heads_trained_together_equal_a_head_trained_alone(self):
        """The vmapped program against a plain loop of optax steps."""
        data, steps, rate, decay = make_data(), 25, 0.01, 0.1
        subset = make_subsets(data)[0]
        orders = linear.batch_orders(subset, steps, 16)
        mean, factor = standardisation(jnp.asarray(data.features), jnp.asarray(subset.rows))
        heads, accuracies, losses = linear.train_heads(
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
        x, y = (data.features - mean) * factor, jnp.asarray(data.labels)

        def loss_of(head, rows):
            logits = x[rows] @ head['kernel'] + head['bias']
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        import jax

        gradient = jax.jit(jax.grad(loss_of))
        for rows in orders:
            updates, state = optimizer.update(gradient(head, rows), state, head)
            head = optax.apply_updates(head, updates)
        np.testing.assert_allclose(heads['kernel'][0, 1], head['kernel'], atol=2e-5)
        np.testing.assert_allclose(losses[0, 1], loss_of(head, data.validation), rtol=1e-4)
        predicted = (x[data.validation] @ head['kernel'] + head['bias']).argmax(-1)
        assert accuracies[0, 1] == (predicted == y[data.validation]).mean()

    def test_reaches_the_accuracy_of_a_convex_solver(self):
        data = make_data(examples=900, noise=1.5)
        subset = make_subsets(data)[1]
        (outcome,) = linear.run(data, [subset], linear.default_config(), silent)
        mean, factor = standardisation(jnp.asarray(data.features), jnp.asarray(subset.rows))
        x = np.asarray((data.features - mean) * factor)
        solver = LogisticRegression(C=1.0, max_iter=1000).fit(x[subset.rows], data.labels[subset.rows])
        reference = solver.score(x[data.test], data.labels[data.test])
        assert (outcome.test_scores.argmax(-1) == data.labels[data.test]).mean() >= reference - 0.02

    def test_subsets_that_take_turns_give_the_same_heads(self, monkeypatch):
        data, config = make_data(), linear.default_config()
        together = linear.run(data, make_subsets(data), config, silent)
        monkeypatch.setattr(linear, '_VALUES_AT_ONCE', 1)
        in_turn = linear.run(data, make_subsets(data), config, silent)
        for one, other in zip(together, in_turn, strict=True):
            assert one.selected == other.selected
            np.testing.assert_allclose(one.test_scores, other.test_scores, atol=1e-3)

    def test_every_epoch_sees_every_example_once(self):
        subset = Subset(3, 1.0, np.array([4, 8, 15, 16, 23, 42]))
        rows = linear.batch_orders(subset, steps=6, batch_size=4).reshape(4, 6)
        assert [sorted(epoch) for epoch in rows.tolist()] == [subset.rows.tolist()] * 4
        assert len({tuple(epoch) for epoch in rows.tolist()}) > 1

    def test_trainable_parameters_are_kernel_and_bias(self):
        data = make_data()
        outcome = linear.run(data, make_subsets(data)[:1], linear.default_config(), silent)[0]
        assert outcome.trainable_parameters == 13 * 3


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
        data, config = make_data(), knn.default_config()
        few = Subset(0, 0.1, make_subsets(data)[1].rows[:7])
        (outcome,) = knn.run(data, [few], config, silent)
        assert outcome.selected['neighbours'] <= 7
        assert outcome.trainable_parameters == 0

    def test_chunks_of_queries_change_nothing(self, monkeypatch):
        data, config = make_data(), knn.default_config()
        whole = knn.run(data, make_subsets(data), config, silent)
        monkeypatch.setattr(knn, '_BALLOTS_AT_ONCE', 7 * 200 * 3)
        chunked = knn.run(data, make_subsets(data), config, silent)
        for one, other in zip(whole, chunked, strict=True):
            np.testing.assert_allclose(one.test_scores, other.test_scores, atol=1e-6)

    def test_identical_features_do_not_underflow(self):
        data = ProbeData(np.ones((30, 4), np.float32), np.arange(30, dtype=np.int32) % 3, 3, np.arange(6), np.arange(6))
        (outcome,) = knn.run(data, [Subset(0, 1.0, np.arange(6, 30))], knn.default_config(), silent)
        assert np.isfinite(outcome.test_scores).all()
