"""Features of frozen backbones: what they are, what they depend on, and when no backbone runs."""

import dataclasses
import functools
import json
import os
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loading import write_array_record_dataset, write_images
from tiny import lazy, make_config, make_dataset

import backbones
from backbones import UserError, registry
from backbones.images import ImageReading
from experiments.ablation import cells
from experiments.ablation.engine import Engine
from experiments.cli import atomic_files
from experiments.cli.exit_status import CellsFailed
from experiments.data import calibration_examples, decoding, loading
from experiments.data.decoding import DecodedImages
from experiments.features import extractor, identity, network, taps, throughput
from experiments.features.calibration import calibrate_statistics
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.frozen_pass import FrozenPass
from experiments.features.store import Store
from experiments.results import failures
from experiments.training import mesh

SMALL = {
    'resnet_micro': {'depths': (1, 1), 'channels': (4, 6), 'stem_channels': 4},
    'vit_micro': {'channels': 12},
}
RESNET = FrozenBackbone('resnet_micro', 'random')


class Calls:
    """How often programs of backbones were called: forward passes, initialisations, calibrations."""

    count = 0

    def counting(self, program):
        def call(*arguments):
            self.count += 1
            return program(*arguments)

        return call


CALLS = Calls()


@pytest.fixture(scope='module', autouse=True)
def small_networks_compiled_once():
    """The two backbones are smaller here, and all extractors of this module share their programs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, options in SMALL.items():
            entry = registry.TABLE[name]
            small = partial(entry.constructor().clone, **options)
            patch.setitem(registry.TABLE, name, dataclasses.replace(entry, constructor=small))

        @functools.cache
        def make(*arguments):
            made = network.make_network(*arguments)
            for name in ('_init', '_calibrate'):
                made.__dict__[name] = CALLS.counting(getattr(made, name))
            return made

        class Counted(FrozenPass):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.program = CALLS.counting(self.program)

        patch.setattr(extractor, 'make_network', make)
        patch.setattr(network, 'FrozenPass', Counted)
        patch.setattr(throughput, 'BATCHES', 2)
        patch.setattr(throughput, 'OTHERS', 1.0)  # tests run beside others
        yield


@pytest.fixture(scope='module')
def own(small_networks_compiled_once, tmp_path_factory) -> FrozenBackbone:
    """With weights in a file: unlike random ones, they do not depend on the data."""
    file = tmp_path_factory.mktemp('weights') / 'own.safetensors'
    backbones.save_weights(file, random_variables(backbones.create('resnet_micro')))
    return FrozenBackbone('resnet_micro', str(file))


@pytest.fixture
def calls():
    CALLS.count = 0
    return CALLS


def random_variables(model, seed=0):
    """Some values for all variables, without compiling an initialisation."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)


def config_of(**changes):
    return make_config(**{'image_size': 8, 'batch_size': 16, **changes})


def extract(backbone, dataset, directory, config=None, advance=lambda count: None):
    config = config or config_of()
    return Extractor(config, Store(directory / 'store'), directory)(backbone, dataset, advance)


class TestValues:
    @pytest.mark.parametrize('name', ['resnet_micro', pytest.param('vit_micro', marks=pytest.mark.slow)])
    def test_features_equal_the_backbone_applied_by_hand(self, tmp_path, name):
        dataset = make_dataset('digits', examples=50)
        extracted, costs = extract(FrozenBackbone(name, 'random', 3), dataset, tmp_path)
        preprocessing = backbones.preprocess(name).replace(size=8, crop=1.0)
        model = backbones.create(name)
        images = preprocessing(jnp.asarray(dataset.images))
        variables = jax.jit(model.init)(jax.random.key(3), images[:1])
        chosen = extractor_calibration(dataset, seed=3)
        variables = jax.jit(partial(calibrate_statistics, model))(variables, images[chosen])
        np.testing.assert_allclose(extracted.values, jax.jit(model.apply)(variables, images).pooled, atol=1e-4)
        assert costs.parameters == sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
        assert costs.images_per_second > 0
        assert extracted.dataset is dataset

    def test_a_store_gives_the_same_bits(self, own, tmp_path, calls):
        dataset = make_dataset('digits', examples=50)
        done = []
        first, costs = extract(own, dataset, tmp_path, advance=done.append)
        assert sum(done) == 50
        calls.count = 0
        again, same = extract(own, lazy_copy(dataset), tmp_path, advance=done.append)
        assert calls.count == 0
        assert again.values.tobytes() == first.values.tobytes()
        assert same == costs
        assert sum(done) == 100

    @pytest.mark.parametrize(('size', 'channels'), [(8, 1), (28, 3), (64, 3)])
    def test_pixels(self, tmp_path, size, channels):
        dataset = make_dataset('digits', examples=40, size=size, channels=channels)
        extracted, costs = extract(FrozenBackbone('pixels'), dataset, tmp_path)
        if size <= 32:
            expected = dataset.images.astype(np.float32).reshape(40, -1) / 255
            np.testing.assert_array_equal(extracted.values, expected)
        else:
            assert extracted.values.shape == (40, 32 * 32 * 3)
            assert 0 <= extracted.values.min() <= extracted.values.max() <= 1
        assert costs == extractor.Costs(input_size=(min(size, 32), min(size, 32)))

    def test_a_batch_is_shared_evenly_by_the_devices(self, tmp_path):
        config = config_of(batch_size=7)
        assert Extractor(config, Store(tmp_path), tmp_path)._batch_size % jax.device_count() == 0

    def test_the_input_need_not_be_square(self, tmp_path):
        config = config_of(image_height=16)
        network = Extractor(config, Store(tmp_path), tmp_path)._network(FrozenBackbone('vit_micro', 'random'))
        assert network.preprocessing.size == (16, 8)


