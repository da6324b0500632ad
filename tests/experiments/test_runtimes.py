"""What computes the frozen pass: the choice, equal features, and identities that tell runtimes apart."""

import importlib.util

import numpy as np
import pytest
from tiny import make_config, make_dataset

import backbones
from backbones import UserError
from experiments.features import extractor, network, runtimes
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.features.throughput import Measured
from experiments.training import mesh


def choose(asked, dtype='float32', device_mesh=None):
    return runtimes.choose(asked, device_mesh or mesh.make(), dtype)


def extract(runtime, directory, tap='pooled', seed=3):
    dataset = make_dataset('digits', examples=50)
    config = make_config(image_size=8, batch_size=16, runtime=runtime, tap=tap)
    made = Extractor(config, Store(directory / 'store'), directory)
    return made(FrozenBackbone('resnet_micro', 'random', seed), dataset, lambda count: None)


def test_what_is_chosen():
    assert choose('auto') == choose('onnxruntime') == 'onnxruntime' and choose('xla') == 'xla'


class TwoDevices:
    platform, devices = 'cpu', 2


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'dtype': 'bfloat16'}, 'it computes in float32, not in bfloat16'),
        ({'device_mesh': TwoDevices()}, 'here are 2 devices of cpu'),
    ],
)
def test_where_it_cannot_be_used(change, reason):
    assert choose('auto', **change) == 'xla'
    with pytest.raises(UserError, match=rf"runtime='onnxruntime' cannot be used: .*{reason}"):
        choose('onnxruntime', **change)


def test_where_it_is_not_installed(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'onnx' else found(name))
    assert choose('auto') == 'xla'
    with pytest.raises(UserError, match=r"onnx are not installed, which pip install -e '.\[onnx\]' mends"):
        choose('onnxruntime')


def test_features_are_those_of_xla_but_for_sums_in_another_order(tmp_path):
    for tap in ('pooled', 'grid'):
        one, two = (extract(runtime, tmp_path, tap)[0].values for runtime in ('xla', 'onnxruntime'))
        scale = np.abs(one).max()
        assert scale > 0.1 and 0 < np.abs(one - two).max() < 1e-5 * scale


@pytest.mark.parametrize('runtime', ('xla', 'onnxruntime'))
def test_computed_again_they_are_the_same_bits(tmp_path, runtime):
    one, two = (extract(runtime, tmp_path / name)[0].values for name in ('one', 'other'))
    np.testing.assert_array_equal(one, two)


def test_features_at_several_taps_from_one_pass_are_those_of_each_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(extractor, 'measure', lambda *_: Measured(None))
    dataset, backbone = make_dataset('digits', examples=50), FrozenBackbone('resnet_micro', 'random', 3)
    made = Extractor(
        make_config(image_size=8, batch_size=16, runtime='onnxruntime'), Store(tmp_path / 'store'), tmp_path
    )
    names = ['stage1', 'pooled', 'stages', 'grid']
    made.hold(backbone, dataset, names)
    for tap in names:
        together, _ = made.at(tap)(backbone, dataset, lambda count: None)
        np.testing.assert_array_equal(together.values, extract('onnxruntime', tmp_path / 'alone', tap)[0].values)


def test_each_has_features_of_its_own_in_the_store(tmp_path, monkeypatch):
    first, costs = extract('onnxruntime', tmp_path)
    assert costs.images_per_second is None or costs.images_per_second > 0
    assert costs.peak_memory_bytes is None
    assert extract('xla', tmp_path)[1].peak_memory_bytes > 0

    def refused(*arguments):
        raise AssertionError('a backbone runs')

    monkeypatch.setattr(runtimes.OnnxProgram, '__call__', refused)
    monkeypatch.setattr(extractor, 'measure', lambda *arguments: Measured(None))
    again, _ = extract('onnxruntime', tmp_path)
    np.testing.assert_array_equal(again.values, first.values)


def test_what_was_stored_before_there_was_a_choice_is_found():
    arguments = ('resnet_micro', backbones.preprocess('resnet_micro'), 'float32', 4, mesh.make())
    assert not {'runtime', 'export_code'} & network.make_network(*arguments, 'xla').document['computation'].keys()
    chosen = network.make_network(*arguments, 'auto').document['computation']
    assert chosen['runtime'].startswith('onnxruntime 1.') and len(chosen['export_code']) == 64


def test_other_weights_are_another_graph(tmp_path):
    one, two = (extract('onnxruntime', tmp_path, seed=seed)[0].values for seed in (3, 4))
    assert np.abs(one - two).max() > 1e-3
