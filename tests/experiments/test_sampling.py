"""Which examples each step sees: random access, whole epochs, balanced classes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_dataset

from backbones.errors import UserError
from experiments.data.sampling import SAMPLERS, Sampler, class_weights

PROPERTY = settings(max_examples=60, deadline=None)


@st.composite
def subsets(draw) -> tuple[np.ndarray, np.ndarray, int]:
    """Examples in no order, the labels of all, and a batch size that fits."""
    labels = np.array(draw(st.lists(st.integers(0, 4), min_size=1, max_size=60)), np.int32)
    indices = np.array(draw(st.permutations(range(len(labels)))))[: draw(st.integers(1, len(labels)))]
    return indices, labels, draw(st.integers(1, len(indices)))


@PROPERTY
@given(data=subsets(), seed=st.integers(0, 2**31 - 1), first=st.integers(0, 50))
def test_shuffle_is_a_permutation_per_epoch_by_seed_and_epoch(data, seed, first):
    """These numbers are part of every published result."""
    indices, labels, batch_size = data
    sampler = Sampler('shuffle', seed, indices, labels, batch_size)
    for step in range(first, first + 5):
        epoch, position = step // (len(indices) // batch_size), step % (len(indices) // batch_size)
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(indices)
        np.testing.assert_array_equal(sampler.batch(step), order[position * batch_size : (position + 1) * batch_size])


@PROPERTY
@given(data=subsets(), kind=st.sampled_from(sorted(SAMPLERS)), steps=st.lists(st.integers(0, 40), max_size=8))
def test_any_step_at_any_time(data, kind, steps):
    indices, labels, batch_size = data
    used = Sampler(kind, 1, indices, labels, batch_size)
    for step in steps:
        batch = used.batch(step)
        assert batch.shape == (batch_size,)
        assert set(batch.tolist()) <= set(indices.tolist())
        np.testing.assert_array_equal(batch, Sampler(kind, 1, indices, labels, batch_size).batch(step))


@PROPERTY
@given(data=subsets(), epoch=st.integers(0, 5))
def test_an_epoch_of_shuffle_repeats_nothing(data, epoch):
    indices, labels, batch_size = data
    sampler = Sampler('shuffle', 0, indices, labels, batch_size)
    assert sampler.steps_per_epoch == len(indices) // batch_size
    seen = [sampler.batch(epoch * sampler.steps_per_epoch + step) for step in range(sampler.steps_per_epoch)]
    assert len(np.unique(np.concatenate(seen))) == sampler.steps_per_epoch * batch_size


@PROPERTY
@given(data=subsets(), epoch=st.integers(0, 5))
def test_an_epoch_of_balanced_takes_classes_equally_and_every_example_before_one_repeats(data, epoch):
    indices, labels, batch_size = data
    order = Sampler('balanced', 0, indices, labels, batch_size).epoch(epoch)
    present = np.unique(labels[indices])
    per_class = np.array([np.sum(labels[order] == label) for label in present])
    assert np.ptp(per_class) <= 1
    for label in present:
        times = np.array([np.sum(order == index) for index in indices[labels[indices] == label]])
        assert np.ptp(times) <= 1


def test_balanced_favours_no_class_when_an_epoch_holds_less_than_one_round():
    labels = np.arange(10, dtype=np.int32)
    sampler = Sampler('balanced', 0, np.arange(10), labels, 3)
    counts = np.bincount(np.concatenate([sampler.batch(step) for step in range(0, 3000, 3)]), minlength=10)
    assert np.abs(counts - 300).max() < 75  # 5 standard deviations


def test_epochs_and_seeds_differ():
    labels = np.zeros(100, np.int32)
    first, other = (Sampler('shuffle', seed, np.arange(100), labels, 10) for seed in (0, 1))
    assert not np.array_equal(first.epoch(0), first.epoch(1))
    assert not np.array_equal(first.epoch(0), other.epoch(0))


def test_threads_may_share_a_sampler():
    labels = np.arange(400, dtype=np.int32) % 7
    shared = Sampler('balanced', 0, np.arange(400), labels, 40)
    steps = np.random.default_rng(0).integers(0, 60, 300).tolist()
    alone = Sampler('balanced', 0, np.arange(400), labels, 40)
    with ThreadPoolExecutor(8) as pool:
        for step, batch in zip(steps, pool.map(shared.batch, steps), strict=True):
            np.testing.assert_array_equal(batch, alone.batch(step))


def test_bad_arguments_are_named():
    labels = np.zeros(5, np.int32)
    with pytest.raises(UserError, match="unknown sampler 'balance'; did you mean 'balanced'"):
        Sampler('balance', 0, np.arange(5), labels, 2)
    with pytest.raises(UserError, match='between 1 and the number of examples, 5, not 6'):
        Sampler('shuffle', 0, np.arange(5), labels, 6)
    with pytest.raises(UserError, match='between 1 and the number of examples, 5, not 0'):
        Sampler('shuffle', 0, np.arange(5), labels, 0)
    with pytest.raises(UserError, match='-1'):
        Sampler('shuffle', -1, np.arange(5), labels, 2)


class TestClassWeights:
    labels = np.array([0, 0, 0, 1, 2, 2, 9], np.int32)
    indices = np.array([0, 1, 2, 3, 4, 5])

    def test_none_is_one_for_all(self):
        weights = class_weights('none', self.labels, self.indices, 4)
        assert weights.tolist() == [1, 1, 1, 1]
        assert weights.dtype == np.float32

    def test_balanced_gives_every_class_the_same_total(self):
        weights = class_weights('balanced', self.labels, self.indices, 3)
        np.testing.assert_allclose(weights, [6 / (3 * 3), 6 / (3 * 1), 6 / (3 * 2)], rtol=1e-7)
        assert weights.dtype == np.float32

    def test_bad_arguments_are_named(self):
        with pytest.raises(UserError, match='class 3 has none'):
            class_weights('balanced', self.labels, self.indices, 4)
        with pytest.raises(UserError, match="unknown kind of class weights 'balance'; did you mean 'balanced'"):
            class_weights('balance', self.labels, self.indices, 3)


@pytest.mark.parametrize('seed', [-1, 2**63, 2**64, 10**40])
def test_numbers_that_cannot_be_seeds(seed):
    told = f'a seed must be a whole number between 0 and 9223372036854775807, not {seed}'
    with pytest.raises(UserError, match=told):
        Sampler('shuffle', seed, np.arange(10), np.zeros(10, np.int32), 2)
    with pytest.raises(UserError, match=told):
        make_dataset().fraction(0.5, seed)


def test_the_largest_seed():
    largest = 2**63 - 1
    assert sorted(Sampler('shuffle', largest, np.arange(10), np.zeros(10, np.int32), 2).epoch(0)) == list(range(10))
    assert len(make_dataset().fraction(1.0, largest)) == len(make_dataset().splits['train'])
