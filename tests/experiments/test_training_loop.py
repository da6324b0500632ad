"""A whole training: phases, checkpoints, resumption, and what it says about itself."""

import dataclasses
import json
import re
import shutil
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_dataset

import backbones
from backbones import UserError
from experiments.cli import atomic_files, display
from experiments.cli.exit_status import Preempted
from experiments.commands import train
from experiments.tasks import Classification
from experiments.training import loop, progress
from experiments.training.checkpoints import Checkpoints
from experiments.training.config import default_config
from experiments.training.preemption import Interruption
from experiments.training.session import Session


def make_config(**changes):
    config = default_config()
    config.backbone = 'vit_micro'
    config.image_size = 16
    # One program serves all tests that change nothing about it.
    config.epochs = 2.0
    config.batch_size = 16
    config.shift = 1
    config.update(changes)
    return config


def leaves(variables):
    return jax.tree.leaves(variables)


def assert_same_bits(one, other):
    for left, right in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def events(directory: Path) -> list[str]:
    return [row['event'] for row in atomic_files.read_jsonl(directory / 'events.jsonl')]


@pytest.fixture(scope='module')
def run_and_said(tmp_path_factory) -> tuple[Path, loop.Trained, str]:
    """A run of the config as it is, from beginning to end, and what it said; a test that writes to it copies it."""
    directory, config = tmp_path_factory.mktemp('whole'), make_config(tensorboard=True)
    with display.console.capture() as said:
        trained = loop.fit(config, make_dataset(), directory, tables=False, label='cell · rate 0.1')
    return directory, trained, said.get()


@pytest.fixture(scope='module')
def whole(run_and_said) -> tuple[Path, loop.Trained]:
    return run_and_said[:2]


@pytest.mark.parametrize('changes', [{'mixup': 0.2}, {'cutmix': 1.0}, {'mixup': 0.2, 'cutmix': 1.0}])
def test_examples_that_leave_one_over_are_mixed_in_pairs(tmp_path, changes):
    whole = make_dataset()
    dataset = dataclasses.replace(whole, splits={**whole.splits, 'train': whole.splits['train'][:33]})
    assert Session(make_config(batch_size=128), dataset, tmp_path).batch_size == 33
    assert Session(make_config(batch_size=128, **changes), dataset, tmp_path).batch_size == 32
    assert Session(make_config(batch_size=127, **changes), dataset, tmp_path).batch_size == 32
    name = next(iter(changes))
    with pytest.raises(UserError, match=f"key '{name}' mixes pairs and needs an even batch_size, not 31; use 32"):
        Session(make_config(batch_size=31, **changes), dataset, tmp_path)
    four = np.unique(dataset.targets[dataset.splits['train']], return_index=True)[1]
    few = dataclasses.replace(dataset, splits={**dataset.splits, 'train': dataset.splits['train'][four]})
    with pytest.raises(UserError, match='4 training examples are too few for batches of 6: a pair per device'):
        Session(make_config(batch_size=128, accumulation=3, **changes), few, tmp_path)


@pytest.mark.exhaustive
def test_a_mixed_batch_of_fewer_examples_trains(tmp_path):
    dataset = make_dataset(examples=48)
    config = make_config(batch_size=128, mixup=0.2, cutmix=1.0, epochs=1.0)
    assert loop.fit(config, dataset, tmp_path).steps == 1


