"""The user's own texts, as CSV or JSON lines: what is read, what is left out and how it is named."""

import csv
import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_texts import load, some, write

from backbones import UserError
from experiments.data import account, examples_by_id, loading, record, text_files, text_rows, text_tables
from experiments.data.texts import Texts

WITHOUT_MARKS = ('UTF-16LE', 'UTF-16BE', 'UTF-32LE', 'UTF-32BE')
WORDS = ('one', 'two', 'three', 'four', 'five')


@pytest.fixture(params=['a.csv', 'a.tsv', 'a.jsonl', 'a.csv.gz', 'a.jsonl.gz'])
def file(request, tmp_path) -> Path:
    return tmp_path / request.param


def test_texts_labels_and_splits(file):
    dataset = load(write(file, some()))
    assert isinstance(dataset.images, Texts)
    assert dataset.images.values[:2] == ('A film of number 0 that is good.', 'A film of number 1 that is bad.')
    assert dataset.classes == ('bad', 'good')
    assert dataset.targets.tolist() == [1, 0] * 10
    first = 1 if 'jsonl' in file.name else 2
    assert dataset.ids[:2] == (f'{file.name}:{first}', f'{file.name}:{first + 1}')
    assert account.counts(dataset) == {'train': [7, 7], 'validation': [1, 1], 'test': [2, 2]}
    assert 'split by a hash of the text, stratified' in dataset.provenance
    assert len(dataset.labelled(1, 3, seed=0)) == 6
    assert len(dataset.fraction(0.5, seed=0)) == 8
    assert dataset.digests is not None
    assert dataset.account is not None
    assert dataset.account.sizes == '20 texts of 8 words each'


field = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=20)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(field, field), min_size=1, max_size=6), zipped=st.booleans(), bom=st.booleans())
def test_what_is_written_is_read(tmp_path_factory, rows, zipped, bom):
    """Quotes, separators and ends of lines in a text are no others; a line is found where its row begins."""
    root = tmp_path_factory.getbasetemp()
    stream = io.StringIO(newline='')
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(('text', 'label'))
    lines = []
    for row in rows:
        # As Python counts lines, of which \r\n is one end.
        lines.append(len(io.StringIO(stream.getvalue(), newline='').readlines()) + 1)
        writer.writerow(row)
    of_json = '\n'.join(json.dumps({'text': text, 'label': label}) for text, label in rows)
    for kind, written in (('csv', stream.getvalue()), ('jsonl', of_json)):
        content = (b'\xef\xbb\xbf' if bom else b'') + written.encode()
        file = root / f'round_trip.{kind}'
        file.write_bytes(gzip.compress(content) if zipped else content)
        table = text_tables.read(kind, file, 'text', 0)
        assert table.columns == ('text', 'label')
        assert [each.problem for each in table.records] == [''] * len(rows)
        assert [(each.values['text'], each.values['label']) for each in table.records if each.values] == rows
        if kind == 'csv':
            assert [each.line for each in table.records] == lines


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path):
    file = tmp_path / 'a.csv'
    file.write_text('text,label\n\n"a text\nof two lines",x\n"and ""another""",y\nlast,x\nlost\n')
    dataset = load(file, whole=True)
    assert dataset.ids == ('a.csv:3', 'a.csv:5', 'a.csv:6')
    assert dataset.images.values == ('a text\nof two lines', 'and "another"', 'last')
    assert dataset.skipped == (('a.csv:7', '1 field where the header has 2'),)


