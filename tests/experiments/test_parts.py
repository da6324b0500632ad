"""Ablations that are run in part: chosen cells, shards, a time limit, and cells that fail."""

import dataclasses
import errno
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table
from tiny import make_config, make_dataset

from backbones import UserError, cost
from experiments import ablate, probes
from experiments.ablation import cells, estimate, growth, selection
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import Engine
from experiments.ablation.journal import Journal
from experiments.ablation.selection import Shard
from experiments.ablation.time_limit import OutOfTime, TimeLimit
from experiments.cli import atomic_files, command_line, commands, work_directories
from experiments.cli.exit_status import CellsFailed, Preempted
from experiments.commands import ablate as work
from experiments.commands import report
from experiments.data import loading
from experiments.features import extractor
from experiments.features.store import Store
from experiments.probes import knn
from experiments.results import aggregates, failures, planned_cells, rows, runs, shards, tables
from experiments.results.page import content
from experiments.training import loop
from experiments.training.preemption import Interruption

MADE = {name: make_dataset(name) for name in ('digits', 'mnist5k')}
write_report = report.write


@pytest.fixture
def quick(monkeypatch):
    """The command on made-up data, without networks, and with a file of the config."""

    def extract(self, backbone, dataset, advance):
        generator = np.random.default_rng([len(backbone.label), self._config.image_size])
        values = generator.normal(size=(160, 4)).astype(np.float32) + dataset.targets[:, None]
        return extractor.Extracted(values, dataset, {}), extractor.Costs(1000, 50.0, (16, 16))

    monkeypatch.setattr(extractor.Extractor, '__call__', extract)
    monkeypatch.setattr(extractor.Extractor, 'check', lambda *_: None)
    monkeypatch.setattr(cost, 'count_flops', lambda model, size: 2_000_000)
    monkeypatch.setattr(estimate, 'table', lambda *_: Table(title='the plan'))
    monkeypatch.setattr(loading, 'load', lambda name, *_, **__: MADE[name])
    monkeypatch.setattr(report, 'write', lambda *_: None)  # it takes longer than all the rest


CONFIG = """
from experiments.ablation.cells import default_config

def get_config():
    config = default_config()
    config.backbones = ('vit_micro', 'resnet_micro@random', 'pixels')
    config.datasets = ('digits', 'mnist5k')
    config.regimes = ('knn',)
    config.fractions = (0.5,)
    config.seeds = (0, 1)
    config.image_size = (16, 32)
    return config
"""


def run(tmp_path, workdir, *arguments) -> None:
    config = tmp_path / 'config.py'
    config.write_text(CONFIG)
    ablate.main(
        ['--config', str(config), '--workdir', str(tmp_path / workdir), '--cache_dir', str(tmp_path / 'c'), *arguments]
    )


def table(*places) -> tuple[str, str]:
    """``table.md`` and ``table.csv`` of work directories; costs that are measured are the same here."""
    entries = aggregates.load(*places)
    views = [tables.view(entries, name) for name in aggregates.datasets(entries)]
    return '\n'.join(map(tables.markdown, views)), tables.csv_text(entries)


