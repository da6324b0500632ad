"""The page of a report: its structure, without a browser."""

import dataclasses
import html.parser
import itertools
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experiments.cli import atomic_files
from experiments.data import account, loading, record
from experiments.results import failures, metric_tables, planned_cells, rows, scores
from experiments.results.axes import Variant
from experiments.results.page import build, content, estimates, markup, shapes, svg
from experiments.results.page.scales import Scale
from experiments.results.page.sections import cost, curves
from tests.experiments import synthetic_results
from tests.experiments.made_rows import make_row
from tests.experiments.test_text_files import some, write

VOID = {'br', 'col', 'hr', 'img', 'input', 'link', 'meta'}


class Page(html.parser.HTMLParser):
    """What is in a page; refuses elements that are not closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f'an attribute of {tag} occurs twice'
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('style', 'script'):
            self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] or '' for _, found in self.elements if attribute in found]


def check(text: str) -> Page:
    """A page that is well formed, reaches for nothing outside itself and can be navigated."""
    page = Page(text)
    assert [name for name, count in Counter(page.values('id')).items() if count > 1] == []
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    outside = [value for name in ('src', 'href', 'action', 'data', 'srcset') for value in page.values(name)]
    assert [value for value in outside if not value.startswith(('#', 'data:'))] == []
    assert {value[1:] for value in outside if value.startswith('#')} <= {*page.values('id')}
    style = text[text.index('<style>') : text.index('</style>')]
    assert not re.search(r'https?:|@import|url\(', style)
    for drawing in re.findall(r'<svg.*?</svg>', text, re.DOTALL):
        ElementTree.fromstring(drawing)
        assert 'NaN' not in drawing
        assert 'nan,' not in drawing
    return page


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    return synthetic_results.work_directory(
        tmp_path_factory.mktemp('results') / 'small',
        backbones=synthetic_results.BACKBONES[:3],
        fractions=(0.1, 1.0),
        test=40,
    )


def test_page(directory):
    report = content.read([directory], 'python -m experiments.report --workdir small')
    page = check(build.html(report))
    assert 'python -m experiments.report --workdir small' in page.texts
    sections = {'summary', 'results', 'cost', 'intervals', 'significance', 'labels', 'configuration'}
    assert sections <= {*page.values('id')} & {section.key for section in build.SECTIONS}


def test_a_page_of_texts_speaks_of_texts(tmp_path):
    small = {'backbones': synthetic_results.BACKBONES[:2], 'fractions': (0.1, 1.0), 'seeds': (0, 1), 'test': 30}
    place = synthetic_results.work_directory(tmp_path / 'reviews', (('csv:reviews', 1.0),), inputs='texts', **small)
    page = check(build.html(content.read([place], 'python -m experiments.report')))
    said = '\n'.join([*page.texts, *(each for name in ('title', 'aria-label') for each in page.values(name))])
    assert [line for line in said.splitlines() if 'image' in line.lower()] == []
    for expected in (
        'GFLOP/text', 'GFLOP per text of 128 tokens (', 'for a text of 128 tokens;', 'texts/s',
        'texts per second, frozen', 'Test texts by', 'labelled texts',
        'over seeds and test texts', 'validation texts is higher than that on the test texts',
        'the most tokens of a text that',
    ):  # fmt: skip
        assert expected in said
    other = synthetic_results.work_directory(tmp_path / 'flowers', (('flowers', 0.5),), **small)
    together = check(build.html(content.read([place, other], 'python -m experiments.report'))).texts
    assert 'GFLOP/example' in together
    assert 'labelled examples' in together


def test_the_account_is_the_one_that_was_printed(tmp_path, capsys):
    texts = some(40)
    write(tmp_path / 'a.csv', [*texts, {'text': '', 'label': 'good'}, texts[0]])
    name, workdir = f'csv:{tmp_path / "a.csv"}', tmp_path / 'run'
    dataset = loading.load(name, inputs='texts')
    record.write(workdir, dataset)
    row = make_row(data={**make_row().data, 'inputs': 'texts', 'provenance': dataset.provenance})
    rows.write(workdir, [dataclasses.replace(row, cell=dataclasses.replace(row.cell, dataset=name))])
    logits = np.eye(2, dtype=np.float32)[dataset.targets]
    scores.write(workdir / row.predictions, dataset.ids, dataset.targets, {'logits': logits})
    account.show_notes(dataset)
    printed = capsys.readouterr().err.splitlines()
    said = check(build.html(content.read([workdir]))).texts
    told = [f'{kind.removesuffix(": "):<10}{text}' for kind, text in itertools.pairwise(said) if kind.endswith(': ')]
    assert told[0] == 'texts     41 texts of 8 words each'
    assert told[1:] == [line.rstrip() for line in printed]
    assert 'left out  row, empty text: 1 (a.csv:42)' in told
    assert not any('unreadable' in each for each in said)


HOSTILE = (
    '<script>alert("x")</script>\u202e\u05e9\u05dc\u05d5\u05dd\' onload=alert(1) \udcff\x1b[31m &amp; ' + 'long' * 50
)


def test_hostile_names_are_harmless_and_shown(tmp_path):
    place = synthetic_results.work_directory(
        tmp_path / 'a<b>&"c',
        datasets=((f'folder:/data/{HOSTILE}', 1.0), ('plain', 1.0)),
        backbones=[(f'{index}{HOSTILE}', 1000, 1.0 + index, 0.1) for index in range(2)],
        regimes=('linear', HOSTILE),
        fractions=(0.1, 1.0),
        seeds=(0, 1),
        test=20,
        weights=HOSTILE,
    )
    report = content.read([place], f'python -m experiments.report --workdir {place}')
    text = build.html(report)
    page = check(text)
    assert len([tag for tag, _ in page.elements if tag == 'script']) == 1
    assert not {name for _, found in page.elements for name in found if name.startswith('on')}
    assert any(markup.shown(HOSTILE) in text for text in page.texts + page.values('title'))
    text.encode()


def test_configs_and_their_differences(tmp_path):
    one = {'a': 1, 'b': {'c': 'x', 'd': [1, 2]}, 'e': {}, 'f': ''}
    other = {'a': 1, 'b': {'c': 'y', 'd': [1, 2]}, 'g': None}
    for name, config in (('one', one), ('other', other)):
        rows.write(tmp_path / name, [make_row()])
        scores.write(tmp_path / name / make_row().predictions, ['0'], np.zeros(1, np.int32), {'logits': np.eye(1, 3)})
        (tmp_path / name / 'config.json').write_text(json.dumps(config))
    page = check(build.html(content.read([tmp_path / 'one', tmp_path / 'other'], '')))
    start = page.texts.index('Differences between trainings') + 1
    shown = ['key', 'one', 'other', 'b.c', 'x', 'y', 'e', '{}', '–', 'f', '""', '–', 'g', '–', 'null']
    assert page.texts[start : start + len(shown)] == shown


def test_several_work_directories_show_what_differs(directory, tmp_path):
    other = synthetic_results.work_directory(
        tmp_path / 'other', backbones=synthetic_results.BACKBONES[:1], fractions=(1.0,), seeds=(0,), test=40
    )
    page = check(build.html(content.read([directory, other], '')))
    start = page.texts.index('Differences between ablations')
    assert page.texts[start + 1 : start + 4] == ['key', 'small', 'other']
    assert page.texts[page.texts.index('seeds', start) :][:3] == ['seeds', '[0, 1, 2]', '[0]']
    assert 'tap' not in page.texts[start : page.texts.index('Versions')]


def test_the_pareto_front_is_that_of_brute_force(directory):
    report = content.read([directory], '')
    column = estimates.columns(report.aggregates, 'pets')[0]
    points = {(each.costs['flops_per_image'], estimates.estimate(each).mean) for each in column}
    best = {
        (cost, score)
        for cost, score in points
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    }
    page = Page(cost.section(report))
    start = page.texts.index('pets')
    table = page.texts[page.texts.index('on the front', start) :]
    # The first figure is that of GFLOP; each line of its table on the front ends with 'yes'.
    assert table[: table.index('flowers') if 'flowers' in table else table.index('parameters')].count('yes') == len(
        best
    )


def test_an_anchor_leads_to_its_line(directory):
    report = content.read([directory], '')
    text = build.html(report)
    for aggregate in report.aggregates[::7]:
        anchor = estimates.anchors(report)(aggregate)
        line = re.search(rf'<tr id="{anchor}">.*?</tr>', text)[0]
        assert all(f'>{word}<' in line for word in (aggregate.variant.backbone, aggregate.regime, aggregate.dataset))
        assert f'>{100 * np.mean(aggregate.scores):.1f}' in line


def test_names_have_what_differs_only(directory):
    column = estimates.columns(content.read([directory], '').aggregates, 'pets')[0]
    assert sorted(estimates.names(column))[0] == 'convnext_tiny · knn'
    assert estimates.names(column[:1]) == [column[0].variant.backbone]


@given(st.text())
@example('<script>alert(1)</script>')
@example('"\' onload=alert(1) x="')
@example('folder:/data/\udcff\udcfe\x1b[31m')
@example('\u202eltr\u202c &amp; <b>')
def test_any_text_is_harmless_in_markup(text):
    page = Page(markup.element('p', text, title=text))
    assert [tag for tag, _ in page.elements] == ['p']
    assert ''.join(page.texts) == markup.shown(text)
    ElementTree.fromstring(markup.element('p', text, title=text)).attrib['title'].encode()


def test_bytes_that_are_no_text_are_shown():
    assert markup.shown('a\udcffb\x1b') == 'a\\xffb\\x1b'
    assert markup.shortened('abcdefghij', 7) == 'abcd…ij'


def test_markup_is_not_escaped_twice():
    inner = markup.element('b', 'a & b')
    assert markup.element('p', inner, ' < ', [inner, None]) == '<p><b>a &amp; b</b> &lt; <b>a &amp; b</b></p>'
    assert markup.element('input', disabled=True, hidden=False, aria_label='x') == '<input disabled="" aria-label="x"/>'


finite = st.floats(1e-6, 1e6)


@given(st.lists(finite, min_size=1, max_size=6), st.sampled_from(['linear', 'log']), st.integers(1, 12))
def test_scales_hold_their_values_and_have_round_ticks(values, kind, count):
    scale = Scale.covering(values, kind)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 1
    ticks = scale.ticks(count)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 2 * count + 2
    assert all(scale.low * (1 - 1e-6) - 1e-12 <= tick <= scale.high * (1 + 1e-6) for tick in ticks)
    assert (
        all(float(f'{tick:.6g}') == pytest.approx(tick, rel=1e-12) for tick in ticks)
        or scale.high - scale.low < 1e-3 * scale.high
    )


def test_ticks_of_textbook_scales():
    assert Scale(0, 1).ticks() == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert Scale(1, 1000, 'log').ticks() == [1, 10, 100, 1000]
    assert Scale(0.2, 30, 'log').ticks() == [0.3, 1, 3, 10, 30]
    assert Scale(0.4, 0.995, 'logit').ticks(10) == [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995]


def test_a_scale_puts_numbers_without_a_place_at_its_ends():
    assert Scale(1, 100, 'log').place(0) == 0
    assert Scale(0.5, 0.9, 'logit').place(1) == 1
    assert Scale(0, 1).place(math.inf) == 1


def test_marks_of_a_plot():
    plot = svg.Plot('a < b', Scale(0, 10), Scale(0, 100), x_label='x', y_label='y', width=110, height=110,
                    left=5, right=5, top=5, bottom=5)  # fmt: skip
    assert (plot.across(5), plot.down(25)) == (55, 80)
    tree = ElementTree.fromstring(
        plot.render(
            plot.line([(0, 0), (10, 100)], series=1),
            plot.band([0, 10], [0, 50], [10, 100]),
            plot.interval(5, 10, 90),
            [plot.marker(1, 2, index, title=f'{shape} <&>', shape=shape) for index, shape in enumerate(shapes.SHAPES)],
            plot.cell(0, 1, 0, 10, 0.7, 'cell', '7'),
        )
    )
    assert tree.attrib['role'] == 'img'
    assert tree.find('title').text == 'a < b'
    assert [each.attrib['d'] for each in tree.findall("path[@class='line series1']")] == ['M5,105L105,5']
    assert len([each for each in tree.iter('path') if 'mark' in each.attrib['class']]) == len(shapes.SHAPES)
    with pytest.raises(ValueError, match='circle'):
        shapes.marker_path('circel', 0, 0)


def test_what_trained_and_by_which_command(tmp_path):
    """As a training and an ablation leave it; a damaged file is left out."""
    rule = {'pattern': 'backbone/.*', 'state': 'frozen', 'leaves': 3, 'parameters': 12_345}
    place = synthetic_results.work_directory(
        tmp_path / 'run', synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:1], ('linear', 'bitfit'),
        (1.0,), (0, 1), 40,
    )  # fmt: skip
    made = rows.read(place)
    trained = next(row for row in made if row.cell.regime == 'bitfit')
    # A training of an ablation has its values under 'training', and a directory of its own for each rate.
    others = [row for row in made if row is not trained]
    rows.write(place, [dataclasses.replace(trained, config={'training': {'epochs': 1}}), *others])
    directory = place / 'trainings' / trained.cell.key() / '0.01'
    directory.mkdir(parents=True)
    (directory / 'parameters.json').write_text(json.dumps([{'phase': 'bitfit', 'rules': [rule]}]))
    (place / 'parameters.json').write_text('{damaged')
    lines = 'python -m experiments.ablate --workdir run\npython -m experiments.ablate --workdir run --only linear'
    (place / 'command.txt').write_text(f'{lines}\n')
    planned_cells.write(place, [*(row.cell for row in made), dataclasses.replace(trained.cell, seed=7)])
    page = check(build.html(content.read([place], 'again')))
    assert page.texts[page.texts.index('not finished') + 1] == '1'
    start = page.texts.index('What trained', page.texts.index('Numbers of this figure'))
    assert page.texts.index('backbone/.*', start) < page.texts.index(' frozen (12,345)', start)
    assert 'a head on stored features; the backbone is frozen' in page.texts[start:]
    assert {*lines.splitlines()} <= {*page.texts}
    assert page.texts[page.texts.index('This page is written again by ') + 1] == 'again'


def test_the_page_of_shards_is_that_of_one_run(tmp_path):
    """What belongs to a line is found in the shard that computed it: curves, rules, names of classes, failures."""
    whole = synthetic_results.work_directory(
        tmp_path / 'whole' / 'run', synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:2],
        ('linear', 'bitfit'), (1.0,), (0, 1), 40,
    )  # fmt: skip
    made = [
        dataclasses.replace(row, place=place, config={'training': {}}, selected={'learning_rate': 0.01})
        if row.cell.regime == 'bitfit'
        else dataclasses.replace(row, place=place)
        for place, row in enumerate(rows.read(whole))
    ]
    rows.write(whole, made)
    unfinished, failed = (dataclasses.replace(made[0].cell, seed=seed) for seed in (7, 8))
    planned_cells.write(whole, [*(row.cell for row in made), unfinished, failed])
    failures.write(whole, [failures.Failure(failed, 'no luck')])
    for row in made[2:]:
        if row.cell.regime == 'bitfit':
            directory = whole / 'trainings' / row.cell.key() / '0.01'
            atomic_files.write_jsonl(
                directory / 'metrics.jsonl',
                [{'step': step, 'epoch': step, 'loss': 1 / step, 'validation_accuracy': 0.5} for step in (1, 2)],
            )
            rule = {'pattern': 'backbone/.*', 'state': 'frozen', 'leaves': 3, 'parameters': row.cell.seed}
            atomic_files.write_json(directory / 'parameters.json', [{'phase': 'bitfit', 'rules': [rule]}])
    names = [f'the {name} class' for name in 'abcdefgh']
    atomic_files.write_json(record.file_of(whole, 'flowers'), {'classes': names})
    merged = tmp_path / 'merged' / 'run'
    for number in (1, 2):
        part = merged / 'shards' / f'{number}-of-2'
        shutil.copytree(whole, part)
        rows.write(part, made[number - 1 :: 2])
        for row in made[2 - number :: 2]:
            (part / row.predictions).unlink()
            shutil.rmtree(part / 'trainings' / row.cell.key(), ignore_errors=True)
    failures.write(part, [])
    for name in ('config.json', planned_cells.FILE):
        shutil.copy(whole / name, merged / name)
    pages = []
    for place in (whole, merged):
        report = content.read([place], '')
        pages.append({each.title: str(each.build(report)).replace(str(place), 'PLACE') for each in build.SECTIONS})
    for title, one in pages[0].items():
        assert pages[1][title] == one, title
    texts = Page(pages[1]['Summary']).texts
    assert texts[texts.index('not finished') + 1] == texts[texts.index('failed') + 1] == '1'
    assert 'epoch 2' in pages[1]['Learning curves']
    assert 'backbone/.*' in pages[1]['What trained']
    assert names[0] in pages[1]['Confusion']
    # A key that has become an axis changes the cells, and not where their trainings are.
    rows.write(
        whole, [dataclasses.replace(row, cell=dataclasses.replace(row.cell, settings=(('a', 1),))) for row in made]
    )
    report = content.read([whole], '')
    built = {each.title: str(each.build(report)) for each in build.SECTIONS}
    assert 'epoch 2' in built['Learning curves']
    assert 'backbone/.*' in built['What trained']


def test_a_setting_has_a_column_and_curves(tmp_path):
    place = synthetic_results.work_directory(
        tmp_path, synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:2], ('linear',), (1.0,), (0,), 40,
        image_sizes=(64, 128, 32),
    )  # fmt: skip
    report = content.read([place], '')
    page = check(build.html(report))
    assert 'settings' in page.values('id')
    assert page.texts.count('image_size') >= 2
    drawn = Page(curves.settings(report))
    ticks = [text for text in drawn.texts if text in ('32', '64', '128')]
    assert ticks[:3] == ['32', '64', '128']
    assert curves.labels(report) is None
    # A line of the table is named by what differs.
    assert sorted(estimates.names(report.aggregates))[0] == 'resnet18 · image_size 128'


def test_names_of_weights_are_short(tmp_path):
    place = synthetic_results.work_directory(
        tmp_path, synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:2], ('linear',), (1.0,), (0,), 40,
        weights='bundled:{}',
    )  # fmt: skip
    made = rows.read(place)
    random = dataclasses.replace(made[0].cell, variant=Variant('resnet18', 'random'))
    pixels = dataclasses.replace(made[0].cell, variant=Variant('pixels', ''))
    rows.write(place, [*made, *(dataclasses.replace(made[0], cell=cell) for cell in (random, pixels))])
    names = estimates.names(content.read([place], '').aggregates)
    assert names == ['resnet18 · bundled', 'resnet50 · bundled', 'resnet18 · random', 'pixels']


def test_a_failed_cell_is_a_line_with_its_reason(tmp_path):
    place = synthetic_results.work_directory(
        tmp_path, synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:2], ('linear',), (1.0,), (0, 1), 40
    )
    (row, *_) = rows.read(place)
    failed = dataclasses.replace(row.cell, variant=Variant('broken', 'x'), fraction=0.5)
    failures.write(place, [failures.Failure(failed, 'no file <x>'), failures.Failure(row.cell, 'finished later')])
    planned_cells.write(place, [failed, row.cell])
    text = build.html(content.read([place], ''))
    page = check(text)
    assert page.texts[page.texts.index('failed') + 1] == '1'
    assert 'not finished' not in page.texts
    assert 'finished later' not in page.texts
    (line,) = re.findall('<tr><th scope="row"><bdi>broken</bdi>.*?</tr>', text)
    texts = Page(line).texts
    assert texts[:3] == ['broken', 'failed: ', 'no file <x>']
    assert texts[3:7] == ['flowers', 'linear', 'x', '50 %']
    assert 'value="broken"' in text  # in the filter


def test_the_table_says_what_the_terminal_says(tmp_path):
    """The columns beside the score are named and explained alike, and bold is explained where something is bold."""
    place = synthetic_results.work_directory(
        tmp_path, synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:2], ('linear',), (1.0,), (0, 1), 40
    )
    report = content.read([place], '')
    page = check(build.html(report))
    note = metric_tables.note(report.aggregates)
    assert {*metric_tables.titles_beside(report.aggregates)} <= {*page.texts}
    assert {'gap', 'worst class'}.isdisjoint(page.texts)
    assert any(note in text for text in page.texts)
    assert any('Bold: ' in text for text in page.texts) == any(each.best for each in report.aggregates)