def extractor_calibration(dataset, seed):
    return calibration_examples.examples(dataset, seed, make_config().calibration_images)


def lazy_copy(dataset):
    """Equal data under another name, with other labels and splits: the images are the same."""
    splits = {'train': np.arange(20), 'validation': np.arange(20, 30), 'test': np.arange(30, len(dataset.targets))}
    return dataclasses.replace(dataset, name='other', targets=dataset.targets[::-1].copy(), splits=splits)


class TestTaps:
    @pytest.mark.parametrize('name', ['resnet_micro', pytest.param('vit_micro', marks=pytest.mark.slow)])
    def test_each_tap_of_each_family(self, name):
        tokens = {'prefix': ('class_token', 'other')} if name == 'vit_micro' else {}
        model, images = backbones.create(name, **tokens), jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
        offered = [tap for tap, row in taps.TAPS.items() if row.has(model)]
        apply = {tap: taps.tapped(model, tap) for tap in offered}
        variables = random_variables(model)
        features, taken = jax.jit(
            lambda *arguments: (model.apply(*arguments), {tap: apply[tap](*arguments) for tap in offered})
        )(variables, images)
        stages = list(features.stages.values())
        expected = {
            'pooled': features.pooled,
            'stages': np.concatenate([np.mean(stage, (1, 2)) for stage in stages], -1),
            **{f'stage{number}': np.mean(stage, (1, 2)) for number, stage in enumerate(stages, 1)},
            'unpooled': stages[-1],
            'grid': stages[-1].reshape(2, -1, stages[-1].shape[-1]),
        }
        if tokens:
            patches = features.tokens[:, 2:]
            expected |= {'class_token': features.tokens[:, 0], 'mean_tokens': patches.mean(1), 'grid': patches}
        assert taken.keys() == expected.keys()
        for tap, values in expected.items():
            taps.check(name, model, tap)
            assert taken[tap].dtype == jnp.float32
            np.testing.assert_allclose(taken[tap], values, rtol=1e-6, atol=1e-6)
            assert taps.channels(model, tap, (8, 8)) == values.shape[-1]
        for tap in taps.TAPS.keys() - expected.keys():
            with pytest.raises(UserError, match=f"{name} has no tap '{tap}'; it has 'pooled', 'stages', 'stage1', "):
                taps.check(name, model, tap)

    def test_every_registered_backbone_says_which_it_has(self):
        offered = {
            name: {tap for tap, row in taps.TAPS.items() if row.has(backbones.create(name))}
            for name in backbones.names()
        }
        texts = backbones.names('text')
        assert all(
            offered[name] >= {'pooled', 'stages', 'stage4', 'grid', 'class_token', 'mean_tokens'} for name in texts
        )
        assert not any('unpooled' in offered[name] for name in texts)
        maps = {'pooled', 'stages', 'unpooled', 'grid'}
        for name in set(backbones.names()).difference(texts):
            own = maps | {stage.name for stage in backbones.info(name).stages}
            has_tokens = name in backbones.names('vit') or name.startswith('dinov3')
            assert offered[name] >= own | {'mean_tokens'} if has_tokens else offered[name] == own
        assert 'class_token' in offered['dinov2_small_reg']
        assert 'class_token' not in offered['swin_tiny'] | offered['siglip_vit_base_patch16']

    def test_a_tap_is_part_of_the_plan_and_of_the_rows(self, tmp_path):
        with pytest.raises(UserError, match="unknown tap 'poled'; did you mean 'pooled'"):
            cells.plan(make_config(tap='poled'))
        with pytest.raises(UserError, match=r"has no tap 'class_token'; it has 'pooled', 'stages', 'stage1', .*\(conf"):
            cells.plan(make_config(tap='class_token'))
        with pytest.raises(UserError, match="has no vectors for heads at the tap 'unpooled'"):
            cells.plan(make_config(tap='unpooled'))

    def test_taps_have_entries_of_their_own(self, tmp_path):
        dataset = make_dataset('digits', examples=40)
        shapes = {
            tap: extract(RESNET, dataset, tmp_path, config_of(tap=tap))[0].values.shape
            for tap in ('pooled', 'unpooled')
        }
        assert shapes == {'pooled': (40, 6), 'unpooled': (40, 4, 4, 6)}
        assert len(Store(tmp_path / 'store').entries()) == 2


