"""Splits: disjoint, complete, stratified, deterministic, and independent of the rest of the data."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backbones.errors import UserError
from experiments.data.dataset import Dataset
from experiments.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    hash_order,
    official_splits,
    split_by_hash,
    split_off_validation,
    stratified_fraction,
    stratified_shares,
)

PROPERTY = settings(max_examples=100, deadline=None)

seeds = st.integers(0, 2**31 - 1)
label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=80)


@st.composite
def labelled(draw) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels with gaps and classes of one example, and distinct ids in no order."""
    labels = np.array(draw(label_lists), np.int32)
    ids = draw(st.lists(st.text(max_size=6), min_size=len(labels), max_size=len(labels), unique=True))
    return labels, tuple(ids)


def members(part: np.ndarray, labels: np.ndarray, label: int) -> int:
    return int(np.sum(labels[part] == label))


def assert_partition(parts, count: int) -> None:
    """Sorted, disjoint, and together everything."""
    for part in parts:
        np.testing.assert_array_equal(part, np.sort(part))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))


def of_ids(splits: dict, ids: tuple[str, ...]) -> dict[str, set[str]]:
    return {name: {ids[index] for index in indices} for name, indices in splits.items()}


@PROPERTY
@given(data=labelled(), share=st.floats(0, 1), second=st.floats(0, 1), seed=seeds)
def test_shares_are_a_stratified_partition(data, share, second, seed):
    labels, ids = data
    shares = {'a': share, 'b': (1 - share) * second}
    parts = stratified_shares(labels, ids, shares, 'rest', seed)
    assert list(parts) == ['a', 'b', 'rest']
    assert_partition(list(parts.values()), len(labels))
    for label in np.unique(labels):
        total = members(np.arange(len(labels)), labels, label)
        assert members(parts['rest'], labels, label) >= 1
        left = total - 1  # what the last one of the class leaves for the shares
        for name, wanted in shares.items():
            count = members(parts[name], labels, label)
            assert abs(count - min(max(wanted * total, wanted > 0), left)) < 1
            assert count >= min(1, left) or wanted == 0
            left -= count


@PROPERTY
@given(data=labelled(), seed=seeds)
def test_split_by_hash(data, seed):
    labels, ids = data
    splits, how = split_by_hash(labels, ids, seed)
    assert set(splits) == {'train', 'validation', 'test'}
    assert_partition(list(splits.values()), len(labels))
    assert '20% test' in how
    assert '10% validation' in how
    for label in np.unique(labels):
        total = members(np.arange(len(labels)), labels, label)
        for name, share, enough in (('test', TEST_SHARE, 2), ('validation', VALIDATION_SHARE, 3)):
            wanted = max(share * total, 1) if total >= enough else 0
            assert abs(members(splits[name], labels, label) - wanted) <= 0.5 + 1e-9


@PROPERTY
@given(data=labelled(), seed=seeds, randomness=st.randoms(use_true_random=False))
def test_split_by_hash_depends_on_the_examples_and_not_on_their_order(data, seed, randomness):
    labels, ids = data
    order = list(range(len(ids)))
    randomness.shuffle(order)
    splits, _ = split_by_hash(labels, ids, seed)
    shuffled_ids = tuple(ids[index] for index in order)
    shuffled, _ = split_by_hash(labels[order], shuffled_ids, seed)
    assert of_ids(shuffled, shuffled_ids) == of_ids(splits, ids)


@PROPERTY
@given(data=labelled(), seed=seeds, choice=st.integers(0))
def test_removing_an_example_hardly_moves_others(data, seed, choice):
    """The order of the rest stays; other classes do not notice, and in its own each border moves by a place or two."""
    labels, ids = data
    assume(len(ids) > 1)
    removed = choice % len(ids)
    kept = np.delete(np.arange(len(ids)), removed)
    kept_ids = tuple(ids[index] for index in kept)

    order = [ids[index] for index in hash_order(ids, seed) if index != removed]
    assert [kept_ids[index] for index in hash_order(kept_ids, seed)] == order

    before = of_ids(split_by_hash(labels, ids, seed)[0], ids)
    after = of_ids(split_by_hash(labels[kept], kept_ids, seed)[0], kept_ids)
    moved = {example for name in before for example in before[name] - after[name]} - {ids[removed]}
    label_of = dict(zip(ids, labels, strict=True))
    assert all(label_of[example] == labels[removed] for example in moved)
    assert len((before['test'] ^ after['test']) - {ids[removed]}) <= 1
    assert len(moved) <= 3