class TestColumns:
    def test_named_ones(self, file):
        rows = [{'stars': row['label'], 'review': row['text'], 'title': 'T'} for row in some()]
        dataset = load(write(file, rows), text_column='review', label_column='stars')
        assert dataset.images.values[0] == 'A film of number 0 that is good.'
        assert load(file, text_column='title,review', label_column='stars').images.values[0].startswith('T A film')

    @pytest.mark.parametrize(
        ('values', 'told'),
        [
            (
                {'text_column': 'texts'},
                r"unknown column of a\.\S+ 'texts'; did you mean 'text'\? \(config key text_column",
            ),
            ({'label_column': 'lable'}, "'lable'; did you mean 'label'.*config key label_column"),
            ({'split_column': 'fold'}, "'fold'; valid choices: label, text .*config key split_column"),
        ],
    )
    def test_missing_ones_are_suggested(self, file, values, told):
        with pytest.raises(UserError, match=told):
            load(write(file, some()), **values)

    @pytest.mark.parametrize('key', ['label_column', 'split_column'])
    def test_several_where_there_is_one(self, file, key):
        with pytest.raises(UserError, match=f"config key {key} is 'text,label', which are several columns of"):
            load(write(file, some()), **{key: 'text,label'})

    def test_a_file_without_a_header(self, tmp_path):
        (tmp_path / 'a.csv').write_text(f'{"so long " * 20},x\nb,y\n')
        with pytest.raises(UserError, match=r"'text'; valid choices: so long so.{30,40}…, x .*first line names them"):
            load(tmp_path / 'a.csv')

    def test_two_of_one_name(self, tmp_path):
        (tmp_path / 'a.csv').write_text('text,label,text\na,b,c\n')
        with pytest.raises(UserError, match=r"2 columns of a\.csv are named 'text' \(config key text_column\)"):
            load(tmp_path / 'a.csv')

    @pytest.mark.parametrize(('separator', 'what'), [(';', 'semicolons'), ('\t', 'tabulators')])
    def test_other_separators(self, tmp_path, separator, what):
        lines = [f'{row["text"]}{separator}{row["label"]}' for row in some()]
        (tmp_path / 'a.csv').write_text('\n'.join([f'text{separator}label', *lines]))
        dataset = load(tmp_path / 'a.csv')
        assert dataset.images.values[0] == 'A film of number 0 that is good.'
        assert dataset.account.guessed == (f'{what} separate the columns of a.csv',)

    @pytest.mark.parametrize(
        'texts',
        [
            ['"Well", he said'],  # not closed by the end of its field
            ['"Yes, he said', 'so.', 'more'],  # not closed at all
            ['"Yes, he said', 'more', 'and so."', 'more'],  # closed in another row, so that four would be one
            ['"Yes!"', '"Well", he said', '"No', 'he said "so"'],
        ],
    )
    @pytest.mark.parametrize('name', ['a.tsv', 'a.csv', 'a.tsv.gz'])
    def test_tabulators_without_quoting(self, tmp_path, name, texts):
        """As GLUE's files are, in which a quote is a character like any other."""
        lines = ['text\tlabel', *(f'{row["text"]}\t{row["label"]}' for row in some())]
        lines += [f'{text}\tgood' for text in texts]
        content = '\n'.join(lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith('.gz') else content)
        dataset = load(tmp_path / name, bad_files_limit=0)
        assert dataset.images.values[20:] == tuple(texts)
        assert dataset.ids[20] == f'{name}:22'
        assert dataset.account.guessed[-1] == f'{name} is written without quoting, so quotes are a part of its texts'
        assert text_files.texts('csv', str(tmp_path / name))[f'{name}:22'] == texts[0]

    def test_a_fault_between_quoted_texts_is_one(self, tmp_path):
        """In a file with quoting, also behind tabulators."""
        rows = [{**row, 'text': f'"{row["text"]}",\nhe said'} for row in some()]
        file = write(tmp_path / 'a.tsv', rows)
        file.write_text(f'{file.read_text()}"a "text"\tgood\n')
        dataset = load(file)
        assert dataset.images.values[0] == rows[0]['text']
        assert dataset.skipped == (('a.tsv:42', 'a quote inside quotes (in a text in quotes, they are written twice)'),)
        file.write_text('text\tlabel\n' + '"a text"\tgood\n' * 20 + '"another\tgood\n')
        with pytest.raises(UserError, match=r'a quote that opens in the row from line 22 .* is never closed'):
            load(file)

    def test_they_are_only_for_files_of_texts(self):
        for key in ('text_column', 'label_column', 'split_column'):
            with pytest.raises(UserError, match=f"config key '{key}' is 'x', but it is only for csv:PATH, jsonl:PATH"):
                loading.load('digits', **{key: 'x'})


