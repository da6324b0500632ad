"""A whole training: order of the data, checkpoints, resumption."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_dataset

import backbones
from backbones import UserError
from experiments import files
from experiments.training import loop
from experiments.training.checkpoints import Checkpoints
from experiments.training.config import default_config


def make_config(**changes):
    config = default_config()
    config.backbone = 'vit_micro'
    config.image_size = 16
    config.epochs = 3.0
    config.batch_size = 16
    config.shift = 1
    config.update(changes)
    return config


def leaves(variables):
    return jax.tree.leaves(variables)


def assert_same_bits(one, other):
    for left, right in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)


def test_it_learns(tmp_path):
    dataset = make_dataset()
    # The class is a quadrant, which a mirror image would change.
    config = make_config(backbone='resnet_micro', epochs=8.0, learning_rate=3e-3, flip=False)
    trained = loop.fit(config, dataset, tmp_path)
    logits = loop.logits_of(trained.model, trained.preprocessing)
    assert loop.accuracy(logits, trained.variables, dataset, 'test') > 0.8
    history = files.read_jsonl(tmp_path / 'metrics.jsonl')
    assert [row['epoch'] for row in history] == list(range(1, 9))
    assert history[-1]['loss'] < history[0]['loss'] / 2
    assert trained.steps == history[-1]['step'] == 8 * (112 // 16)


class Killed(Exception):
    pass


@pytest.mark.parametrize('backbone', ['vit_micro', 'resnet_micro'])
def test_interrupted_and_resumed_equals_uninterrupted_bit_by_bit(tmp_path, monkeypatch, backbone):
    dataset, config = make_dataset(), make_config(backbone=backbone)
    whole = loop.fit(config, dataset, tmp_path / 'whole')

    images = dataset.images
    reads = 0

    class Failing:
        shape = images.shape

        def __getitem__(self, indices):
            nonlocal reads
            reads += 1
            if reads > 12:
                raise Killed
            return images[indices]

    failing = dataclasses.replace(dataset, images=Failing())
    with pytest.raises(Killed):
        loop.fit(config, failing, tmp_path / 'cut')
    resumed = loop.fit(config, dataset, tmp_path / 'cut')
    assert_same_bits(resumed.variables, whole.variables)
    assert (tmp_path / 'cut' / 'metrics.jsonl').read_text() == (tmp_path / 'whole' / 'metrics.jsonl').read_text()


def test_a_finished_training_is_only_restored(tmp_path):
    dataset = make_dataset()
    first = loop.fit(make_config(), dataset, tmp_path)
    again = loop.fit(make_config(), dataset, tmp_path)
    assert_same_bits(first.variables, again.variables)
    assert again.images_per_second == 0


def test_seeds_differ_and_repeat(tmp_path):
    dataset = make_dataset()
    runs = [
        loop.fit(make_config(seed=seed, epochs=1.0), dataset, tmp_path / str(number)).variables
        for number, seed in enumerate((0, 0, 1))
    ]
    assert_same_bits(runs[0], runs[1])
    assert any((a != b).any() for a, b in zip(leaves(runs[0]), leaves(runs[2]), strict=True))


def test_linear_trains_the_head_on_loaded_weights_only(tmp_path):
    dataset = make_dataset()
    model = backbones.create('resnet_micro')
    variables = model.init(jax.random.key(5), jnp.zeros((1, 32, 32, 3)))
    backbones.save_weights(tmp_path / 'w.safetensors', variables)
    config = make_config(backbone='resnet_micro', weights=str(tmp_path / 'w.safetensors'), regime='linear')
    trained = loop.fit(config, dataset, tmp_path / 'run')
    assert_same_bits(trained.variables['params']['backbone'], variables['params'])
    assert_same_bits(trained.variables['batch_stats']['backbone'], variables['batch_stats'])
    assert np.abs(trained.variables['params']['head']['kernel']).max() > 0


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(tmp_path):
    dataset = make_dataset()
    trained = loop.fit(make_config(dtype='bfloat16', epochs=1.0), dataset, tmp_path)
    assert {leaf.dtype for leaf in leaves(trained.variables)} == {jnp.dtype('float32')}
    features = trained.model.backbone.apply(
        {'params': trained.variables['params']['backbone']}, jnp.zeros((1, 16, 16, 3))
    )
    assert features.pooled.dtype == jnp.bfloat16


def test_fewer_examples_than_a_batch(tmp_path):
    trained = loop.fit(make_config(fraction=0.1, epochs=2.0, batch_size=64), make_dataset(), tmp_path)
    assert (trained.examples, trained.steps) == (12, 2)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 50), batch_size=st.integers(1, 50), first=st.integers(0, 30))
def test_batches_do_not_depend_on_where_a_run_starts(seed, count, batch_size, first):
    indices, batch_size = np.arange(count) * 3, min(batch_size, count)
    whole = list(loop.batches(seed, 0, 60, batch_size, indices))
    rest = list(loop.batches(seed, first, 60, batch_size, indices))
    assert [batch.tolist() for batch in whole[first:]] == [batch.tolist() for batch in rest]
    per_epoch = count // batch_size
    epoch = np.concatenate(whole[:per_epoch])
    assert len(set(epoch.tolist())) == len(epoch) == per_epoch * batch_size


def test_an_unfinished_save_is_not_restored(tmp_path):
    dataset, config = make_dataset(), make_config(epochs=1.0)
    loop.fit(config, dataset, tmp_path)
    saved = sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir())
    (tmp_path / 'checkpoints' / '99.orbax-checkpoint-tmp').mkdir()
    with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        assert checkpoints._manager.latest_step() == saved[-1]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'regime': 'liner'}, "unknown regime 'liner'; did you mean 'linear'"),
        ({'regime': 'finetune'}, "the regime 'finetune' starts from pretrained weights"),
        ({'dtype': 'float23'}, "unknown dtype 'float23'; did you mean 'float32'"),
        ({'optimizer': 'adam'}, "unknown optimizer 'adam'; did you mean 'adamw'"),
        ({'epochs': 0.0}, "'epochs' must be positive, not 0.0"),
        ({'backbone': 'resnet5'}, "unknown backbone 'resnet5'; did you mean 'resnet50'"),
    ],
)
def test_bad_values_are_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.fit(make_config(**changes), make_dataset(), tmp_path)


def test_metrics_are_json(tmp_path):
    loop.fit(make_config(epochs=1.0), make_dataset(), tmp_path)
    (row,) = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert row.keys() >= {'step', 'epoch', 'loss', 'accuracy', 'gradient_norm', 'learning_rate', 'validation_accuracy'}
