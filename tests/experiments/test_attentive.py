"""The attentive probe: its head against NumPy, its training against one written out, and what it can see."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_config, make_dataset

from backbones.errors import UserError
from experiments.ablation import cells, engine, estimate
from experiments.features.entry_files import StoredFeatures
from experiments.features.store import Store
from experiments.probes import attention_pooling, attentive, attentive_training, linear, sweeps
from experiments.probes.adamw import batch_orders
from experiments.probes.attention_pooling import AttentionHead
from experiments.probes.attentive_training import Source, Sweep
from experiments.probes.common import NORMALISATIONS, ProbeData, Subset, standardisation
from experiments.results import rows as result_rows

logits_of = jax.jit(attention_pooling.logits)


def share_right(scores, labels) -> float:
    return float((scores.argmax(-1) == labels).mean())


def silent(_text):
    pass


def needle(examples=300, positions=9, channels=8, classes=3, seed=0) -> ProbeData:
    """The class is a direction at one position, anywhere; the other positions are noise with a sum that hides it."""
    generator = np.random.default_rng(seed)
    labels = np.arange(examples, dtype=np.int32) % classes
    features = generator.normal(size=(examples, positions, channels))
    features[..., 0] = 0
    place = generator.integers(0, positions, examples)
    every = np.arange(examples)
    own = np.zeros((examples, channels))
    own[every, 0] = 6  # here it is
    own[every, 1 + labels] = 6
    features[every, place] = own
    # The mean over the positions says nothing: what the one adds, the others take away.
    others = np.arange(positions) != place[:, None]
    features[others] -= np.repeat(own[:, None], positions - 1, 1).reshape(-1, channels) / (positions - 1)
    order = generator.permutation(examples)
    return ProbeData(features.astype(np.float32) + 3, labels, classes, order[:60], order[60:120], share_right)


def rest(data: ProbeData) -> np.ndarray:
    return np.setdiff1d(np.arange(len(data.labels)), np.concatenate([data.validation, data.test]))


def subsets_of(data: ProbeData) -> list[Subset]:
    return [Subset(0, 1.0, rest(data)), Subset(1, 1.0, rest(data)), Subset(0, 0.5, rest(data)[::2])]


def config_of(**changes):
    config = sweeps.attentive()
    config.update(queries=2, learning_rates=(1e-3, 1e-2), weight_decays=(0.1,), steps=60, batch_size=16)
    config.update(changes)
    return config


def random_head(queries=2, channels=5, classes=3, seed=0) -> AttentionHead:
    generator = np.random.default_rng(seed)
    start = attention_pooling.initial(0, queries, channels, classes)
    return AttentionHead(*(generator.normal(size=leaf.shape).astype(np.float32) for leaf in start))


def by_hand(head, x):
    """Logits, one example, query and position at a time, in float64; and what the gradient needs."""
    pooled, shares = np.zeros((len(x), *head.queries.shape)), np.zeros((len(x), len(head.queries), x.shape[1]))
    projected = np.zeros((len(x), len(head.queries), head.values.shape[-1]))
    for example in range(len(x)):
        for query in range(len(head.queries)):
            similarity = [np.dot(position, head.queries[query]) / np.sqrt(x.shape[-1]) for position in x[example]]
            weights = np.exp(similarity) / np.exp(similarity).sum()
            shares[example, query] = weights
            pooled[example, query] = sum(w * position for w, position in zip(weights, x[example], strict=True))
            projected[example, query] = pooled[example, query] @ head.values[query]
    flat = projected.reshape(len(x), -1)
    return flat @ head.kernel + head.bias, shares, pooled, flat


def gradient_by_hand(head, x, y):
    """Gradient of the mean cross-entropy, by the chain rule."""
    logits, shares, pooled, flat = by_hand(head, x)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    residual = (probabilities - np.eye(logits.shape[1])[y]) / len(x)
    of_projected = (residual @ head.kernel.T).reshape(len(x), *head.values.shape[::2])
    queries, values = np.zeros_like(head.queries), np.zeros_like(head.values)
    for example in range(len(x)):
        for query in range(len(head.queries)):
            values[query] += np.outer(pooled[example, query], of_projected[example, query])
            of_pooled = head.values[query] @ of_projected[example, query]
            of_shares = x[example] @ of_pooled
            a = shares[example, query]
            of_similarity = a * (of_shares - np.dot(a, of_shares))
            queries[query] += of_similarity @ x[example] / np.sqrt(x.shape[-1])
    return AttentionHead(queries, values, flat.T @ residual, residual.sum(0))


def trained_by_hand(head, x, y, order, rate, decay):
    """AdamW (Loshchilov & Hutter 2019) with a cosine schedule, in float64; the bias is not decayed."""
    head = AttentionHead(*(np.asarray(leaf, np.float64) for leaf in head))
    first, second = [[np.zeros_like(leaf) for leaf in head] for _ in range(2)]
    for number, rows in enumerate(order):
        at = rate * 0.5 * (1 + np.cos(np.pi * number / len(order)))
        leaves = []
        for index, (leaf, gradient) in enumerate(zip(head, gradient_by_hand(head, x[rows], y[rows]), strict=True)):
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            mean, square = first[index] / (1 - 0.9 ** (number + 1)), second[index] / (1 - 0.999 ** (number + 1))
            step = mean / (np.sqrt(square) + 1e-8) + (0 if index == 3 else decay) * leaf
            leaves.append(leaf - at * step)
        head = AttentionHead(*leaves)
    return head


class TestHead:
    @pytest.mark.parametrize('queries', [1, 7])
    def test_logits_equal_a_plain_implementation(self, queries):
        head = random_head(queries)
        x = np.random.default_rng(1).normal(size=(4, 6, 5)).astype(np.float32)
        np.testing.assert_allclose(logits_of(head, x), by_hand(head, x)[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(attention_pooling.attention(head, x).sum(-1), 1, rtol=1e-6)

    def test_gradient_by_hand_is_the_derivative(self):
        """So that what the training is compared with is itself compared with finite differences."""
        head = AttentionHead(*(np.asarray(leaf, np.float64) for leaf in random_head()))
        generator = np.random.default_rng(1)
        x, y = generator.normal(size=(4, 6, 5)), np.array([0, 1, 2, 1])

        def loss(head):
            logits = by_hand(head, x)[0]
            return float(np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(4), y]))

        for index, gradient in enumerate(gradient_by_hand(head, x, y)):
            direction = generator.normal(size=gradient.shape)
            ends = [
                loss(head._replace(**{head._fields[index]: head[index] + step * direction})) for step in (-1e-6, 1e-6)
            ]
            np.testing.assert_allclose((ends[1] - ends[0]) / 2e-6, np.sum(gradient * direction), rtol=1e-5)

    def test_order_of_positions_does_not_matter(self):
        head, generator = random_head(), np.random.default_rng(1)
        x = generator.normal(size=(4, 6, 5)).astype(np.float32)
        mixed = np.stack([example[generator.permutation(6)] for example in x])
        np.testing.assert_allclose(logits_of(head, mixed), logits_of(head, x), rtol=2e-5)

    @pytest.mark.parametrize('queries', [2, 7])
    def test_parameters_are_counted(self, queries):
        head = random_head(queries, channels=5, classes=3)
        assert attention_pooling.parameters(queries, 5, 3) == sum(leaf.size for leaf in head)

    def test_parameters_of_the_paper(self):
        """Efficient probing of a ViT-B on ImageNet-1k has less than 1.4 million, most of them the classifier's."""
        assert attention_pooling.parameters(32, 768, 1000) == 32 * 768 + 768 * 768 + 769 * 1000 == 1_383_400

    def test_begins_with_equal_scores_from_its_seed(self):
        one, again, other = (attention_pooling.initial(seed, 2, 5, 3) for seed in (0, 0, 1))
        assert not logits_of(one, np.ones((2, 4, 5), np.float32)).any()
        assert all(np.array_equal(*leaves) for leaves in zip(one, again, strict=True))
        assert not np.array_equal(one.queries, other.queries)