class TestShards:
    @pytest.mark.parametrize('count', [2, pytest.param(5, marks=pytest.mark.slow)])
    def test_their_table_is_that_of_one_run(self, tmp_path, quick, count):
        run(tmp_path, 'one')
        for number in reversed(range(count)):  # whichever ends first
            run(tmp_path, 'parts', f'--shard={number + 1}/{count}')
        whole, parts = rows.read(tmp_path / 'one'), rows.read(tmp_path / 'parts')
        assert len(parts) == len(whole) == 2 * (2 * 2 + 2 * 2 + 2)
        merged, one = table(tmp_path / 'parts'), table(tmp_path / 'one')
        assert merged == one
        # As work directories of their own, too.
        several = table(*sorted((tmp_path / 'parts' / 'shards').iterdir()))
        assert sorted(several[1].splitlines()) == sorted(one[1].splitlines())
        # A run of the whole finds nothing to do.
        run(tmp_path, 'parts')
        assert table(tmp_path / 'parts') == one

    def test_what_is_finished_is_not_run_again(self, tmp_path, quick, capsys):
        run(tmp_path, 'one', '--only=digits')
        for number in (1, 2):
            run(tmp_path, 'one', f'--shard={number}/2')
        capsys.readouterr()
        own = (tmp_path / 'one' / 'results.jsonl').read_text().splitlines()
        found = rows.read(tmp_path / 'one')
        assert len(found) == 2 * len(own) == len({row.cell for row in found})
        places = [place / 'results.jsonl' for place in (tmp_path / 'one' / 'shards').iterdir()]
        assert {json.loads(line)['cell']['dataset'] for place in places for line in place.read_text().splitlines()} == {
            'mnist5k'
        }
        run(tmp_path, 'one', '--shard=2/2')
        assert 'cells are finished' in capsys.readouterr().err

    def test_a_pass_is_in_one_shard(self, tmp_path, quick):
        run(tmp_path, 'parts', '--shard=1/3')
        mine = {row.cell for row in rows.read(tmp_path / 'parts')}

        def key(cell):
            size = dict(cell.settings).get('image_size')
            return cell.dataset, cell.variant, size, cell.seed if cell.variant.weights == 'random' else None

        config = command_line.load_config(str(tmp_path / 'config.py'))
        others = set(cells.plan(config)) - mine
        assert mine
        assert others
        assert {key(cell) for cell in mine}.isdisjoint(key(cell) for cell in others)

    def test_a_shard_without_cells(self, tmp_path, quick, capsys):
        run(tmp_path, 'parts', '--shard=40/40')
        assert 'shard 40/40 has no cells' in capsys.readouterr().err
        assert not (tmp_path / 'parts').exists()

    def test_a_config_that_finished_cells_do_not_fit_is_refused(self, tmp_path, quick):
        run(tmp_path, 'parts', '--shard=1/2')
        told = r"^10 finished cells in '.*parts' depend on knn\.temperature.*"
        told += r' or remove the rows of these cells from shards/1-of-2/results\.jsonl to run them again$'
        for number in (1, 2):
            with pytest.raises(UserError, match=told):
                run(tmp_path, 'parts', f'--shard={number}/2', '--config.knn.temperature=0.5')
        # A run of the whole copies rows of shards.
        run(tmp_path, 'parts')
        with pytest.raises(UserError, match=r'from results\.jsonl, shards/1-of-2/results\.jsonl to run them again$'):
            run(tmp_path, 'parts', '--config.knn.temperature=0.5')

    def test_data_that_another_shard_was_not_computed_from_are_compared_with_its_record(
        self, tmp_path, quick, monkeypatch
    ):
        run(tmp_path, 'parts', '--shard=1/2')
        monkeypatch.setitem(MADE, 'digits', make_dataset('digits', seed=1))
        with pytest.raises(UserError, match=r"the data of 'digits' have changed .*\(the pixels differ"):
            run(tmp_path, 'parts', '--shard=2/2')

    def test_weights_that_another_shard_was_not_computed_from_are_refused(self, tmp_path, quick, monkeypatch):
        monkeypatch.setattr(growth, '_file_digests', lambda variant: ['then'])
        run(tmp_path, 'parts', '--shard=1/2', '--only=vit_micro')
        monkeypatch.setattr(growth, '_file_digests', lambda variant: ['now'])
        told = r'the weights .* have changed since .* from shards/1-of-2/results\.jsonl to run them again$'
        with pytest.raises(UserError, match=told):
            run(tmp_path, 'parts', '--shard=2/2', '--only=vit_micro')
        # Weights that change during the run are found by each training.
        config = command_line.load_config(str(tmp_path / 'config.py'))
        journal = Journal(config, tmp_path / 'parts' / 'shards' / '2-of-2', tmp_path / 'parts')
        with pytest.raises(UserError, match=told):
            journal.claim(cells.plan(config))

    def test_a_run_of_the_whole_waits_for_them(self, tmp_path, quick):
        with work_directories.used(work_directories.make(tmp_path / 'parts'), shared=True):
            run(tmp_path, 'parts', '--shard=1/9')
            with pytest.raises(UserError, match='another run is under way'):
                run(tmp_path, 'parts')
        with (
            work_directories.used(tmp_path / 'parts'),
            pytest.raises(UserError, match='another run is under way'),
        ):
            run(tmp_path, 'parts', '--shard=2/9')

    def test_they_are_a_partition(self, tmp_path):
        config = make_config(datasets=tuple(MADE), regimes=('knn', 'scratch', 'linear'), image_size=(16, 32))
        planned, engine = cells.plan(config), Engine(config, tmp_path / 'none', MADE.__getitem__)

        @settings(deadline=None, max_examples=20)
        @given(count=st.integers(1, 9), drawn=st.randoms())
        def check(count, drawn):
            some = drawn.sample(planned, drawn.randint(1, len(planned)))
            parts = [engine.part(some, Shard(number, count)) for number in range(1, count + 1)]
            assert sorted(map(repr, itertools.chain(*parts))) == sorted(map(repr, some))

        check()

    @pytest.mark.parametrize('text', ['0/4', '5/4', '1', 'a/b', '1/0', '-1/2', '1/2/3', ''])
    def test_a_shard_that_there_is_not(self, tmp_path, text):
        with pytest.raises(UserError, match=f'not {text!r}'):
            run(tmp_path, 'run', f'--shard={text}')


