"""Config keys with several values as axes: from the config to the table."""

import csv
import dataclasses
import inspect
import json
import re

import numpy as np
import pytest
from tiny import make_config, make_dataset

from backbones import UserError, cost
from experiments.ablation import cells, estimate, growth, settings
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import Engine
from experiments.cli import command_line, work_directories
from experiments.cli.axis_config import AxisConfig
from experiments.cli.exit_status import CellsFailed
from experiments.features import extractor
from experiments.results import aggregates, plots, rows, tables
from experiments.training import loop


def pixels(**changes):
    """An ablation without a network."""
    values = {'backbones': ('pixels',), 'regimes': ('knn',), 'seeds': (0,), 'fractions': (1.0,)}
    return changed(make_config(**values), changes)


def changed(config, changes):
    for key, value in changes.items():
        *groups, name = key.split('.')
        node = config
        for group in groups:
            node = node[group]
        node[name] = value
    return config


def run(config, workdir) -> list[Cell]:
    """Run an ablation as the command does; the cells that were run."""
    data = make_dataset('digits')
    engine = Engine(config, workdir, lambda name: dataclasses.replace(data, name=name))
    planned = cells.plan(config)
    pending = engine.pending(planned)
    engine.claim(planned)
    engine.run(planned)
    return pending


@pytest.fixture
def features(monkeypatch) -> list:
    """Features that depend on the input's size and on the tap, without a network; and what was asked for."""
    asked = []

    def extract(self, backbone, dataset, advance):
        size, tap = self._config.image_size, self.tap
        asked.append((backbone.label, size, tap))
        generator = np.random.default_rng([size, *tap.encode()])
        values = generator.normal(size=(160, 4)).astype(np.float32)
        return extractor.Extracted(values, dataset, {}), extractor.Costs(input_size=(size, size))

    monkeypatch.setattr(extractor.Extractor, '__call__', extract)
    monkeypatch.setattr(extractor.Extractor, 'hold', lambda *_: None)
    monkeypatch.setattr(cost, 'count_flops', lambda model, size: 0)
    return asked


class TestConfig:
    def test_a_key_takes_one_value_or_several_of_its_type(self):
        config = AxisConfig({'side': 1, 'rate': 0.5, 'name': 'a', 'counts': (1, 2), 'flag': False})
        config.side, config.rate = (32, 64), (1, 0.5)
        assert (config.side, config.rate) == ((32, 64), (1.0, 0.5))
        assert {type(value) for value in config.rate} == {float}
        config.name = ['x', 'y']
        assert config.name == ('x', 'y')
        config.side = 8
        assert config.side == 8
        for key, value in (('side', ('a',)), ('side', 'a'), ('flag', ('no',)), ('rate', ('a',))):
            with pytest.raises(TypeError, match=key):
                config[key] = value

    def test_a_copy_keeps_values_and_types(self):
        config = AxisConfig({'group': AxisConfig({'rate': 0.5})})
        config.group.rate = (1, 2)
        copied = config.copy_and_resolve_references()
        assert copied.group.rate == (1.0, 2.0)
        copied.group.rate = 3
        assert type(copied.group.rate) is float
        assert config.group.rate == (1.0, 2.0)
        with pytest.raises(TypeError, match='rate'):
            copied.group.rate = 'x'

    @pytest.mark.parametrize(
        ('key', 'text', 'value'),
        [
            ('image_size', '(32, 64)', (32, 64)),
            ('image_size', '64', 64),
            ('tap', "('pooled', 'stages')", ('pooled', 'stages')),
            ('tap', 'stages', 'stages'),
            ('exclude', '(a)*', '(a)*'),
            ('strict_weights', '(True, False)', (True, False)),
            ('training.epochs', '(1, 2.5)', (1.0, 2.5)),
            ('knn.neighbours', '(1, 5)', (1, 5)),
            ('knn.neighbours', '((1,), (5, 10))', ((1,), (5, 10))),
            ('training.strides', '((8, 16), (16,))', ((8, 16), (16,))),
        ],
    )
    def test_values_of_the_command_line(self, key, text, value):
        config = cells.default_config()
        for _ in range(2):  # also where the key is an axis already
            command_line.override(config, key, text)
            assert work_directories.flatten(config.to_dict())[key] == value

    @pytest.mark.parametrize(
        ('key', 'text'),
        [
            ('image_size', '(32, None)'), ('image_size', "(32, 'x')"), ('image_size', '(32, True)'),
            ('tap', '(1, 2)'), ('strict_weights', '(0, 1)'), ('knn.neighbours', '((1,), (0.5,))'),
        ],
    )  # fmt: skip
    def test_values_of_another_type_are_one_line(self, key, text):
        with pytest.raises(UserError, match=f"config key '{key}' takes a value of type"):
            command_line.override(cells.default_config(), key, text)