class TestLabels:
    @pytest.mark.parametrize(
        ('labels', 'classes'),
        [
            ([10, 9, -1], ('-1', '9', '10')),
            (['10', ' 9 ', '2'], ('2', '9', '10')),
            (['v10', 'v9', 'a'], ('a', 'v9', 'v10')),
            ([1.0, 2.0, 10.0], ('1', '2', '10')),
            ([True, False, True], ('false', 'true')),
        ],
    )
    def test_classes_in_natural_order(self, tmp_path, labels, classes):
        rows = [{'text': f'text {number}', 'label': labels[number % 3]} for number in range(18)]
        assert load(write(tmp_path / 'a.jsonl', rows)).classes == classes

    def test_a_column_that_names_no_classes(self, tmp_path):
        rows = [{'text': f'text {number}', 'label': f'label {number}'} for number in range(40)]
        with pytest.raises(
            UserError, match=r"40 texts of .* have 40 different labels, such as 'label 0', .*label_column"
        ):
            load(write(tmp_path / 'a.csv', rows))

    def test_classes_that_may_be_one_are_noticed(self, tmp_path):
        rows = [*some(), {'text': 'more', 'label': 'Good'}]
        noticed = load(write(tmp_path / 'a.csv', rows)).account.noticed
        assert noticed == (
            '1 of 3 classes with fewer than 3 texts, one for each split (Good)',
            "classes whose names differ in case and spaces only: 'Good', 'good'",
        )

    def test_one_class(self, tmp_path):
        with pytest.raises(UserError, match=r'has 1 class \(good\)'):
            load(write(tmp_path / 'a.csv', some(labels=('good', 'good'))))