class TestPlannedCells:
    """Which cells there are to be is known of the whole ablation, whatever part of it a command runs."""

    @staticmethod
    def counts(workdir):
        found = runs.read(workdir, 'run', time.time())
        assert found.status == ('finished' if found.cells_done == found.cells_planned else 'interrupted')
        return found.cells_done, found.cells_planned, content.read([workdir]).missing.cells

    def test_of_shards(self, tmp_path, quick):
        run(tmp_path, 'run', '--shard=1/2')
        assert self.counts(tmp_path / 'run') == (10, 20, 10)
        run(tmp_path, 'run', '--shard=2/2')
        assert self.counts(tmp_path / 'run') == (20, 20, 0)
        # A report of a shard is of that alone.
        assert self.counts(tmp_path / 'run' / 'shards' / '2-of-2') == (10, 10, 0)

    @pytest.mark.parametrize(
        'change',
        [
            pytest.param('--config.knn.temperature=(0.07, 0.5)', marks=pytest.mark.exhaustive),
            "--config.backbones=('vit_micro', 'pixels')",
            pytest.param('--config.fractions=(1.0,)', marks=pytest.mark.exhaustive),
        ],
    )
    def test_of_an_ablation_that_has_grown_or_shrunk_after_its_shards(self, tmp_path, quick, change):
        for number in (1, 2):
            run(tmp_path, 'run', f'--shard={number}/2')
        run(tmp_path, 'run', change)
        done, planned, unfinished = self.counts(tmp_path / 'run')
        assert done == planned > 0
        assert unfinished == 0

    def test_of_chosen_cells(self, tmp_path, quick):
        run(tmp_path, 'run', '--only=digits')
        assert self.counts(tmp_path / 'run') == (10, 20, 10)
        run(tmp_path, 'run')
        assert self.counts(tmp_path / 'run') == (20, 20, 0)
        run(tmp_path, 'run', '--only=digits')
        assert self.counts(tmp_path / 'run') == (20, 20, 0)

    def test_of_cells_that_are_impossible(self, tmp_path, quick):
        few = '--config.fractions=(0.001, 0.5)'
        for number in (1, 2):
            run(tmp_path, 'run', few, f'--shard={number}/2')
        assert self.counts(tmp_path / 'run') == (20, 20, 0)
        run(tmp_path, 'run', few, '--only=pixels')
        assert self.counts(tmp_path / 'run') == (20, 20, 0)

    def test_of_an_earlier_version(self, tmp_path, quick):
        for number in (1, 2):
            run(tmp_path, 'run', f'--shard={number}/2')
        # It wrote the keys alone, of what each command ran.
        for place in shards.of(tmp_path / 'run'):
            file = place / planned_cells.FILE
            file.write_text(json.dumps(json.loads(file.read_text())['cells']))
        (tmp_path / 'run' / planned_cells.FILE).unlink()
        assert self.counts(tmp_path / 'run') == (20, 20, 0)
        (tmp_path / 'run' / planned_cells.FILE).write_text('["of a run of the whole"]')
        assert self.counts(tmp_path / 'run') == (20, 21, 1)

    def test_unfinished_trainings_of_cells_that_are_not_chosen_start_over_too(self, tmp_path, quick):
        axes = ('--config.regimes=("knn", "scratch")', '--config.datasets=("digits",)', '--config.image_size=16')
        chosen = '--only=pixels'
        run(tmp_path, 'run', *axes, chosen)
        (cell, *_) = (
            cell
            for cell in cells.plan(command_line.load_config(str(tmp_path / 'config.py')))
            if cell.variant.backbone == 'vit_micro'
        )
        begun = dataclasses.replace(cell, variant=Variant('vit_micro', 'random'), regime='scratch', settings=())
        checkpoint = growth.trainings(tmp_path / 'run', begun) / '0.001' / 'checkpoints' / '10'
        checkpoint.mkdir(parents=True)
        run(tmp_path, 'run', *axes, chosen, '--config.training.epochs=3.0')
        assert not checkpoint.exists()


