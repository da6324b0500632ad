"""Checkpoints: what is saved comes back bit by bit, or not at all and with a reason."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backbones import UserError
from experiments.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def make_state(step):
    """A state that tells its step, spread over several files."""
    return {
        'params': {'kernel': jnp.full((2, 3), step, jnp.float32), 'bias': jnp.ones(3, jnp.bfloat16)},
        'frozen': {},
        'optimizer': optax.adam(1e-3).init({'kernel': jnp.full((2, 3), step, jnp.float32)}),
        'key': jax.random.key(step),
    }


ABSTRACT = abstract(make_state(0))


def restore(directory):
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore_latest(lambda metadata: ABSTRACT)


def save_steps(directory, *steps, **options):
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {'position': [step, 7]})


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert (one.shape, np.asarray(one).tobytes()) == (other.shape, np.asarray(other).tobytes())


def assert_holds(restored, step):
    assert (restored.step, restored.metadata) == (step, {'position': [step, 7]})
    assert_same_bits(restored.state, make_state(step))


def script(body, *arguments, **options):
    """Run Python with this repository on its path."""
    return subprocess.run(
        [sys.executable, '-c', body, *map(str, arguments)], cwd=ROOT, text=True, capture_output=True, **options
    )


# --- What is saved comes back. ----------------------------------------------------------------------------------------


def test_nothing_was_saved(tmp_path):
    assert restore(tmp_path / 'checkpoints') is None
    assert not (tmp_path / 'checkpoints').exists()


TYPES = ('float32', 'bfloat16', 'float16', 'int8', 'uint32', 'bool')
LEAVES = st.builds(
    lambda name, shape, seed: (
        jnp.asarray(np.random.default_rng(seed).integers(0, 2 if name == 'bool' else 256, (*shape, 8), np.uint8))
        .astype(name)
        .reshape(*shape, 8)
    ),
    st.sampled_from(TYPES),
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(0, 99),
) | st.builds(
    lambda seed, name: jax.random.key(seed, impl=name), st.integers(0, 99), st.sampled_from(('threefry2x32', 'rbg'))
)
NAMES = st.text('ab_é ', max_size=3)
TREES = st.recursive(
    LEAVES | st.sampled_from([{}, (), [], None, optax.EmptyState()]),
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=3)
        | st.lists(inner, max_size=2)
        | st.tuples(inner, inner)
        | st.builds(optax.TraceState, inner)
    ),
    max_leaves=5,
)


@example(tree={'a/b': jnp.ones(2), 'a': {'b': jnp.zeros(2)}, 'c/d': jnp.ones(1)})
@settings(max_examples=12, deadline=None)
@given(tree=TREES)
def test_any_tree_comes_back(tmp_path_factory, tree):
    state = {'anchor': jnp.asarray([jnp.nan, -0.0, jnp.inf]), 'tree': tree}
    directory = tmp_path_factory.mktemp('checkpoints')
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(0, state, {})
        restored = checkpoints.restore_latest(lambda metadata: abstract(state))
    assert restored is not None
    assert_same_bits(restored.state, state)


NAMES_OF_DIRECTORIES = (
    'run[1]', '[!a]', 'a*b', 'a?b', 'a\\b', 'a b', 'a%20b', 'a#b?c', 'a{b,c}', 'ünï-雪', '~', 'gs:', 'file:', '$HOME',
    'a\nb', os.fsdecode(b'not-\xff-utf-8'), '-x', '"\'',
)  # fmt: skip


@pytest.mark.parametrize('name', NAMES_OF_DIRECTORIES, ids=ascii)
def test_a_directory_of_any_name(tmp_path, tmp_path_factory, monkeypatch, name):
    # Of its own: a process that another Ctrl-C ended at once leaves its link behind.
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path_factory.mktemp('temporary')))
    directory = tmp_path / name / 'checkpoints'
    save_steps(directory, 1)
    assert_holds(restore(directory), 1)
    # Nothing was written beside it, as under a name that is taken for another one.
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in directory.iterdir()] == ['1']
    assert not list(Path(tempfile.gettempdir()).glob('checkpoints-*/link'))


def test_a_directory_for_which_no_link_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'absent'))
    with pytest.raises(UserError, match=r"run\[1\].* cannot be kept under a name with '\[ \]'.* set TMPDIR"):
        restore(tmp_path / 'run[1]')
    (tmp_path / 'a b').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'a b'))
    with pytest.raises(UserError, match=r"with '\[ \]', and it would be in '.*a b/.*'; choose"):
        restore(tmp_path / 'run[1]')
    assert restore(tmp_path / 'run1') is None


def test_what_cannot_be_read_back_is_not_saved(tmp_path, monkeypatch):
    directory = tmp_path / 'run[1]'
    # As earlier versions wrote it: the library takes the name for a pattern and leaves the arrays incomplete.
    with monkeypatch.context() as patched:
        patched.setattr('experiments.training.checkpoints.plain', contextlib.nullcontext)
        with Checkpoints(directory) as checkpoints:
            checkpoints.save(1, make_state(1), {})
            with pytest.raises(UserError, match=r'step 1 in .*: what was written cannot be read back \(.*none yet'):
                checkpoints.wait()
            assert checkpoints.steps() == []
        patched.setattr('experiments.training.orbax_storage.unreadable', lambda *_: None)
        save_steps(directory, 2)
    with pytest.raises(UserError, match=r'the arrays in .*/2 cannot be read .* move it away'):
        restore(directory)
    shutil.rmtree(directory)
    save_steps(directory, 3)
    assert_holds(restore(directory), 3)


def test_state_and_metadata_are_those_of_the_call(tmp_path):
    state, metadata = make_state(5), {'position': [5, 7]}
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    counter = np.zeros(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, {**state, 'params': {**state['params'], 'counter': counter}}, metadata)
        counter += 1
        metadata['position'][0] = 99
        advance(state['params'])
    wanted = {**ABSTRACT, 'params': {**ABSTRACT['params'], 'counter': jax.ShapeDtypeStruct((3,), np.float64)}}
    seen = []
    with Checkpoints(tmp_path) as checkpoints, jax.enable_x64(True):
        restored = checkpoints.restore_latest(lambda metadata: seen.append(metadata) or wanted)
    np.testing.assert_array_equal(restored.state['params'].pop('counter'), np.zeros(3))
    assert seen == [{'position': [5, 7]}]
    assert_holds(restored, 5)


def test_a_saved_step_is_replaced(tmp_path):
    save_steps(tmp_path, 1)
    with Checkpoints(tmp_path, keep_best=True) as checkpoints:
        checkpoints.save(1, make_state(2), {'evaluated': True}, 0.5)
        checkpoints.wait()
        assert checkpoints.restore_best(lambda metadata: ABSTRACT).step == 1
    restored = restore(tmp_path)
    assert (restored.step, restored.metadata) == (1, {'evaluated': True})
    assert_same_bits(restored.state, make_state(2))
    assert [path.name for path in tmp_path.iterdir()] == ['1']


def test_killed_while_a_step_is_replaced(tmp_path):
    """The one before is still there, or the new one is already."""
    save_steps(tmp_path, 1, 2)
    (tmp_path / '2').rename(tmp_path / '2.replaced')
    (tmp_path / '2.unfinished').mkdir()
    assert_holds(restore(tmp_path), 2)
    shutil.copytree(tmp_path / '1', tmp_path / '2.replaced')
    assert_holds(restore(tmp_path), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['1', '2']


def test_other_devices(tmp_path):
    saving = """