@pytest.mark.slow
def test_it_learns(tmp_path):
    dataset = make_dataset()
    # The class is a quadrant, which a mirror image would change.
    config = make_config(backbone='resnet_micro', image_size=8, epochs=8.0, learning_rate=3e-3, flip=False)
    trained = loop.fit(config, dataset, tmp_path)
    test = trained.evaluate('test')
    assert test.score > 0.8
    assert trained.validation_score == trained.evaluate('validation').score
    assert test.count == len(dataset.splits['test'])
    right = test.predictions['logits'].argmax(-1) == dataset.targets[test.indices]
    assert right.mean() == test.metrics['accuracy'] == test.score
    history = atomic_files.read_jsonl(tmp_path / 'metrics.jsonl')
    assert [row['epoch'] for row in history] == list(range(1, 9))
    assert history[-1]['loss'] < history[0]['loss'] / 2
    assert trained.steps == history[-1]['step'] == 8 * (112 // 16)
    (rules,) = json.loads((tmp_path / 'parameters.json').read_text())
    assert rules['phase'] == 'scratch'
    assert sum(row['parameters'] for row in rules['rules'] if row['state'] == 'trainable') == trained.trainable


class Killed(BaseException):
    pass


def killed(*_):
    raise Killed


@pytest.mark.parametrize('backbone', ['vit_micro', pytest.param('resnet_micro', marks=pytest.mark.exhaustive)])
def test_interrupted_and_resumed_equals_uninterrupted_bit_by_bit(tmp_path, monkeypatch, whole, backbone):
    dataset, config = make_dataset(), make_config(backbone=backbone)
    directory, uninterrupted = whole
    if backbone != make_config().backbone:
        directory, uninterrupted = tmp_path / 'whole', loop.fit(config, dataset, tmp_path / 'whole')

    settle, settled = loop._Phase._settle, []

    def killing(self):
        settled.append(1)
        if len(settled) > 12:
            raise Killed
        settle(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Phase, '_settle', killing)
        with pytest.raises(Killed):
            loop.fit(config, dataset, tmp_path / 'cut')
    resumed = loop.fit(config, dataset, tmp_path / 'cut')
    assert events(tmp_path / 'cut') == ['resumed']
    assert_same_bits(resumed.variables, uninterrupted.variables)
    assert (tmp_path / 'cut' / 'metrics.jsonl').read_text() == (directory / 'metrics.jsonl').read_text()


class Soon(Interruption):
    """Asked to stop when a run looks for the n-th time whether it is: after each step, and in evaluations."""

    def __init__(self, times: int):
        super().__init__()
        self._left = times

    def asked(self) -> bool:
        self._left -= 1
        return self._left == 0


@pytest.mark.slow
def test_asked_to_stop_it_saves_the_step_it_is_at(tmp_path):
    """In the middle of an epoch, whose metrics are then the means of both parts; before and in an evaluation."""
    dataset = make_dataset()
    config = make_config(
        regime='lpft', weights='bundled:vit_micro', probe_epochs=1.0, epochs=2.0, log_steps=5, keep_best=True
    )
    whole = loop.fit(config, dataset, tmp_path / 'whole')
    for times, step, evaluation_due in [
        (3, 3, False),
        (4, 7, True),  # before the evaluation at the end of the first phase
        (1, 7, True),  # in that evaluation
        (5, 11, False),
        (4, 14, True),  # in the first evaluation of the second phase
        (9, 21, True),  # in the last one
    ]:
        with pytest.raises(Preempted, match=f'step {step} is saved'):
            loop.run(Session(config, dataset, tmp_path / 'cut'), interruption=Soon(times))
        newest = tmp_path / 'cut' / 'checkpoints' / str(step) / 'metadata.json'
        assert json.loads(newest.read_text())['metadata']['evaluation_due'] == evaluation_due
        with Checkpoints(tmp_path / 'cut' / 'checkpoints') as checkpoints:
            assert checkpoints.steps()[-1] == step
    resumed = loop.fit(config, dataset, tmp_path / 'cut')
    assert_same_bits(resumed.variables, whole.variables)
    assert (tmp_path / 'cut' / 'metrics.jsonl').read_text() == (tmp_path / 'whole' / 'metrics.jsonl').read_text()
    assert events(tmp_path / 'cut') == [
        'preempted', 'resumed', 'preempted', 'resumed', 'preempted', 'resumed', 'phase', 'preempted', 'resumed',
        'preempted', 'resumed', 'preempted', 'resumed', 'best',
    ]  # fmt: skip
    steps = [event.get('step') for event in atomic_files.read_jsonl(tmp_path / 'cut' / 'events.jsonl')]
    assert steps[-1] == atomic_files.read_jsonl(tmp_path / 'whole' / 'events.jsonl')[-1]['step']
    rows = atomic_files.read_jsonl(tmp_path / 'whole' / 'metrics.jsonl')
    assert [(row['step'], row.get('phase')) for row in rows] == [
        (5, None), (7, 'linear'), (10, None), (14, 'finetune'), (15, None), (20, None), (21, 'finetune'),
    ]  # fmt: skip


@pytest.mark.exhaustive
def test_killed_between_a_repeated_evaluation_and_its_checkpoint(tmp_path, monkeypatch):
    """Its row is in the file already, and is there once only."""
    dataset, config = make_dataset(), make_config(log_steps=7)
    loop.fit(config, dataset, tmp_path / 'whole')
    with pytest.raises(Preempted, match='step 7 is saved'):
        loop.run(Session(config, dataset, tmp_path / 'cut'), interruption=Soon(7))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpoints, 'save', killed)
        loop.fit(config, dataset, tmp_path / 'cut')
    assert len(atomic_files.read_jsonl(tmp_path / 'cut' / 'metrics.jsonl')) == 2
    loop.fit(config, dataset, tmp_path / 'cut')
    assert (tmp_path / 'cut' / 'metrics.jsonl').read_text() == (tmp_path / 'whole' / 'metrics.jsonl').read_text()