class TestFaults:
    """What cannot be used is named with its line and counted, up to a limit."""

    @pytest.mark.parametrize(
        ('line', 'why'),
        [
            ('  ,good', 'empty text'),
            ('a text,', 'empty label'),
            ('a, text,good', r'3 fields where the header has 2 (a text with commas stands in quotes)'),
            ('a text', '1 field where the header has 2'),
            ('"a "text"",good', 'a quote inside quotes (in a text in quotes, they are written twice)'),
            (f'{"x" * 100_001},good', 'a text of 100,001 characters, more than 100,000'),
            (b'caf\xe9,good', "not UTF-8: byte 0xe9, which is 'é' in Latin-1"),
            (b'caf\x80,good', "not UTF-8: byte 0x80, which is '€' in Windows-1252"),
            (b'caf\x81,good', 'not UTF-8: byte 0x81'),
        ],
    )
    def test_of_csv(self, tmp_path, capsys, line, why):
        file = write(tmp_path / 'a.csv', some())
        file.write_bytes(file.read_bytes() + (line if isinstance(line, bytes) else line.encode()))
        dataset = load(file)
        assert dataset.skipped == (('a.csv:22', why),)
        assert len(dataset.ids) == 20
        account.show(dataset)
        assert f'left out  row, {why}: 1 (a.csv:22)' in capsys.readouterr().err
        assert dataset.provenance.endswith('; 1 row left out')
        with pytest.raises(
            UserError, match=r'line 22 has the byte|1 of 21 rows of .* cannot be used .a\.csv:22: .*key bad_files_l'
        ):
            load(file, bad_files_limit=0)

    @pytest.mark.parametrize(
        ('line', 'why'),
        [
            ('{"text": "a", "label": "good"', "broken JSON (Expecting ',' delimiter, column 30)"),
            ('["a", "good"]', 'no JSON object'),
            ('{"label": "good"}', "no 'text'"),
            ('{"text": "a"}', 'empty label'),
            ('{"text": 3, "label": "good"}', 'its text is the number 3'),
            ('{"text": null, "label": "good"}', 'empty text'),
            ('{"text": ["a"], "label": "good"}', 'its text is a list'),
            ('{"text": "a", "label": {}}', 'its label is an object'),
            ('{"text": "a", "label": 0.5}', 'its label is the number 0.5'),
            ('{"text": "a\\ud800", "label": "good"}', 'its text holds half a character (a lone surrogate)'),
            ('{"text": "a", "label": "\\ud800"}', 'its label holds half a character (a lone surrogate)'),
            ('[' * 100_000, 'broken JSON (RecursionError)'),
        ],
    )
    def test_of_json_lines(self, tmp_path, line, why):
        file = write(tmp_path / 'a.jsonl', some())
        file.write_text(f'{file.read_text()}\n{line}\n')
        assert load(file).skipped == (('a.jsonl:22', why),)
        with pytest.raises(UserError, match=r'1 of 21 rows of .*a\.jsonl:22: .*config key bad_files_limit'):
            load(file, bad_files_limit=0)

    def test_a_label_of_the_test_split_alone(self, tmp_path):
        write(tmp_path / 'train.csv', some())
        write(tmp_path / 'test.csv', [*some(about='book'), {'text': 'x', 'label': 'goood'}])
        assert load(tmp_path).skipped == (('test.csv:22', "no training text has the label 'goood'"),)

    def test_a_file_in_latin_1(self, tmp_path):
        (tmp_path / 'a.csv').write_bytes(b'text,label\nfine,x\n' + 'café,x\n'.encode('latin-1') * 20)
        with pytest.raises(
            UserError,
            match=r"20 of 21 rows of .* are not in UTF-8: line 3 has the byte 0xe9, which is 'é' in Latin-1; conv",
        ):
            load(tmp_path / 'a.csv')

    @pytest.mark.parametrize(
        ('content', 'told'),
        [
            (b'', 'is empty'),
            (b'\n \n', 'is empty'),
            ('text,label\n'.encode('utf-16'), 'is in UTF-16; convert it'),
            ('text,label\n'.encode('utf-32'), 'is in UTF-32; convert it'),
            (b'\0\0\xfe\xff' + 'text,label\n'.encode('utf-32-be'), 'is in UTF-32; convert it'),
            *(('text,label\n'.encode(name), f'is in {name}; convert it') for name in WITHOUT_MARKS),
            (b'te\0xt,label\n', r'first line of .*a\.csv. holds zero bytes.* iconv -f UTF-16LE'),
            (b'text,label\na,x\n"b,y\nc,x\n', 'a quote that opens in the row from line 3 .* is never closed'),
            (b'\x1f\x8b damaged', 'cannot be read'),
            (gzip.compress(b'text,label\n' * 99, mtime=0)[:-9], 'cannot be read'),
            (b'text,label\n', 'no training texts'),
        ],
        ids=[
            'nothing',
            'blank',
            'utf-16',
            'utf-32',
            'utf-32-be',
            *WITHOUT_MARKS,
            'zeros',
            'open quote',
            'no archive',
            'cut archive',
            'header alone',
        ],
    )
    def test_whole_files(self, tmp_path, content, told):
        (tmp_path / 'a.csv').write_bytes(content)
        with pytest.raises(UserError, match=told):
            load(tmp_path / 'a.csv')

    def test_rows_that_a_quote_takes_with_it_all_count(self, tmp_path):
        file = write(tmp_path / 'a.csv', some())
        file.write_text(f'{file.read_text()}"not closed,good\nx,good\ny,good\n"z",good\nlast,good\n')
        dataset = load(file)
        assert [name for name, _ in dataset.skipped] == ['a.csv:22', 'a.csv:23', 'a.csv:24', 'a.csv:25']
        assert dataset.images.values[-1] == 'last'

    def test_a_list_is_no_lines(self, tmp_path):
        (tmp_path / 'a.jsonl').write_text(json.dumps(some()))
        with pytest.raises(UserError, match='is one JSON list, not JSON lines'):
            load(tmp_path / 'a.jsonl')

    @pytest.mark.parametrize(
        ('line', 'why'), [("{'text': 'x'}", r'broken JSON .*, column 2'), ('{}', 'an empty object')]
    )
    def test_no_row_of_json_lines(self, tmp_path, line, why):
        (tmp_path / 'a.jsonl').write_text(f'{line}\n' * 20)
        with pytest.raises(UserError, match=rf'none of the 20 rows of .* has columns \(line 1: {why}'):
            load(tmp_path / 'a.jsonl')


