"""The splits of the user's own texts, copies of a text in them, and what is dropped as a duplicate."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_texts import load, some, write

from backbones import UserError
from experiments.data import account, loading, text_rows
from experiments.data.options import ReadingOptions


@pytest.fixture(params=['a.csv', 'a.tsv', 'a.jsonl', 'a.csv.gz', 'a.jsonl.gz'])
def file(request, tmp_path) -> Path:
    return tmp_path / request.param


class TestSplits:
    @pytest.mark.parametrize('names', [('train', 'validation', 'test'), ('Training', 'dev', 'testing')])
    def test_a_column(self, file, names):
        rows = [{**row, 'fold': names[number // 2 % 3]} for number, row in enumerate(some(24))]
        dataset = load(write(file, rows), split_column='fold')
        assert 'official splits' in dataset.provenance
        assert [dataset.splits[name].tolist()[:2] for name in ('train', 'validation', 'test')] == [
            [0, 1],
            [2, 3],
            [4, 5],
        ]

    def test_a_column_of_this_name_is_guessed(self, file):
        rows = [{**row, 'split': ('train', 'test')[number // 2 % 2]} for number, row in enumerate(some(40))]
        dataset = load(write(file, rows))
        assert dataset.splits['test'].tolist()[:2] == [2, 3]
        assert 'validation is 10% of the training split by a hash of the text' in dataset.provenance
        assert dataset.account.guessed == (f"the column 'split' of {file.name} names the splits",)

    def test_a_column_of_this_name_with_other_values(self, file):
        dataset = load(write(file, [{**row, 'split': 'banana'} for row in some()]))
        assert 'split by a hash' in dataset.provenance
        assert "names no splits, as it holds 'banana'" in dataset.account.guessed[0]

    def test_a_value_that_is_no_split_is_named(self, tmp_path):
        rows = [{**row, 'fold': 'train'} for row in some(20)]
        rows[3]['fold'], rows[4]['fold'] = 'trian', ''
        dataset = load(write(tmp_path / 'a.csv', rows), split_column='fold')
        assert dataset.skipped == (('a.csv:5', "'trian' is no split"), ('a.csv:6', 'no split'))

    def test_a_slip_in_a_column_of_this_name_is_named(self, tmp_path):
        rows = [{**row, 'split': ('train', 'test')[number // 2 % 2]} for number, row in enumerate(some(40))]
        rows[3]['split'] = 'tset'
        dataset = load(write(tmp_path / 'a.csv', rows))
        assert dataset.account.guessed == ("the column 'split' of a.csv names the splits",)
        assert dataset.skipped == (('a.csv:5', "'tset' is no split"),)
        assert len(dataset.splits['test']) == 19

    def test_a_column_of_this_name_that_is_mostly_empty(self, file):
        """To ignore it would mix the texts that it calls test into training."""
        rows = [{**row, 'split': 'Test' if number < 4 else ''} for number, row in enumerate(some())]
        told = r"column 'split' of a\.\S+ is empty in 16 of 20 rows, but says 'Test' in 4; .*config key split_column"
        with pytest.raises(UserError, match=told):
            load(write(file, rows))
        dataset = load(write(file, [{**row, 'split': ''} for row in rows]))
        assert 'split by a hash' in dataset.provenance

    @pytest.mark.parametrize('suffix', ['csv', 'jsonl', 'csv.gz'])
    def test_a_folder(self, tmp_path, suffix):
        for stem, about in (('train', 'film'), ('val', 'book'), ('test', 'song')):
            write(tmp_path / f'{stem}.{suffix}', some(about=about))
        write(tmp_path / f'extra.{suffix}', some())
        (tmp_path / 'readme.txt').touch()
        dataset = load(tmp_path)
        assert {name: len(rows) for name, rows in dataset.splits.items()} == dict.fromkeys(
            ('train', 'validation', 'test'), 20
        )
        assert dataset.ids[20].startswith(f'val.{suffix}:')
        assert dataset.account.left_out == {'file that is no split': (f'extra.{suffix}',)}

    def test_files_with_more_in_their_names(self, tmp_path):
        write(tmp_path / 'films_train.csv', some(40))
        write(tmp_path / 'films_dev.csv', some(about='book'))
        dataset = load(tmp_path)
        assert len(dataset.splits['test']) == 20
        assert dataset.account.guessed == (
            'films_dev.csv is the validation split',
            'films_train.csv is the train split',
            'there is no test split, so the validation split serves as one',
        )

    def test_one_file_of_another_name(self, tmp_path):
        write(tmp_path / 'reviews.csv', some())
        assert 'CSV' in load(tmp_path).provenance

    @pytest.mark.parametrize(
        ('names', 'told'),
        [
            (['a.csv', 'b.csv'], r'has 2 files of CSV \(a\.csv, b\.csv\), of which none is named train'),
            (['val.csv', 'test.csv'], 'no file of training texts'),
            (['train.csv', 'training.csv'], r'both train\.csv and training\.csv .* name the train split'),
            (['a.txt'], r'there is no file of CSV in .* \(a\.txt\); expected a file, or a folder with train\.csv'),
        ],
    )
    def test_folders_that_cannot_be_understood(self, tmp_path, names, told):
        for name in names:
            write(tmp_path / name, some())
        with pytest.raises(UserError, match=told):
            loading.load(f'csv:{tmp_path}', inputs='texts')

    def test_a_split_column_in_a_folder(self, tmp_path):
        write(tmp_path / 'train.csv', some())
        write(tmp_path / 'test.csv', some(about='book'))
        with pytest.raises(UserError, match='but the names of the files say the splits'):
            load(tmp_path, split_column='label')

    @pytest.mark.parametrize('label', [None, '-1'])
    def test_a_test_split_without_labels(self, tmp_path, label):
        rows = [{'text': f'hidden {number}', **({'label': label} if label else {})} for number in range(5)]
        write(tmp_path / 'train.csv', some(40))
        write(tmp_path / 'test.csv', rows)
        dataset = load(tmp_path)
        assert len(dataset.ids) == 40
        assert dataset.account.guessed == ('the test split has no labels, so it is not used (5 texts)',)

    @pytest.mark.parametrize(
        ('line', 'why'),
        [('one, two,good', '3 fields where the header has 2'), ('caf\udce9,good', 'are not in UTF-8')],
    )
    def test_a_test_split_that_cannot_be_read_is_no_split_without_labels(self, tmp_path, line, why):
        write(tmp_path / 'train.csv', some(40))
        (tmp_path / 'test.csv').write_bytes(b'text,label\n' + f'{line}\n'.encode(errors='surrogateescape') * 20)
        with pytest.raises(UserError, match=why):
            load(tmp_path)

    def test_odd_labels_of_a_test_split_are_named(self, tmp_path):
        write(tmp_path / 'train.jsonl', some(40))
        write(tmp_path / 'test.jsonl', [{'text': f'odd {number}', 'label': ['good']} for number in range(20)])
        with pytest.raises(UserError, match=r'20 of 60 rows .*: its label is a list'):
            load(tmp_path)

    def test_rows_that_are_added_hardly_move_others(self, tmp_path):
        """A row before all others shifts the number of every line, but no text to another split."""
        before = load(write(tmp_path / 'a.csv', some(100)))
        after = load(write(tmp_path / 'a.csv', [{'text': 'new', 'label': 'good'}, *some(100)]))
        for name, rows in before.splits.items():
            texts = {before.images.values[index] for index in rows}
            assert len(texts - {after.images.values[index] for index in after.splits[name]}) <= 1

    def test_they_are_pinned(self, tmp_path):
        """A split that moved between releases would leak test texts into training."""
        dataset = load(write(tmp_path / 'a.csv', some(35)))
        assert dataset.splits['test'].tolist() == [1, 11, 16, 18, 20, 30, 31]
        assert dataset.splits['validation'].tolist() == [10, 15, 22, 33]
        assert dataset.fingerprint() == 'cc110b43979b9844'
        write(tmp_path / 'own' / 'train.csv', some(35))
        # A text that is also in a split of the user's own is no copy among those that are split here.
        write(tmp_path / 'own' / 'test.csv', [*some(6, about='book'), some()[0], some()[0]])
        dataset = load(tmp_path / 'own')
        assert dataset.splits['validation'].tolist() == [1, 11, 20, 30]
        assert dataset.provenance.endswith('validation is 10% of the training split by a hash of the text')


copied = st.lists(st.tuples(st.sampled_from('abcdefghij'), st.sampled_from(['x', 'y'])), min_size=20, max_size=60)


class TestCopies:
    """A text that was learned must not be asked for again in another split."""

    @settings(max_examples=40, deadline=None)
    @given(rows=copied, seed=st.randoms(use_true_random=False), has_test=st.booleans())
    def test_they_are_in_one_split(self, rows, seed, has_test):
        rows = [*rows, ('k', 'x'), ('l', 'y'), ('K ', 'y')]

        def splits_of(rows) -> dict[str, set[str]]:
            given = [text_rows.Row(str(place), '', text, label) for place, (text, label) in enumerate(rows)]
            if has_test:
                given = [each._replace(split='train') for each in given]
                given += [text_rows.Row(f'test {text}', 'test', text, 'x') for text in 'xyz']
            dataset = text_rows.dataset_of('copies', given, 'a list', ReadingOptions())
            assert dataset.provenance.endswith(', copies of a text together')
            found = {
                name: {dataset.images.values[index].strip().lower() for index in indices}
                for name, indices in dataset.splits.items()
            }
            assert sorted(np.concatenate([*dataset.splits.values()]).tolist()) == [*range(len(given))]
            assert sum(map(len, found.values())) == len(set.union(*found.values()))
            return found

        shuffled = [*rows]
        seed.shuffle(shuffled)
        assert splits_of(rows) == splits_of(shuffled)

    def test_the_account_says_so(self, tmp_path, capsys):
        rows = some(60)
        rows += [{'text': f' {row["text"].upper()}', 'label': rows[1 - number % 2]['label']}
                 for number, row in enumerate(rows[:20])]  # fmt: skip
        dataset = load(write(tmp_path / 'a.csv', rows))
        account.show(dataset)
        told = ' '.join(capsys.readouterr().err.split())
        assert 'split by a hash of the text, stratified: 20% test, 10% validation, copies of a text together' in told
        assert 'also in the' not in told
        assert '20 texts in several classes' in told
        assert {name: len(rows) for name, rows in dataset.splits.items()} == {'train': 54, 'validation': 9, 'test': 17}

    def test_nothing_but_copies(self, tmp_path):
        with pytest.raises(UserError, match=r'split .* is empty: 40 examples .* a class needs three different texts'):
            load(write(tmp_path / 'a.csv', some(2) * 20))


class TestDuplicates:
    def rows(self, root: Path) -> None:
        train = some(40)
        train += [{'text': train[0]['text'].upper(), 'label': 'good'}, {'text': ' X  y', 'label': 'bad'}]
        write(root / 'train.csv', train)
        write(root / 'test.csv', [*some(20, about='book'), {'text': 'x Y', 'label': 'bad'}])

    def test_they_are_noticed(self, tmp_path):
        self.rows(tmp_path)
        dataset = load(tmp_path)
        assert len(dataset.ids) == 63
        noticed = ' | '.join(dataset.account.noticed)
        assert '1 text of the train split also in the test split, alike but for case and spaces' in noticed
        assert '(train.csv:43 = test.csv:22): kept; --config.drop_duplicates=True drops them from train' in noticed

    def test_they_are_dropped(self, tmp_path):
        self.rows(tmp_path)
        kept, dropped = load(tmp_path), load(tmp_path, drop_duplicates=True)
        assert len(dropped.splits['test']) == 21
        gone = {*kept.splits['train'], *kept.splits['validation']} - {
            *dropped.splits['train'],
            *dropped.splits['validation'],
        }
        assert {kept.ids[index] for index in gone} == {'train.csv:43', 'train.csv:42'}

    def test_those_that_are_evaluated_are_kept(self, tmp_path):
        write(tmp_path / 'train.csv', some(40))
        write(tmp_path / 'test.csv', [*some(20, about='book'), *some(1, about='book')])
        found = '1 repeated text in the test split, alike but for case and spaces (test.csv:2 = test.csv:22): kept'
        assert load(tmp_path).account.noticed == (found,)
        dropped = load(tmp_path, drop_duplicates=True)
        assert dropped.account.noticed == (f'{found}, as only training examples are dropped',)
        assert len(dropped.splits['test']) == 21

    def test_a_text_of_two_classes(self, tmp_path):
        rows = [*some(), {'text': some()[0]['text'], 'label': 'bad'}]
        noticed = load(write(tmp_path / 'a.csv', rows)).account.noticed
        assert "1 text in several classes (a.csv:2 in 'bad' and 'good')" in noticed