@pytest.mark.parametrize('given', [['--shard', '1/2'], ['--shard=2/2']])
def test_the_command_of_the_whole_names_no_shard(tmp_path, quick, monkeypatch, given):
    spec = types.SimpleNamespace(name='experiments.ablate')
    monkeypatch.setattr(sys.modules['__main__'], '__spec__', spec)
    monkeypatch.setattr(sys, 'argv', ['ablate', '--config', 'x', *given, '--workdir', 'run'])
    run(tmp_path, 'run', *given)
    command = 'python -m experiments.ablate --config x --workdir run'
    assert commands.read(tmp_path / 'run') == [command]
    (part,) = shards.of(tmp_path / 'run')
    assert commands.read(part) == [command.replace(' --workdir', f' {" ".join(given)} --workdir')]


class TestOnly:
    def test_chosen_cells_run_and_the_others_can_follow(self, tmp_path, quick):
        run(tmp_path, 'run', '--only=vit_micro*knn*image_size 16', '--only=pixels')
        found = {(row.cell.variant.backbone, row.cell.regime, row.cell.settings) for row in rows.read(tmp_path / 'run')}
        assert found == {('vit_micro', 'knn', (('image_size', 16),)), ('pixels', 'knn', ())}
        run(tmp_path, 'run')
        assert len(rows.read(tmp_path / 'run')) == 20

    def test_no_match_names_what_there_is(self, tmp_path, quick):
        with pytest.raises(UserError, match=r"unknown part of a label .* 'resnet_mikro.*did you mean 'resnet_micro"):
            run(tmp_path, 'run', '--only=resnet_mikro · random')

    def test_the_plan_prints_labels(self, tmp_path, quick, capsys):
        run(tmp_path, 'run', '--only=pixels*knn*seed 1', '--plan')
        assert 'digits · pixels · knn · fraction 0.5 · seed 1' in capsys.readouterr().err.splitlines()

    @pytest.mark.parametrize('given', [['--only='], ['--only', 'pixels', '--only', ' ']])
    def test_an_empty_one_is_refused(self, tmp_path, given):
        with pytest.raises(UserError, match='--only is empty, as of a variable that is not set'):
            run(tmp_path, 'run', *given)

    def test_names_with_brackets(self):
        cell = Cell('folder:a [b]', Variant('pixels', ''), 'knn', 1.0, 0)
        assert selection.matching([cell], ['a [b]']) == [cell]
        assert selection.matching([cell], ['f[ox]lder']) == [cell]