class TestPlan:
    def test_only_cells_that_depend_on_an_axis_are_multiplied(self):
        config = make_config(
            backbones=('vit_micro@random', 'vit_micro@bundled:vit_micro', 'pixels'),
            regimes=('knn', 'ridge', 'scratch'), fractions=(1.0,), seeds=(0,), image_size=(16, 32),
            calibration_images=(8, 16),
        )  # fmt: skip
        changed(config, {'knn.neighbours': ((1,), (5,)), 'training.epochs': (1, 2)})
        found = {}
        for cell in cells.plan(config):
            keys = tuple(key for key, _ in cell.settings)
            kind = (cell.variant.label, cell.regime)
            assert found.setdefault(kind, (keys, set()))[0] == keys
            found[kind][1].add(cell.settings)
        size, neighbours = 'image_size', 'knn.neighbours'
        random, bundled = 'vit_micro · random', 'vit_micro · bundled:vit_micro'
        assert {kind: (keys, len(values)) for kind, (keys, values) in found.items()} == {
            (random, 'knn'): (('calibration_images', size, neighbours), 8),
            (random, 'ridge'): (('calibration_images', size), 4),
            (random, 'scratch'): ((size, 'training.epochs'), 4),
            (bundled, 'knn'): ((size, neighbours), 4),
            (bundled, 'ridge'): ((size,), 2),
            ('pixels', 'knn'): ((neighbours,), 2),
            ('pixels', 'ridge'): ((), 1),
        }

    def test_one_value_is_no_axis(self):
        for value in (32, (32,), (32, 32)):
            (cell,) = cells.plan(
                make_config(backbones=('vit_micro',), regimes=('knn',), fractions=(1.0,), seeds=(0,), image_size=value)
            )
            assert cell.settings == ()

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'image_size': (16, -1)}, "'image_size' must not be negative, but is -1"),
            ({'backbones': ('vit_micro',), 'tap': ('pooled', 'poled')}, "unknown tap 'poled'"),
            ({'fit': ('crop', 'squash')}, "'fit' has 2 values, but data sets are read once for all cells"),
            ({'image_size': (16, 32)}, "'image_size' has 2 values, but no cell of this ablation depends on it"),
            ({'batch_size': (16, 32)}, "'batch_size' has 2 values, but no cell of this ablation depends on it"),
            ({'image_size': ()}, "'image_size' is empty"),
        ],
    )  # fmt: skip
    def test_bad_axes_are_one_line(self, changes, message):
        with pytest.raises(UserError, match=message):
            cells.plan(pixels(**changes))

    def test_cells_survive_json_and_those_without_settings_keep_their_names(self):
        cell = Cell('digits', Variant('vit_micro', 'random'), 'knn', 0.5, 3)
        assert cell.as_json().keys() == {'backbone', 'weights', 'dataset', 'regime', 'fraction', 'seed'}
        assert cell.key() == 'e9ff897eb5ab585c'
        other = dataclasses.replace(cell, settings=(('image_size', 16), ('knn.neighbours', (1, 5))))
        assert Cell.from_json(json.loads(json.dumps(other.as_json()))) == other
        assert other.key() != cell.key()
        assert other.label.endswith(' · knn · image_size 16 · knn.neighbours (1, 5) · fraction 0.5 · seed 3')

    def test_the_plan_counts_a_pass_once(self, monkeypatch):
        monkeypatch.setattr(estimate, 'measured_speed', lambda: 1e10)
        config = changed(
            make_config(backbones=('vit_micro',), regimes=('knn',), fractions=(1.0,), seeds=(0,), image_size=(16, 32)),
            {'knn.neighbours': ((1,), (5,))},
        )
        planned = cells.plan(config)
        table = estimate.table(planned, len(planned), config, make_dataset)
        columns = {column.header: list(column.cells) for column in table.columns}
        assert columns['settings'] == [
            'image_size 16, knn.neighbours (1)', 'image_size 16, knn.neighbours (5)',
            'image_size 32, knn.neighbours (1)', 'image_size 32, knn.neighbours (5)',
        ]  # fmt: skip
        assert columns['passes'] == ['1', '0', '1', '0']
        of_taps = changed(config, {'image_size': 16, 'knn.neighbours': (1,), 'tap': ('stage1', 'pooled')})
        planned = cells.plan(of_taps)
        (passes,) = [
            list(column.cells)
            for column in estimate.table(planned, len(planned), of_taps, make_dataset).columns
            if column.header == 'passes'
        ]
        assert passes == ['1', '0']
        small, _, large, _ = map(float, columns['GFLOP/image'])
        assert large > 3 * small


