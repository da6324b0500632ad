"""What is checked before a work directory is claimed, and before data are read."""

import shutil
import sys

import numpy as np
import pytest
from rich.table import Table
from tiny import make_config, make_dataset

import backbones
from backbones import UserError
from experiments import ablate, train
from experiments.ablation import estimate
from experiments.ablation.engine import Engine
from experiments.cli import display, work_directories
from experiments.data import loading
from experiments.planning import memory
from experiments.results import rows
from experiments.training import loop, session
from experiments.training.programs import Programs

TRANSFER = 'configs/transfer.py:backbone=vit_micro,dataset=digits,regime='
# What makes a training on made-up images quick.
QUICK = ('--config.image_size=16', '--config.epochs=1', '--config.batch_size=16')
COMPARE = 'configs/ablations/cnn_vs_vit.py:dataset=digits,backbones='


# Bytes in all and free: enough for the state of the trainings here, but not for a step.
LITTLE = (12 * 2**20, 12 * 2**20)


class DataRead(Exception):
    """The data were read."""


def no_data(*_, **__):
    raise DataRead


@pytest.fixture(scope='module')
def narrow_weights(tmp_path_factory):
    """Weights of a network of another width."""
    import jax

    file = tmp_path_factory.mktemp('weights') / 'narrow.safetensors'
    shapes = jax.eval_shape(
        backbones.create('vit_micro', channels=48).init, jax.random.key(0), np.zeros((1, 32, 32, 3))
    )
    backbones.save_weights(file, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    return file


# Mistakes that are found without data: what is changed, and what is said.
WITHOUT_DATA = {
    'regime': (['--config.regime=partial:9'], "trains the last 9 stages, but the backbone has 4 .* 'partial:4'"),
    'batch': (['--config.accumulation=3'], 'a batch of 16 cannot be shared evenly .* use 15 or 18'),
    'range': (['--config.fraction=1.5'], r"'fraction' must lie in \(0, 1\], not 1.5"),
    'optimizer': (['--config.optimizer=adam'], "unknown optimizer 'adam'; did you mean 'adamw'"),
    'sampler': (['--config.sampler=balance'], "unknown sampler 'balance'; did you mean 'balanced'"),
    'class weights': (['--config.class_weights=balance'], "unknown kind of class weights 'balance'"),
    'mesh': (['--config.mesh.fsdp=3'], 'a mesh of data=-1 and fsdp=3 does not fit'),
    'weights': (['--config.weights=nothing.pth'], "there are no weights at 'nothing.pth'"),
    'package': (['--config.wandb_project=x'], r'config key (training\.)?wandb_project needs the package wandb'),
    'size': (
        ['--config.backbone=vit_tiny_patch16', '--config.image_size=8'],
        'do not divide into patches of 16; set --config.image_size=16$',
    ),
    'sizes': (
        ['--config.image_size=33', '--config.image_height=16'],
        'of 4; set --config.image_size=32 --config.image_height=16 or --config.image_size=36 --config.image_height=16$',
    ),
    'adapters': (['--config.lora_alpha=8'], "'lora_alpha' is 8.0, but it is only for lora, and the regime is finetune"),
    'first phase': (
        ['--config.probe_epochs=2'],
        "'probe_epochs' is 2.0, but it is only for lpft, and the regime is",
    ),
    'decay': (['--config.regime=linear', '--config.layer_decay=0.5'], "'layer_decay' is 0.5, but it is only for parti"),
}


@pytest.mark.parametrize('mistake', WITHOUT_DATA)
def test_a_mistake_in_a_training_is_found_before_its_data_are_read(tmp_path, monkeypatch, mistake):
    arguments, message = WITHOUT_DATA[mistake]
    monkeypatch.setattr(loading, 'load', no_data)
    monkeypatch.setitem(sys.modules, 'wandb', None)
    command = ['--config', f'{TRANSFER}finetune', '--workdir', str(tmp_path / 'run'), *QUICK]
    with pytest.raises(UserError, match=message):
        train.main([*command, *arguments])
    assert not (tmp_path / 'run').exists()
    with pytest.raises(DataRead):
        train.main(command)


def test_weights_that_do_not_fit_are_found_before_data_are_read(tmp_path, monkeypatch, narrow_weights):
    monkeypatch.setattr(loading, 'load', no_data)
    workdir = ['--workdir', str(tmp_path / 'run')]
    with pytest.raises(UserError, match=r'class_token is \[1, 1, 48\] in the file'):
        train.main(['--config', f'{TRANSFER}finetune', *workdir, *QUICK, f'--config.weights={narrow_weights}'])
    for regimes in ('knn', 'finetune'):
        with pytest.raises(UserError, match=r'class_token is \[1, 1, 48\] in the file'):
            ablate.main(['--config', f'{COMPARE}vit_micro@{narrow_weights},regimes={regimes}', *workdir])
    assert not (tmp_path / 'run').exists()


# Mistakes that only the data show.
WITH_DATA = {
    'pairs': (
        ['--config.mixup=0.2', '--config.batch_size=15'],
        "'mixup' mixes pairs and needs an even batch_size, not 15; use 16",
    ),
    'fraction': (['--config.fraction=0.01'], 'label fraction 0.01 leaves 4 of 4 classes without a training example'),
}


@pytest.mark.parametrize('mistake', WITH_DATA)
def test_a_mistake_that_the_data_show_claims_no_directory(tmp_path, monkeypatch, mistake):
    arguments, message = WITH_DATA[mistake]
    monkeypatch.setattr(loading, 'load', lambda *_, **__: make_dataset('digits'))
    with pytest.raises(UserError, match=message):
        train.main(['--config', f'{TRANSFER}finetune', '--workdir', str(tmp_path / 'run'), *QUICK, *arguments])
    assert not (tmp_path / 'run').exists()


def test_a_training_is_compiled_once_and_its_weights_are_read_once(tmp_path, monkeypatch):
    read, compiled = [], []
    load_weights, compile_it = backbones.load_weights, session.step_memory.compiled
    monkeypatch.setattr(loading, 'load', lambda *_, **__: make_dataset('digits'))
    monkeypatch.setattr(backbones, 'load_weights', lambda *a, **k: read.append(a) or load_weights(*a, **k))
    monkeypatch.setattr(session.step_memory, 'compiled', lambda *a: compiled.append(a) or compile_it(*a))
    # The step that is analysed is the one that runs: nothing else is traced for it.
    monkeypatch.setattr(Programs, 'train_step', _counted(Programs.train_step, lambda: compiled.append('jitted')))
    command = ['--config', f'{TRANSFER}linear', '--workdir', str(tmp_path / 'run'), *QUICK]
    train.main(command)
    assert (len(read), len([each for each in compiled if each != 'jitted'])) == (1, 1)
    assert rows.read(tmp_path / 'run')[0].costs['input'] == [16, 16]
    # Finished, it is only evaluated again.
    shutil.rmtree(tmp_path / 'run' / 'predictions')
    train.main(command)
    assert (len(read), len([each for each in compiled if each != 'jitted'])) == (1, 1)
    assert (tmp_path / 'run' / 'predictions' / 'test.npz').exists()


def _counted(function, tell):
    def counted(*arguments):
        tell()
        return function(*arguments)

    return counted


@pytest.mark.slow
def test_a_training_without_memory_for_its_step_claims_no_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, 'load', lambda *_, **__: make_dataset('digits'))
    monkeypatch.setattr(memory, 'of_machine', lambda: memory.Memory(*LITTLE, 'this machine'))
    command = ['--config', f'{TRANSFER}finetune', '--workdir', str(tmp_path / 'run'), *QUICK]
    with pytest.raises(UserError, match=r'one training step on 16 images takes .* MiB of memory, and this machine has'):
        train.main(command)
    assert not (tmp_path / 'run').exists()
    with pytest.raises(UserError, match='this machine has'):
        train.main([*command, '--dry_run'])