import sys, jax
jax.config.update('jax_num_cpu_devices', 4)
from pathlib import Path
from experiments.training.checkpoints import Checkpoints
mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.sharding.NamedSharding(mesh, jax.P('data'))
state = {'array': jax.numpy.arange(8.0), 'keys': jax.random.split(jax.random.key(3), 4)}
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    checkpoints.save(1, jax.device_put(state, split), {})
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split), state)
    restored = checkpoints.restore_latest(lambda metadata: abstract).state
    assert all(leaf.sharding.is_equivalent_to(split, 1) for leaf in jax.tree.leaves(restored)), restored
"""
    done = script(saving, tmp_path)
    assert done.returncode == 0, done.stderr
    state = {'array': jnp.arange(8.0), 'keys': jax.random.split(jax.random.key(3), 4)}
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(lambda metadata: abstract(state))
    assert restored is not None
    assert_same_bits(restored.state, state)


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({}, 'at least one array'),
        (np.ones(2), 'at least one array'),
        ({'a': {'b': np.ones((0, 3))}}, 'a/b: it has no elements'),
        ({'': np.ones(2), '/': np.zeros(2)}, 'the same name for'),
        ({'a': np.ones(2), 'a/b': np.zeros(2)}, 'into the directory of'),
        ({'a': {'b': np.ones(2)}, 'a.b': np.ones(2)}, 'the same name for'),
    ],
)
def test_states_that_can_not_be_stored(tmp_path, state, message):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match=message):
        checkpoints.save(1, state, {})
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_is_no_json(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TypeError, match='not JSON serializable'):
        checkpoints.save(1, make_state(1), {'position': object()})


@pytest.mark.parametrize(
    ('path', 'leaf', 'message'),
    [
        ('kernel', jax.ShapeDtypeStruct((4, 4), jnp.float32), r'params/kernel is float32\[2, 3\] there and float32\[4'),
        ('kernel', jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), r'params/kernel is float32\[2, 3\] there and bfloat16'),
        ('scale', jax.ShapeDtypeStruct((3,), jnp.float32), r'params/scale is absent there and float32\[3\] here'),
        ('bias', {}, r'params/bias is bfloat16\[3\] there and absent here'),
    ],
)
def test_checkpoint_of_another_config(tmp_path, path, leaf, message):
    save_steps(tmp_path, 1, 2)
    wanted = {**ABSTRACT, 'params': {**ABSTRACT['params'], path: leaf}}
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore_latest(lambda metadata: wanted)
    assert_holds(restore(tmp_path), 2)


# --- Damage. ----------------------------------------------------------------------------------------------------------


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize('damage', [flip, truncate, Path.unlink])
def test_any_damaged_file_is_noticed(tmp_path, damage):
    original = tmp_path / 'original'
    save_steps(original, 1, 2)
    files = [path.relative_to(original) for path in (original / '2').rglob('*') if path.is_file()]
    assert {'metadata.json', 'checksums.json'} < {path.name for path in files}
    assert len(files) >= 8
    for number, file in enumerate(files):
        directory = tmp_path / str(number)
        shutil.copytree(original, directory)
        damage(directory / file)
        restored = restore(directory)
        assert restored is not None
        assert_holds(restored, 1)
        (warning,) = restored.warnings
        assert f'{directory / file} ' in warning
        assert 'falling back to step 1; the damaged one is now 2.damaged' in warning
        assert sorted(path.name for path in directory.iterdir()) == ['1', '2.damaged']


def test_a_damaged_step_can_be_saved_again(tmp_path):
    for _ in range(2):
        save_steps(tmp_path, 1, 2)
        flip(tmp_path / '2' / 'metadata.json')
        assert_holds(restore(tmp_path), 1)
    save_steps(tmp_path, 2)
    assert_holds(restore(tmp_path), 2)
    assert restore(tmp_path).warnings == ()


def test_files_that_nobody_wrote_are_no_damage(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / '1' / 'notes.txt').write_text('kept')
    assert_holds(restore(tmp_path), 1)


def test_no_intact_checkpoint_is_an_error(tmp_path):
    save_steps(tmp_path, 1, 2)
    flip(tmp_path / '1' / 'default' / '_METADATA')
    (tmp_path / '2' / 'checksums.json').unlink()
    for _ in range(2):  # nor is it a beginning the second time
        with pytest.raises(UserError, match='none of the checkpoints') as caught:
            restore(tmp_path)
        for part in ('2/checksums.json is missing', '1/default/_METADATA has changed', 'delete the directory'):
            assert part in str(caught.value)


# --- Which checkpoints stay. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('keep', 'left'), [(0, [3, 4]), (2, [3, 4]), (3, [2, 3, 4])])
def test_the_last_stay(tmp_path, keep, left):
    save_steps(tmp_path, 1, 2, 3, 4, keep=keep)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == left
    assert sorted(path.name for path in tmp_path.iterdir()) == list(map(str, left))


def test_the_best_stays_over_restarts(tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: 0.9, 4: float('nan'), 5: None, 6: 0.7, 7: 0.6}
    for step, score in scores.items():
        with Checkpoints(tmp_path, keep_best=True) as checkpoints:
            checkpoints.save(step, make_state(step), {}, score)
    with Checkpoints(tmp_path, keep_best=True) as checkpoints:
        assert checkpoints.steps() == [2, 6, 7]
        checkpoints.save(10, make_state(10), {}, 1.0)
        checkpoints.wait()
        assert checkpoints.steps() == [7, 10]


def test_leftovers_are_removed(tmp_path):
    save_steps(tmp_path, 1)
    for name in ('2.unfinished', '3.orbax-checkpoint-tmp', '4.damaged', 'notes', 'notes.replaced'):
        (tmp_path / name / 'default').mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['1', '4.damaged', 'notes', 'notes.replaced']


def test_state_and_metadata_appear_together(tmp_path):
    seen = []
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        while checkpoints.steps() == []:
            seen.append({path.name for path in tmp_path.iterdir()})
        assert {path.name for path in (tmp_path / '1').iterdir()} == {'default', 'metadata.json', 'checksums.json'}
    assert {'1.unfinished'} in seen
    assert json.loads((tmp_path / '1' / 'metadata.json').read_text())['step'] == 1


@pytest.mark.slow
@pytest.mark.parametrize('delay', [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_killed_while_saving(tmp_path, delay):
    saving = """