def test_each_evaluation_is_a_line(run_and_said):
    directory, trained, said = run_and_said
    shown = [line for line in said.splitlines() if 'epoch' in line]
    rows = [row for row in atomic_files.read_jsonl(directory / 'metrics.jsonl') if 'epoch' in row]
    assert len(shown) == len(rows) == 2
    for epoch, (line, row) in enumerate(zip(shown, rows, strict=True), start=1):
        best = '' if row['validation_accuracy'] >= max(each['validation_accuracy'] for each in rows[:epoch]) else '.*'
        assert re.fullmatch(
            rf'cell · rate 0\.1: epoch {epoch} of 2 \(step {row["step"]} of {trained.steps}\), loss {row["loss"]:.4f}, '
            rf'validation accuracy {row["validation_accuracy"]:.4f}{best}, '
            rf'validation loss {row["validation_loss"]:.4f}, learning rate {row["learning_rate"]:.2g}'
            r', [\d,]+ images/s',
            line,
        ), line


def test_a_finished_training_is_only_restored(tmp_path, whole):
    directory, first = whole
    shutil.copytree(directory, tmp_path / 'run')
    again = loop.fit(make_config(), make_dataset(), tmp_path / 'run')
    assert_same_bits(first.variables, again.variables)
    assert again.validation_score == first.validation_score
    assert again.images_per_second == 0


@pytest.mark.parametrize('least', [-1.0, 1.0])
def test_a_last_epoch_that_is_not_the_best_is_said(tmp_path, monkeypatch, whole, least):
    monkeypatch.setattr(loop, '_NOTABLE', least)
    shutil.copytree(whole[0], tmp_path / 'run')
    with display.console.capture() as said:
        again = loop.fit(make_config(), make_dataset(), tmp_path / 'run')
    line = f'the result is the last epoch, with a validation score of {again.validation_score:.4f}; the best had'
    assert (line in said.get().replace('\n', ' ')) == (least < 0)


@pytest.mark.slow
def test_seeds_differ_and_repeat(tmp_path, whole):
    dataset = make_dataset()
    runs = [whole[1].variables]
    runs += [loop.fit(make_config(seed=seed), dataset, tmp_path / str(seed)).variables for seed in (0, 1)]
    assert_same_bits(runs[0], runs[1])
    assert any((a != b).any() for a, b in zip(leaves(runs[0]), leaves(runs[2]), strict=True))