class TestInterrupted:
    def test_a_pass_goes_on_with_the_shards_that_are_missing(self, tmp_path, monkeypatch, calls):
        monkeypatch.setattr(extractor, '_SHARD_EXAMPLES', 32)
        dataset = make_dataset('digits')
        config = config_of()
        whole, _ = extract(RESNET, dataset, tmp_path / 'whole', config)
        seen = []

        def interrupt(count):
            seen.append(count)
            if sum(seen) >= 96:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            extract(RESNET, dataset, tmp_path / 'cut', config, interrupt)
        assert len(list((tmp_path / 'cut' / 'store').glob('*/*.npy'))) == 2
        (tmp_path / 'cut' / throughput.FILE).write_bytes((tmp_path / 'whole' / throughput.FILE).read_bytes())
        calls.count, seen[:] = 0, []
        again, _ = extract(RESNET, dataset, tmp_path / 'cut', config, seen.append)
        assert again.values.tobytes() == whole.values.tobytes()
        assert calls.count == 1 + 1 + 6  # of ten batches; the weights are made again
        assert sum(seen) == 160

    def test_shards_of_maps_are_not_larger_than_memory_allows(self, tmp_path, monkeypatch):
        monkeypatch.setattr(extractor, '_SHARD_BYTES', 40 * 4 * 4 * 6 * 4)
        dataset = make_dataset('digits')
        config = config_of(tap='unpooled')
        whole, _ = extract(RESNET, dataset, tmp_path, config)
        files = sorted((tmp_path / 'store').glob('*/*.npy'))
        assert [len(np.load(file, mmap_mode='r')) for file in files] == [32] * 5
        np.testing.assert_array_equal(whole.values, np.concatenate([np.load(file) for file in files]))


@pytest.fixture
def unmeasured(monkeypatch):
    """Backbones run for their features alone."""
    monkeypatch.setattr(extractor, 'measure', lambda *_: throughput.Measured(1.0))


def several(backbone, dataset, directory, names, advance=lambda count: None, **changes):
    """The features at some taps, by name, from one pass."""
    made = Extractor(config_of(**changes), Store(directory / 'store'), directory)
    made.hold(backbone, dataset, names, advance)
    return {tap: made.at(tap)(backbone, dataset, advance)[0] for tap in names}