import sys
from pathlib import Path
sys.path.insert(0, 'tests/experiments')
from test_checkpoints import make_state
from experiments.training.checkpoints import Checkpoints
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    for step in range(1, 10000):
        checkpoints.save(step, make_state(step), {'position': [step, 7]})
"""
    process = subprocess.Popen([sys.executable, '-c', saving, str(tmp_path)], cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / '3').exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.step >= 3
    assert restored.warnings == ()
    assert_holds(restored, restored.step)
    assert all(path.name.isdigit() for path in tmp_path.iterdir())


# --- Saving that fails. -----------------------------------------------------------------------------------------------

SAVING = """
import logging, resource, signal, sys
import jax
from pathlib import Path
from backbones.errors import UserError
from experiments.training.checkpoints import Checkpoints
logging.disable()
directory, limited = Path(sys.argv[1]), sys.argv[2] == 'limited'
try:
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(1, {'array': jax.numpy.ones(3)}, {})
        checkpoints.wait()
        if limited:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        checkpoints.save(2, {'array': jax.random.normal(jax.random.key(0), (1000, 1000))}, {})
except UserError as error:
    print(error)
print(sorted(path.name for path in directory.glob('*')))
"""


def test_a_file_that_can_not_be_written_whole(tmp_path):
    done = script(SAVING, tmp_path, 'limited', timeout=60)
    assert done.stdout.splitlines() == [
        f'cannot save the checkpoint of step 2 in {tmp_path}: File too large; the last good one is step 1',
        "['1']",
    ], done.stderr


@pytest.mark.parametrize(
    ('options', 'reason', 'left'),
    [
        (
            'size=1m',
            'step 2 in DIRECTORY: No space left on device; the last good one is step 1, and the same command continues '
            'once there is room',
            "['1']",
        ),
        ('ro', 'step 1 in DIRECTORY: Read-only file system; there is none yet', '[]'),
    ],
)
def test_real_file_systems(tmp_path, options, reason, left):
    mount = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c']
    command = f'mount -t tmpfs -o {options} tmpfs "$1" || exit 77; shift; exec "$@"'
    run = [sys.executable, '-c', SAVING, str(tmp_path), 'unlimited']
    try:
        done = subprocess.run(
            [*mount, command, 'sh', str(tmp_path), *run], cwd=ROOT, text=True, capture_output=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip('there is no unshare here')
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip(f'no file system can be mounted here: {done.stderr.strip()}')
    assert done.stdout, done.stderr
    message, names = done.stdout.splitlines()
    assert message == 'cannot save the checkpoint of ' + reason.replace('DIRECTORY', str(tmp_path))
    assert names == left


def no_space(*_):
    raise OSError(28, os.strerror(28))


def test_no_space_for_the_checksums(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr('experiments.training.checkpoints.write_checksums', no_space)
        checkpoints.save(2, make_state(2), {})
        message = f'step 2 in {tmp_path}: No space left on device; the last good one is step 1'
        with pytest.raises(UserError, match=re.escape(message)):
            checkpoints.wait()
        monkeypatch.undo()
        checkpoints.save(2, make_state(2), {'position': [2, 7]})
    assert_holds(restore(tmp_path), 2)


def test_the_next_save_tells_of_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr('experiments.training.checkpoints.write_checksums', no_space)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        with pytest.raises(UserError, match=r'checkpoint of step 1 in .*: No space left on device; there is none yet'):
            checkpoints.save(2, make_state(2), {})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_a_directory(tmp_path):
    (tmp_path / 'file').touch()
    with Checkpoints(tmp_path / 'file' / 'checkpoints') as checkpoints:
        with pytest.raises(UserError, match=r'cannot save the checkpoint of step 1 in .*: Not a directory'):
            checkpoints.save(1, make_state(1), {})
        assert checkpoints.steps() == []


def test_leaving_by_an_error(tmp_path, monkeypatch):
    with pytest.raises(KeyError, match='own') as caught, Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {'position': [1, 7]})
        raise KeyError('own')
    assert_holds(restore(tmp_path), 1)
    assert not hasattr(caught.value, '__notes__')
    monkeypatch.setattr('experiments.training.checkpoints.write_checksums', no_space)
    with pytest.raises(KeyError, match='own') as caught, Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, make_state(2), {})
        raise KeyError('own')
    assert 'cannot save the checkpoint of step 2' in caught.value.__notes__[0]
