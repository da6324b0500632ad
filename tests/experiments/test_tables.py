"""Tables and plots of rows, also of rows that an earlier version wrote without metrics."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from backbones import UserError
from experiments import tasks
from experiments.cli import atomic_files
from experiments.commands import report
from experiments.data import record
from experiments.results import aggregates, latex, plots, rows, scores, tables
from experiments.results.axes import Cell, Variant
from tests.experiments.made_rows import make_row, write


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestTables:
    def text(self, *workdirs) -> str:
        entries = aggregates.load(*workdirs)
        return '\n'.join(tables.markdown(tables.view(entries, name)) for name in aggregates.datasets(entries))

    def test_the_size_of_the_input(self, tmp_path):
        costs = make_row().costs
        made = [
            make_row('small', costs={**costs, 'input': [32, 32]}),
            make_row('wide', costs={**costs, 'input': [24, 32]}),
            make_row('old'),
        ]
        entries = aggregates.load(write(tmp_path, *made))
        view = tables.view(entries, 'digits')
        column = view.header.index('input')
        assert {row[0]: row[column] for row in map(view.cells, view.rows)} == {
            'small': '32x32 px', 'wide': '24x32 px', 'old': '–'
        }  # fmt: skip
        lines = csv.DictReader(tables.csv_text(entries).splitlines())
        assert {line['backbone']: line['input'] for line in lines} == {'small': '32x32', 'wide': '24x32', 'old': ''}
        (tmp_path / 'results.jsonl').write_text(
            json.dumps(make_row(costs={**costs, 'input': [32, 32, 3]}).as_json()) + '\n'
        )
        with pytest.raises(
            UserError, match=r'costs\.input is a list of 3, expected height and width, or the length of texts'
        ):
            rows.read(tmp_path)

    @pytest.mark.parametrize('width', [80, 200])
    def test_a_narrow_terminal_lacks_columns_and_breaks_no_word(self, width, tmp_path, capsys, monkeypatch):
        variant = Variant('efficientnet_lite0', 'pip:efficientnet-lite0')
        made = [make_row(fraction=fraction, score=0.5) for fraction in (0.1, 1.0)]
        made = [dataclasses.replace(row, cell=dataclasses.replace(row.cell, variant=variant)) for row in made]
        monkeypatch.setenv('COLUMNS', str(width))
        report.write([write(tmp_path, *made)], tmp_path)
        printed = capsys.readouterr().out
        lines = [line for line in printed.splitlines() if line.startswith(('│', '┃'))]
        assert {len(line) for line in lines} <= set(range(width + 1))
        assert all(word in printed for word in ('efficientnet_lite0', 'backbone', 'regime', 'images)'))
        assert ('parameters ┃' in printed) == (width == 200)
        left_out = 'val − test, worst recall, input, parameters, trainable, GFLOP/image, images/s'
        note = f'left out at a width of 80: {left_out}; {tmp_path / "table.md"} has all columns'
        # A path that is longer than a line is folded, too.
        assert (''.join(note.split()) in ''.join(printed.split())) == (width == 80)

    def test_seeds_are_repetitions(self, tmp_path):
        text = self.text(write(tmp_path, make_row(score=0.5), make_row(seed=1, score=0.55)))
        assert '| b | – | linear | 52.5 (30.4–73.7) | −2.5 | 52.5 (0) | – | 1,000 | 10 | 0.002 | 100 |' in text
        assert 'Test accuracy in per cent on 40 images: mean and 95 % interval over 2 seeds (training subset, ' in text
        assert 'batch order, random weights) and test images. Columns' in text
        assert '10 validation images (linear among 12 settings)' in text
        assert aggregates.AT_EDGE not in text

    def test_tables_of_texts_speak_of_texts(self, tmp_path):
        data = {**make_row().data, 'inputs': 'texts'}
        costs = {**make_row().costs, 'input': [128]}
        made = [make_row(name, seed, data=data, costs=costs) for name in 'bc' for seed in (0, 1)]
        entries = aggregates.load(write(tmp_path, *made))
        text, view = self.text(tmp_path), tables.view(entries, 'digits')
        for expected in (
            '| 1 (70 texts) |', '| GFLOP/text | texts/s |', '| 128 tokens |', 'on 40 texts:', 'and test texts',
            'on 10 validation texts', 'on the validation texts is higher than that on the test texts',
        ):  # fmt: skip
            assert expected in text
        at = 'GFLOP/text are those of a text of 128 tokens, and shorter ones take fewer'
        assert at in text
        assert at in latex.tables([view])
        assert at not in view.note(says_lengths=False)
        assert 'image' not in text + latex.tables([view])
        (axis,) = plots.score_against_cost(entries).axes
        assert axis.get_xlabel().startswith('GFLOP per text of 128 tokens (')
        # Programs read these columns, whatever the data.
        assert {'flops_per_image', 'images_per_second'} < {*tables.csv_text(entries).splitlines()[0].split(',')}

    def test_what_a_row_can_say_of_its_inputs(self, tmp_path):
        rows.write(tmp_path, [make_row(data={**make_row().data, 'inputs': 'sounds'})])
        with pytest.raises(UserError, match=r"data\.inputs is 'sounds', expected 'images' or 'texts'"):
            rows.read(tmp_path)

    def test_no_seed_changes_anything(self, tmp_path):
        same = [make_row(seed=seed, score=0.9, depends_on_seed=False) for seed in range(3)]
        entries = aggregates.load(write(tmp_path, *same, make_row('c', 0, 0.25), make_row('c', 1, 0.25)))
        # Wilson's interval of 36 of 40.
        expected = stats.binomtest(36, 40).proportion_ci(method='wilson')
        assert (entries[0].low, entries[0].high) == pytest.approx((expected.low, expected.high))
        assert entries[0].text() == '90.0 (76.9–96.0)'
        note = tables.view(entries, 'digits').note()
        assert 'over 2 seeds (training subset, batch order, random weights) and test images, over test images' in note
        assert 'images alone where no seed changes anything.' in note
        assert [entry.best for entry in entries] == [True, False]
        assert entries[0].p_best == entries[1].p_best == aggregates.p_value(*entries)

    def test_what_was_selected_at_an_edge_is_marked_everywhere(self, tmp_path):
        edge = make_row('c', 0, 0.25, at_edge=('learning_rate',))
        entries = aggregates.load(write(tmp_path, make_row(), edge, make_row('c', 1, 0.25)))
        view = tables.view(entries, 'digits')
        assert [entry.text().endswith(' †') for entry in entries] == [False, True]
        assert 'learning_rate of linear in 1 of 3 cells' in view.note()
        assert '†' in tables.markdown(view).split('\n\n')[1]
        csv_rows = [line.split(',') for line in tables.csv_text(entries).splitlines()]
        column = csv_rows[0].index('at_edge')
        assert [row[column] for row in csv_rows[1:]] == ['', 'learning_rate:1']
        figure = plots.score_against_cost(entries)
        faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == 'o']
        assert 'none' in faces
        assert 'at an edge of its grid' in legend(figure)
        # A plot that leaves the marked value out has no word for it.
        edge = make_row('b', 0, 0.25, fraction=0.5, at_edge=('learning_rate',))
        entries = aggregates.load(write(tmp_path / 'other', make_row(), edge))
        assert 'at an edge of its grid' not in legend(plots.score_against_cost(entries))

    def test_each_line_of_the_plot_is_named(self, tmp_path):
        free = {**make_row().costs, 'flops_per_image': 0}
        cells = [Cell('digits', Variant('pixels', ''), regime, 1.0, 0) for regime in ('linear', 'knn')]
        figure = plots.score_against_cost(
            aggregates.load(write(tmp_path, make_row(), *(make_row(cell=cell, costs=free) for cell in cells)))
        )
        assert legend(figure) == ['b', 'pixels · linear', 'pixels · knn', 'linear']

    def test_the_axis_and_the_note_say_what_a_flop_is(self, tmp_path):
        costs = {**make_row().costs, 'flops_counted_in': 'compiled program'}
        entries = aggregates.load(write(tmp_path, make_row(), make_row('old', costs=costs)))
        (axis,) = plots.score_against_cost(entries).axes
        assert axis.get_xlabel() == 'GFLOP per image (a multiply-add is two, traced program)'
        assert axis.get_ylabel() == 'test accuracy in %'
        note = tables.view(entries, 'digits').note()
        assert 'A multiply-add is two FLOP, counted in the traced program, and by an older version in' in note
        assert 'compiled one (old)' in note

    def test_names_that_look_like_markup_are_shown_as_they_are(self, tmp_path, capsys):
        cell = Cell('folder:[bold]', Variant('b', '[red]x'), 'linear', 1.0, 0)
        report.write([write(tmp_path, make_row(cell=cell))], tmp_path)
        shown = capsys.readouterr().out
        assert 'folder:[bold]' in shown
        assert '[red]x' in shown


class TestMetricsOfOlderRows:
    """Rows that have the accuracy alone, as an older version wrote them."""

    CLASSES = ('cat', 'dog', 'emu', 'fox', 'gnu', 'hen', 'ibis')

    def write(self, workdir, score_kind='logits', validated=True, many=0, regime='linear'):
        generator = np.random.default_rng(0)
        targets = {'test': np.arange(60) % 7, 'validation': np.arange(30) % 7}
        logits = {name: generator.normal(size=(len(each), 7 + many)) for name, each in targets.items()}
        for name, each in targets.items():
            logits[name][np.arange(len(each)), each] += 1.0 + (each != 4)
        ids = {name: [f'{index:02d}' for index in range(len(each))] for name, each in targets.items()}
        row = make_row(
            cell=Cell('digits', Variant('b', ''), regime, 1.0, 0),
            test={'accuracy': float(np.mean(logits['test'].argmax(-1) == targets['test']))},
            validation={'accuracy': 0.93},
        )
        scores.write(
            workdir / row.predictions,
            ids['test'],
            targets['test'],
            {'logits': logits['test']},
            score_kind=score_kind,
            validation=scores.Predicted(ids['validation'], targets['validation'], {'logits': logits['validation']})
            if validated
            else None,
        )
        rows.write(workdir, [row])
        record_file = record.file_of(workdir, 'digits')
        record_file.parent.mkdir(exist_ok=True)
        atomic_files.write_json(record_file, {'classes': self.CLASSES})
        return logits, targets

    def test_they_are_those_that_a_row_of_this_version_has(self, tmp_path):
        logits, targets = self.write(tmp_path)
        logits = {name: each.astype(np.float16).astype(np.float32) for name, each in logits.items()}
        (entry,) = aggregates.load(tmp_path)
        expected = rows.metrics(
            tasks.find('classification'),
            self.CLASSES,
            scores.Predicted([], targets['test'], {'logits': logits['test']}),
            validation=scores.Predicted([], targets['validation'], {'logits': logits['validation']}),
        )
        assert {'auroc', 'ece', 'ece_scaled', 'nll', 'top5_accuracy', 'recall/gnu', 'precision/ibis'} <= expected.keys()
        assert entry.metrics == pytest.approx(expected)

    def test_the_gap_and_the_worst_class(self, tmp_path):
        logits, targets = self.write(tmp_path)
        (entry,) = aggregates.load(tmp_path)
        of_class = targets['test'] == 4
        recall = np.mean(logits['test'][of_class].argmax(-1) == 4)
        assert entry.worst_class == ('gnu', pytest.approx(recall))
        assert entry.gap == pytest.approx(0.93 - entry.scores[0])
        view = tables.view([entry], 'digits')
        (texts,) = map(view.cells, view.rows)
        shown = dict(zip(view.header, texts, strict=True))
        assert shown['val − test'] == f'{93 - 100 * entry.scores[0]:+.1f}'
        assert shown['worst recall'] == f'{100 * recall:.1f} (gnu)'
        assert '"worst recall" is that of the class with the lowest' in view.note()
        unknown = dataclasses.replace(entry, validation={}, metrics={'accuracy': entry.scores[0]})
        assert (unknown.gap, unknown.worst_class) == (None, None)
        view = tables.view([unknown], 'digits')
        assert not {'val − test', 'worst recall'} & {*view.header}
        assert '"worst' not in view.note()
        assert view.further() == []

    def test_further_metrics_come_after_the_main_table(self, tmp_path):
        logits, targets = self.write(tmp_path)
        entries = aggregates.load(tmp_path)
        view = tables.view(entries, 'digits')
        further, recalls, precisions = view.further()
        assert further.title == 'further metrics, in per cent except nll'
        assert further.header[3:] == [
            'top5 accuracy', 'balanced accuracy', 'macro f1', 'auroc', 'nll', 'ece', 'ece scaled',
        ]  # fmt: skip
        assert recalls.header[3:] == precisions.header[3:] == list(self.CLASSES)
        predicted = logits['test'].argmax(-1)
        expected = sklearn.metrics.recall_score(targets['test'], predicted, average=None)
        assert recalls.rows[0][3:] == [f'{100 * value:.1f}' for value in expected]
        text = tables.markdown(view)
        assert 'Test split: precision of each class, in per cent:' in text
        # The terminal shows one table of classes.
        assert len(tables.rich_tables_further(view)) == 2
        (line,) = csv.DictReader(tables.csv_text(entries).splitlines())
        assert float(line['ece_scaled']) == entries[0].metrics['ece_scaled']
        assert line['validation_score'] == '0.93'
        assert line['worst_class'] == 'gnu'
        assert 'recall/cat' not in line

    def test_memory_is_among_the_further_metrics(self, tmp_path):
        self.write(tmp_path)
        (entry,) = aggregates.load(tmp_path)
        assert 'MiB of weights' not in tables.view([entry], 'digits').further()[0].header
        costs = {**entry.costs, 'weight_bytes': 3 * 2**19, 'peak_memory_bytes': None}
        known = dataclasses.replace(entry, costs=costs)
        other = dataclasses.replace(entry, costs={**costs, 'peak_memory_bytes': 2**31}, regime='knn')
        table = tables.view([known, other], 'digits').further()[0]
        assert table.header[-2:] == ['MiB of weights', 'MiB at peak']
        assert sorted(row[-2:] for row in table.rows) == [['1.5', '2,048.0'], ['1.5', '–']]
        lines = csv.DictReader(tables.csv_text([known, other]).splitlines())
        assert [line['peak_memory_bytes'] for line in lines] == ['', str(2**31)]

    def test_of_many_classes_the_worst_are_shown(self, tmp_path):
        self.write(tmp_path)
        (entry,) = aggregates.load(tmp_path)
        many = {f'recall/{index}': (index * 7 % 30) / 30 for index in range(30)}
        view = tables.view([dataclasses.replace(entry, metrics=many)], 'digits')
        (table,) = view.further()
        assert table.title == 'recall of the 20 classes of 30 with the lowest mean, in per cent'
        assert len(table.header) == 3 + 20
        assert table.rows[0][3:6] == ['0.0', '3.3', '6.7']

    def test_what_cannot_be_told_is_left_out(self, tmp_path):
        self.write(tmp_path / 'unvalidated', validated=False)
        (entry,) = aggregates.load(tmp_path / 'unvalidated')
        assert {'nll', 'ece'} <= entry.metrics.keys()
        assert not {'temperature', 'ece_scaled'} & entry.metrics.keys()
        self.write(tmp_path / 'values', score_kind='values')
        (entry,) = aggregates.load(tmp_path / 'values')
        assert {'auroc', 'nll_scaled', 'ece_scaled'} <= entry.metrics.keys()
        assert not {'nll', 'ece', 'brier'} & entry.metrics.keys()
        # Of many classes only the largest scores are kept, but every prediction.
        logits, targets = self.write(tmp_path / 'many', many=100)
        (entry,) = aggregates.load(tmp_path / 'many')
        assert {'macro_f1', 'recall/cat'} <= entry.metrics.keys()
        best = np.argsort(-logits['test'], axis=-1)[:, :5]
        assert entry.metrics['top5_accuracy'] == np.mean((best == targets['test'][:, None]).any(-1))
        assert not {'auroc', 'nll'} & entry.metrics.keys()

    def test_a_file_that_does_not_say_what_its_scores_are(self, tmp_path):
        self.write(tmp_path, regime='ridge')
        (file,) = (tmp_path / 'predictions').iterdir()
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays if name != 'score_kind'}
        np.savez(file, **kept)
        (entry,) = aggregates.load(tmp_path)
        assert 'nll_scaled' in entry.metrics
        assert 'nll' not in entry.metrics

    def test_classes_without_a_name_have_a_number(self, tmp_path):
        self.write(tmp_path)
        record.file_of(tmp_path, 'digits').unlink()
        (entry,) = aggregates.load(tmp_path)
        assert entry.worst_class[0] == '4'