@pytest.mark.usefixtures('unmeasured')
class TestSeveralTaps:
    @pytest.mark.parametrize(
        ('name', 'names'),
        [
            ('resnet_micro', ['stage1', 'pooled', 'stages', 'grid']),
            ('vit_micro', ['stage1', 'pooled', 'mean_tokens', 'grid']),
        ],
    )
    def test_from_one_pass_they_have_the_bits_of_each_alone(self, tmp_path, calls, name, names):
        dataset, backbone, done = make_dataset('digits', examples=50), FrozenBackbone(name, 'random'), []
        # ``test_runtimes.py`` has those of the other runtime.
        together = several(backbone, dataset, tmp_path / 'together', names, done.append, runtime='xla')
        prepared = 2 if name == 'resnet_micro' else 1  # weights are drawn, and statistics calibrated
        assert calls.count == prepared + 4  # batches of 16
        assert sum(done) == len(names) * 50
        for tap in names:
            alone, _ = extract(backbone, dataset, tmp_path / 'alone', config_of(tap=tap, runtime='xla'))
            assert together[tap].values.tobytes() == alone.values.tobytes()
        entries = [
            {entry.address for entry in Store(tmp_path / each / 'store').entries()} for each in ('together', 'alone')
        ]
        assert entries[0] == entries[1]
        assert len(entries[0]) == len(names)

    def test_an_interrupted_pass_goes_on_with_the_shards_of_each(self, own, tmp_path, monkeypatch, calls):
        monkeypatch.setattr(extractor, '_SHARD_EXAMPLES', 64)
        monkeypatch.setattr(extractor, '_SHARD_BYTES', 32 * 4 * 4 * 6 * 4)  # 32 maps
        dataset, names, seen = make_dataset('digits'), ['pooled', 'unpooled'], []
        whole = several(own, dataset, tmp_path / 'whole', names)

        def interrupt(count):
            seen.append(count)
            if len(seen) == 2 * 6 + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            several(own, dataset, tmp_path / 'cut', names, interrupt)
        kept = {file: file.stat().st_mtime_ns for file in (tmp_path / 'cut' / 'store').glob('*/*.npy')}
        assert sorted(file.name for file in kept) == ['00000.npy', '00000.npy', '00001.npy', '00002.npy']
        calls.count, seen[:] = 0, []
        again = several(own, dataset, tmp_path / 'cut', names, seen.append)
        assert calls.count == 6  # from the 64th example on, of which one of the two has those up to the 96th
        assert sum(seen) == 2 * 160
        assert {file: file.stat().st_mtime_ns for file in kept} == kept
        for tap in names:
            assert again[tap].values.tobytes() == whole[tap].values.tobytes()

    def test_what_is_stored_is_not_computed_again(self, own, tmp_path, calls):
        dataset = make_dataset('digits', examples=50)
        alone, _ = extract(own, dataset, tmp_path)
        kept = {file: file.stat().st_mtime_ns for file in (tmp_path / 'store').glob('*/*')}
        calls.count = 0
        together = several(own, dataset, tmp_path, ['pooled', 'stage1'])
        assert calls.count == 4
        assert {file: file.stat().st_mtime_ns for file in kept} == kept
        assert together['pooled'].values.tobytes() == alone.values.tobytes()
        calls.count = 0
        again = several(own, dataset, tmp_path, ['stage1', 'pooled'])
        assert calls.count == 0
        assert again['stage1'].values.tobytes() == together['stage1'].values.tobytes()

    def test_unreadable_examples_are_those_of_each(self, own, tmp_path):
        dataset = make_dataset('digits', examples=50)
        found = several(own, lazy(dataset, [3, 40]), tmp_path, ['pooled', 'stage1'], bad_files_limit=2)
        for each in found.values():
            assert each.unreadable.keys() == {3, 40}
            assert not each.values[[3, 40]].any()
        with pytest.raises(UserError, match="examples of 'digits' cannot be read"):
            several(own, lazy(dataset, [3, 4, 40]), tmp_path, ['pooled', 'stage1'], bad_files_limit=2)

    def test_an_ablation_runs_each_backbone_once(self, own, tmp_path, calls, capsys):
        dataset, names = make_dataset('digits'), ('stage1', 'pooled')

        def ablate(name, **changes):
            values = {'backbones': (f'resnet_micro@{own.weights}',), 'fractions': (1.0,), 'seeds': (0,), **changes}
            config = config_of(regimes=('knn',), corruptions=('contrast',), severities=(1,), **values)
            calls.count = 0
            capsys.readouterr()
            Engine(config, tmp_path / name, lambda name: dataset, Store(tmp_path / name / 's')).run(cells.plan(config))
            rows = atomic_files.read_jsonl(tmp_path / name / 'results.jsonl')
            return calls.count, capsys.readouterr().err, [{**row, 'cell': None, 'config': None} for row in rows]

        test = len(dataset.splits['test'])
        count, told, rows = ablate('both', tap=names)
        assert count == 10 + -(-test // 16)
        total = 2 * (160 + test)
        assert f'images of digits: 0 of {total}' in told and f'digits: {total} of {total}' in told
        for tap, row in zip(names, rows, strict=True):
            *_, (alone,) = ablate(tap, tap=tap)
            assert row['metrics'] == alone['metrics'] and row['robustness'] == alone['robustness']

    def test_a_pass_that_fails_takes_the_cells_of_every_tap_along(self, own, tmp_path):
        dataset = lazy(make_dataset('digits'), bad=range(10, 20))
        variants = (f'resnet_micro@{own.weights}', 'pixels')
        config = config_of(
            backbones=variants, regimes=('knn',), fractions=(1.0,), seeds=(0,), tap=('pooled', 'stage1'),
            bad_files_limit=4,
        )  # fmt: skip
        with pytest.raises(CellsFailed, match='3 of 3 cells failed'):
            Engine(config, tmp_path, lambda name: dataset, Store(tmp_path / 's')).run(cells.plan(config))
        assert len({each.error for each in failures.read(tmp_path)}) == 1


class TestUnreadable:
    def test_they_are_named_counted_and_left_out(self, own, tmp_path, capsys):
        dataset = make_dataset('digits', examples=100)
        bad = {int(dataset.splits[name][1]) for name in dataset.splits}
        extracted, _ = extract(own, lazy(dataset, bad), tmp_path)
        whole, _ = extract(own, dataset, tmp_path / 'whole')
        good = np.setdiff1d(np.arange(100), list(bad))
        np.testing.assert_array_equal(extracted.values[good], whole.values[good])
        assert not extracted.values[list(bad)].any()
        seen = extracted.dataset
        assert np.sort(np.concatenate(list(seen.splits.values()))).tolist() == good.tolist()
        assert {name for name, _ in seen.skipped} == {dataset.ids[index] for index in bad}
        assert seen.provenance.endswith('; 3 unreadable examples left out')
        assert extracted.readable(np.arange(100)).tolist() == good.tolist()
        assert "3 examples of 'digits' cannot be read" in capsys.readouterr().err

    def test_too_many_end_in_one_line(self, own, tmp_path):
        dataset = lazy(make_dataset('digits', examples=100), bad=range(10, 20))
        with pytest.raises(UserError, match=r"examples of 'digits' cannot be read \(0010: image file is truncated.*at"):
            extract(own, dataset, tmp_path, config_of(bad_files_limit=4))

    def test_a_lower_limit_counts_what_is_stored(self, own, tmp_path):
        dataset = lazy(make_dataset('digits', examples=100), bad=range(10, 15))
        extract(own, dataset, tmp_path, config_of())
        with pytest.raises(UserError, match=r"^5 examples of 'digits' cannot be read"):
            extract(own, dataset, tmp_path, config_of(bad_files_limit=4))

    def test_calibration_does_without_them(self, tmp_path):
        dataset = make_dataset('digits', examples=100)
        bad = int(extractor_calibration(dataset, 0)[0])
        extracted, _ = extract(RESNET, lazy(dataset, [bad]), tmp_path)
        assert extracted.unreadable.keys() == {bad}
        assert np.isfinite(extracted.values).all()

    def test_an_ablation_says_it_in_its_rows(self, tmp_path):
        dataset = make_dataset('digits', examples=100)
        bad = [int(dataset.splits['test'][0]), int(dataset.splits['train'][0])]
        config = make_config(backbones=('pixels',), seeds=(0,), fractions=(1.0,), regimes=('knn',))
        Engine(config, tmp_path, lambda name: lazy(dataset, bad), Store(tmp_path / 's')).run(cells.plan(config))
        (row,) = atomic_files.read_jsonl(tmp_path / 'results.jsonl')
        assert row['data']['test_examples'] == len(dataset.splits['test']) - 1
        assert row['data']['train_examples'] == len(dataset.splits['train']) - 1
        assert '2 unreadable examples left out' in row['data']['provenance']

    def test_a_damaged_record_of_a_data_set_too_large_for_memory(self, tmp_path, monkeypatch):
        write_array_record_dataset(tmp_path, {('train', 3): b'no image at all', ('test', 1): b''})
        monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
        dataset = loading.load('tfds:blobs', tmp_path)
        assert isinstance(dataset.images, DecodedImages)
        extracted, _ = extract(FrozenBackbone('pixels'), dataset, tmp_path)
        assert {dataset.ids[index] for index in extracted.unreadable} == {'train/0000003', 'test/0000001'}
        assert extracted.values[5, 0] == np.float32(5) / np.float32(255)


class TestIdentity:
    def test_the_document_of_a_preprocessing_is_as_earlier_versions_wrote_it(self):
        prepare = backbones.preprocess('resnet_micro')
        document = {
            'mean': [0.5] * 3, 'std': [0.25] * 3, 'size': [32, 32], 'crop': 1.0, 'interpolation': 'bilinear',
            'fit': 'crop',
        }  # fmt: skip
        assert identity.preprocessing_document(prepare) == document
        stored = prepare.replace(stored_size=256, reading=ImageReading((0.0, 4095.0)))
        assert identity.preprocessing_document(stored) == {
            **document, 'stored_size': [256, 256],
            'reading': {'grey_range': [0.0, 4095.0], 'background': [255, 255, 255]},
        }  # fmt: skip

    def digest(self, tmp_path, name='records', **broken):
        (tmp_path / name).mkdir()
        write_array_record_dataset(tmp_path / name, broken.get('broken'))
        return loading.load('tfds:blobs', tmp_path / name)

    def test_records_are_part_of_it_where_they_are_decoded_lazily(self, tmp_path, monkeypatch):
        monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
        one, same = self.digest(tmp_path, 'one'), self.digest(tmp_path, 'same')
        other = self.digest(tmp_path, 'other', broken={('train', 3): b'another image'})
        assert one.content_digest() == same.content_digest() != other.content_digest()
        assert one.fingerprint() == same.fingerprint() != other.fingerprint()

    def test_a_changed_file_of_the_same_name_size_and_time(self, own, tmp_path, monkeypatch, calls):
        monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
        write_images(tmp_path / 'own', {'a': 20, 'b': 20}, suffix='bmp')
        file = tmp_path / 'own' / 'a' / '003.bmp'
        name, status = f'folder:{tmp_path / "own"}', file.stat()
        dataset = loading.load(name, stored_size=8)
        first, _ = extract(own, dataset, tmp_path)
        content = bytearray(file.read_bytes())
        content[-60:] = bytes(60)
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert file.stat().st_size == status.st_size
        calls.count = 0
        changed = loading.load(name, stored_size=8)
        assert changed.fingerprint() != dataset.fingerprint()
        second, _ = extract(own, changed, tmp_path)
        assert calls.count > 0
        index = dataset.ids.index('a/003.bmp')
        differing = np.flatnonzero((first.values != second.values).any(1))
        assert differing.tolist() == [index]
        # Who still holds the data set as it was reads no other pixels under its name.
        with pytest.raises(UserError, match='has changed since the data set was loaded'):
            dataset.images[np.array([index])]

    def test_how_images_are_fitted_is_part_of_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
        write_images(tmp_path / 'own', {'a': 10, 'b': 10}, size=(20, 16))
        write_images(tmp_path / 'own', {'c': 10}, size=(16, 20))
        name = f'folder:{tmp_path / "own"}'
        digests = {
            loading.load(name, stored_size=size, fit=fit).content_digest()
            for size in (8, 12)
            for fit in ('crop', 'squash')
        }
        assert len(digests) == 4

    def test_images_without_a_digest_are_decoded_for_it(self):
        dataset = make_dataset()
        changed = dataset.images.copy()
        changed[3, 2, 1] ^= 1
        other = dataclasses.replace(dataset, images=changed)
        assert lazy(dataset).content_digest() == lazy(dataset).content_digest() != lazy(other).content_digest()
        assert lazy(dataset, [3]).content_digest() == lazy(other, [3]).content_digest()

    def test_another_version_of_the_code_computes_again(self, own, tmp_path, monkeypatch, calls):
        dataset = make_dataset('digits', examples=40)
        extract(own, dataset, tmp_path)
        monkeypatch.setattr(identity, 'code_version', lambda module: 'newer')
        same = extractor.make_network

        def newer(*arguments):
            made = same(*arguments)
            document = {**made.document, 'backbone': identity.module_document(made.model)}
            again = dataclasses.replace(made, document=document)
            again.__dict__.update({name: getattr(made, name) for name in ('_init', '_calibrate')})
            return again

        monkeypatch.setattr(extractor, 'make_network', newer)
        calls.count = 0
        extract(own, dataset, tmp_path)
        assert calls.count > 0
        assert len(Store(tmp_path / 'store').entries()) == 2

    @pytest.mark.parametrize(
        ('old', 'new', 'same'),
        [
            ('return x + 1', 'return x + 2', False),
            ("'''What it does.'''", "'''What it really does.'''", True),
            ('# Why.', '# Because.', True),
        ],
    )
    def test_the_code_counts_and_comments_do_not(self, tmp_path, monkeypatch, old, new, same):
        package = tmp_path / 'family'
        package.mkdir()
        (package / '__init__.py').write_text('')
        (package / 'layer.py').write_text("def step(x):\n    '''What it does.'''\n    # Why.\n    return x + 1\n")
        (package / 'net.py').write_text('from family.layer import step\n')
        monkeypatch.syspath_prepend(tmp_path)
        module = type('Net', (nn.Module,), {'__module__': 'family.net'})()
        before = identity.code_version(module)
        text = (package / 'layer.py').read_text()
        assert old in text
        (package / 'layer.py').write_text(text.replace(old, new))
        assert (identity.code_version(module) == before) == same

    def test_code_of_one_family_is_not_that_of_another(self):
        files = identity._imported('backbones.vit.vit', 'backbones')
        assert {'backbones.vit.vit', 'backbones.layers.attention', 'backbones.features'} <= files.keys()
        others = ('.cnn.', '.text.', 'registry', 'keymaps', 'published')
        assert not [name for name in files if any(each in name for each in others)]

    def test_options_count_that_no_weight_shows(self):
        one, other = backbones.create('vit_micro'), backbones.create('vit_micro', epsilon=1e-5)
        assert identity.module_document(one) != identity.module_document(other)
        assert identity.module_document(one) == identity.module_document(backbones.create('vit_micro'))

    def test_every_value_of_the_weights_counts(self):
        variables = {'params': {'a': np.zeros((2, 3), np.float32), 'b': np.zeros(3, np.float32)}}
        digest = identity.variables_digest(variables)
        changed = {'params': {**variables['params'], 'b': np.array([0, 0, 1e-30], np.float32)}}
        swapped = {'params': {'a': np.zeros((3, 2), np.float32), 'b': np.zeros(3, np.float32)}}
        assert len({digest, identity.variables_digest(changed), identity.variables_digest(swapped)}) == 3
        assert identity.variables_digest(jax.tree.map(jnp.asarray, variables)) == digest


class TestNoBackboneRuns:
    def test_for_other_heads_seeds_or_regimes_on_the_same_images(self, own, tmp_path, calls):
        store, dataset = Store(tmp_path / 'store'), make_dataset('digits')

        def ablate(name, **changes):
            config = config_of(fractions=(1.0,), **changes)
            calls.count = 0
            Engine(config, tmp_path / name, lambda name: dataset, store).run(cells.plan(config))
            return calls.count

        variants = (f'resnet_micro@{own.weights}', 'resnet_micro@random')
        assert ablate('first', backbones=variants, seeds=(0,), regimes=('knn',)) > 0
        assert ablate('other regime', backbones=variants, seeds=(0,), regimes=('ridge',)) == 0
        assert ablate('other seeds', backbones=variants[:1], seeds=(0, 1, 2), regimes=('knn',)) == 0
        # Random weights are drawn from the seed, so another one is another backbone.
        assert ablate('other weights', backbones=variants[1:], seeds=(1,), regimes=('knn',)) > 0


class TestThroughput:
    def test_it_is_measured_once_per_work_directory(self, own, tmp_path, calls):
        one = make_dataset('digits', examples=40)
        other = make_dataset('mnist5k', examples=44, seed=1)
        compiled = config_of(runtime='xla')  # whose compiler reports memory
        speeds = {extract(own, dataset, tmp_path, compiled)[1].images_per_second for dataset in (one, other)}
        speeds |= {extract(dataclasses.replace(RESNET, init_seed=1), one, tmp_path, compiled)[1].images_per_second}
        assert len(speeds) == 1
        (noted,) = json.loads((tmp_path / throughput.FILE).read_text()).values()
        assert {noted['images_per_second']} == speeds
        costs = extract(own, one, tmp_path, compiled)[1]
        assert costs.peak_memory_bytes == noted['peak_memory_bytes']
        # At the least the weights and a batch of images in single precision.
        assert costs.weight_bytes > 4 * costs.parameters
        assert costs.peak_memory_bytes > costs.weight_bytes + 4 * 3 * np.prod(costs.input_size)

    def test_the_speed_that_an_earlier_version_noted_is_kept(self, own, tmp_path):
        dataset, file = make_dataset('digits', examples=40), tmp_path / throughput.FILE
        costs = extract(own, dataset, tmp_path)[1]
        notes = json.loads(file.read_text())
        for note in notes.values():
            note['images_per_second'] = 123.0
            del note['peak_memory_bytes']
        file.write_text(json.dumps(notes))
        assert extract(own, dataset, tmp_path)[1] == dataclasses.replace(costs, images_per_second=123.0)
        (noted,) = json.loads(file.read_text()).values()
        assert (noted['images_per_second'], noted['peak_memory_bytes']) == (123.0, costs.peak_memory_bytes)

    def test_it_is_the_median_after_warm_up_calls(self, monkeypatch):
        times = iter([0.0, 4.0, 10.0, 11.0, 20.0, 22.0])  # batches of 4, 1 and 2 seconds
        monkeypatch.setattr(throughput, 'BATCHES', 3)
        monkeypatch.setattr(throughput.time, 'perf_counter', lambda: next(times))
        monkeypatch.setattr(throughput.Watch, 'others', lambda watch, work: 0.0)
        called = []

        def program(variables, images):
            called.append(images.shape)
            return images

        same = lambda *given: given[-1]  # noqa: E731
        frozen = FrozenPass(same, same, (same,), 8, mesh.make())
        frozen.program = program
        measured = throughput.measure(frozen, {}, (4, 6))
        assert measured.images_per_second == 8 / 2.0
        # The images, as input and as output.
        assert measured.peak_memory_bytes >= 2 * 8 * 4 * 6 * 3 * 4
        assert called == [(8, 4, 6, 3)] * (throughput.WARM_UP + 3)

    def test_it_is_not_given_while_others_work(self, own, tmp_path, monkeypatch, capsys):
        one, other = make_dataset('digits', examples=40), make_dataset('mnist5k', examples=44, seed=1)
        shares = [0.2, 0.3, 0.2, 0.8, 0.2, 0.05]
        monkeypatch.setattr(throughput, 'OTHERS', 0.1)
        monkeypatch.setattr(throughput.Watch, 'others', lambda watch, work: shares.pop(0))
        own_extractor = Extractor(config_of(runtime='xla'), Store(tmp_path / 'store'), tmp_path)
        for dataset in (one, other):  # measured three times, and the second time not again
            costs = own_extractor(own, dataset, lambda count: None)[1]
            assert costs.images_per_second is None
            assert costs.peak_memory_bytes > costs.weight_bytes
        said = capsys.readouterr().err
        assert 'images/s of resnet_micro is left out: other processes took more than 10% of the processors' in said
        assert shares == [0.8, 0.2, 0.05]
        assert (
            extract(own, other, tmp_path, config_of(runtime='xla'))[1].images_per_second is None
        )  # far too much: no other attempt
        # Another process finds the machine quiet, at its second attempt.
        assert extract(own, other, tmp_path)[1].images_per_second > 0

    def test_a_disturbed_network_is_measured_once_whatever_the_tap(self, own, tmp_path, monkeypatch, capsys):
        shares = [0.2] * throughput.ATTEMPTS
        monkeypatch.setattr(throughput, 'OTHERS', 0.1)
        monkeypatch.setattr(throughput.Watch, 'others', lambda watch, work: shares.pop(0))
        dataset = make_dataset('digits', examples=40)
        config = make_config(
            backbones=(f'{own.name}@{own.weights}',), regimes=('knn',), tap=('pooled', 'stage1'), seeds=(0,)
        )
        engine = Engine(config, tmp_path, lambda name: dataset, Store(tmp_path / 'store'))
        for cell in cells.plan(config):
            assert engine._extractor(cell)(own, dataset, lambda count: None)[1].images_per_second is None
        assert shares == []
        assert capsys.readouterr().err.count('images/s of resnet_micro is left out') == 1

    def test_the_work_of_others(self, monkeypatch):
        clocks = iter([(10.0, 4.0), (13.0, 5.0), (13.0, 5.0), (15.0, 7.0), (15.0, 7.0)])
        monkeypatch.setattr(throughput.Watch, '_seconds', lambda watch: next(clocks))
        monkeypatch.setattr(throughput.psutil, 'cpu_count', lambda: 4)
        times = iter([0.0, 0.1, 0.2, 0.6, 1.0, 1.0, 2.0, 3.0, 3.0])
        monkeypatch.setattr(throughput.time, 'monotonic', lambda: next(times))
        called = []
        watch = throughput.Watch()
        # It works for long enough to tell. Two of three seconds of four processors were not its own.
        assert watch.others(lambda: called.append(1)) == 2 / 4 / 1.0
        assert len(called) == 2
        assert watch.others(lambda: called.append(1)) == 0.0

    def test_the_clocks_of_the_machine(self):
        every, own = throughput.Watch()._seconds()
        assert 0 < own <= every

    def test_slow_networks_are_not_measured_for_ever(self):
        assert not throughput._enough([3.0])
        assert throughput._enough([3.0] * throughput._FEWEST)
        assert '20 batches after 3 warm-up calls' in throughput.PROCEDURE


class TestRandomControl:
    def test_statistics_are_those_of_training_images(self):
        model = backbones.create('resnet_micro')
        images = jax.random.normal(jax.random.key(1), (16, 32, 32, 3)) * 3 + 1
        variables = random_variables(model)
        calibrated = jax.jit(partial(calibrate_statistics, model))(variables, images)
        training = jax.jit(partial(model.apply, train=True, mutable=['batch_stats']))
        in_training_mode, _ = training(variables, images)
        in_inference_mode = jax.jit(model.apply)(calibrated, images)
        # Running variances are unbiased, the batch's own are not: 1/4095 apart at the deepest map (16 x 16 x 16).
        np.testing.assert_allclose(in_inference_mode.pooled, in_training_mode.pooled, rtol=0.02, atol=0.02)
        assert jax.tree.structure(calibrated['batch_stats']) == jax.tree.structure(variables['batch_stats'])

    def test_a_network_with_dropout(self):
        model = backbones.create('vgg16_bn', hidden_channels=8)
        images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        calibrated = jax.eval_shape(partial(calibrate_statistics, model), variables, images)
        assert jax.tree.structure(calibrated) == jax.tree.structure(variables)

    def test_a_network_without_statistics_is_left_alone(self):
        model = backbones.create('vit_micro')
        variables = random_variables(model)
        assert calibrate_statistics(model, variables, jnp.zeros((2, 8, 8, 3))) is variables
