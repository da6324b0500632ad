"""Planning for devices that are not there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_texts import NAME, make_texts, smaller, write_csv

import backbones
from backbones import cost
from backbones.errors import UserError
from experiments import plan
from experiments.planning import absent_devices, ahead_of_time, memory, program_costs

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/transfer.py:backbone=vit_micro,dataset=digits,regime='
SIZES = ('--classes', '10', '--stored_size', '32x32x1')


def command(*arguments) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'XLA_FLAGS': '', 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [sys.executable, '-m', 'experiments.plan', *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def planned(tmp_path, *arguments) -> tuple[dict, str]:
    """The numbers and the table of a plan."""
    done = command(*arguments, '--json', tmp_path / 'plan.json')
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / 'plan.json').read_text()), done.stdout


def check_linear(phase: dict) -> None:
    """Only the head is exchanged, and the frozen part costs a forward pass."""
    assert phase['parameters'] == 459_562
    assert phase['trainable'] == 970
    assert phase['analysis']['collectives'].keys() == {'all-reduce'}
    assert 970 * 2 <= phase['analysis']['collectives']['all-reduce']['bytes'] <= 1.05 * 970 * 4
    assert 1 <= phase['flops_per_image'] / phase['forward_flops_per_image'] < 1.3


def test_emulated_devices(tmp_path):
    numbers, table = planned(
        tmp_path, '--config', f'{CONFIG}linear', '--topology', 'cpu:4', *SIZES, '--batch_per_device', 8
    )
    (phase,) = numbers['phases']
    assert (phase['phase'], phase['devices'], phase['mesh']) == ('linear', 4, {'data': 4, 'fsdp': 1})
    check_linear(phase)
    assert phase['parameter_bytes'] == 4 * 459_562
    # Parameters, two moments of the head, and a quarter of the batch: pixels, labels and weights.
    least = 4 * 459_562 + 2 * 4 * 970 + 8 * (32 * 32 + 8)
    assert least <= phase['analysis']['argument_bytes'] <= least + 1024
    assert '32 in all' in table
    assert '970 of 459,562 train' in table


def test_one_verdict(tmp_path, monkeypatch, capsys):
    """The line of a compilation and the table say the same; the memory of emulated devices is unknown."""
    monkeypatch.chdir(ROOT)

    def verdict(*arguments) -> tuple[str, str, bool | None]:
        file = tmp_path / 'plan.json'
        plan.main(['--config', f'{CONFIG}linear', *SIZES, '--batch_per_device', '8', '--json', str(file), *arguments])
        said = capsys.readouterr()
        (row,) = [line for line in said.out.splitlines() if 'fits' in line]
        (progress,) = [line for line in said.err.splitlines() if 'images per device' in line]
        (phase,) = json.loads(file.read_text())['phases']
        return re.sub(r' \(\d+ s\)', '', progress), row.strip('│ '), phase['fits']

    line, row, fits = verdict('--topology', 'cpu:1')
    assert re.fullmatch(r'8 images per device: [\d.]+ MiB', line)
    assert re.fullmatch('fits +│ +unknown without --memory_gib', row)
    assert fits is None
    monkeypatch.setattr(memory, 'of_machine', lambda: memory.Memory(2**34, 2**33, 'this machine'))
    line, row, fits = verdict()
    assert re.fullmatch(r'8 images per device: [\d.]+ MiB of 16 GiB, fits', line)
    assert re.fullmatch(r'fits +│ +yes: [\d.]+ MiB of 16 GiB', row)
    assert fits is True
    line, row, fits = verdict('--memory_gib', '0.001')
    assert re.fullmatch(r'8 images per device: [\d.]+ MiB of 1.02 MiB, does not fit', line)
    assert re.fullmatch(r'fits +│ +no: [\d.]+ MiB of 1.02 MiB', row)
    assert fits is False


def test_texts_are_as_long_as_those_of_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    smaller(monkeypatch)
    data = write_csv(tmp_path / 'a.csv', make_texts(longest=14))
    arguments = ['--config', f'configs/transfer.py:backbone={NAME},dataset=csv:{data},regime=scratch']
    arguments += ['--config.batch_size=8', '--topology', 'cpu:1', '--json', str(tmp_path / 'plan.json')]
    plan.main(arguments)
    shown = capsys.readouterr()
    assert re.search('input +│ +16 tokens', shown.out)
    assert 'arithmetic per text of 16 tokens' in shown.out
    assert 'every batch of a training is padded to 16' in shown.err
    (phase,) = json.loads((tmp_path / 'plan.json').read_text())['phases']
    model = backbones.create_classifier(NAME, num_classes=3)
    assert phase['forward_flops_per_image'] == cost.count_flops(model, (16,))
    with pytest.raises(UserError, match='--stored_size is of images, and text_micro reads texts; leave it out'):
        plan.main([*arguments, '--stored_size', '32x32'])


@pytest.mark.slow
def test_sharded_parameters(tmp_path):
    arguments = ('--config', f'{CONFIG}lpft', '--phase', 'finetune', '--topology', 'cpu:4', *SIZES)
    numbers, _ = planned(tmp_path, *arguments, '--batch_per_device', 8, '--config.mesh.fsdp=4')
    (phase,) = numbers['phases']
    assert phase['mesh'] == {'data': 1, 'fsdp': 4}
    assert phase['parameter_bytes'] <= 1.1 * 4 * 459_562 / 4
    assert phase['optimizer_bytes'] <= 1.1 * 2 * 4 * 459_562 / 4
    assert phase['analysis']['collectives']['all-gather']['bytes'] >= 0.9 * 4 * 459_562
    assert 2.5 < phase['flops_per_image'] / phase['forward_flops_per_image'] < 4


@pytest.mark.slow
def test_the_largest_batch(tmp_path):
    numbers, table = planned(
        tmp_path, '--config', f'{CONFIG}linear', '--topology', 'cpu:2', *SIZES, '--find-batch', '--memory_gib', 0.008
    )
    (phase,) = numbers['phases']
    probes = {probe['batch_per_device']: probe for probe in phase['probes']}
    best = phase['batch_per_device']
    assert best >= 8
    assert probes[best]['peak_bytes'] <= 0.008 * 2**30 < probes[best + 8]['peak_bytes']
    assert all(probe['fits'] == (size <= best) for size, probe in probes.items())
    assert all(re.search(rf'tried {size} per device .* fit.* [\d.]+ x forward', table) for size in probes)


@pytest.mark.parametrize('first', [1, 8, 64, 100, 1000])
@pytest.mark.parametrize('most', [0, 7, 8, 15, 16, 17, 104, 500])
def test_search(first, most):
    tried = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= most

    assert ahead_of_time.find_batch(fits, first) == most // 8 * 8
    assert len(tried) == len(set(tried)) <= 18
    assert all(batch % 8 == 0 for batch in tried)


def test_search_ends_where_everything_fits():
    assert ahead_of_time.find_batch(lambda batch: True) == 2**16


def test_search_in_whole_parts():
    assert ahead_of_time.batch_unit(12) == 24
    assert ahead_of_time.find_batch(lambda batch: batch <= 100, first=8, unit=24) == 96


@pytest.mark.parametrize(
    ('message', 'needed'),
    [
        ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.50G of 15.75G hbm.', 18.5 * 2**30),
        (
            'RESOURCE_EXHAUSTED: the total memory for HLO temporaries (480.00G) exceeds available HBM (15.75G)',
            480 * 2**30,
        ),
        ('RESOURCE_EXHAUSTED: no', 0),
        ('INTERNAL: Used 18.50G of 15.75G hbm', None),
    ],
)
def test_what_compilers_say(message, needed):
    assert program_costs.needed_bytes(message) == needed


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('v5f:2x4', "unknown topology 'v5f:2x4'; did you mean 'v5e:2x4'"),
        ('v5e', "unknown topology 'v5e'"),
        ('cpu:0', "unknown topology 'cpu:0'; did you mean 'cpu:8'"),
        ('cpu:999', 'so it cannot have 999'),
    ],
)
def test_unknown_topologies(name, message):
    with pytest.raises(UserError, match=message):
        absent_devices.devices('local')
        absent_devices.devices(name)


def test_a_missing_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install libtpu'):
        absent_devices.devices('v5e:2x2')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--stored_size', '32'], "HEIGHTxWIDTH or HEIGHTxWIDTHxCHANNELS such as 256x256x3, not '32'"),
        (['--classes', '0'], '--classes must be positive, not 0'),
        (['--memory_gib', 'nan'], '--memory_gib must be positive, not nan'),
        (['--json', 'no/such/place.json'], "there is no directory 'no/such'"),
        ([*SIZES, '--topology', 'cpu:1', '--find-batch'], '--find_batch needs the memory of a device of cpu:1'),
        ([*SIZES, '--phase', 'finetun'], "unknown phase of the regime 'linear' 'finetun'"),
        ([*SIZES, '--config.mesh.fsdp=3'], 'a mesh of data=-1 and fsdp=3 does not fit'),
    ],
)
def test_bad_input(monkeypatch, arguments, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        plan.main(['--config', f'{CONFIG}linear', *arguments])


def test_bad_input_ends_the_command():
    done = command('--config', f'{CONFIG}linear', '--topology', 'v5e:3x3', *SIZES)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, '', 1)
    if importlib.util.find_spec('libtpu'):
        assert "error: libtpu knows no topology 'v5e:3x3'" in done.stderr


@pytest.mark.slow
def test_tpus_that_are_not_there(tmp_path):
    pytest.importorskip('libtpu')
    numbers, _ = planned(
        tmp_path, '--config', f'{CONFIG}linear', '--topology', 'v5e:2x2', *SIZES, '--batch_per_device', 8
    )
    (phase,) = numbers['phases']
    assert phase['devices'] == 4
    check_linear(phase)
    assert phase['fits']
    assert 0 < phase['peak_bytes'] < 2**28


@pytest.mark.slow
def test_tpus_whose_memory_is_too_small(tmp_path):
    pytest.importorskip('libtpu')
    arguments = ('--config', f'{CONFIG}linear', '--topology', 'v5e:1x1', *SIZES, '--batch_per_device', 2**22)
    numbers, _ = planned(tmp_path, *arguments)
    (phase,) = numbers['phases']
    assert not phase['fits']
    assert phase['needed_bytes'] > phase['limit_bytes'] == 15.75 * 2**30
