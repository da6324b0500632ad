"""Ablations that grow in their work directory, and what they may not change on the way."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_rows import make_row
from test_loading import write_images
from tiny import make_config, make_dataset

from backbones import UserError
from backbones.pretrained.checksums import write_checksums
from experiments import ablate
from experiments.ablation import cells, estimate, growth
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import Engine
from experiments.cli import work_directories
from experiments.data import decoding, loading
from experiments.features import extractor
from experiments.results import rows
from experiments.training.config import FREE_KEYS


def pixels(**changes):
    """An ablation without a network."""
    values = {'backbones': ('pixels',), 'regimes': ('knn',), 'seeds': (0,), 'fractions': (1.0,)}
    return make_config(**{**values, **changes})


def run(config, workdir, dataset=None) -> list[Cell]:
    """Run an ablation as the command does; the cells that were run."""
    made = dataset or make_dataset('digits')
    planned = cells.plan(config)
    runner = Engine(config, workdir, lambda name: dataclasses.replace(made, name=name))
    pending = runner.pending(planned)
    for name in config.datasets if pending else ():
        runner.load(name)
    runner.claim(planned)
    runner.run(planned)
    return pending


class TestAxes:
    @pytest.mark.parametrize(
        'grown',
        [
            {'seeds': (0, 3)},
            {'fractions': (0.5, 1.0)},
            {'datasets': ('digits', 'mnist5k')},
            {'regimes': ('knn', 'ridge')},
            {'backbones': ('pixels', 'vit_micro@random')},
        ],
        ids=lambda grown: next(iter(grown)),
    )
    def test_only_the_new_cells_run(self, tmp_path, grown, monkeypatch):
        features = np.random.default_rng(0).normal(size=(160, 4)).astype(np.float32)
        costs = extractor.Costs(input_size=(16, 16))
        monkeypatch.setattr(
            extractor.Extractor,
            '__call__',
            lambda self, backbone, dataset, advance: (extractor.Extracted(features, dataset, {}), costs),
        )
        first = run(pixels(), tmp_path)
        before = rows.read(tmp_path)
        config = pixels(**grown)
        second = run(config, tmp_path)
        assert len(first) == len(second) == 1
        assert {*first, *second} == {*cells.plan(config)}
        after = rows.read(tmp_path)
        assert after[:1] == before
        assert [row.cell for row in after] == first + second
        assert work_directories.read_config(tmp_path) == work_directories.as_read_back(config.to_dict())

    def test_a_smaller_config_keeps_what_is_finished(self, tmp_path):
        run(pixels(seeds=(0, 1)), tmp_path)
        assert run(pixels(seeds=(1,)), tmp_path) == []
        assert len(rows.read(tmp_path)) == 2
        assert run(pixels(seeds=(0, 1, 2)), tmp_path)[0].seed == 2


class TestValues:
    def test_what_finished_cells_depend_on_is_refused(self, tmp_path):
        run(pixels(seeds=(0, 1)), tmp_path)
        before = (tmp_path / 'config.json').read_text()
        changed = pixels(seeds=(0, 1, 2))
        changed.knn.temperature = 0.5
        message = (
            f'2 finished cells in {str(tmp_path)!r} depend on knn.temperature, which is 0.07 there and 0.5 here: '
            'digits · pixels · knn · fraction 1 · seed 0; digits · pixels · knn · fraction 1 · seed 1; restore its '
            "earlier value, have both (--config.knn.temperature='(0.07, 0.5)'), choose another --workdir, or "
            'remove the rows of these cells from results.jsonl to run them again'
        )
        with pytest.raises(UserError, match=re.escape(message)):
            run(changed, tmp_path)
        assert (tmp_path / 'config.json').read_text() == before

    def test_what_only_others_depend_on_may_change(self, tmp_path):
        run(pixels(), tmp_path)
        changed = pixels(
            seeds=(0, 1), image_size=24, calibration_images=16, batch_size=8, training_learning_rates=(0.1,)
        )
        changed.linear.steps = 5
        changed.training.epochs = 7.0
        assert len(run(changed, tmp_path)) == 1

    def test_removed_rows_run_again_with_the_new_value(self, tmp_path):
        run(pixels(), tmp_path)
        (tmp_path / rows.RESULTS).unlink()
        changed = pixels()
        changed.knn.temperature = 0.5
        assert len(run(changed, tmp_path)) == 1
        assert rows.read(tmp_path)[0].config['knn']['temperature'] == 0.5

    def test_many_cells_and_keys_are_counted(self, tmp_path):
        run(pixels(seeds=(0, 1, 2, 3, 4)), tmp_path)
        changed = pixels()
        changed.knn.temperature, changed.fit = 0.5, 'squash'
        with pytest.raises(UserError, match=r'5 finished cells .*depend on fit, .* \(and knn\.temperature differ'):
            run(changed, tmp_path)
        with pytest.raises(UserError, match=r'seed 2; and 2 more; restore its'):
            run(changed, tmp_path)

    def test_what_each_kind_of_cell_depends_on(self):
        config = make_config().to_dict()

        def keys(backbone, weights, regime) -> set[str]:
            found = growth.dependencies(Cell('digits', Variant(backbone, weights), regime, 1.0, 0), config)
            return {key if key.startswith('training') else key.partition('.')[0] for key in found}

        size, heads = (
            {'image_size', 'image_height', 'text_length'},
            {'fit', 'shots', 'refit', 'validation_images', 'corruptions'},
        )
        assert keys('pixels', '', 'knn') == {*heads, 'knn'}
        assert keys('vit_micro', 'x.pth', 'linear') == {
            *size,
            *heads,
            'tap',
            'normalisation',
            'linear',
            'strict_weights',
        }
        of_ridge = {'tap', 'normalisation', 'ridge', 'calibration_images'}
        assert keys('vit_micro', 'random', 'ridge') == {*size, *heads, *of_ridge}
        of_attention = {'attentive', 'normalisation', 'strict_weights'}
        assert keys('vit_micro', 'x.pth', 'attentive') == {*size, *heads, *of_attention}
        trained = keys('vit_micro', 'x.pth', 'finetune')
        assert trained > {*size, 'fit', 'shots', 'corruptions', 'training_learning_rates', 'training.epochs'}
        assert 'training.layer_decay' in trained
        assert not trained & {
            'linear',
            'refit',
            'validation_images',
            'calibration_images',
            'training.seed',
            'training.learning_rate',
        }
        assert not trained & {f'training.{key}' for key in FREE_KEYS}

    def test_cells_of_another_task_are_refused(self, tmp_path):
        """Their data have the same name, and would seem to have changed."""
        config = pixels().to_dict()
        config['training']['task'] = 'detection'
        with pytest.raises(UserError, match=r"1 finished cell in .* is of the task classification, .* is 'detection'"):
            growth.check(tmp_path, config, [make_row()])

    def test_keys_that_came_later_have_their_default(self, tmp_path, monkeypatch):
        config = pixels().to_dict()
        old = make_row('pixels', config={'image_size': 16})
        old = dataclasses.replace(old, cell=Cell('digits', Variant('pixels', ''), 'knn', 1.0, 0))
        growth.check(tmp_path, config, [old])
        growth.check(tmp_path, {**config, 'seeds': (1,)}, [old])
        with pytest.raises(UserError, match=r"depends on fit, which is 'crop' there and 'squash' here"):
            growth.check(tmp_path, {**config, 'fit': 'squash'}, [old])
        # Or what they stood for before they were there.
        monkeypatch.setattr(growth, 'VALUES_BEFORE', {'fit': 'squash'})
        growth.check(tmp_path, {**config, 'fit': 'squash'}, [old])
        with pytest.raises(UserError, match=r"depends on fit, which is 'squash' there and 'crop' here"):
            growth.check(tmp_path, config, [old])

    def test_extra_learning_rates_matter_where_some_were_or_would_have_been_tried(self, tmp_path):
        config = make_config(training_learning_rates=(1e-3, 3e-3)).to_dict()
        cell = Cell('digits', Variant('vit_micro', 'random'), 'scratch', 1.0, 0)
        row = make_row(cell=cell, choices=2, config=work_directories.as_read_back(config))
        older = {key: value for key, value in row.config.items() if key != 'training_extra_learning_rates'}
        before = dataclasses.replace(row, config=older)
        for unaffected in (row, before):
            growth.check(tmp_path, {**config, 'training_extra_learning_rates': 2}, [unaffected])
        at_edge, extended = dataclasses.replace(before, at_edge=('learning_rate',)), dataclasses.replace(row, choices=3)
        for affected, value in ((at_edge, 0), (extended, 4)):
            with pytest.raises(UserError, match=f'depends on training_extra_learning_rates, which is {value} there'):
                growth.check(tmp_path, {**config, 'training_extra_learning_rates': 2}, [affected])

    def test_a_key_that_is_gone_changes_nothing(self, tmp_path):
        config = work_directories.as_read_back(pixels().to_dict())
        row = make_row('pixels', config={'image_size': 16, 'knn': {**config['knn'], 'metric': 'cosine'}})
        growth.check(tmp_path, config, [dataclasses.replace(row, cell=cells.plan(pixels())[0])])

    def test_a_directory_that_a_training_only_claimed_is_taken_over(self, tmp_path, capsys):
        work_directories.claim(tmp_path, {'backbone': 'vit_micro', 'seed': 0})
        assert len(run(pixels(), tmp_path)) == 1
        assert 'but nothing has been computed in it: it now belongs to this one' in capsys.readouterr().err
        assert 'backbones' in work_directories.read_config(tmp_path)

    def test_a_directory_of_a_training_is_refused(self, tmp_path):
        work_directories.claim(tmp_path, {'backbone': 'vit_micro', 'seed': 0})
        (tmp_path / 'metrics.jsonl').write_text('{"step": 1}')
        with pytest.raises(UserError, match=r"belongs to another config \(without the key 'backbones'"):
            run(pixels(), tmp_path)


class TestData:
    def test_changed_data_are_refused(self, tmp_path):
        run(pixels(), tmp_path)
        other = make_dataset('digits', seed=1)
        message = (
            rf"the data of 'digits' have changed since they produced 1 finished cell in .* \(fingerprint \w+ then, "
            rf'{other.fingerprint()} now\): digits · pixels · knn · fraction 1 · seed 0; restore the data'
        )
        with pytest.raises(UserError, match=message):
            run(pixels(seeds=(0, 1)), tmp_path, other)
        assert work_directories.read_config(tmp_path)['seeds'] == [0]
        assert len(run(pixels(seeds=(0, 1)), tmp_path)) == 1

    def test_a_fingerprint_that_left_the_images_out_is_that_of_an_earlier_version(self, tmp_path, monkeypatch):
        monkeypatch.setattr(decoding, 'MEMORY_LIMIT', 0)
        write_images(tmp_path / 'images', {'a': 10, 'b': 10})
        dataset = loading.load(f'folder:{tmp_path / "images"}')
        assert dataset.earlier_fingerprint() != dataset.fingerprint()
        cell = Cell(dataset.name, Variant('pixels', ''), 'knn', 1.0, 0)
        row = make_row(cell=cell, data={**make_row().data, 'fingerprint': dataset.earlier_fingerprint()})
        other = make_row()
        first, second = growth.check_data(tmp_path, dataset, [row, other])
        assert first == dataclasses.replace(row, data={**row.data, 'fingerprint': dataset.fingerprint()})
        assert second == other
        named = dataclasses.replace(row, data={**row.data, 'fingerprint': 'another'})
        with pytest.raises(UserError, match='have changed since they produced 1 finished cell'):
            growth.check_data(tmp_path, dataset, [row, named])

    def test_other_data_sets_do_not_matter(self, tmp_path):
        run(pixels(), tmp_path)
        assert len(run(pixels(datasets=('mnist5k',)), tmp_path, make_dataset('mnist5k', seed=1))) == 1

    def test_trainings_that_were_begun_on_other_data_begin_again(self, tmp_path):
        cell = Cell('digits', Variant('vit_micro', 'random'), 'scratch', 1.0, 0)
        dataset = make_dataset('digits')
        directory = growth.begin_trainings(tmp_path, cell, dataset)
        (directory / '0.001').mkdir()
        assert growth.begin_trainings(tmp_path, cell, dataset) == directory
        assert (directory / '0.001').exists()
        growth.begin_trainings(tmp_path, cell, make_dataset('digits', seed=1))
        assert not (directory / '0.001').exists()
        # Versions before did not say on which data: their trainings go on.
        (directory / '0.001').mkdir()
        (directory / 'data.json').unlink()
        growth.begin_trainings(tmp_path, cell, dataset)
        assert (directory / '0.001').exists()


class TestWeights:
    def test_changed_weights_are_refused(self, tmp_path):
        file = tmp_path / 'weights.safetensors'
        file.write_bytes(b'one')
        variant = Variant('vit_micro', str(file))
        row = make_row(cell=Cell('digits', variant, 'linear', 1.0, 0), weights_digest=growth.weights_digest(variant))
        growth.check_weights(tmp_path, {variant}, [row])
        file.write_bytes(b'two')
        with pytest.raises(
            UserError, match=r'the weights .* have changed since they produced 1 finished cell .*: digits'
        ):
            growth.check_weights(tmp_path, {variant}, [row])
        growth.check_weights(tmp_path, {variant}, [dataclasses.replace(row, weights_digest=None)])
        growth.check_weights(tmp_path, {Variant('vit_micro', 'random')}, [row])

    def test_digests(self, tmp_path):
        (tmp_path / 'weights.safetensors').write_bytes(b'one')
        whole = growth.weights_digest(Variant('vit_micro', str(tmp_path)))
        assert whole == growth.weights_digest(Variant('vit_micro', str(tmp_path / 'weights.safetensors')))
        assert len(growth.weights_digest(Variant('vit_micro', 'bundled:vit_micro'))) == 64
        assert growth.weights_digest(Variant('vit_micro', 'random')) is None
        assert growth.weights_digest(Variant('pixels', '')) is None

    @pytest.mark.parametrize('checksums', [True, False])
    def test_an_unfinished_run_whose_newest_checkpoint_is_another(self, tmp_path, checksums):
        def checkpoint(step: int) -> None:
            arrays = tmp_path / 'run' / 'checkpoints' / str(step) / 'default'
            arrays.mkdir(parents=True)
            (arrays / '_METADATA').write_text('{}')
            (arrays / 'array').write_text(f'values of step {step}')
            if checksums:
                write_checksums(arrays.parent)

        variant = Variant('vit_micro', str(tmp_path / 'run'))
        checkpoint(1)
        digest = growth.weights_digest(variant)
        assert digest == growth.weights_digest(variant)
        row = make_row(cell=Cell('digits', variant, 'linear', 1.0, 0), weights_digest=digest)
        growth.check_weights(tmp_path, {variant}, [row])
        checkpoint(2)
        with pytest.raises(UserError, match='have changed since they produced 1 finished cell'):
            growth.check_weights(tmp_path, {variant}, [row])
        # The run that was meant then can be named.
        earlier = Variant('vit_micro', str(tmp_path / 'run' / 'checkpoints' / '1'))
        assert growth.weights_digest(earlier) == digest

    def test_a_shard_that_is_another(self, tmp_path):
        index = tmp_path / 'model.safetensors.index.json'
        index.write_text(json.dumps({'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}))
        for name in ('one', 'two'):
            (tmp_path / f'{name}.safetensors').write_text(name)
        rows = [
            make_row(cell=Cell('digits', variant, 'linear', 1.0, 0), weights_digest=growth.weights_digest(variant))
            for variant in (Variant('vit_micro', str(tmp_path)), Variant('vit_micro', str(index)))
        ]
        assert rows[0].weights_digest == rows[1].weights_digest
        growth.check_weights(tmp_path, {row.cell.variant for row in rows}, rows)
        # A row of an earlier version has the digest of the index.
        before = hashlib.sha256(index.read_bytes()).hexdigest()
        growth.check_weights(tmp_path, {rows[1].cell.variant}, [dataclasses.replace(rows[1], weights_digest=before)])
        (tmp_path / 'two.safetensors').write_text('TWO')
        for row in rows:
            with pytest.raises(UserError, match='have changed since they produced 1 finished cell'):
                growth.check_weights(tmp_path, {row.cell.variant}, [row])

    def test_weights_that_change_while_an_ablation_runs(self, tmp_path):
        """Neither does the next training begin from them, nor is a row said to come from them."""
        file = tmp_path / 'weights.safetensors'
        file.write_bytes(b'one')
        variant = Variant('vit_micro', str(file))
        digest = growth.weights_digest(variant)
        planned = [Cell('digits', variant, 'finetune', 1.0, seed) for seed in range(2)]
        engine = Engine(make_config(), tmp_path / 'run', make_dataset)
        train = engine._run_training

        def finish(dataset, cell):
            if cell is planned[1]:
                train(dataset, cell)
            file.write_bytes(b'two')
            engine._journal.rows = [make_row(cell=cell, weights_digest=engine._rows.weights_digest(variant))]

        engine._run_training = finish
        with pytest.raises(UserError, match='have changed since they produced 1 finished cell'):
            engine.run(planned)
        assert engine._journal.rows[0].weights_digest == digest
        assert not (tmp_path / 'run' / 'trainings').exists()


class TestTrainings:
    CELLS = tuple(Cell('digits', Variant('vit_micro', 'random'), 'scratch', 1.0, seed) for seed in range(2))

    def begun(self, workdir) -> list[Path]:
        paths = [growth.trainings(workdir, cell) / '0.001' for cell in self.CELLS]
        for path in paths:
            path.mkdir(parents=True)
        return paths

    @pytest.mark.parametrize(
        ('change', 'kept'),
        [
            ({}, True),
            ({'training.threads': 3}, True),
            ({'linear.steps': 3}, True),
            ({'training_learning_rates': (1e-3, 3e-3), 'training_extra_learning_rates': 1}, True),
            ({'training.epochs': 3.0}, False),
            ({'image_size': 32}, False),
        ],
        ids=str,
    )
    def test_unfinished_ones_begin_again_if_their_values_changed(self, tmp_path, change, kept):
        config = make_config()
        growth.claim(tmp_path, config.to_dict(), self.CELLS, [])
        begun = self.begun(tmp_path)
        config.update_from_flattened_dict(change)
        growth.check(tmp_path, config.to_dict(), [])
        finished = [make_row(cell=self.CELLS[0])] if kept else []
        growth.claim(tmp_path, config.to_dict(), self.CELLS, finished)
        assert [path.exists() for path in begun] == [kept, kept]
        assert work_directories.read_config(tmp_path) == work_directories.as_read_back(config.to_dict())

    def test_rows_of_older_versions_are_written_out_before_the_config_changes(self, tmp_path, monkeypatch):
        config = pixels()
        growth.claim(tmp_path, config.to_dict(), [], [])
        order = []
        monkeypatch.setattr(rows, 'write', lambda *_: order.append('rows'))
        monkeypatch.setattr(work_directories, 'write_config', lambda *_: order.append('config'))
        growth.claim(tmp_path, pixels(seeds=(0, 1)).to_dict(), [], [make_row()])
        assert order == ['rows', 'config']


class TestDisks:
    def test_every_write_that_fails_is_one_line_and_nothing_finished_is_lost(self, tmp_path, monkeypatch):
        """The disk is full at the first file, at the second, and so on, until a run ends well."""
        config_file = tmp_path / 'config.py'
        changes = "config.update(backbones=('pixels',), regimes=('knn',), fractions=(0.5, 1.0), seeds=(0,))"
        config_file.write_text(
            'from experiments.ablation.cells import default_config\n'
            f'def get_config():\n    config = default_config()\n    {changes}\n    return config\n'
        )
        monkeypatch.setattr(loading, 'load', lambda name, *_, **__: make_dataset('digits'))
        monkeypatch.setattr(estimate, 'measured_speed', lambda: 1e9)
        arguments = ['--config', str(config_file), "--config.datasets=('digits',)", '--workdir', str(tmp_path / 'run')]
        finished: list[str] = []
        failures = 0
        for allowed in range(20):
            left = iter(range(allowed))

            def fsync(descriptor, left=left):
                if next(left, None) is None:
                    raise OSError(28, 'No space left on device')

            monkeypatch.setattr('os.fsync', fsync)
            try:
                ablate.main(arguments)
                break
            except UserError as error:
                assert re.fullmatch(r'No space left on device \(.*run/.*\); .*', str(error))
                failures += 1
            results = tmp_path / 'run' / 'results.jsonl'
            now = results.read_text().splitlines() if results.exists() else []
            assert now[: len(finished)] == finished
            assert not list((tmp_path / 'run').rglob('.*'))
            finished = now
        assert failures >= 3
        assert len(finished) == 2
        assert (tmp_path / 'run' / 'table.md').exists()
        assert json.loads(finished[0])['schema'] == rows.SCHEMA