class TestFailures:
    @pytest.fixture
    def broken(self, monkeypatch):
        """kNN fails for one seed, unless the returned list is emptied."""
        faults, usual = [True], knn.run

        def fail(data, subsets, config, report):
            if faults and any(subset.seed == 1 for subset in subsets):
                raise ValueError('two\n  lines | and a bar')
            return usual(data, subsets, config, report)

        monkeypatch.setitem(probes.TABLE, 'knn', fail)
        return faults

    def test_a_cell_that_fails_is_told_and_the_others_go_on(self, tmp_path, quick, broken, capsys, monkeypatch):
        monkeypatch.setattr(report, 'write', write_report)
        run_of_digits = (tmp_path, 'run', '--only=digits')
        with pytest.raises(CellsFailed) as caught:
            run(*run_of_digits)
        assert caught.value.status == 3
        error = 'ValueError: two lines | and a bar'
        assert re.match(rf'5 of 10 cells failed \(digits · .* · seed 1: {re.escape(error)}; ', str(caught.value))
        found = failures.read(tmp_path / 'run')
        assert {each.cell.seed for each in found} == {1}
        assert {row.cell.seed for row in rows.read(tmp_path / 'run')} == {0}
        assert all(each.error == error and 'in fail' in each.traceback for each in found)
        # The report names them.
        text = (tmp_path / 'run' / 'table.md').read_text()
        assert '### 5 cells failed' in text
        assert f'| {found[0].label} | ValueError: two lines \\| and a bar |' in text
        assert error in (tmp_path / 'run' / 'report.html').read_text()
        assert '5 cells failed' in capsys.readouterr().out

    def test_it_is_tried_again(self, tmp_path, quick, broken):
        run_of_digits = (tmp_path, 'run', '--only=digits')
        for _ in range(2):
            with pytest.raises(CellsFailed, match='5 of 10 cells failed'):
                run(*run_of_digits)
        broken.clear()
        run(*run_of_digits)
        run(tmp_path, 'whole', '--only=digits')
        assert not (tmp_path / 'run' / failures.FAILURES).exists()
        assert table(tmp_path / 'run')[0].splitlines()[2:] == table(tmp_path / 'whole')[0].splitlines()[2:]
        assert content.read([tmp_path / 'run']).failures == ()

    def test_a_failure_of_a_shard_is_in_the_table_of_all(self, tmp_path, quick, broken):
        for number in (1, 2):
            with pytest.raises(CellsFailed):
                run(tmp_path, 'run', f'--shard={number}/2')
        assert len(content.read([tmp_path / 'run']).failures) == 10
        broken.clear()
        run(tmp_path, 'run')
        assert content.read([tmp_path / 'run']).failures == ()

    def test_those_of_cells_that_are_planned_no_longer_are_forgotten(self, tmp_path, quick, broken):
        for number in (1, 2):
            with pytest.raises(CellsFailed):
                run(tmp_path, 'run', f'--shard={number}/2')
        with pytest.raises(CellsFailed):
            run(tmp_path, 'run', '--only=mnist5k')
        places = shards.parts(tmp_path / 'run')
        assert len({each.cell for place in places for each in failures.read(place)}) == 10
        # Another command of the same config forgets nothing; one without the seed that fails does.
        run(tmp_path, 'run', '--only=seed 0')
        assert len(failures.remaining([tmp_path / 'run'])) == 10
        run(tmp_path, 'run', '--config.seeds=(0,)', '--config.image_size=(16, 32)')
        assert [failures.read(place) for place in places] == [[]] * 3

    def test_that_of_a_key_that_became_an_axis_is_forgotten(self, tmp_path, quick, broken):
        pixels = (tmp_path, 'run', "--config.backbones=('pixels',)", "--config.datasets=('digits',)")
        single, several = '--config.image_size=16', '--config.knn.temperature=(0.07, 0.5)'
        for axes, count in ((single,), 1), ((single, several), 2):
            with pytest.raises(CellsFailed):
                run(*pixels, *axes)
            assert len(failures.read(tmp_path / 'run')) == count

    @pytest.mark.parametrize('line', ['{"cell": {', '[]', '{"cell": {}, "error": ""}', b'\xff'])
    def test_a_damaged_record_is_named(self, tmp_path, quick, line):
        run(tmp_path, 'run', '--only=pixels')
        (tmp_path / 'run' / failures.FAILURES).write_bytes(line if isinstance(line, bytes) else line.encode())
        told = r'^line 1 of .*failures\.jsonl is not a record of a failed cell \(.*\); remove it, and its cell is tried'
        for read in (lambda: run(tmp_path, 'run'), lambda: content.read([tmp_path / 'run'])):
            with pytest.raises(UserError, match=told):
                read()

    def test_a_pass_that_fails_takes_its_cells_along(self, tmp_path, quick, monkeypatch):
        usual = extractor.Extractor.__call__

        def fail(self, backbone, dataset, advance):
            if backbone.weights == 'random':
                raise UserError('no such luck')
            return usual(self, backbone, dataset, advance)

        monkeypatch.setattr(extractor.Extractor, '__call__', fail)
        with pytest.raises(CellsFailed, match='4 of 10 cells failed'):
            run(tmp_path, 'run', '--only=digits')
        found = failures.read(tmp_path / 'run')
        assert {each.cell.variant.backbone for each in found} == {'resnet_micro'}
        assert {(each.error, each.traceback) for each in found} == {('no such luck', '')}

    def test_a_training_that_fails(self, tmp_path, monkeypatch):
        tried = []

        def fit(config, *_, **__):
            tried.append(config.seed)
            raise loop.Diverged('not finite: lower --config.learning_rate, or set --config.clip_norm')

        monkeypatch.setattr(loop, 'fit', fit)
        config = make_config(backbones=('vit_micro@random',), regimes=('scratch',), fractions=(1.0,))
        config.training_extra_learning_rates = 0
        # It names the keys that the ablation has.
        advice = 'not finite: lower --config.training_learning_rates, or set --config.training.clip_norm'
        with pytest.raises(CellsFailed, match=rf'2 of 2 cells failed \(digits .* seed 0: {advice}; digits'):
            Engine(config, tmp_path, make_dataset).run(cells.plan(config))
        assert tried == [0, 1]

    def test_to_be_asked_to_stop_ends_the_run(self, tmp_path, monkeypatch):
        def stop(*_):
            raise Preempted

        monkeypatch.setattr(extractor.Extractor, '__call__', stop)
        config = make_config(backbones=('pixels',), regimes=('knn',))
        with pytest.raises(Preempted):
            Engine(config, tmp_path, make_dataset).run(cells.plan(config))
        assert failures.read(tmp_path) == []

    @pytest.mark.parametrize(
        ('regime', 'files'),
        [('knn', r'\..*\.npy\.'), ('scratch', r'\.description.*')],
    )
    def test_a_full_disk_ends_the_run(self, tmp_path, monkeypatch, regime, files):
        refused, make = [], tempfile.mkstemp

        def mkstemp(*arguments, prefix='', **options):
            if re.fullmatch(files, prefix):
                refused.append(prefix)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return make(*arguments, prefix=prefix, **options)

        monkeypatch.setattr(atomic_files.tempfile, 'mkstemp', mkstemp)
        config = make_config(backbones=('vit_micro',), regimes=(regime,), fractions=(1.0,))
        engine = Engine(config, tmp_path / 'run', make_dataset, Store(tmp_path / 'cache'))
        with pytest.raises(atomic_files.DiskError, match='No space left on device'):
            engine.run(cells.plan(config))
        assert len(refused) == 1, 'no other cell is tried'
        assert failures.read(tmp_path / 'run') == []

    def test_a_mistake_in_the_config_stops_before_anything(self, tmp_path, quick):
        with pytest.raises(UserError, match='unknown regime') as caught:
            run(tmp_path, 'run', "--config.regimes=('knn', 'rigde')")
        assert not isinstance(caught.value, CellsFailed)
        assert not (tmp_path / 'run').exists()

    def test_the_exit_status(self, capsys):
        def fail(_):
            raise CellsFailed('1 of 2 cells failed')

        with pytest.raises(SystemExit) as ended:
            command_line.run(fail, continues=True)
        assert ended.value.code == 3
        assert capsys.readouterr().err == 'error: 1 of 2 cells failed\n'