class TestNames:
    def test_unknown_files_are_suggested(self, tmp_path):
        file = write(tmp_path / 'reviews.csv', some())
        with pytest.raises(UserError, match=rf"there is no file or folder .*; did you mean '{file}'\?"):
            loading.load(f'csv:{tmp_path}/review.csv', inputs='texts')

    def test_only_what_can_be_read_is_suggested(self, tmp_path):
        for place in ('docs', 'toys'):
            write(tmp_path / place / ('train.csv' if place == 'toys' else 'toy.md'), some())
        (tmp_path / 'toy.txt').touch()
        write(tmp_path / 'toy.jsonl', some())
        with pytest.raises(UserError, match=rf"toy\.csv'; did you mean '{tmp_path}/toys'\?$"):
            loading.load(f'csv:{tmp_path}/toy.csv', inputs='texts')

    def test_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / 'a.csv')
        with pytest.raises(UserError, match=r"a\.csv' is no regular file, such as a pipe, .* write it to a file"):
            loading.load(f'csv:{tmp_path}/a.csv', inputs='texts')

    def test_places_that_cannot_be_read(self, tmp_path, monkeypatch):
        write(tmp_path / 'train.csv', some())
        with pytest.raises(UserError, match="x' cannot be read: File name too long"):
            loading.load(f'csv:{"x" * 300}', inputs='texts')

        def denied(folder):
            raise PermissionError(13, 'Permission denied', str(folder))

        monkeypatch.setattr(Path, 'iterdir', denied)
        with pytest.raises(UserError, match='cannot be read: Permission denied'):
            loading.load(f'csv:{tmp_path}', inputs='texts')
        with pytest.raises(UserError, match=r"unknown data set .*; a folder of images is named 'folder:"):
            loading.check_name(str(tmp_path))

    def test_another_kind(self, tmp_path):
        file = write(tmp_path / 'a.jsonl', some())
        with pytest.raises(UserError, match=f"a file of JSON lines, which is read as 'jsonl:{file}'"):
            loading.load(f'csv:{file}', inputs='texts')
        with pytest.raises(UserError, match=f"a file of texts is named 'jsonl:{file}'"):
            loading.check_name(str(file))
        with pytest.raises(UserError, match=f"a file of texts is named 'jsonl:{file}'"):
            loading.load(f'folder:{file}')
        write(tmp_path / 'texts' / 'train.csv', some())
        with pytest.raises(UserError, match=f"a folder of texts is named 'csv:{tmp_path}/texts'"):
            loading.check_name(f'{tmp_path}/texts')

    def test_they_have_no_images(self, tmp_path):
        with pytest.raises(UserError, match=r"'csv:x' has texts, but the backbone reads images"):
            loading.load('csv:x')

    def test_a_work_directory_is_not_the_folder_of_the_texts(self, tmp_path):
        with pytest.raises(UserError, match='is the folder of texts itself'):
            loading.check_place(tmp_path, f'csv:{tmp_path}')

    def test_stamps(self, tmp_path):
        file = write(tmp_path / 'train.csv', some())
        for name in (f'csv:{file}', f'csv:{tmp_path}'):
            before = loading.stamp(name)
            assert before == loading.stamp(name)
            (tmp_path / 'other.txt').touch()
            assert before == loading.stamp(name)
            os.utime(file, (1, 1))
            assert loading.stamp(name) not in (None, before)
            file.touch()
        assert loading.stamp('csv:/nowhere') is None