def ablation(tmp_path, *arguments, backbones='vit_micro', regimes='finetune'):
    config = f'{COMPARE}{backbones},regimes={regimes}'
    quick = [word.replace('config.', 'config.training.') for word in QUICK[1:]]
    quick += ['--config.image_size=16', '--config.fractions=(1.0,)', '--config.seeds=(0,)']
    cache = ['--cache_dir', str(tmp_path / 'cache')]
    ablate.main(['--config', config, '--workdir', str(tmp_path / 'run'), *cache, *quick, *arguments])


@pytest.mark.parametrize(
    ('plan', 'mistake'),
    [
        pytest.param(plan, mistake, id=f'{name}-{mistake}', marks=pytest.mark.exhaustive if repeats else ())
        for name, plan in (('run', []), ('plan', ['--plan']))
        for mistake in ('regime', 'batch', 'optimizer', 'mesh', 'package', 'rates')
        for repeats in [bool(plan) and mistake != 'regime']
    ],
)
def test_a_mistake_in_an_ablation_is_found_before_data_are_read(tmp_path, monkeypatch, mistake, plan):
    if mistake == 'rates':
        arguments, message = ['--config.training_learning_rates=(0.1, 0.0)'], 'must be positive, not 0.0'
    else:
        arguments, message = WITHOUT_DATA[mistake]
        arguments = [word.replace('config.', 'config.training.') for word in arguments]
    regime = 'partial:9' if mistake == 'regime' else 'finetune'
    monkeypatch.setattr(loading, 'load', no_data)
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UserError, match=message):
        ablation(tmp_path, *([] if mistake == 'regime' else arguments), *plan, regimes=f'knn,{regime}')
    assert not (tmp_path / 'run').exists()