class TestTimeLimit:
    def test_work_begins_only_if_it_would_end_in_time(self):
        now = [0.0]
        limit = TimeLimit(1.0, lambda: now[0])
        for _ in range(3):
            with limit.work('linear', 5):
                now[0] += 1000
        with limit.work('knn', 4):
            now[0] += 100
        told = r'^--max_hours 1 would be passed: 4 cells are left, and the same command continues$'
        with pytest.raises(OutOfTime, match=told), limit.work('linear', 4):
            raise AssertionError('it must not begin')
        with limit.work('knn', 1):
            now[0] += 600
        with pytest.raises(OutOfTime, match='1 cell is left') as caught, limit.work('new', 1):
            raise AssertionError('it must not begin')
        assert caught.value.status == 75

    def test_without_a_limit_nothing_ends(self):
        now = [0.0]
        limit = TimeLimit(None, lambda: now[0])
        for _ in range(3):
            with limit.work('linear', 1), limit.alarm():
                now[0] += 1e9

    def test_a_run_stops_and_goes_on(self, tmp_path, quick, monkeypatch):
        now = itertools.count(step=60.0)  # a minute passes whenever somebody looks
        monkeypatch.setattr(work, 'TimeLimit', lambda hours: TimeLimit(hours, lambda: next(now)))
        counts = []
        for _ in range(30):
            try:
                run(tmp_path, 'run', '--only=digits', '--max_hours=0.2')
            except OutOfTime:
                counts.append(len(rows.read(tmp_path / 'run')))
            else:
                break
        assert len({*counts}) == len(counts) > 1
        assert counts == sorted(counts)
        run(tmp_path, 'one', '--only=digits')
        assert table(tmp_path / 'run') == table(tmp_path / 'one')

    def test_a_training_is_asked_to_stop_at_the_deadline(self):
        with pytest.raises(Preempted), Interruption(), TimeLimit(0.01 / 3600).alarm():
            time.sleep(30)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    @pytest.mark.parametrize('text', ['0', '-1', 'x', 'inf', 'nan'])
    def test_hours_are_positive(self, tmp_path, text, capsys):
        with pytest.raises(SystemExit):
            run(tmp_path, 'run', f'--max_hours={text}')
        assert 'is no positive number of hours' in capsys.readouterr().err

    def test_more_hours_than_a_timer_can_wait_are_refused(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            run(tmp_path, 'run', '--max_hours=1e300')
        assert "'1e300' is more than the" in capsys.readouterr().err

    def test_a_file_in_place_of_the_store_is_told_before_anything_is_computed(self, tmp_path, quick):
        (tmp_path / 'c').write_text('')
        with pytest.raises(UserError, match=r"the feature store '.*c' is, or lies in, a file; choose a directory"):
            run(tmp_path, 'run')
        assert not (tmp_path / 'run').exists()