class TestRecord:
    @pytest.mark.parametrize(
        ('change', 'told'),
        [
            (lambda rows: rows.pop(4), r'1 text removed \(a\.csv:6( \(then\))?\)'),
            (lambda rows: rows.insert(4, {'text': 'new', 'label': 'good'}), r'1 text added \(a\.csv:6\)'),
            (lambda rows: rows[4].update(text='other'), r'1 text changed \(a\.csv:6\)'),
            (lambda rows: rows[4].update(label='bad'), r'1 text in another class \(a\.csv:6\)'),
            (lambda rows: rows.reverse(), r'20 texts in another place \(a\.csv:2 → a\.csv:21, '),
            (lambda rows: rows[3].update(text=''), r'1 text no longer used \(a\.csv:5\)'),
        ],
    )
    def test_changed_texts_are_named(self, tmp_path, change, told):
        file, workdir, rows = tmp_path / 'a.csv', tmp_path / 'run', some()
        record.write(workdir, load(write(file, rows)), loading.stamp(f'csv:{file}'))
        assert record.check(workdir, load(file)) == []
        assert record.is_unchanged(workdir, f'csv:{file}', loading.stamp(f'csv:{file}'))
        change(rows)
        with pytest.raises(UserError, match=f'have changed since .*: {told}.* Undo this'):
            record.check(workdir, load(write(file, rows)))
        (found,) = [each for each in record.check(workdir, load(file), accepted=True) if 'another split' not in each]
        assert 'image' not in found

    def test_a_new_class_is_named(self, tmp_path):
        file, workdir = tmp_path / 'a.csv', tmp_path / 'run'
        record.write(workdir, load(write(file, some())))
        rows = [*some(), *({'text': f'new {number}', 'label': 'ugly'} for number in range(3))]
        with pytest.raises(UserError, match="the class 'ugly' is new; 3 texts added"):
            record.check(workdir, load(write(file, rows)), accepted=True)


def test_natural_order():
    assert text_rows.natural_order({'b', '10', 'a2', 'a10', '2', '-3', ''}) == ('-3', '2', '10', '', 'a2', 'a10', 'b')


def test_targets_are_those_of_the_classes(tmp_path):
    rows = [{'text': f'text {number}', 'label': WORDS[number % 5]} for number in range(50)]
    dataset = load(write(tmp_path / 'a.csv', rows))
    assert [dataset.classes[label] for label in dataset.targets] == [row['label'] for row in rows]
    assert dataset.targets.dtype == np.int32


@pytest.mark.parametrize('name', ['csv:a.csv', 'jsonl:a.jsonl', 'docstrings'])
def test_no_images_are_looked_for(name):
    with pytest.raises(UserError, match='has texts, no images'):
        examples_by_id.read(name, ['a.csv:2'])


@pytest.mark.parametrize('kind', ['csv', 'jsonl'])
def test_texts_by_id(tmp_path, kind):
    rows = [
        {'title': f'so {number}', 'body': f'a "b",\nc {number}', 'label': WORDS[number % 2]} for number in range(40)
    ]
    file = write(tmp_path / f'a.{kind}', rows)
    dataset = load(file, text_column='title,body')
    name, wanted = f'{kind}:{file}', [dataset.ids[7], dataset.ids[3]]
    found = examples_by_id.read_texts(name, wanted, 'title,body')
    assert found == {dataset.ids[index]: dataset.images.values[index] for index in (3, 7)}
    assert [*examples_by_id.read_texts(name, [wanted[0], f'a.{kind}:999'], 'body')] == [wanted[0]]
    with pytest.raises(UserError, match=r"cannot be read here: 'b\.csv:2' is not there any more"):
        examples_by_id.read_texts(name, ['b.csv:2'], 'body')
    with pytest.raises(UserError, match=r"'boddy'; did you mean 'body'\?"):
        examples_by_id.read_texts(name, wanted, 'boddy')
    # As from the work directory of another machine.
    with pytest.raises(UserError, match='cannot be read: Could not determine home directory'):
        examples_by_id.read_texts(f'{kind}:~nobody-here/a.{kind}', wanted)


def test_texts_by_id_of_images():
    with pytest.raises(UserError, match="'digits' has images, no texts"):
        examples_by_id.read_texts('digits', ['0'])