def test_the_hash_order_is_pinned():
    """A split that moved between releases would leak test images into training."""
    ids = tuple(f'{index:05d}' for index in range(8))
    assert hash_order(ids, 0).tolist() == [5, 3, 0, 1, 4, 7, 6, 2]
    assert hash_order(ids, 1).tolist() != hash_order(ids, 0).tolist()


@PROPERTY
@given(data=labelled(), seed=seeds, flags=st.data())
def test_split_off_validation(data, seed, flags):
    labels, ids = data
    test = np.array(flags.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    splits, how = split_off_validation(labels, ids, test, seed)
    assert set(splits) == {'train', 'validation', 'test'}
    assert_partition(list(splits.values()), len(labels))
    np.testing.assert_array_equal(splits['test'], np.flatnonzero(test))
    assert 'official test split' in how
    assert '10%' in how
    training = np.flatnonzero(~test)
    for label in np.unique(labels[training]):
        total = members(training, labels, label)
        wanted = max(VALIDATION_SHARE * total, 1) if total >= 2 else 0
        assert abs(members(splits['validation'], labels, label) - wanted) <= 0.5 + 1e-9
    # The test examples have no say in it.
    alone = stratified_shares(
        labels[training], tuple(ids[index] for index in training), {'validation': VALIDATION_SHARE}, 'train', seed
    )
    np.testing.assert_array_equal(training[alone['validation']], splits['validation'])


def test_official_splits_are_completed():
    labels = np.repeat([0, 1], 50).astype(np.int32)
    ids = tuple(f'{index:03d}' for index in range(100))
    names = np.tile(['train', 'train', 'train', 'validation', 'test'], 20)

    splits, how = official_splits(labels, ids, names)
    assert how == 'official splits'
    for name in ('train', 'validation', 'test'):
        np.testing.assert_array_equal(splits[name], np.flatnonzero(names == name))

    splits, _ = official_splits(labels, ids, np.where(names == 'validation', 'train', names))
    np.testing.assert_array_equal(splits['test'], np.flatnonzero(names == 'test'))
    assert [len(splits[name]) for name in ('train', 'validation')] == [72, 8]

    # Without a test split the validation split serves as one.
    splits, _ = official_splits(labels, ids, np.where(names == 'test', 'train', names))
    np.testing.assert_array_equal(splits['test'], np.flatnonzero(names == 'validation'))
    assert [len(splits[name]) for name in ('train', 'validation')] == [72, 8]

    splits, _ = official_splits(labels, ids, np.full(100, 'train'))
    assert [len(splits[name]) for name in ('train', 'validation', 'test')] == [70, 10, 20]


@pytest.mark.parametrize(('each', 'expected'), [(5, (3, 1, 1)), (3, (1, 1, 1)), (2, (1, 0, 1)), (1, (1, 0, 0))])
def test_few_images_per_class(each, expected):
    """Shares that round to nothing would leave validation, or the test, without most of the classes."""
    labels = np.repeat(np.arange(100), each).astype(np.int32)
    splits, _ = split_by_hash(labels, tuple(map(str, range(len(labels)))))
    counts = [np.bincount(labels[splits[name]], minlength=100) for name in ('train', 'validation', 'test')]
    assert [set(count.tolist()) for count in counts] == [{number} for number in expected]


@PROPERTY
@given(data=labelled(), seed=seeds, draw=st.data())
def test_groups_are_never_split_up(data, seed, draw):
    labels, ids = data
    groups = draw.draw(st.lists(st.sampled_from('abcdefgh'), min_size=len(ids), max_size=len(ids)))
    splits, how = split_by_hash(labels, ids, seed, groups)
    assert_partition(list(splits.values()), len(labels))
    owners = [{groups[index] for index in part} for part in splits.values()]
    assert sum(map(len, owners)) == len(set(groups))
    assert f'({len(set(groups))} groups)' in how


def test_groups_come_close_to_the_shares():
    generator = np.random.default_rng(0)
    groups = [f'patient-{number}' for number in range(120) for _ in range(generator.integers(1, 9))]
    labels = np.array([int(group.removeprefix('patient-')) % 2 for group in groups], np.int32)
    splits, _ = split_by_hash(labels, tuple(map(str, range(len(groups)))), groups=groups)
    for name, share in (('test', TEST_SHARE), ('validation', VALIDATION_SHARE)):
        for label in (0, 1):
            assert members(splits[name], labels, label) / np.sum(labels == label) == pytest.approx(share, abs=0.03)


def test_no_examples_make_empty_splits():
    labels = np.zeros(0, np.int32)
    for splits in (split_by_hash(labels, ())[0], split_off_validation(labels, (), np.zeros(0, bool))[0]):
        assert {name: part.tolist() for name, part in splits.items()} == {'train': [], 'validation': [], 'test': []}


CLASSES = 5


@st.composite
def training_sets(draw) -> tuple[np.ndarray, np.ndarray]:
    """Labels in which every class occurs, and the indices of a subset in which it still does."""
    counts = draw(st.lists(st.integers(1, 30), min_size=CLASSES, max_size=CLASSES))
    labels = np.repeat(np.arange(CLASSES), counts)
    extra = np.array(draw(st.lists(st.integers(0, CLASSES - 1), max_size=20)), np.int64)
    indices = np.arange(len(labels)) + len(extra)
    return np.concatenate([extra, labels]).astype(np.int32), indices


def workable(labels: np.ndarray, indices: np.ndarray, fraction: float) -> bool:
    return all(round(fraction * members(indices, labels, label)) for label in range(CLASSES))


@PROPERTY
@given(data=training_sets(), fraction=st.floats(0.02, 1), seed=seeds)
def test_a_fraction_is_a_stratified_subset(data, fraction, seed):
    labels, indices = data
    assume(workable(labels, indices, fraction))
    chosen = stratified_fraction(labels, indices, fraction, seed, CLASSES)
    assert set(chosen) <= set(indices)
    np.testing.assert_array_equal(chosen, np.unique(chosen))
    for label in range(CLASSES):
        wanted = fraction * members(indices, labels, label)
        assert abs(members(chosen, labels, label) - wanted) <= 0.5 + 1e-9
    np.testing.assert_array_equal(chosen, stratified_fraction(labels, indices, fraction, seed, CLASSES))


@PROPERTY
@given(data=training_sets(), fractions=st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)), seed=seeds)
def test_fractions_of_one_seed_are_nested(data, fractions, seed):
    labels, indices = data
    small, large = sorted(fractions)
    assume(workable(labels, indices, small))
    smaller, larger = (
        set(stratified_fraction(labels, indices, fraction, seed, CLASSES)) for fraction in (small, large)
    )
    assert smaller <= larger