@pytest.mark.slow
def test_linear_trains_the_head_on_loaded_weights_only(tmp_path):
    dataset = make_dataset()
    config = make_config(backbone='resnet_micro', weights='bundled:resnet_micro', regime='linear', epochs=1.0)
    trained = loop.fit(config, dataset, tmp_path)
    variables, _ = backbones.load_weights('resnet_micro', 'bundled:resnet_micro')
    assert_same_bits(trained.variables['params']['backbone'], variables['params'])
    assert_same_bits(trained.variables['batch_stats']['backbone'], variables['batch_stats'])
    assert np.abs(trained.variables['params']['head']['kernel']).max() > 0


@pytest.mark.slow
def test_lora_leaves_plain_weights(tmp_path):
    """Merged, they give the logits that were evaluated with the adapters beside the kernels."""
    dataset = make_dataset()
    config = make_config(regime='lora:4', weights='bundled:vit_micro', epochs=2.0, learning_rate=1e-2, lora_alpha=8.0)
    trained = loop.fit(config, dataset, tmp_path)
    plain, _ = backbones.load_weights('vit_micro', 'bundled:vit_micro')
    assert jax.tree.structure(trained.variables['params']['backbone']) == jax.tree.structure(plain['params'])
    test = trained.evaluate('test')
    logits = trained.model.apply(trained.variables, trained.task.preprocessing(dataset.images[test.indices]))
    evaluated = test.predictions['logits']
    np.testing.assert_allclose(logits, evaluated, atol=1e-5 * np.abs(evaluated).max())
    backbones.save_weights(tmp_path / 'weights.safetensors', trained.variables)
    backbones.load_weights('vit_micro', tmp_path / 'weights.safetensors', classifier=True, image_size=16)


@pytest.mark.slow
def test_the_best_epoch_is_the_result_of_early_stopping(tmp_path, monkeypatch):
    """Validation accuracies as if made up, so that the third of five evaluations is the last without a gain."""
    dataset = make_dataset()
    accuracies = iter([0.5, 0.7, 0.6, 0.65, 0.9])
    original = progress.Progress.evaluated
    monkeypatch.setattr(progress.Progress, 'evaluated', lambda self, _: original(self, next(accuracies)))
    trained = loop.fit(make_config(epochs=5.0, early_stopping_epochs=2), dataset, tmp_path)
    assert trained.steps == 4 * 7
    assert trained.validation_score == 0.7
    assert events(tmp_path) == ['early stopping', 'best']
    with Checkpoints(tmp_path / 'checkpoints', keep_best=True) as checkpoints:
        assert checkpoints.steps() == [14, 21, 28]
    best, _ = backbones.load_weights('vit_micro', tmp_path / 'checkpoints' / '14', image_size=16)
    assert_same_bits(best['params'], trained.variables['params']['backbone'])


@pytest.mark.parametrize('found', ['stop', 'skip'])
def test_a_loss_that_is_no_number(tmp_path, found):
    """A learning rate that overflows in the second step; the warm-up makes the first one harmless."""
    dataset, config = make_dataset(), make_config(learning_rate=1e30, non_finite=found, epochs=1.0)
    if found == 'stop':
        message = r'non-finite loss or gradient at step \d: loss .*; the batch was \d{4}, .*there is no checkpoint yet'
        with pytest.raises(UserError, match=message):
            loop.fit(config, dataset, tmp_path)
        (row,) = [row for row in atomic_files.read_jsonl(tmp_path / 'events.jsonl') if row['event'] == 'not finite']
        assert len(row['ids']) == config.batch_size
        return
    trained = loop.fit(config, dataset, tmp_path)
    assert trained.skipped
    assert all(np.isfinite(leaf).all() for leaf in leaves(trained.variables))
    assert trained.steps == 7


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(tmp_path):
    dataset = make_dataset()
    trained = loop.fit(make_config(dtype='bfloat16', epochs=1.0), dataset, tmp_path)
    assert {leaf.dtype for leaf in leaves(trained.variables)} == {jnp.dtype('float32')}
    features = trained.model.backbone.apply(
        {'params': trained.variables['params']['backbone']}, jnp.zeros((1, 16, 16, 3))
    )
    assert features.pooled.dtype == jnp.bfloat16