class TestRun:
    def test_each_cell_is_computed_with_its_values(self, tmp_path, features):
        config = changed(
            make_config(
                backbones=('vit_micro', 'pixels'), regimes=('knn',), fractions=(1.0,), seeds=(0,),
                image_size=(16, 32), tap=('pooled', 'stages'),
            ),
            {'knn.neighbours': ((1,), (5,))},
        )  # fmt: skip
        assert len(run(config, tmp_path)) == 2 * 2 * 2 + 2
        # One pass for each pair of size and tap, whatever the heads.
        label = 'vit_micro · bundled:vit_micro'
        assert features[:4] == [(label, size, tap) for size in (16, 32) for tap in ('pooled', 'stages')]
        assert len(features) == 5
        for row in rows.read(tmp_path):
            chosen = dict(row.cell.settings)
            assert row.selected == {'neighbours': chosen['knn.neighbours'][0]}
            assert row.config['knn']['neighbours'] == list(chosen['knn.neighbours'])
            for key in ('image_size', 'tap'):
                assert row.config.get(key) == chosen.get(key)
            # Each equals that of an ablation with these values alone.
            alone = changed(config.copy_and_resolve_references(), chosen)
            place = tmp_path / row.cell.key()
            if chosen.keys() > {'tap'}:
                run(changed(alone, {'backbones': ('vit_micro',)}), place)
                assert [each.test for each in rows.read(place)] == [row.test]

    def test_flops_are_counted_once_per_backbone_and_size(self, tmp_path, features, monkeypatch):
        counted = []
        monkeypatch.setattr(cost, 'count_flops', lambda model, size: counted.append(size) or 7)
        config = make_config(backbones=('vit_micro',), regimes=('knn',), seeds=(0,), image_size=(16, 32))
        run(changed(config, {'knn.temperature': (0.1, 0.2)}), tmp_path)
        assert counted == [(16, 16), (32, 32)]
        assert {row.costs['flops_per_image'] for row in rows.read(tmp_path)} == {7}

    def test_trainings_take_them_too(self, tmp_path, monkeypatch):
        given = []

        def fit(config, dataset, directory, **_):
            given.append((config.image_size, config.epochs, config.layer_decay))
            raise loop.Diverged('enough')

        monkeypatch.setattr(loop, 'fit', fit)
        config = make_config(backbones=('vit_micro@random',), regimes=('scratch',), fractions=(1.0,), seeds=(0,))
        changed(config, {'image_size': (16, 32), 'training.epochs': (1, 2), 'training_extra_learning_rates': 0})
        for cell in cells.plan(config):
            engine = Engine(config, tmp_path, make_dataset)
            with pytest.raises(CellsFailed, match='enough'):
                engine.run([cell])
        assert given == [(16, 1.0, 1.0), (16, 2.0, 1.0), (32, 1.0, 1.0), (32, 2.0, 1.0)]


