"""Batches do not depend on how they are read; what cannot be read is weighed 0 and named."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_loading import write_array_record_dataset
from tiny import make_dataset

from backbones.errors import UserError
from experiments.data import loading
from experiments.data.decoding import DecodedImages
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.random_augment import random_augment
from experiments.data.sampling import SAMPLERS, Sampler

PROPERTY = settings(max_examples=25, deadline=None)
DATASET = make_dataset(size=4)
# The same pixels, read one by one.
LAZY = dataclasses.replace(DATASET, images=DecodedImages(DATASET.images.__getitem__, DATASET.images.shape))


def sampler(dataset=DATASET, kind='shuffle', batch_size=8):
    return Sampler(kind, 3, dataset.splits['train'], dataset.targets, batch_size)


def augment(generator, image):
    return random_augment(generator, image, 2, 20)


def assert_equal(left, right):
    assert (left.step, left.ids, left.bad) == (right.step, right.ids, right.bad)
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        np.testing.assert_array_equal(array, right.arrays[name])
        assert array.dtype == right.arrays[name].dtype


def broken(dataset, indices):
    """The data set with some examples that cannot be read."""

    def read(index):
        if index in indices:
            raise OSError('cut off')
        return dataset.images[index]

    return dataclasses.replace(dataset, images=DecodedImages(read, dataset.images.shape))


@pytest.mark.parametrize('dataset', [DATASET, LAZY], ids=['in memory', 'decoded'])
def test_a_batch_holds_what_the_sampler_says(dataset):
    order = sampler()
    batches = list(training_batches(dataset, order, 5, 9))
    assert [batch.step for batch in batches] == [5, 6, 7, 8]
    for batch in batches:
        indices = order.batch(batch.step)
        np.testing.assert_array_equal(batch.arrays['image'], DATASET.images[indices])
        np.testing.assert_array_equal(batch.arrays['target'], DATASET.targets[indices])
        assert batch.arrays['weight'].tolist() == [1] * 8
        assert batch.ids == tuple(DATASET.ids[index] for index in indices)
        assert batch.bad == ()
        assert [batch.arrays[name].dtype for name in ('image', 'target', 'weight')] == [np.uint8, np.int32, np.float32]


@PROPERTY
@given(
    kind=st.sampled_from(sorted(SAMPLERS)),
    lazy=st.booleans(),
    first=st.integers(0, 30),
    start=st.integers(0, 4),
    threads=st.integers(0, 3),
    prefetch=st.integers(0, 5),
)
def test_neither_the_first_step_nor_threads_change_a_batch(kind, lazy, first, start, threads, prefetch):
    order = sampler(kind=kind)
    whole = list(training_batches(DATASET, order, first, first + 5, transform=augment, threads=1, prefetch=0))
    resumed = training_batches(
        LAZY if lazy else DATASET,
        sampler(kind=kind),
        first + start,
        first + 5,
        transform=augment,
        threads=threads,
        prefetch=prefetch,
    )
    for left, right in zip(whole[start:], resumed, strict=True):
        assert_equal(left, right)


@PROPERTY
@given(step=st.integers(0, 40), processes=st.sampled_from([2, 4]), slices=st.booleans(), lazy=st.booleans())
def test_the_rows_of_all_processes_are_the_global_batch(step, processes, slices, lazy):
    dataset = LAZY if lazy else DATASET
    rows = [slice(8 // processes * rank, 8 // processes * (rank + 1)) for rank in range(processes)]
    if not slices:
        rows = [np.arange(8)[each] for each in rows]
    (whole,) = training_batches(dataset, sampler(), step, step + 1, transform=augment)
    parts = [next(training_batches(dataset, sampler(), step, step + 1, rows=own, transform=augment)) for own in rows]
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(np.concatenate([part.arrays[name] for part in parts]), array)
    assert sum((part.ids for part in parts), ()) == whole.ids


def test_only_the_own_rows_are_read():
    rows = np.array([6, 1])
    wanted = sampler().batch(0)[rows].tolist()
    others = set(range(len(DATASET.targets))) - set(wanted)
    (batch,) = training_batches(broken(DATASET, others), sampler(), 0, 1, rows=rows)
    assert batch.bad == ()
    np.testing.assert_array_equal(batch.arrays['image'], DATASET.images[wanted])


def test_transforms_differ_by_seed_step_and_row():
    def noise(generator, image):
        return generator.integers(0, 256, image.shape, dtype=np.uint8)

    images = [
        image.tobytes()
        for seed in (0, 1)
        for batch in training_batches(DATASET, sampler(), 0, 3, transform=noise, seed=seed)
        for image in batch.arrays['image']
    ]
    assert len(set(images)) == 2 * 3 * 8


def test_a_transform_leaves_the_data_set_alone_and_keeps_the_shape():
    before = DATASET.images.copy()

    def blacken(generator, image):
        image[:] = 0
        return image

    (batch,) = training_batches(DATASET, sampler(), 0, 1, transform=blacken)
    assert batch.arrays['image'].max() == 0
    np.testing.assert_array_equal(DATASET.images, before)
    with pytest.raises(UserError, match=r'must return uint8\[4, 4, 1\], as it was given, not uint8\[2, 4, 1\]'):
        list(training_batches(DATASET, sampler(), 0, 1, transform=lambda generator, image: image[:2]))


def test_an_error_of_a_transform_is_no_bad_record():
    def fail(generator, image):
        raise ZeroDivisionError('mistake')

    with pytest.raises(ZeroDivisionError, match='mistake'):
        list(training_batches(LAZY, sampler(), 0, 1, transform=fail))


@PROPERTY
@given(
    count=st.integers(1, 40),
    batch_size=st.sampled_from([4, 8, 12]),
    processes=st.sampled_from([1, 2, 4]),
    lazy=st.booleans(),
)
def test_evaluation_weighs_every_example_once(count, batch_size, processes, lazy):
    indices = np.random.default_rng(count).permutation(len(DATASET.targets))[:count]
    share = batch_size // processes
    weights = dict.fromkeys(DATASET.ids, 0.0)
    lengths = set()
    for rank in range(processes):
        rows = slice(rank * share, (rank + 1) * share)
        batches = list(evaluation_batches(LAZY if lazy else DATASET, indices, batch_size, rows=rows))
        lengths.add(len(batches))
        for batch in batches:
            assert batch.arrays['image'].shape == (share, 4, 4, 1)
            assert batch.bad == ()
            for row, (name, weight) in enumerate(zip(batch.ids, batch.arrays['weight'].tolist(), strict=True)):
                assert (name == '') == (weight == 0)
                if weight:
                    weights[name] += weight
                    index = DATASET.ids.index(name)
                    np.testing.assert_array_equal(batch.arrays['image'][row], DATASET.images[index])
                    assert batch.arrays['target'][row] == DATASET.targets[index]
    assert lengths == {-(-count // batch_size)}
    wanted = {DATASET.ids[index] for index in indices}
    assert weights == {name: float(name in wanted) for name in DATASET.ids}


def test_rows_without_an_example_are_copies_or_zeros():
    (first,) = evaluation_batches(DATASET, np.array([7]), 4, rows=slice(0, 2))
    np.testing.assert_array_equal(first.arrays['image'], DATASET.images[[7, 7]])
    assert first.arrays['target'].tolist() == [DATASET.targets[7]] * 2
    assert first.arrays['weight'].tolist() == [1, 0]
    assert first.ids == ('0007', '')
    (second,) = evaluation_batches(DATASET, np.array([7]), 4, rows=slice(2, 4))
    assert second.arrays['image'].max() == 0
    assert second.arrays['target'].tolist() == second.arrays['weight'].tolist() == [0, 0]
    assert second.ids == ('', '')


class TestBadRecords:
    def test_are_replaced_weighed_0_and_named(self):
        indices = sampler().batch(0)
        dataset = broken(DATASET, set(indices[[0, 3]].tolist()))
        (batch,) = training_batches(dataset, sampler(), 0, 1)
        assert batch.arrays['weight'].tolist() == [0, 1, 1, 0, 1, 1, 1, 1]
        instead = indices[[1, 1, 2, 1, 4, 5, 6, 7]]
        np.testing.assert_array_equal(batch.arrays['image'], DATASET.images[instead])
        np.testing.assert_array_equal(batch.arrays['target'], DATASET.targets[instead])
        assert batch.bad == ((DATASET.ids[indices[0]], 'cut off'), (DATASET.ids[indices[3]], 'cut off'))
        assert batch.ids == tuple(DATASET.ids[index] for index in indices)

    def test_all_bad(self):
        (batch,) = training_batches(broken(DATASET, range(1000)), sampler(), 0, 1)
        assert batch.arrays['image'].max() == 0
        assert batch.arrays['weight'].tolist() == [0] * 8
        assert len(batch.bad) == 8

    def test_more_than_the_limit_end_the_run(self):
        order = sampler()
        bad = {int(order.batch(step)[0]) for step in range(3)}
        assert len(list(training_batches(broken(DATASET, bad), order, 0, 3, bad_files_limit=3))) == 3
        batches = training_batches(broken(DATASET, bad), order, 0, 3, bad_files_limit=2)
        assert [next(batches).step, next(batches).step] == [0, 1]
        message = r"3 examples of 'tiny' cannot be read \(.*: cut off; .*at most 2 are skipped"
        with pytest.raises(UserError, match=message):
            next(batches)

    def test_one_example_in_many_epochs_counts_once(self):
        order = sampler()
        dataset = broken(DATASET, {int(order.batch(0)[0])})
        batches = training_batches(dataset, order, 0, 5 * order.steps_per_epoch, bad_files_limit=1)
        assert sum(len(batch.bad) for batch in batches) > 1

    def test_of_an_evaluation(self):
        (batch,) = evaluation_batches(broken(DATASET, {5}), np.array([4, 5, 6]), 4)
        assert batch.arrays['weight'].tolist() == [1, 0, 1, 0]
        assert batch.ids == ('0004', '0005', '0006', '')
        assert batch.bad == (('0005', 'cut off'),)

    def test_a_file_that_is_deleted_or_damaged_after_the_start(self, tmp_path, monkeypatch):
        for name in ('a', 'b'):
            (tmp_path / name).mkdir()
            for index in range(10):
                Image.fromarray(np.full((6, 6, 3), index, np.uint8)).save(tmp_path / name / f'{index}.png')
        monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
        dataset = loading.load(f'folder:{tmp_path}')
        (tmp_path / 'a' / '3.png').unlink()
        (tmp_path / 'b' / '4.png').write_bytes(b'no image')
        batches = list(evaluation_batches(dataset, np.arange(20), 8))
        assert {name for batch in batches for name, _ in batch.bad} == {'a/3.png', 'b/4.png'}
        assert sum(batch.arrays['weight'].sum() for batch in batches) == 18


def test_no_steps_are_no_batches():
    assert list(training_batches(DATASET, sampler(), 7, 7, processes=2)) == []


def test_bad_arguments_are_named_before_the_first_batch():
    with pytest.raises(UserError, match='between 0 and the last, 3, not 4'):
        training_batches(DATASET, sampler(), 4, 3)
    with pytest.raises(UserError, match='processes of the input pipeline must not be negative, and -1 is'):
        training_batches(DATASET, sampler(), 0, 3, processes=-1)
    with pytest.raises(UserError, match='a seed must be a whole number between 0 and 9223372036854775807, not -5'):
        training_batches(DATASET, sampler(), 0, 3, seed=-5)
    with pytest.raises(UserError, match="no examples of 'tiny'"):
        evaluation_batches(DATASET, np.arange(0), 4)
    with pytest.raises(UserError, match='batch_size must be positive, not 0'):
        evaluation_batches(DATASET, np.arange(3), 0)


def test_threads_end_with_the_iterator():
    before = set(threading.enumerate())
    with contextlib.closing(training_batches(LAZY, sampler(), 0, 10_000, threads=3)) as batches:
        next(batches)
        own = set(threading.enumerate()) - before
        assert sum(thread.name.startswith('images') for thread in own) == 3
    for thread in own:
        if thread.name.startswith(('images', 'grain-prefetch')):
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.mark.slow
def test_reading_imports_no_tensorflow_and_commands_import_no_grain():
    code = (
        'import sys; sys.path.insert(0, "tests/experiments"); '
        'import experiments.train, experiments.data.pipeline; assert "grain" not in sys.modules; '
        'from test_pipeline import *; next(training_batches(DATASET, sampler(), 0, 1)); '
        'assert "grain" in sys.modules; assert "tensorflow" not in sys.modules'
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, '-W', 'error', '-c', code], check=True, cwd=root, timeout=100)


@pytest.mark.parametrize(
    'dataset',
    [
        pytest.param(DATASET, id='in memory', marks=pytest.mark.exhaustive),
        pytest.param(LAZY, id='decoded', marks=pytest.mark.slow),
    ],
)
def test_processes_change_nothing(dataset):
    here = training_batches(dataset, sampler(), 3, 12, transform=augment)
    there = training_batches(dataset, sampler(), 3, 12, transform=augment, processes=2)
    for left, right in zip(here, there, strict=True):
        assert_equal(left, right)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_bad_records_are_reported_from_processes():
    bad = {int(sampler().batch(step)[0]) for step in range(3)}
    here = list(training_batches(broken(DATASET, bad), sampler(), 0, 3))
    there = list(training_batches(broken(DATASET, bad), sampler(), 0, 3, processes=2))
    assert [len(batch.bad) for batch in here] == [1, 1, 1]
    for left, right in zip(here, there, strict=True):
        assert_equal(left, right)


@pytest.mark.slow
def test_processes_read_tfds_records(tmp_path, monkeypatch):
    write_array_record_dataset(tmp_path, {('train', 3): b'no image'})
    monkeypatch.setattr('experiments.data.decoding.MEMORY_LIMIT', 1)
    dataset = loading.load('tfds:blobs', tmp_path)
    assert isinstance(dataset.images, DecodedImages)
    order = Sampler('shuffle', 0, np.arange(20), dataset.targets, 10)
    here = list(training_batches(dataset, order, 0, 2))
    assert [each for batch in here for each in batch.bad] == [('train/0000003', 'cannot identify image file record')]
    for left, right in zip(here, training_batches(dataset, order, 0, 2, processes=1), strict=True):
        assert_equal(left, right)


@pytest.mark.slow
def test_a_killed_data_worker_ends_the_run_soon():
    with contextlib.closing(training_batches(LAZY, sampler(), 0, 1_000_000, processes=2)) as batches:
        next(batches)
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(UserError, match=r'a data worker died .*exit code -9.*same command continues'):
            for _ in batches:
                pass
        assert time.monotonic() - started < 30
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_data_workers_end_with_a_killed_main_process():
    code = (
        'import sys, time; sys.path.insert(0, "tests/experiments"); from test_pipeline import *; '
        'batches = training_batches(DATASET, sampler(), 0, 10**6, processes=2); next(batches); '
        'print("running", flush=True); time.sleep(100)'
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, '-c', code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as main:
        assert main.stdout.readline() == b'running\n'
        main.kill()
        main.communicate(timeout=30)  # the pipe ends when the last process that holds it ends
