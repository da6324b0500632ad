"""Trainings on texts: what each regime moves, and that kills, meshes, micro-batches and memory change nothing."""

import random
import re
import signal
import time

import jax
import numpy as np
import pytest
from command_runs import Runs, ended, wait_for
from flax.traverse_util import flatten_dict
from test_meshes import run
from tiny_texts import NAME, make_texts, smaller, training_config, write_csv

import backbones
from backbones import registry
from backbones.text import table
from experiments.cli import command_line
from experiments.data import loading
from experiments.training.session import Session

# Of ``smaller``: its stages have one block each.
TRAINED = {
    'linear': r'head/',
    'partial:1': r'head/|backbone/(pooler|stage4)/',
    'finetune': r'',
    'bitfit': r'head/|.*/bias$',
    'lora:4': r'head/|.*/lora_[ab]$',
    'scratch': r'',
}


@pytest.fixture(scope='module', autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch)
        yield


@pytest.fixture(scope='module')
def weights(small, tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp('weights') / 'own.safetensors'
    model = backbones.create(NAME)
    backbones.save_weights(file, jax.device_get(jax.jit(model.init)(jax.random.key(5), np.zeros((1, 16), np.int32))))
    return str(file)


def session_of(place, **changes) -> Session:
    return Session(training_config(**changes), make_texts(longest=30), place, devices=jax.devices()[:1])


def paths(tree) -> dict[str, np.ndarray]:
    return {'/'.join(path): np.asarray(leaf) for path, leaf in flatten_dict(tree).items()}


def steps(session, state, count, phase=0):
    """Some steps; the state after them and their losses."""
    train_step, losses = session.programs.train_step(phase), []
    first = int(state.step)
    for host in session.batches(first, first + count):
        state, metrics = train_step(state, session.device_put(host), np.float32(session.config.learning_rate))
        losses.append(float(metrics['loss']))
    return state, losses


def check_what_moves(session, phase, state, trained: str):
    """Exactly the parameters of a pattern are trained, and only they have a state of the optimizer."""
    every = {**paths(state.trainable), **paths(state.frozen)}
    wanted = {path for path in every if re.match(trained, path)}
    assert set(paths(state.trainable)) == wanted
    moments = [leaf.shape for leaf in jax.tree.leaves(state.optimizer_state) if np.ndim(leaf)]
    assert sorted(moments) == sorted(2 * [every[path].shape for path in wanted])
    before = {path: leaf.copy() for path, leaf in every.items()}
    after, losses = steps(session, state, 24, phase)
    moved = {**paths(after.trainable), **paths(after.frozen)}
    for path, leaf in before.items():
        same = moved[path].tobytes() == leaf.tobytes()
        # Of the table of words, and of positions, only rows that texts have move.
        assert same == (path not in wanted), path
    assert np.mean(losses[-4:]) < np.mean(losses[:4]), losses
    return after


@pytest.mark.parametrize(
    'regime',
    [
        'partial:1',
        *(pytest.param(regime, marks=pytest.mark.slow) for regime in ('finetune', 'lora:4')),
        *(pytest.param(regime, marks=pytest.mark.exhaustive) for regime in ('linear', 'bitfit', 'scratch')),
    ],
)
def test_a_regime_moves_what_it_should(tmp_path, weights, regime):
    given = {} if regime == 'scratch' else {'weights': weights}
    session = session_of(tmp_path, regime=regime, learning_rate=1e-2, **given)
    check_what_moves(session, 0, session.initial_state(), TRAINED[regime])


@pytest.mark.slow
def test_both_phases_of_lpft(tmp_path, weights):
    session = session_of(tmp_path, regime='lpft', weights=weights, learning_rate=1e-2)
    after = check_what_moves(session, 0, session.initial_state(), TRAINED['linear'])
    state, _ = session.next_phase_state(after, 1)
    check_what_moves(session, 1, state, TRAINED['finetune'])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('changes', 'tolerance'),
    [({'accumulation': 3}, 1e-5), ({'gradient_checkpointing': True}, 1e-5), ({'dtype': 'bfloat16'}, 0.02)],
    ids=['micro-batches', 'gradient checkpointing', 'bfloat16'],
)
def test_what_is_computed_otherwise_learns_the_same(tmp_path, changes, tolerance):
    # Not Adam, which makes steps out of what is only rounding; nor dropout, which draws for every micro-batch.
    values = {'optimizer': 'sgd', 'learning_rate': 0.1, 'clip_norm': 1.0}
    smaller_without = pytest.MonkeyPatch()
    smaller(smaller_without, hidden_dropout=0.0)
    try:
        plain = session_of(tmp_path, **values)
        _, wanted = steps(plain, plain.initial_state(), 12)
        other = session_of(tmp_path, **values, **changes)
        _, found = steps(other, other.initial_state(), 12)
    finally:
        smaller_without.undo()
    np.testing.assert_allclose(found, wanted, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize('fsdp', [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_two_devices_compute_the_same(fsdp):
    one, two = run('train_texts'), run('train_texts', devices=2, fsdp=fsdp)
    assert (one['devices'], two['devices']) == (1, 2)
    difference = np.abs(np.subtract(one['losses'], two['losses'])).max()
    print(f'losses {one["losses"]}; largest difference {difference:.2g}')
    assert difference <= 1e-5
    assert np.mean(one['losses'][-3:]) < np.mean(one['losses'][:3])
    assert one['predictions'] == two['predictions']


@pytest.mark.slow
def test_texts_are_read_by_processes(tmp_path):
    plain, other = session_of(tmp_path), session_of(tmp_path, processes=1)
    for one, two in zip(plain.batches(0, 4), other.batches(0, 4), strict=True):
        assert one.arrays['image'].dtype == np.int32
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, two.arrays[name])


class TextRuns(Runs):
    """Runs on texts, whose own keys replace those of images."""

    def session(self, name: str) -> Session:
        config = command_line.load_config(str(self.config_file))
        return Session(config, loading.load(config.dataset, inputs='texts'), self.directory / name)


@pytest.mark.exhaustive
def test_killed_twice(tmp_path):
    """Two phases, dropout, an average and micro-batches: all of it resumes, bit by bit."""
    file = write_csv(tmp_path / 'texts.csv', make_texts(120, longest=30))
    # The commands run without ``smaller``.
    shapes = jax.eval_shape(table.TABLE[NAME].constructor().init, jax.random.key(0), np.zeros((1, 16), np.int32))
    numbers = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: numbers.normal(0, 0.02, leaf.shape).astype(np.float32), shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.TABLE, NAME, table.TABLE[NAME])
        backbones.save_weights(tmp_path / 'own.safetensors', values)
    runs = TextRuns(
        tmp_path, dataset=f'csv:{file}', backbone='text_micro', image_size=0, shift=0, text_length=32, regime='lpft',
        weights=str(tmp_path / 'own.safetensors'),
        probe_epochs=1.0, epochs=3.0, fraction=1.0, batch_size=8, accumulation=2, ema_decay=0.9,
        dropout=0.1, checkpoint_epochs=0.1,
    )  # fmt: skip
    runs.run('whole')
    steps_taken = runs.result('whole')['steps']
    assert steps_taken > 24
    generator = random.Random(0)
    for target in (steps_taken // 6, steps_taken // 2):
        process = runs.start('cut')
        due = max(target, runs.newest('cut') + 1)
        assert wait_for(process, lambda due=due: runs.newest('cut') >= due)
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        ended(process, -signal.SIGKILL)
    assert runs.newest('cut') < steps_taken
    runs.run('cut')
    assert len(runs.events('cut', 'resumed')) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.TABLE, NAME, table.TABLE[NAME])
        runs.assert_same('cut', 'whole')