@PROPERTY
@given(data=training_sets(), seed=seeds)
def test_the_whole_fraction_is_everything(data, seed):
    labels, indices = data
    np.testing.assert_array_equal(stratified_fraction(labels, indices, 1.0, seed, CLASSES), indices)


def test_another_seed_chooses_others():
    labels = np.repeat(np.arange(CLASSES), 20)
    first, second = (stratified_fraction(labels, np.arange(100), 0.5, seed, CLASSES) for seed in (0, 1))
    assert not np.array_equal(first, second)


@PROPERTY
@given(data=training_sets(), fraction=st.floats(0.001, 0.5), seed=seeds)
def test_a_class_without_examples_is_an_error_that_names_what_would_work(data, fraction, seed):
    labels, indices = data
    assume(not workable(labels, indices, fraction))
    with pytest.raises(UserError) as caught:
        stratified_fraction(labels, indices, fraction, seed, CLASSES)
    counts = [members(indices, labels, label) for label in range(CLASSES)]
    empty = sum(round(fraction * count) == 0 for count in counts)
    found = re.fullmatch(
        rf'label fraction {fraction} leaves {empty} of {CLASSES} classes without a training example '
        r'\(class (\d) has (\d+)\); the smallest that works is (0\.0*\d\d) .*',
        str(caught.value),
    )
    label, available, smallest = int(found[1]), int(found[2]), found[3]
    assert available == counts[label] == min(counts)
    assert workable(labels, indices, float(smallest))
    # No smaller one of two digits does.
    below = float(smallest) - 10.0 ** -len(smallest.removeprefix('0.'))
    assert not workable(labels, indices, below)