class TestTraining:
    def trained(self, choices, data=None, subset=None):
        data = data or needle()
        subset = subset or subsets_of(data)[0]
        start = attention_pooling.initial(subset.seed, 2, data.features.shape[-1], data.num_classes)
        (scaling,) = attentive_training.standardisations(data.features, [subset])
        sweep = Sweep(start, choices, steps=60, batch_size=16)
        return attentive_training.train(sweep, Source(data.features), data.labels, subset, scaling), scaling

    def test_heads_trained_together_equal_one_trained_by_hand(self):
        data = needle()
        subset = subsets_of(data)[0]
        heads, (mean, factor) = self.trained([(0.1, 0.0), (0.01, 0.1)])
        x = (data.features.astype(np.float64) - mean) * factor
        order = batch_orders(subset, 60, 16)
        start = attention_pooling.initial(0, 2, 8, 3)
        expected = trained_by_hand(start, x, data.labels, order, 0.01, 0.1)
        for found, leaf in zip(heads, expected, strict=True):
            np.testing.assert_allclose(found[1], leaf, atol=1e-5)

    def test_heads_trained_together_equal_a_head_trained_alone(self):
        together, _ = self.trained([(0.1, 0.0), (0.01, 0.1)])
        alone, _ = self.trained([(0.01, 0.1)])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[1], other[0], atol=1e-6)

    def test_a_head_that_diverges_leaves_the_others_as_they_are(self):
        usual, _ = self.trained([(0.1, 0.0), (0.01, 0.1)])
        beside, _ = self.trained([(1e30, 1e30), (0.01, 0.1)])
        assert not np.isfinite(beside.kernel[0]).all()
        for one, other in zip(usual, beside, strict=True):
            np.testing.assert_array_equal(one[1], other[1])

    @pytest.mark.slow
    def test_blocks_read_from_disk_give_the_heads_of_features_on_the_device(self, monkeypatch):
        data = needle()
        whole, _ = self.trained([(0.01, 0.1)], data)
        read = []

        class OnDisk:
            shape = data.features.shape

            def __getitem__(self, rows):
                read.append(len(rows))
                return data.features[rows]

        monkeypatch.setattr(attentive_training, 'RESIDENT_BYTES', 0)
        monkeypatch.setattr(attentive_training, 'BLOCK_BYTES', 7 * 16 * 9 * 8 * 4)  # seven steps
        monkeypatch.setattr(attentive_training, 'PART_BYTES', 50 * 9 * 8 * 4)
        blocks, _ = self.trained([(0.01, 0.1)], dataclasses.replace(data, features=OnDisk()))
        for one, other in zip(whole, blocks, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert max(read) == 112
        assert read[-9:] == [112] * 8 + [64]  # sixty steps

    def test_statistics_are_those_of_the_subset_over_its_positions(self, monkeypatch):
        data = needle()
        monkeypatch.setattr(attentive_training, 'PART_BYTES', 50 * 9 * 8 * 4)
        subsets = subsets_of(data)
        found = attentive_training.standardisations(data.features, subsets)
        for subset, scaling in zip(subsets, found, strict=True):
            flat = data.features[subset.rows].reshape(-1, 8)
            for one, other in zip(scaling, standardisation(flat, np.arange(len(flat))), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5)
            (alone,) = attentive_training.standardisations(data.features, [subset])
            np.testing.assert_array_equal(scaling, alone)

    @pytest.mark.parametrize('how', NORMALISATIONS)
    def test_each_position_is_normalised_as_the_features_of_the_linear_probe_are(self, how):
        data = needle()
        subset = subsets_of(data)[2]
        (scaling,) = attentive_training.standardisations(data.features, [subset], how)
        found = attentive_training._normalised(data.features, scaling, how)
        places = len(data.features) * np.arange(9)[:, None]
        flat = dataclasses.replace(data, features=data.features.transpose(1, 0, 2).reshape(-1, 8)).normalised(how)
        mean, factor = standardisation(flat.features, (places + subset.rows).ravel(), how)
        expected = ((flat.features - mean) * factor).reshape(9, -1, 8).transpose(1, 0, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class TestProbe:
    def test_sees_what_the_mean_over_positions_hides(self):
        data = needle()
        subset = subsets_of(data)[0]
        (outcome,) = attentive.run(data, [subset], config_of(learning_rates=(0.03, 0.1)), silent)
        pooled = dataclasses.replace(data, features=data.features.mean(1))
        (of_mean,) = linear.run(pooled, [subset], sweeps.linear(), silent)
        assert share_right(outcome.test_scores, data.labels[data.test]) > 0.95
        assert share_right(of_mean.test_scores, data.labels[data.test]) < 0.55  # of three classes

    def test_a_subset_gives_the_same_bits_whatever_it_is_asked_with(self):
        """Shards of an ablation, and seeds that are added to it, give what one run gives."""
        data = needle()
        together = attentive.run(data, subsets_of(data), config_of(), silent)
        for subset, expected in zip(subsets_of(data), together, strict=True):
            (outcome,) = attentive.run(data, [subset], config_of(), silent)
            assert outcome.test_scores.tobytes() == expected.test_scores.tobytes()
            assert outcome.selected == expected.selected and outcome.validation_score == expected.validation_score
        assert together[0].test_scores.tobytes() != together[1].test_scores.tobytes()

    @pytest.mark.slow
    def test_heads_that_take_turns_are_the_same(self, monkeypatch):
        data = needle()
        (together,) = attentive.run(data, subsets_of(data)[:1], config_of(), silent)
        monkeypatch.setattr(attentive_training, 'HEAD_BYTES', 1)
        (in_turn,) = attentive.run(data, subsets_of(data)[:1], config_of(), silent)
        assert in_turn.selected == together.selected
        np.testing.assert_allclose(in_turn.test_scores, together.test_scores, atol=1e-4)

    def test_a_head_that_diverges_loses(self):
        data = needle()
        (outcome,) = attentive.run(
            data, subsets_of(data)[:1], config_of(learning_rates=(1e-2, 1e30), weight_decays=(0.1,)), silent
        )
        assert outcome.selected['learning_rate'] == 1e-2
        assert outcome.at_edge == ('learning_rate',)
        assert np.isfinite(outcome.test_scores).all() and outcome.choices == 2

    @pytest.mark.slow
    def test_that_every_head_diverges_is_said(self):
        data = needle()
        with pytest.raises(UserError, match=r'every head .* diverges.*below 1e\+30'):
            attentive.run(data, subsets_of(data)[:1], config_of(learning_rates=(1e30,), weight_decays=(1e30,)), silent)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        'changes, edges',
        [
            ({'learning_rates': (1e-5, 1e-4), 'weight_decays': (0.1,)}, ('learning_rate',)),
            ({'learning_rates': (1e-2,), 'weight_decays': (0.0, 1e6)}, ()),
            ({'learning_rates': (1e-2,), 'weight_decays': (1e-3, 1e6)}, ('weight_decay',)),
        ],
    )
    def test_a_selected_value_at_the_end_of_its_grid_is_said(self, changes, edges):
        data = needle()
        (outcome,) = attentive.run(data, subsets_of(data)[:1], config_of(**changes), silent)
        assert outcome.at_edge == edges

    @pytest.mark.parametrize(
        'changes, message',
        [
            ({'queries': 0}, 'attentive.queries is 0'),
            ({'learning_rates': ()}, 'attentive.learning_rates is'),
            ({'weight_decays': (-1.0,)}, 'attentive.weight_decays is'),
        ],
    )
    def test_values_out_of_range_are_refused(self, changes, message):
        with pytest.raises(UserError, match=message):
            attentive.run(needle(), subsets_of(needle()), config_of(**changes), silent)

    def test_features_without_positions_are_refused(self):
        data = needle()
        flat = dataclasses.replace(data, features=data.features[:, 0])
        with pytest.raises(UserError, match=r'of positions.*\(300, 8\)'):
            attentive.run(flat, subsets_of(data), config_of(), silent)

    def test_workload_counts_matrix_products(self):
        positions, channels, queries, columns, classes = 9, 8, 2, 4, 3
        heads, flops = attentive.workload(3, (positions, channels), 60, classes, config_of())
        assert heads == 6
        attended, projected = queries * positions * channels, queries * channels * columns
        forward = 2 * (2 * attended + projected + queries * columns * classes)
        # Backwards, each product has a counterpart, and one more for what it passes on: not to the features.
        backward = 2 * (2 * attended + 2 * projected + 2 * queries * columns * classes)
        assert flops == heads * ((forward + backward) * 60 * 16 + forward * 60)


class TestAblation:
    """The probe among the regimes of an ablation."""

    def config(self, **changes):
        config = make_config(backbones=('vit_micro',), regimes=('linear', 'attentive'), fractions=(1.0,))
        config.update(changes)
        config.attentive.update(queries=2, learning_rates=(1e-3, 1e-2), weight_decays=(0.1,), steps=20, batch_size=16)
        return config

    def test_pixels_have_no_positions(self):
        planned = cells.plan(self.config(backbones=('vit_micro', 'pixels')))
        assert {(cell.variant.backbone, cell.regime) for cell in planned} == {
            ('vit_micro', 'linear'),
            ('vit_micro', 'attentive'),
            ('pixels', 'linear'),
        }
        with pytest.raises(UserError, match='span no cell'):
            cells.plan(self.config(backbones=('pixels',), regimes=('attentive',)))

    def test_values_are_checked_before_anything_runs(self):
        config = self.config()
        config.attentive.queries = 0
        with pytest.raises(UserError, match=r'attentive\.queries is 0'):
            cells.plan(config)

    @pytest.mark.exhaustive
    def test_maps_stay_on_disk_and_a_seed_that_is_added_is_as_if_it_had_been_there(self, tmp_path, monkeypatch):
        dataset, copied = make_dataset('digits'), []
        monkeypatch.setattr(
            StoredFeatures, 'array', lambda self, whole=StoredFeatures.array: copied.append(self.shape) or whole(self)
        )

        def run(workdir, **changes) -> list[result_rows.Row]:
            config = self.config(**changes)
            runner = engine.Engine(config, tmp_path / workdir, lambda name: dataset, Store(tmp_path / 'store'))
            planned = cells.plan(config)
            runner.claim(planned)
            runner.run(planned)
            rows = result_rows.read(tmp_path / workdir)
            assert len({row.costs['images_per_second'] for row in rows}) == 1  # of one network, whatever the tap
            return [row for row in rows if row.cell.regime == 'attentive']

        together = run('together')
        assert copied == [(160, 96)]
        assert [row.cell.seed for row in together] == [0, 1]
        for row in together:
            assert row.selected.keys() == {'learning_rate', 'weight_decay'} and row.choices == 2
            assert row.depends_on_seed
            assert row.costs['trainable_parameters'] == attention_pooling.parameters(2, 96, 4)
        run('grown', regimes=('attentive',), seeds=(1,))
        grown = {row.cell: row for row in run('grown', regimes=('attentive',))}
        for row in together:
            files = [(tmp_path / each / row.predictions).read_bytes() for each in ('together', 'grown')]
            assert files[0] == files[1]
            assert grown[row.cell].test == row.test and grown[row.cell].selected == row.selected

    def test_the_estimate_counts_its_heads_and_its_pass(self, monkeypatch):
        monkeypatch.setattr(estimate, 'measured_speed', lambda: 1e10)
        dataset = make_dataset('digits')

        def planned(**changes) -> dict[str, str]:
            config = self.config(seeds=(0,), **changes)
            pending = cells.plan(config)
            table = estimate.table(pending, len(pending), config, lambda name: dataset)
            return {column.header: next(iter(column.cells)) for column in table.columns}

        both, alone = planned(), planned(regimes=('attentive',))
        assert both['passes'] == alone['passes'] == '1'  # which gives the features of both taps
        assert alone['heads'] == '2'


# --- Padding: positions of texts that are shorter than others, which are NaN. ---

loss_and_gradient = jax.jit(jax.value_and_grad(attention_pooling.loss), static_argnums=3)
# Few shapes, so that little is compiled.
lengths_of_texts = st.tuples(*[st.sampled_from([1, 4])] * 3)


def padded(lengths, more: int, channels=5, seed=0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Positions of texts of some lengths, together with padding, and of each alone."""
    generator = np.random.default_rng(seed)
    alone = [generator.normal(2, 3, (length, channels)).astype(np.float32) for length in lengths]
    together = np.full((len(lengths), max(lengths) + more, channels), np.nan, np.float32)
    for row, own in zip(together, alone, strict=True):
        row[: len(own)] = own
    return together, alone


@settings(max_examples=15, deadline=None)
@given(lengths=lengths_of_texts, more=st.sampled_from([0, 2]), seed=st.integers(0, 99))
def test_padding_changes_nothing(lengths, more, seed):
    """Logits, the loss and its gradients: those of each text alone."""
    together, alone = padded(lengths, more, seed=seed)
    head, labels = random_head(seed=seed), np.arange(len(lengths)) % 3
    found, gradient = loss_and_gradient(head, together, labels, True)
    wanted = [loss_and_gradient(head, own[None], labels[index : index + 1]) for index, own in enumerate(alone)]
    np.testing.assert_allclose(found, np.mean([loss for loss, _ in wanted]), rtol=1e-5, atol=1e-6)
    for name, leaf in gradient._asdict().items():
        mean = np.mean([getattr(own, name) for _, own in wanted], axis=0)
        np.testing.assert_allclose(leaf, mean, rtol=1e-4, atol=1e-4, err_msg=name)
    logits = jax.jit(attention_pooling.logits, static_argnums=2)(head, together, True)
    for row, own in zip(logits, alone, strict=True):
        np.testing.assert_allclose(row, by_hand(head, own[None])[0][0], rtol=1e-4, atol=1e-4)
    assert not np.asarray(attention_pooling.attention(head, jnp.asarray(together), True))[
        np.broadcast_to(np.isnan(together[..., 0])[:, None], (len(lengths), 2, together.shape[1]))
    ].any()


@settings(max_examples=25, deadline=None)
@given(
    lengths=lengths_of_texts, more=st.sampled_from([0, 2]), seed=st.integers(0, 99), how=st.sampled_from(NORMALISATIONS)
)
def test_padding_does_not_count_in_statistics(lengths, more, seed, how):
    together, alone = padded(lengths, more, seed=seed)
    subset = Subset(0, 1.0, np.arange(len(lengths)))
    ((mean, factor),) = attentive_training.standardisations(together, [subset], how, True)
    # Every text counts once, whatever its length, as do its positions within it.
    wanted = np.mean([own.mean(0, dtype=np.float64) for own in alone], axis=0)
    square = np.mean([np.square(own, dtype=np.float64).mean(0) for own in alone], axis=0)
    variance = np.maximum(square - np.square(wanted), 0)
    if how not in ('standardise', 'centre'):
        wanted = 0 * wanted
    np.testing.assert_allclose(mean, wanted, rtol=1e-5, atol=1e-5)
    by_variance = 1 / np.sqrt(variance + 0.01 * variance.mean() + 1e-12)
    np.testing.assert_allclose(factor, by_variance if how == 'standardise' else 1, rtol=1e-3)
    normalised = np.asarray(attentive_training._normalised(jnp.asarray(together), (mean, factor), how))
    np.testing.assert_array_equal(np.isnan(normalised), np.isnan(together))
    for row, own in zip(normalised, alone, strict=True):
        by_itself = attentive_training._normalised(jnp.asarray(own[None]), (mean, factor), how)[0]
        np.testing.assert_allclose(row[: len(own)], by_itself, rtol=1e-5, atol=1e-6)


def test_without_padding_bits_are_those_of_the_plain_head():
    """Images have no padding: their heads train as they always have."""

    def plain_logits(head, positions):
        similarity = jnp.einsum('npc,qc->nqp', positions, head.queries) / np.sqrt(positions.shape[-1])
        pooled = jnp.einsum('nqp,npc->nqc', jax.nn.softmax(similarity), positions)
        projected = jnp.einsum('nqc,qcw->nqw', pooled, head.values)
        return projected.reshape(len(positions), -1) @ head.kernel + head.bias

    def plain_loss(head, positions, labels):
        return optax.softmax_cross_entropy_with_integer_labels(plain_logits(head, positions), labels).mean()

    positions = np.random.default_rng(0).normal(size=(7, 9, 5)).astype(np.float32)
    head, labels = random_head(), np.arange(7) % 3
    plain = jax.jit(plain_logits)(head, positions)
    assert np.asarray(logits_of(head, positions)).tobytes() == np.asarray(plain).tobytes()
    found = loss_and_gradient(head, positions, labels)
    wanted = jax.jit(jax.value_and_grad(plain_loss))(head, positions, labels)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    subset = Subset(0, 1.0, np.arange(7))
    ((mean, factor),) = attentive_training.standardisations(positions, [subset])
    moments = [positions.mean(1, np.float64).sum(0) / 7, np.square(positions, dtype=np.float64).mean(1).sum(0) / 7]
    variance = moments[1] - np.square(moments[0])
    assert mean.tobytes() == moments[0].astype(np.float32).tobytes()
    by_variance = 1 / np.sqrt(variance + 0.01 * variance.mean() + 1e-12)
    assert factor.tobytes() == by_variance.astype(np.float32).tobytes()


@pytest.mark.parametrize('place', [(2, 1), (2,), ()], ids=['a value', 'a position', 'an example'])
@pytest.mark.parametrize('padded', [False, True])
def test_damaged_features_are_not_taken_for_padding(place, padded):
    """A backbone that overflows gives NaN, which is no shorter text."""
    data = dataclasses.replace(needle(), padded=padded)
    data.features[(data.validation[0], *place)] = np.nan
    with pytest.raises(UserError, match='every head of the attentive probe diverges'):
        attentive.run(data, [Subset(0, 1.0, rest(data))], config_of(steps=2), silent)
