"""The memory of a training step against that of the machine."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_dataset

from backbones import UserError
from experiments.planning import memory, program_costs, step_memory
from experiments.planning.memory import Memory
from experiments.training.config import default_config
from experiments.training.session import Session

GIB = 2**30


def group(root, **files):
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace('__', '.')).write_text(f'{text}\n')


def machine(tmp_path, line):
    (tmp_path / 'proc' / 'self').mkdir(parents=True, exist_ok=True)
    (tmp_path / 'proc' / 'self' / 'cgroup').write_text(f'1:name=systemd:/x\n{line}\n')
    return memory.of_machine(tmp_path / 'proc', tmp_path / 'groups')


def test_the_machine_without_control_groups(tmp_path):
    found = memory.of_machine(tmp_path / 'proc', tmp_path / 'groups')
    assert 0 < found.available <= found.total
    assert found.owner == 'this machine'


def test_limits_of_control_groups(tmp_path):
    groups = tmp_path / 'groups'
    group(groups / 'batch', memory__max=2**28, memory__current=2**27, memory__stat=f'anon 3\ninactive_file {2**26}')
    group(groups / 'batch' / 'job', memory__max='max', memory__current=5)
    assert machine(tmp_path, '0::/batch/job') == Memory(2**28, 2**28 - 2**26, 'this process (by its control group)')
    # A path of the host, of which a container sees the root only.
    group(groups, memory__max=2**27, memory__current=2**25, memory__stat='inactive_file 0')
    assert machine(tmp_path, '0::/docker/abc') == Memory(2**27, 2**27 - 2**25, 'this process (by its control group)')


def test_limits_of_control_groups_of_version_1(tmp_path):
    root = tmp_path / 'groups' / 'memory'
    group(root, memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=2**40)
    whole = memory.of_machine(tmp_path / 'proc', tmp_path / 'groups')
    assert machine(tmp_path, '4:memory:/job').total == whole.total
    statistics = f'total_inactive_file {2**20}'
    group(root / 'job', memory__limit_in_bytes=2**26, memory__usage_in_bytes=2**25, memory__stat=statistics)
    found = machine(tmp_path, '4:cpu,memory:/job')
    assert found == Memory(2**26, 2**26 - 2**25 + 2**20, 'this process (by its control group)')


def test_cpu_devices_share_the_memory_of_their_machine(monkeypatch):
    monkeypatch.setattr(memory, 'of_machine', lambda: Memory(8 * GIB, 4 * GIB, 'this machine'))
    assert memory.of(jax.devices() * 4) == Memory(2 * GIB, GIB, 'this machine')


class _Device:
    platform, process_index, device_kind = 'gpu', 0, 'H200'

    def __init__(self, statistics):
        self.memory_stats = lambda: statistics


def test_an_accelerator_has_memory_of_its_own():
    assert memory.of([_Device({'bytes_limit': 100, 'bytes_in_use': 30})]) == Memory(100, 70, 'a device (H200)')
    assert memory.of([_Device(None)]).total == 0


class _Program:
    """A program that takes 2 GiB for its state and the rest for what it computes."""

    def __init__(self, temporary):
        self._temporary = temporary

    def memory_analysis(self):
        values = {'argument': 2 * GIB, 'output': 2 * GIB, 'alias': 2 * GIB, 'temp': self._temporary}
        names = {f'{name}_size_in_bytes': value for name, value in values.items()}
        return type('Statistics', (), {**names, 'generated_code_size_in_bytes': 0})


def verdict(total, temporary=18 * GIB, available=None, keys='config.', **shape) -> str | None:
    values = {'batch_size': 128, 'devices': 1, **shape}
    found = Memory(round(total), round(total if available is None else available), 'this machine')
    return step_memory.check(_Program(temporary), step_memory.Shape(**values), found, keys)


def test_a_step_that_fits_says_nothing():
    assert verdict(20 * GIB) is None
    assert verdict(0) is None


@pytest.mark.parametrize(
    ('shape', 'remedy'),
    [
        ({}, '--config.accumulation=2 or --config.batch_size=88'),
        ({'keys': 'config.training.'}, '--config.training.accumulation=2 or --config.training.batch_size=88'),
        # Two parts do not divide the batch, or there are two already.
        ({'batch_size': 129}, '--config.accumulation=3 or --config.batch_size=88'),
        ({'accumulation': 2}, '--config.accumulation=4 or --config.batch_size=88'),
        ({'batch_size': 127, 'divides': False}, '--config.accumulation=2 or --config.batch_size=87'),
        ({'pairs': True, 'devices': 3, 'batch_size': 126}, '--config.accumulation=2 or --config.batch_size=84'),
        (
            {'platform': 'gpu'},
            '--config.accumulation=2, --config.gradient_checkpointing=True or --config.batch_size=88',
        ),
        ({'platform': 'gpu', 'checkpointed': True}, '--config.accumulation=2 or --config.batch_size=88'),
    ],
)
def test_a_step_that_does_not_fit_is_refused_with_what_would(shape, remedy):
    batch = shape.get('batch_size', 128)
    message = f'one training step on {batch} images takes 20 GiB of memory, and this machine has 16 GiB; use {remedy}'
    with pytest.raises(UserError, match=f'^{re.escape(message)}$'):
        verdict(16 * GIB, **shape)


def test_a_state_that_does_not_fit():
    with pytest.raises(UserError, match=r'use a smaller backbone or a regime that trains less of it$'):
        verdict(1.5 * GIB)
    with pytest.raises(UserError, match=r'a regime that trains less of it or --config\.mesh\.fsdp=4$'):
        verdict(1.5 * GIB, devices=4, platform='tpu')


def test_a_step_on_texts_is_said_to_be():
    with pytest.raises(UserError, match='one training step on 128 texts takes 20 GiB of memory'):
        verdict(16 * GIB, inputs='texts')


def test_a_step_that_does_not_fit_now_is_a_warning():
    assert verdict(24 * GIB, available=16 * GIB) == (
        'one training step on 128 images takes 20 GiB of memory, and of the 24 GiB of this machine 16 GiB are free '
        'now; if it is killed for lack of memory, use --config.accumulation=2 or --config.batch_size=88'
    )


@pytest.mark.parametrize(
    ('said', 'told'),
    [
        ('Used 18.00G of 15.75G hbm.', 'takes 18 GiB of memory, and a device has 15.8 GiB'),
        ('no', 'takes more memory than'),
    ],
)
def test_a_compiler_that_gives_up(said, told):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {said}')

    limit = Memory(round(15.75 * GIB), 0, 'a device')
    with pytest.raises(UserError, match=f'one training step on 128 images {told}'):
        step_memory.compiled(Lowered(), step_memory.Shape(128, 1, platform='tpu'), limit, 'config.')


def make_session(tmp_path, **changes) -> Session:
    config = default_config()
    config.update({'backbone': 'vit_micro', 'image_size': 32, 'batch_size': 64, 'flip': False, **changes})
    return Session(config, make_dataset(), tmp_path)


SMALL = {'image_size': 8, 'batch_size': 16, 'regime': 'linear', 'weights': 'bundled:vit_micro'}


@pytest.mark.slow
def test_what_is_suggested_fits(tmp_path):
    """The suggested number of micro-batches brings a real step below the limit that it did not meet."""
    whole = program_costs.memory_of(make_session(tmp_path).programs.compiled_train_step(0))
    limit = Memory(whole.peak // 2, whole.peak // 2, 'this machine')
    with pytest.raises(UserError, match=r'use --config\.accumulation=(\d+) or --config\.batch_size=(\d+)$') as refused:
        make_session(tmp_path).train_step(0, limit)
    parts, batch = map(int, re.findall(r'=(\d+)', str(refused.value)))
    assert parts == 4
    assert 16 <= batch < 32
    assert make_session(tmp_path, accumulation=parts).train_step(0, limit)


def test_the_step_that_is_analysed_is_the_one_that_runs_and_gives_the_same_bits(tmp_path):
    session = make_session(tmp_path, **SMALL)
    (batch,) = [session.device_put(host) for host in session.batches(0, 1)]
    rate = session.learning_rate(0, 0)(0)
    jitted = session.programs.train_step(0)(session.initial_state(), batch, rate)
    given = session.initial_state()
    compiled = session.train_step(0)(given, batch, rate)
    assert session.train_step(0) is session.programs.compiled_train_step(0)
    for one, other in zip(jax.tree.leaves(jitted), jax.tree.leaves(compiled), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
    # It is donated, as by the jitted one.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.trainable))


def test_sweeps_share_their_compiled_steps(tmp_path, capsys):
    one, other = make_session(tmp_path, **SMALL), make_session(tmp_path, **SMALL, learning_rate=0.5, seed=3)
    # There is enough memory, but little of it is free; the trainings of a sweep say so once.
    limit = Memory(64 * GIB, 2**20, 'this machine')
    assert one.train_step(0, limit) is one.train_step(0, limit) is other.train_step(0, limit)
    said = capsys.readouterr().err
    assert said.count('of the 64 GiB of this machine 1 MiB are free now') == 1