def test_a_class_that_never_occurs_is_an_error_that_says_so():
    labels = np.array([0, 0, 2, 2], np.int32)
    with pytest.raises(UserError, match=r'\(class 1 has 0\); the class has none at all'):
        stratified_fraction(labels, np.arange(4), 1.0, 0, 3)


@pytest.mark.parametrize('fraction', [0, -0.5, 1.5, float('nan')])
def test_a_fraction_outside_its_range(fraction):
    with pytest.raises(UserError, match=rf'a label fraction must lie in \(0, 1\], not {fraction}'):
        stratified_fraction(np.array([0, 1]), np.arange(2), fraction, 0, 2)


def dataset(**changes) -> Dataset:
    labels = np.repeat([0, 1], 5).astype(np.int32)
    fields = {
        'name': 'toy',
        'images': np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4, 1),
        'targets': labels,
        'ids': tuple('abcdefghij'),
        'classes': ('cat', 'dog'),
        'splits': {'train': np.arange(6), 'validation': np.arange(6, 8), 'test': np.arange(8, 10)},
        'provenance': 'made up',
    }
    return Dataset(**{**fields, **changes})


class Decoded:
    """Images that are no array."""

    shape = (10, 4, 4, 1)

    def __getitem__(self, indices):
        raise AssertionError('a fingerprint must not decode a large data set')


def flipped_pixel() -> np.ndarray:
    images = dataset().images.copy()
    images[3, 2, 1, 0] ^= 1
    return images


def relabelled() -> np.ndarray:
    labels = dataset().targets.copy()
    labels[4] = 1
    return labels


CHANGES = {
    'pixel': {'images': flipped_pixel()},
    'shape': {'images': dataset().images.reshape(10, 8, 2, 1)},
    'label': {'targets': relabelled()},
    'id': {'ids': tuple('abcdefghiJ')},
    'ids swapped': {'ids': tuple('bacdefghij')},
    'ids divided otherwise': {'ids': ('ab', '', *'cdefghij')},
    'class': {'classes': ('cat', 'fox')},
    'classes swapped': {'classes': ('dog', 'cat')},
    'another class': {'classes': ('cat', 'dog', 'fox')},
    'split': {'splits': {'train': np.arange(5), 'validation': np.arange(5, 8), 'test': np.arange(8, 10)}},
    'splits swapped': {'splits': {'train': np.arange(6), 'test': np.arange(6, 8), 'validation': np.arange(8, 10)}},
}


@pytest.mark.parametrize('change', CHANGES)
def test_a_fingerprint_changes_with_the_data(change):
    assert dataset(**CHANGES[change]).fingerprint() != dataset().fingerprint()


def test_equal_data_have_equal_fingerprints():
    splits = {name: np.asarray(part, np.int32) for name, part in reversed(dataset().splits.items())}
    same = dataset(
        targets=dataset().targets.astype(np.int64),
        splits=splits,
        images=np.asfortranarray(dataset().images),
        name='other',
    )
    assert same.fingerprint() == dataset().fingerprint() == dataset().fingerprint()
    assert re.fullmatch('[0-9a-f]{16}', same.fingerprint())


def test_a_fingerprint_decodes_nothing():
    decoded = dataset(images=Decoded())
    assert decoded.fingerprint() != dataclasses.replace(decoded, ids=tuple('jihgfedcba')).fingerprint()


@pytest.mark.parametrize(('classes', 'told'), [(('cat',), r'has 1 class \(cat\)'), ((), r'has 0 class \(none\)')])
def test_one_class_is_an_error(classes, told):
    with pytest.raises(UserError, match=f"data set 'toy' {told}; classification needs at least 2"):
        dataset(classes=classes)


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_an_empty_split_is_an_error(split):
    splits = {**dataset().splits, split: np.arange(0)}
    with pytest.raises(UserError, match=f"the {split} split of 'toy' is empty: 10 examples of 2 classes are too few"):
        dataset(splits=splits).check_splits()
