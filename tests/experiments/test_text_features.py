"""Features of texts: those of each text alone, in the order of the data set, whatever is computed together."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_meshes import run
from tiny_texts import NAME, ablation_config, make_texts, smaller, tokens_of

import backbones
from backbones import UserError
from backbones.text.tokenising import PADDING
from experiments.data.texts import Texts, by_length, encoded
from experiments.features import extractor, network, taps, throughput
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.frozen_pass import FrozenPass
from experiments.features.store import Store

TAPS = ('pooled', 'stages', 'stage1', 'stage2', 'stage3', 'stage4', 'class_token', 'mean_tokens', 'grid')
CALLS = SimpleNamespace(count=0)


@pytest.fixture(scope='module', autouse=True)
def small_network_compiled_once():
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch)
        patch.setattr(extractor, 'make_network', functools.cache(network.make_network))

        class Counted(FrozenPass):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                program = self.program

                def call(*given):
                    CALLS.count += 1
                    return program(*given)

                self.program = call

        patch.setattr(network, 'FrozenPass', Counted)
        patch.setattr(throughput, 'BATCHES', 2)
        patch.setattr(throughput, 'OTHERS', 1.0)  # tests run beside others
        patch.setattr(extractor, '_SHARD_EXAMPLES', 16)
        yield


@pytest.fixture(scope='module')
def own(small_network_compiled_once, tmp_path_factory) -> FrozenBackbone:
    file = tmp_path_factory.mktemp('weights') / 'own.safetensors'
    backbones.save_weights(file, variables())
    return FrozenBackbone(NAME, str(file))


@functools.cache
def variables():
    """Larger values than initial ones, so that tokens of a text differ."""
    model = backbones.create(NAME)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8), np.int32))
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: generator.normal(0.2, 0.5, leaf.shape).astype(np.float32), shapes)


@functools.cache
def applied():
    return jax.jit(backbones.create(NAME).apply)


@functools.cache
def alone(text: str) -> dict[str, np.ndarray]:
    """Every tap of one text, without padding or other texts."""
    tokens = tokens_of(text)[None]
    features = jax.device_get(applied()(variables(), tokens))
    stages = [stage[0].mean(0) for stage in features.stages.values()]
    return {
        'pooled': features.pooled[0],
        'stages': np.concatenate(stages),
        **{f'stage{number}': stage for number, stage in enumerate(stages, 1)},
        'class_token': features.tokens[0, 0],
        'mean_tokens': features.tokens[0, 1:].mean(0),
        'grid': features.tokens[0, 1:],
    }


def texts(count=44) -> Texts:
    """Of three buckets, in no order, an empty one among them; of few lengths, so that little is compiled."""
    lengths = np.random.default_rng(1).choice([0, 14, 15, 40], count)
    letters = np.random.default_rng(2).choice(list('abcd e'), (count, 40))
    return Texts([''.join(row[:length]) for row, length in zip(letters, lengths, strict=True)])


@pytest.fixture(scope='module')
def dataset(small_network_compiled_once):
    return dataclasses.replace(make_texts(44), images=texts())


def make(directory, tap='pooled', **changes) -> Extractor:
    return Extractor(ablation_config(tap=tap, **changes), Store(directory / 'store'), directory)


def features(extract, backbone, dataset, advance=lambda count: None) -> np.ndarray:
    return extract(backbone, dataset, advance)[0].values


@pytest.fixture(scope='module')
def extracted(own, dataset, tmp_path_factory):
    """Every tap, from a pass for that tap alone; where they are stored."""
    directory = tmp_path_factory.mktemp('alone')
    extract = make(directory)
    return {tap: features(extract.at(tap), own, dataset) for tap in TAPS}, directory


def assert_as_alone(found: np.ndarray, dataset, tap: str) -> None:
    assert len(found) == len(dataset.images.values)
    for row, text in zip(found, dataset.images.values, strict=True):
        want = alone(text)[tap]
        if tap == 'grid':
            assert np.isnan(row[len(want) :]).all()
            row = row[: len(want)]
        np.testing.assert_allclose(row, want, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('tap', TAPS)
def test_each_text_has_the_features_that_it_has_alone(extracted, dataset, tap):
    """Three shards, several buckets, the last batch not full; in the order of the data set."""
    assert_as_alone(extracted[0][tap], dataset, tap)


def test_no_tap_is_left_out(own):
    assert tuple(taps.offered(backbones.create(NAME))) == TAPS


def test_bits_do_not_depend_on_what_else_is_asked_for(extracted, own, dataset, tmp_path):
    extract = make(tmp_path)
    extract.hold(own, dataset, TAPS)
    for tap, want in extracted[0].items():
        assert features(extract.at(tap), own, dataset).tobytes() == want.tobytes()
        on_disk, _ = extract.at(tap, in_memory=False).stored(own, dataset)
        rows = np.array([43, 0, 7, 7])
        assert on_disk[rows].tobytes() == want[rows].tobytes()
        assert on_disk.shape == want.shape


@pytest.mark.parametrize('shards', [1, 2])
def test_bits_do_not_depend_on_an_interruption(extracted, own, dataset, tmp_path, shards):
    class Stopped(Exception):
        pass

    done = []

    def stop(count):
        done.append(count)
        if sum(done) > 16 * shards:
            raise Stopped

    extract = make(tmp_path, 'grid')
    with pytest.raises(Stopped):
        extract(own, dataset, stop)
    (entry,) = Store(tmp_path / 'store').entries()
    assert not entry.complete
    found = []
    assert features(make(tmp_path, 'grid'), own, dataset, found.append).tobytes() == extracted[0]['grid'].tobytes()
    assert found[:shards] == [16] * shards  # these were stored
    # What one tap lacks is computed beside another whose shards are all missing.
    extract = make(tmp_path)
    extract.hold(own, dataset, ('stage1', 'grid'))
    assert features(extract.at('stage1'), own, dataset).tobytes() == extracted[0]['stage1'].tobytes()


def test_what_is_stored_needs_no_backbone(extracted, own, dataset):
    again = make(extracted[1])
    again.check(own)
    CALLS.count = 0
    other = dataclasses.replace(dataset, name='other', targets=dataset.targets[::-1].copy())
    for tap in TAPS:
        assert again.at(tap).is_stored(own, other)
        assert features(again.at(tap), own, other).tobytes() == extracted[0][tap].tobytes()
    assert CALLS.count == 0


CHANGED = {
    'one text': lambda dataset: dataclasses.replace(dataset, images=Texts(['changed', *dataset.images.values[1:]])),
    'a text is moved': lambda dataset: dataclasses.replace(dataset, images=Texts(dataset.images.values[::-1])),
}


@pytest.mark.parametrize('change', CHANGED.values(), ids=CHANGED)
def test_changed_texts_have_other_features(extracted, own, dataset, change):
    extract = make(extracted[1])
    extract.check(own)
    changed = change(dataset)
    assert not extract.is_stored(own, changed)
    assert_as_alone(features(extract, own, changed), changed, 'pooled')


@pytest.mark.slow
def test_a_length_or_a_tokenizer_has_features_of_its_own(extracted, own, dataset, monkeypatch):
    extract = make(extracted[1], text_length=17)
    extract.check(own)
    assert not extract.is_stored(own, dataset)
    cut = features(extract, own, dataset)
    want = [alone(text[:15])['pooled'] for text in dataset.images.values]
    np.testing.assert_allclose(cut, want, atol=1e-6, rtol=1e-6)
    # A tokenizer that takes one letter for another.
    content = json.loads(backbones.preprocess(NAME).tokenizer)
    content['model']['vocab']['a'], content['model']['vocab']['b'] = (content['model']['vocab'][each] for each in 'ba')
    other = backbones.preprocess(NAME).replace(tokenizer=json.dumps(content))
    entry = backbones.registry.TABLE[NAME]
    monkeypatch.setitem(backbones.registry.TABLE, NAME, dataclasses.replace(entry, preprocessing=other))
    changed = make(extracted[1])
    changed.check(own)
    assert changed._network(own).preprocessing == other
    assert not changed.is_stored(own, dataset)


@pytest.mark.slow
def test_random_weights_are_known_again(dataset, tmp_path):
    backbone = FrozenBackbone(NAME, 'random', 3)
    extract = make(tmp_path)
    assert not extract.is_stored(backbone, dataset)
    first = features(extract, backbone, dataset)
    assert make(tmp_path).is_stored(backbone, dataset)
    CALLS.count = 0
    assert features(make(tmp_path), backbone, dataset).tobytes() == first.tobytes()
    assert CALLS.count == 0


def test_the_order_by_length(dataset):
    tokens = encoded(dataset, backbones.preprocess(NAME))
    moved, places = by_length(tokens)
    lengths = (moved.images != PADDING).sum(1)
    assert (np.diff(lengths) >= 0).all()
    np.testing.assert_array_equal(moved.images[places], tokens.images)
    np.testing.assert_array_equal(moved.targets[places], dataset.targets)
    assert [moved.ids[place] for place in places] == list(dataset.ids)
    for split, rows in dataset.splits.items():
        assert {moved.ids[row] for row in moved.splits[split]} == {dataset.ids[row] for row in rows}


@pytest.mark.slow
def test_bfloat16_gives_finite_features_close_to_float32(extracted, own, dataset, tmp_path):
    extract = Extractor(ablation_config(), Store(tmp_path), tmp_path, dtype='bfloat16')
    found = features(extract, own, dataset)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, extracted[0]['pooled'], atol=0.15)


@pytest.mark.exhaustive
@pytest.mark.parametrize('pooling', ['token', 'pooler'])
@pytest.mark.parametrize('counted', [False, True])
def test_other_encoders(dataset, tmp_path, monkeypatch, pooling, counted):
    """RoBERTa counts positions over tokens, and BERT has a pooler: padding changes neither."""
    # Counted from 2 on, positions 0 and 1 are of no token.
    smaller(
        monkeypatch,
        pooling=pooling,
        counted_positions=counted,
        padding_token=1 if counted else 0,
        types=2,
        positions=258 if counted else 256,
    )
    monkeypatch.setattr(extractor, 'make_network', network.make_network)
    backbone = FrozenBackbone(NAME, 'random', 0)
    extract = make(tmp_path)
    found = features(extract, backbone, dataset)
    model = backbones.create(NAME)
    made = extract._weights(backbone, dataset)._host()
    apply = jax.jit(model.apply)
    for row, text in zip(found, dataset.images.values, strict=True):
        np.testing.assert_allclose(row, apply(made, tokens_of(text)[None]).pooled[0], atol=1e-6)


@pytest.mark.slow
def test_two_devices_give_the_same_features(tmp_path):
    one, two = (run('extract_texts', directory=str(tmp_path / str(devices)), devices=devices) for devices in (1, 2))
    assert [each['devices'] for each in (one, two)] == [1, 2]
    for tap in ('pooled', 'grid'):
        values = [np.load(tmp_path / str(devices) / f'{tap}.npy') for devices in (1, 2)]
        assert np.isnan(values[0]).any() == (tap == 'grid')
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


def test_a_tap_that_texts_do_not_have(own, tmp_path):
    with pytest.raises(UserError, match=r"has no tap 'unpooled'; it has 'pooled', .*config key tap"):
        make(tmp_path, 'unpooled').check(own)