def test_a_mistake_in_an_ablation_that_the_data_show_claims_no_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, 'load', lambda *_, **__: make_dataset('digits'))
    with pytest.raises(UserError, match='needs an even batch_size, not 15; use 16'):
        ablation(tmp_path, '--config.training.mixup=0.2', '--config.training.batch_size=15')
    monkeypatch.setattr(memory, 'of_machine', lambda: memory.Memory(*LITTLE, 'this machine'))
    with pytest.raises(UserError, match=r'this machine has 12 MiB; use --config\.training\.accumulation=2 or --'):
        ablation(tmp_path)
    assert not (tmp_path / 'run').exists()


def test_keys_that_no_regime_of_an_ablation_reads_are_said(tmp_path, monkeypatch):
    """They are not refused: regimes may come and go."""
    monkeypatch.setattr(loading, 'load', lambda *_, **__: make_dataset('digits'))
    monkeypatch.setattr(estimate, 'table', lambda *_: Table())
    monkeypatch.setattr(Engine, 'check_with_data', lambda *_: None)  # it compiles a step
    keys = ['--config.training.lora_alpha=3', '--config.training.layer_decay=0.5', '--plan']
    with display.console.capture() as said:
        ablation(tmp_path, *keys, regimes='knn,finetune')
    expected = (
        "'training.lora_alpha' is 3.0, but it is only for lora, and the regimes are knn, finetune; leave it at 0.0"
    )
    assert expected in ' '.join(said.get().split())
    assert 'layer_decay' not in said.get()


def test_a_run_that_failed_at_once_leaves_its_directory_to_the_corrected_command(tmp_path, monkeypatch, capsys):
    """Earlier versions claimed the directory first."""
    monkeypatch.setattr(loading, 'load', lambda *_, **__: make_dataset('digits'))
    workdir = tmp_path / 'run'
    command = ['--config', f'{TRANSFER}linear', '--workdir', str(workdir), *QUICK]
    wrong = make_config().training.to_dict()
    work_directories.claim(workdir, wrong)
    train.main(command)
    assert 'but nothing has been computed in it: it now belongs to this one' in capsys.readouterr().err
    assert work_directories.read_config(workdir)['regime'] == 'linear'
    with pytest.raises(UserError, match='belongs to another config'):
        train.main([*command, '--config.seed=3'])


def test_a_batch_is_not_refused_where_a_run_goes_on(tmp_path):
    """Earlier versions took any batch that is larger than the data, and such a run continues."""
    assert not loop.has_begun(tmp_path)
    (tmp_path / 'checkpoints' / '12.unfinished').mkdir(parents=True)
    assert not loop.has_begun(tmp_path)
    (tmp_path / 'checkpoints' / '8').mkdir()
    assert loop.has_begun(tmp_path)
