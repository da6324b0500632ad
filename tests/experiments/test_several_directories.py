"""Rows of several work directories make one table, and what must not be one line is not."""

import dataclasses

import numpy as np
import pytest

from backbones import UserError
from experiments import report
from experiments.commands.report import FILES
from experiments.results import aggregates, failures, lines, seeds_and_images
from experiments.results.axes import Cell, Variant
from experiments.results.seeds_and_images import Repeated
from experiments.training.config import FREE_KEYS
from tests.experiments.made_rows import make_row, write


class TestSeveralDirectories:
    def test_seeds_in_several_directories_are_repetitions(self, tmp_path):
        one = write(tmp_path / 'one', make_row())
        # An older version did not have the key 'fit'.
        other = write(tmp_path / 'other', make_row(seed=1, config={'image_size': 0, 'linear': {'steps': 3}}))
        (entry,) = aggregates.load(one, other)
        assert entry.scores == (0.5, 0.5)

    def test_the_same_cell_counts_once(self, tmp_path):
        (entry,) = aggregates.load(write(tmp_path / 'one', make_row()), write(tmp_path / 'other', make_row()))
        assert entry.scores == (0.5,)

    @pytest.mark.parametrize('digests', [('a', 'b', 'b'), (None, 'a', 'b'), ('a', None, 'b')])
    def test_networks_trained_again_under_one_name_are_lines_of_their_own(self, tmp_path, digests):
        first, second, other = digests
        made = [make_row(weights_digest=first), make_row(seed=1, weights_digest=second)]
        one = write(tmp_path / 'one', *made)
        other = write(tmp_path / 'other', *(make_row(seed=seed, score=0.9, weights_digest=other) for seed in (0, 3)))
        entries = aggregates.load(one, other)
        assert [(each.regime, each.scores) for each in entries] == [
            ('linear (one)', (0.5, 0.5)), ('linear (other)', (0.9, 0.9)),
        ]  # fmt: skip

    @pytest.mark.parametrize('digests', [('a', 'a'), (None, 'a'), ('a', None)])
    def test_weights_that_are_not_known_to_differ_are_the_same(self, tmp_path, digests):
        one, other = (
            write(tmp_path / str(seed), make_row(seed=seed, weights_digest=digest))
            for seed, digest in enumerate(digests)
        )
        assert [each.scores for each in aggregates.load(one, other)] == [(0.5, 0.5)]

    @pytest.mark.parametrize(
        ('regime', 'weights', 'key', 'depends'),
        [
            ('knn', 'x.pth', 'normalisation', False), ('linear', 'x.pth', 'normalisation', True),
            ('attentive', 'x.pth', 'tap', False), ('knn', 'x.pth', 'tap', True), ('scratch', 'random', 'tap', False),
            ('knn', 'x.pth', 'calibration_images', False), ('knn', 'random', 'calibration_images', True),
            ('knn', 'random', 'strict_weights', False), ('knn', 'x.pth', 'strict_weights', True),
            ('scratch', 'random', 'refit', False), ('knn', 'x.pth', 'severities', False),
        ],
    )  # fmt: skip
    def test_an_axis_of_another_directory_is_of_the_cells_that_depend_on_it(
        self, tmp_path, regime, weights, key, depends
    ):
        cell = Cell('digits', Variant('b', weights), regime, 1.0, 0)
        config = {'fit': 'crop', 'training' if regime == 'scratch' else regime: {'steps': 3}}
        made = make_row(cell=cell, config={**config, key: 1})
        # In the directory that has the axis, only cells that depend on it have the key.
        several = [make_row(cell=dataclasses.replace(cell, settings=((key, value),))) for value in (1, 2)]
        several = [dataclasses.replace(row, config={**config, key: row.cell.settings[0][1]}) for row in several]
        several = several if depends else [make_row(cell=cell, config=config)]
        other = dataclasses.replace(cell, variant=Variant('c', weights), settings=((key, 1),))
        several = [dataclasses.replace(row, predictions=f'{index}.npz') for index, row in enumerate(several)]
        axis = write(tmp_path / 'axis', *several, make_row('c', cell=other, config=config))
        entries = aggregates.load(axis, write(tmp_path / 'one', made))
        mine = [each for each in entries if each.variant.backbone == 'b']
        assert [each.settings for each in mine] == ([((key, 1),), ((key, 2),)] if depends else [()])

    def test_values_that_a_cell_does_not_depend_on_decide_nothing(self, tmp_path):
        cell = Cell('digits', Variant('b', ''), 'knn', 1.0, 0)
        one, other = (
            write(tmp_path / value, make_row(cell=cell, config={'knn': {}, 'normalisation': value}))
            for value in ('centre', 'none')
        )
        assert [each.regime for each in aggregates.load(one, other)] == ['knn']

    def test_another_config_is_a_row_of_its_own_named_after_its_directory(self, tmp_path):
        one = write(tmp_path / 'one', make_row())
        other = write(tmp_path / 'other', make_row(config={'image_size': 0, 'linear': {'steps': 4}}))
        assert [entry.regime for entry in aggregates.load(one, other)] == ['linear (one)', 'linear (other)']

    def test_a_training_is_not_a_repetition_of_a_head(self, tmp_path):
        one = write(tmp_path / 'one', make_row())
        training = {'backbone': 'b', 'image_size': 0, 'fit': 'crop', 'threads': 3, 'epochs': 1.0}
        other = write(tmp_path / 'other', make_row(config=training))
        third = write(tmp_path / 'third', make_row(seed=1, config={**training, 'threads': 4, 'seed': 1}))
        entries = aggregates.load(one, other, third)
        assert [(entry.regime, len(entry.scores)) for entry in entries] == [('linear (one)', 1), ('linear (other)', 2)]

    def test_where_a_run_computes_decides_nothing(self):
        assert {key.partition('.')[0] for key in FREE_KEYS} <= lines._NOT_DECISIVE

    def test_other_data_of_one_name_are_another_data_set(self, tmp_path):
        data = {**make_row().data, 'fingerprint': '9876543210'}
        one = write(tmp_path / 'one', make_row())
        entries = aggregates.load(one, write(tmp_path / 'other', make_row(data=data)))
        assert aggregates.datasets(entries) == ['digits [abcdef]', 'digits [987654]']

    def test_examples_are_paired_by_name(self, tmp_path):
        one = write(tmp_path / 'one', make_row(), make_row(seed=1))
        ids = [f'{index:02d}' for index in reversed(range(2, 40))]
        other = write(tmp_path / 'other', make_row('c', 0, 0.5), make_row('c', 1, 0.5), ids=ids)
        entries = aggregates.load(one, other)
        found = aggregates.p_value(*entries)
        # The first half of ``one`` is right, and as the order is reversed the other half of ``other``.
        right = np.repeat(np.arange(2, 40)[None] < 20, 2, 0), np.repeat(np.arange(2, 40)[None] > 20, 2, 0)
        assert found == seeds_and_images.p_value(*(Repeated.of_examples(each, (0, 1)) for each in right))

    def test_the_command_writes_one_table(self, tmp_path, capsys):
        one, other = write(tmp_path / 'one', make_row()), write(tmp_path / 'other', make_row('c'))
        report.main(['--workdir', str(one), '--workdir', str(other), '--output', str(tmp_path / 'both')])
        assert len((tmp_path / 'both' / 'table.csv').read_text().splitlines()) == 3
        for name in FILES:
            assert (tmp_path / 'both' / name).exists()
            assert not (one / name).exists()
            assert not (other / name).exists()
        assert 'score_vs_cost.png' in capsys.readouterr().out
        report.main(['--workdir', str(one), '--workdir', str(one)])
        assert len((one / 'table.csv').read_text().splitlines()) == 2

    def test_no_directory_loses_its_report_to_that_of_several(self, tmp_path):
        one, other = write(tmp_path / 'one', make_row()), write(tmp_path / 'other', make_row('c'))
        with pytest.raises(UserError, match='2 work directories need --output DIR'):
            report.main(['--workdir', str(one), '--workdir', str(other)])
        assert not (one / 'table.csv').exists()

    def test_a_directory_has_one_line_also_where_only_some_fractions_differ(self, tmp_path):
        changed = {'image_size': 0, 'linear': {'steps': 4}}
        one = write(tmp_path / 'one', make_row(), make_row(fraction=0.5))
        other = write(tmp_path / 'other', make_row(config=changed), make_row(fraction=0.1, config=changed))
        entries = aggregates.load(one, other)
        assert [(entry.regime, entry.fraction) for entry in entries] == [
            ('linear (one)', 1.0), ('linear (one)', 0.5), ('linear (other)', 1.0), ('linear (other)', 0.1),
        ]  # fmt: skip

    def test_a_directory_without_results_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"there are no results in '.*nothing'"):
            aggregates.load(write(tmp_path / 'one', make_row()), tmp_path / 'nothing')

    @pytest.mark.parametrize('given', [['--workdir', 'one'], ['--runs', '.']])
    def test_an_output_that_is_a_file_is_told_first(self, tmp_path, monkeypatch, capsys, given):
        monkeypatch.chdir(tmp_path)
        write(tmp_path / 'one', make_row())
        (tmp_path / 'file').write_text('')
        with pytest.raises(UserError, match=r"cannot write to the output directory 'file'"):
            report.main([*given, '--output', 'file'])
        assert capsys.readouterr().out == ''

    def test_a_directory_in_which_every_cell_failed_tells_the_errors(self, tmp_path, capsys):
        failures.write(tmp_path, [failures.Failure(make_row().cell, 'no luck')])
        with pytest.raises(UserError, match=r'every cell that was tried failed \(1\): digits .*: no luck; the command'):
            report.main(['--workdir', str(tmp_path)])
        assert 'no luck' in capsys.readouterr().out
