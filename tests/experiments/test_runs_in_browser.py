"""The runs index in a real browser, where one is installed: how it opens, filters and sorts."""

import datetime
import shutil
import time
from pathlib import Path

import pytest

from experiments.results import failures, rows, runs
from experiments.results.page import runs_index
from tests.experiments import browser
from tests.experiments.made_rows import make_row
from tests.experiments.test_runs import make_ablation, make_training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.installed() is None, reason=f'no browser is installed (one of {browser.NAMES})'),
]
SHOWN = (
    "[...document.querySelectorAll('.runs > tbody > tr')].filter((row) => !row.hidden).map((row) => row.dataset.name)"
)


@pytest.fixture(scope='module')
def page(tmp_path_factory) -> Path:
    """The index of a thousand runs, of every kind and with long names."""
    root = tmp_path_factory.mktemp('runs')
    make_ablation(root / 'ablation', *(make_row(fraction=share, score=share / 2) for share in (0.1, 0.5, 1.0)))
    made = make_training(root / 'first', evaluations=20)
    make_training(root / 'finished', evaluations=5, regime='finetune', weights='hub:a/very/long/name/of/weights' * 4)
    rows.write(root / 'finished', [make_row(validation={'accuracy': 0.9})])
    for number in range(997):
        shutil.copytree(made, root / f'{number % 7}_a_rather_long_name_of_a_directory' / f'{number}')
    file = root / 'index.html'
    file.write_text(runs_index.html(runs.find(root), root, root, datetime.datetime.now().astimezone()))
    return file


@pytest.fixture(scope='module')
def chromium():
    with browser.Browser() as opened:
        yield opened


@pytest.mark.parametrize(('width', 'theme'), [(1280, 'light'), (390, 'dark')])
def test_it_opens_offline_without_a_message_and_fits_the_screen(page, chromium, width, theme, capsys):
    start = time.perf_counter()
    chromium.open(page, width, 844, theme)
    seconds = time.perf_counter() - start
    wide = chromium.run('document.scrollingElement.scrollWidth')
    with capsys.disabled():
        print(
            f'\n1,000 runs at {width} px, {theme}: {page.stat().st_size / 1e6:.2f} MB, {len(chromium.messages)} '
            f'console messages, {len(chromium.requests) - 1} requests beyond the file, opened in {seconds:.2f} s'
        )
    assert chromium.messages == []
    assert chromium.requests == [page.as_uri()]
    assert wide <= width
    chromium.run(
        "document.querySelectorAll('#runs tr:nth-child(-n+20) details').forEach((each) => { each.open = true })"
    )
    assert chromium.run('document.scrollingElement.scrollWidth') <= width


@pytest.fixture(scope='module')
def failed(tmp_path_factory) -> Path:
    """The index of two runs; a cell of one failed with a long error, and a name has no spaces."""
    root = tmp_path_factory.mktemp('failed')
    rest = make_row('a_backbone_with_a_rather_long_name').cell
    made = [make_row(seed=seed) for seed in range(2)]
    planned = [*(row.cell for row in made), rest]
    path = make_ablation(root / 'failed', *made, planned=planned, a_rather_long_key_of_a_config='and_its_value')
    failures.write(path, [failures.Failure(rest, f'non-finite loss: the batch was {"circle/img_016.png, " * 40}')])
    make_ablation(root / 'other', *made)
    file = root / 'index.html'
    file.write_text(runs_index.html(runs.find(root), root, root, datetime.datetime.now().astimezone()))
    return file


@pytest.mark.parametrize('width', [1280, 1202, 390])
def test_a_long_error_takes_a_few_lines_until_it_is_opened(failed, chromium, width):
    chromium.open(failed, width)
    height = "document.querySelector('.reason').getBoundingClientRect().height"
    closed = chromium.run(height)
    assert closed < 100
    cells = "[...document.querySelectorAll('.runs td, .runs th')]"
    too_wide = f'{cells}.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.textContent)'
    assert chromium.run(too_wide) == []
    chromium.run("document.querySelector('.reason').open = true")
    assert chromium.run(height) > 2 * closed
    assert chromium.run('document.scrollingElement.scrollWidth') <= width


def test_headings_of_columns_are_seen_on_a_phone_only_while_they_have_the_focus(failed, chromium):
    chromium.open(failed, 390, 844)
    box = '(({ width, height }) => [width, height])(document.querySelector(".runs > thead").getBoundingClientRect())'
    assert max(chromium.run(box)) <= 1
    assert chromium.run("getComputedStyle(document.querySelector('.runs > thead')).overflow") == 'hidden'
    chromium.run("document.querySelector('.runs .sort').focus()")
    assert min(chromium.run(box)) > 20
    assert chromium.run('document.scrollingElement.scrollWidth') <= 390
    chromium.press('Enter')
    assert chromium.run(SHOWN) == ['failed', 'other']


def test_filters(page, chromium):
    chromium.open(page)
    assert len(chromium.run(SHOWN)) == 1000
    chromium.run("document.querySelector('.controls input').focus()")
    chromium.press(*'finet b')
    assert chromium.run(SHOWN) == ['finished']
    assert chromium.run("document.querySelector('.controls output').value") == '1 of 1000 shown'
    chromium.open(page)
    chromium.run("document.querySelector('[data-filter=kind]').focus()")
    chromium.press(*'abl')  # letters choose an option
    assert chromium.run(SHOWN) == ['ablation']


def test_sorting_by_keys(page, chromium):
    chromium.open(page)
    chromium.run("document.querySelector('[data-sort=score]').focus()")
    chromium.press('Enter')
    assert chromium.run("document.querySelector('[data-sort=score]').closest('th').ariaSort") == 'descending'
    scores = chromium.run("[...document.querySelectorAll('.runs > tbody > tr')].map((row) => row.dataset.score)")
    known = [float(score) for score in scores if score]
    assert known == sorted(known, reverse=True)
    assert '' not in scores[: len(known)]
    chromium.press('Enter')
    assert chromium.run("document.querySelector('[data-sort=score]').closest('th').ariaSort") == 'ascending'
