"""Tables of pages are those of their rows, and small copies of work directories give the same tables."""

import re
from pathlib import Path

import pytest

from backbones.errors import UserError
from experiments.results import aggregates, kept, pages, tables
from experiments.results.__main__ import main
from tests.experiments.synthetic_results import BACKBONES, DATASETS, work_directory

ROOT = Path(__file__).parent.parent.parent
WHICH = 'regime=linear | backbone=resnet18, convnext_tiny'
PAGE = f"""# Title

<!-- table made flowers | {WHICH} | note | columns=backbone, scores, parameters -->
what was here
<!-- end of table -->

Text stays.
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp('repository')
    work_directory(directory / 'made', backbones=BACKBONES[:3], fractions=(0.1, 1.0), test=50)
    return directory


def test_a_table_has_the_rows_and_columns_that_the_comment_names(root):
    lines = pages.written(PAGE, root).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith('| backbone'))
    assert re.fullmatch(r'\| backbone \| 0.1[^|]* \| 1[^|]* \| parameters \|', lines[start])
    assert lines[start + 1] == '|---|---:|---:|---:|'
    assert {line.split()[1] for line in lines[start + 2 : start + 4]} == {'resnet18', 'convnext_tiny'}
    assert not lines[start + 4]
    assert lines[-2:] == ['', 'Text stays.']
    assert any(line.startswith('<sub>Test accuracy') for line in lines)
    assert 'what was here' not in lines


def test_writing_twice_changes_nothing(root):
    once = pages.written(PAGE, root)
    assert pages.written(once, root) == once != PAGE


def test_numbers_are_those_of_the_rows(root):
    view = tables.view(aggregates.load(root / 'made'), 'flowers')
    row = next(row for row in view.rows if view.cells(row)[0] == 'resnet18' and view.cells(row)[2] == 'linear')
    shown = [text.strip('* ') for text in pages.written(PAGE, root).split('| resnet18 |')[1].splitlines()[0].split('|')]
    start = len(view.labels)
    assert shown[:2] == view.cells(row)[start : start + 2]


def test_a_further_table(root):
    comment = 'made flowers | regime=linear | further=recall of each class | columns=backbone, scores'
    lines = pages.written(f'<!-- table {comment} -->\n<!-- end of table -->\n', root).splitlines()
    view = tables.view(aggregates.load(root / 'made'), 'flowers')
    recall = next(table for table in view.further() if table.title.startswith('recall of each class'))
    classes = recall.header[len(view.labels) :]
    assert lines[2] == f'| backbone | {" | ".join(classes)} |'
    assert lines[3] == f'|---|{"---:|" * len(classes)}'
    expected = [row[:1] + row[len(view.labels) :] for row in recall.rows if row[2] == 'linear']
    assert lines[4 : 4 + len(expected)] == [f'| {" | ".join(row)} |' for row in expected]


def test_several_directories_are_one_table(root):
    work_directory(root / 'other', backbones=BACKBONES[3:5], fractions=(0.1, 1.0), test=50)
    text = pages.written('<!-- table made+other flowers | columns=backbone -->\n<!-- end of table -->\n', root)
    assert all(f'| {name} |' in text for name, *_ in BACKBONES[:5])


@pytest.mark.parametrize(
    ('comment', 'message'),
    [
        ('made', f'made has 2 data sets; name one: {DATASETS[0][0]}, {DATASETS[1][0]}'),
        ('made flower', "unknown data set of made 'flower'"),
        ('made flowers | nots', "unknown word of a table 'nots'"),
        ('made flowers | columns=backbon', "unknown column 'backbon'"),
        ('made flowers | regim=linear', "unknown column of made 'regim'"),
        ('made flowers | regime=ridge', 'no row of made has regime=ridge'),
        ('made flowers | further=recal of', "unknown further table of made 'recal of'"),
        ('made flowers | further=recall of each class | columns=tulips', "unknown column 'tulips'"),
        ('absent', 'there are no results in'),
    ],
)
def test_what_a_comment_gets_wrong_is_named(root, comment, message):
    with pytest.raises(UserError, match=re.escape(message)):
        pages.written(f'<!-- table {comment} -->\n<!-- end of table -->\n', root)


@pytest.mark.parametrize('after', ['', '<!-- table made flowers -->\n<!-- end of table -->\n'])
def test_a_table_without_an_end_is_named(root, after):
    with pytest.raises(UserError, match=r"the table 'made flowers \| note' in line 2 has no end; expected <!-- end of"):
        pages.written(f'text\n<!-- table made flowers | note -->\n| a |\n{after}', root)


def test_a_small_copy_gives_the_same_tables(root, tmp_path):
    workdir, copy = root / 'made', tmp_path / 'copy'
    size = kept.keep(workdir, copy)
    assert size < sum(file.stat().st_size for file in workdir.rglob('*') if file.is_file())
    texts = []
    for directory in (workdir, copy):
        entries = aggregates.load(directory)
        texts.append([tables.markdown(tables.view(entries, name)) for name in aggregates.datasets(entries)])
    assert texts[0] == texts[1]


def test_a_copy_replaces_an_earlier_one_and_nothing_else(root, tmp_path):
    copy = tmp_path / 'copy'
    kept.keep(root / 'made', copy)
    (copy / 'predictions' / 'of_a_row_that_is_gone.npz').write_bytes(b'')
    kept.keep(root / 'made', copy)
    assert not (copy / 'predictions' / 'of_a_row_that_is_gone.npz').exists()
    other = tmp_path / 'other'
    other.mkdir()
    with pytest.raises(UserError, match='is no copy of a work directory'):
        kept.keep(root / 'made', other)
    with pytest.raises(UserError, match='is the work directory itself'):
        kept.keep(root / 'made', root / 'made')


def test_the_command_writes_pages_and_checks_them(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    page = root / 'page.md'
    page.write_text(PAGE)
    with pytest.raises(SystemExit) as ended:
        main(['tables', '--check', 'page.md'])
    assert ended.value.code == 1
    assert page.read_text() == PAGE
    main(['tables', 'page.md'])
    main(['tables', '--check', 'page.md'])
    assert 'page.md: 1 tables, as their rows' in capsys.readouterr().out


@pytest.mark.parametrize(
    'page',
    [page for page in (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))) if pages.sources(page.read_text())],
    ids=lambda page: page.name,
)
def test_tables_of_this_repository_are_those_of_its_rows(page):
    text = page.read_text()
    assert pages.written(text, ROOT) == text, f'make tables writes {page.name} again'


def test_the_rows_of_this_repository_are_small():
    files = [file for file in (ROOT / 'results').rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10e6