class TestGrowth:
    def vit(self, **changes):
        values = {'backbones': ('vit_micro',), 'regimes': ('knn',), 'seeds': (0,), 'fractions': (1.0,)}
        return changed(make_config(**values), changes)

    def test_from_one_value_to_several_and_back(self, tmp_path, features):
        run(self.vit(image_size=16), tmp_path)
        (first,) = rows.read(tmp_path)
        assert first.cell.settings == ()
        grown = run(self.vit(image_size=(16, 32)), tmp_path)
        assert [cell.settings for cell in grown] == [(('image_size', 32),)]
        # The first one keeps its files and gets its value.
        kept = rows.read(tmp_path)[0]
        assert kept == dataclasses.replace(first, cell=dataclasses.replace(first.cell, settings=(('image_size', 16),)))
        assert run(self.vit(image_size=(64, 32)), tmp_path)[0].settings == (('image_size', 64),)
        assert run(self.vit(image_size=32), tmp_path) == []
        assert run(self.vit(image_size=8), tmp_path)[0].settings == (('image_size', 8),)
        assert [dict(row.cell.settings)['image_size'] for row in rows.read(tmp_path)] == [16, 32, 64, 8]

    def test_several_axes_one_after_the_other(self, tmp_path, features):
        run(self.vit(), tmp_path)
        assert len(run(self.vit(tap=('pooled', 'stages')), tmp_path)) == 1
        assert len(run(self.vit(tap=('pooled', 'stages'), image_size=(16, 32)), tmp_path)) == 2
        found = {tuple(dict(row.cell.settings).values()) for row in rows.read(tmp_path)}
        assert found == {(16, 'pooled'), (16, 'stages'), (32, 'pooled'), (32, 'stages')}

    def test_cells_that_do_not_depend_on_the_axis_stay_as_they_are(self, tmp_path, features):
        config = self.vit(backbones=('vit_micro', 'pixels'))
        run(config, tmp_path)
        assert len(run(changed(config, {'image_size': (16, 32), 'seeds': (0, 1)}), tmp_path)) == 1 + 2 + 1
        assert {row.cell.settings for row in rows.read(tmp_path) if row.cell.variant.backbone == 'pixels'} == {()}
        (line,) = [each for each in aggregates.load(tmp_path) if each.variant.backbone == 'pixels']
        assert len(line.scores) == 2

    def test_a_value_that_is_no_axis_cannot_change(self, tmp_path, features):
        run(self.vit(image_size=(16, 32)), tmp_path)
        with pytest.raises(UserError, match=r"depend on tap, which is 'pooled' there .*have both \(--config\.tap="):
            run(self.vit(image_size=(16, 32), tap='stages'), tmp_path)

    def test_a_key_that_came_later_has_its_default(self, tmp_path, features):
        run(self.vit(), tmp_path)
        (row,) = rows.read(tmp_path)
        config = {key: value for key, value in row.config.items() if key != 'tap'}
        rows.write(tmp_path, [dataclasses.replace(row, config=config)])
        assert len(run(self.vit(tap=('pooled', 'stages')), tmp_path)) == 1
        assert {row.cell.settings for row in rows.read(tmp_path)} == {(('tap', 'pooled'),), (('tap', 'stages'),)}

    def test_an_unfinished_training_goes_on_under_its_new_name(self, tmp_path):
        config = make_config(backbones=('vit_micro@random',), regimes=('scratch',), fractions=(1.0,), seeds=(0,))
        (cell,) = cells.plan(config)
        growth.claim(tmp_path, config.to_dict(), [cell], [])
        (growth.trainings(tmp_path, cell) / '0.001').mkdir(parents=True)
        changed(config, {'training.epochs': (2.0, 1.0)})
        planned = cells.plan(config)
        growth.claim(tmp_path, config.to_dict(), planned, [])
        assert [growth.trainings(tmp_path, each).is_dir() for each in planned] == [False, True]
        assert not growth.trainings(tmp_path, cell).exists()


class TestTable:
    def test_lines_and_columns(self, tmp_path, features):
        config = make_config(backbones=('vit_micro', 'pixels'), regimes=('knn',), seeds=(0, 1), image_size=(16, 32))
        run(config, tmp_path)
        entries = aggregates.load(tmp_path)
        view = tables.view(entries, 'digits')
        assert view.labels == ['backbone', 'weights', 'regime', 'image_size']
        shown = {tuple(view.cells(row)[:4]) for row in view.rows}
        assert shown == {
            ('vit_micro', 'bundled:vit_micro', 'knn', '16'), ('vit_micro', 'bundled:vit_micro', 'knn', '32'),
            ('pixels', '–', 'knn', '–'),
        }  # fmt: skip
        assert all(len(each.scores) == 2 for each in entries)
        lines = csv.DictReader(tables.csv_text(entries).splitlines())
        assert [line['settings'] for line in lines] == ['image_size 16'] * 2 + ['image_size 32'] * 2 + [''] * 2
        texts = [text.get_text() for text in plots.score_against_cost(entries).legends[0].get_texts()]
        assert 'pixels · knn' in texts

    def test_what_does_not_vary_is_no_column(self, tmp_path, features):
        run(make_config(backbones=('pixels',), regimes=('knn', 'ridge')), tmp_path)
        view = tables.view(aggregates.load(tmp_path), 'digits')
        assert view.labels == ['backbone', 'weights', 'regime']

    def test_beside_a_work_directory_with_one_value(self, tmp_path, features):
        several = {'backbones': ('vit_micro', 'pixels'), 'regimes': ('knn',), 'fractions': (1.0,)}
        run(make_config(**several, seeds=(0,), image_size=(16, 32)), tmp_path / 'several')
        run(make_config(**several, seeds=(1,), image_size=16), tmp_path / 'one')
        entries = aggregates.load(tmp_path / 'several', tmp_path / 'one')
        assert {(each.variant.backbone, each.settings): len(each.scores) for each in entries} == {
            ('vit_micro', (('image_size', 16),)): 2, ('vit_micro', (('image_size', 32),)): 1, ('pixels', ()): 2,
        }  # fmt: skip


def test_settings_of_features_are_what_an_extractor_reads():
    """A key that it reads besides must be listed: cells that differ in it would share features."""
    read = set(re.findall(r'config\.(\w+)', inspect.getsource(extractor))) | {'image_height'}
    assert read - {'batch_size', 'fit', 'bad_files_limit', 'runtime'} == {*settings._OF_FEATURES}