@pytest.mark.slow
def test_fewer_examples_than_a_batch(tmp_path):
    trained = loop.fit(make_config(fraction=0.1, epochs=2.0, batch_size=64), make_dataset(), tmp_path)
    assert (trained.examples, trained.steps) == (12, 2)


@pytest.mark.slow
def test_a_dry_run_writes_nothing(tmp_path):
    metrics = train.dry_run(Session(make_config(), make_dataset(), tmp_path))
    assert metrics['loss'] == pytest.approx(np.log(4), rel=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard(whole):
    (file,) = (whole[0] / 'tensorboard').iterdir()
    assert b'validation_accuracy' in file.read_bytes()


@pytest.mark.slow
def test_a_profile_is_written(tmp_path):
    loop.run(Session(make_config(), make_dataset(), tmp_path), profile=True)
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'regime': 'liner'}, "unknown regime 'liner'; did you mean 'linear'"),
        ({'regime': 'finetune'}, "the regime 'finetune' starts from pretrained weights"),
        ({'weights': 'bundled:vit_micro'}, "the regime 'scratch' starts from random weights"),
        (
            {'regime': 'partial:9', 'weights': 'bundled:vit_micro'},
            "trains the last 9 stages, but the backbone has 4 .* 'partial:4'",
        ),
        ({'regime': 'partial:0', 'weights': 'bundled:vit_micro'}, "'partial:0' needs a positive whole number"),
        ({'dtype': 'float23'}, "unknown dtype 'float23'; did you mean 'float32'"),
        ({'non_finite': 'stopp'}, "unknown non_finite 'stopp'; did you mean 'stop'"),
        ({'optimizer': 'adam'}, "unknown optimizer 'adam'; did you mean 'adamw'"),
        ({'sampler': 'balance'}, "unknown sampler 'balance'; did you mean 'balanced'"),
        ({'epochs': 0.0}, "'epochs' must be positive, not 0.0"),
        ({'batch_size': 0}, "'batch_size' must be positive, not 0"),
        ({'ema_decay': 1.0}, r"'ema_decay' must lie in \[0, 1\), not 1.0"),
        ({'accumulation': 3}, 'a batch of 16 cannot be shared evenly by 1 device in 3 micro-batches; use 15 or 18'),
        ({'backbone': 'resnet5'}, "unknown backbone 'resnet5'; did you mean 'resnet50'"),
    ],
)
def test_bad_values_are_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.fit(make_config(**changes), make_dataset(), tmp_path)


def test_weights_that_cannot_be_written_can_be_written_later(tmp_path, monkeypatch):
    def full(path, variables, description):
        raise UserError(f'the weights cannot be written to {str(path)!r}: No space left on device')

    monkeypatch.setattr(backbones, 'save_weights', full)
    message = (
        r'the weights cannot be written to .*weights\.safetensors.: No space left on device; the training is finished '
        'and saved, and the same command writes the results$'
    )
    model = types.SimpleNamespace(head=None)
    task = Classification(10, backbones.preprocess('vit_micro'))
    finished = types.SimpleNamespace(variables={}, model=model, task=task)
    with pytest.raises(UserError, match=message):
        train._write(make_config(), make_dataset(), tmp_path, finished, None, None)


def test_a_mesh_that_does_not_fit_the_devices(tmp_path):
    config = make_config()
    config.mesh.fsdp = 3
    with pytest.raises(UserError, match='data=-1 and fsdp=3 does not fit 1 device; fsdp can be 1'):
        loop.fit(config, make_dataset(), tmp_path)


def test_metrics_are_json(whole):
    _, row = [json.loads(line) for line in (whole[0] / 'metrics.jsonl').read_text().splitlines()]
    assert row.keys() >= {'step', 'epoch', 'loss', 'accuracy', 'gradient_norm', 'learning_rate', 'validation_accuracy'}
