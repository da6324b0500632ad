"""The page of a report in a real browser, where one is installed: how it opens, and what keys do."""

import time
from pathlib import Path

import pytest

from experiments import report
from tests.experiments import browser, synthetic_results
from tests.experiments.test_page_figures import explain, explained, texts_directory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.installed() is None, reason=f'no browser is installed (one of {browser.NAMES})'),
]
VIEWS = ((1280, 'light'), (1280, 'dark'), (390, 'light'), (390, 'dark'))
# Texts of one column of the lines that are visible.
COLUMN = """(title) => {
  const column = [...document.querySelectorAll('#lines thead th')].findIndex((each) => each.innerText.trim() === title);
  return [...document.querySelectorAll('#lines tbody tr')].filter((row) => !row.hidden).map(
    (row) => row.cells[column].textContent);
}"""
HEADING = "[...document.querySelectorAll('#lines thead th')].find((each) => each.innerText.trim() === {!r})"


@pytest.fixture(scope='module')
def page(tmp_path_factory) -> Path:
    """The page of 300 cells, written by the command."""
    place = synthetic_results.work_directory(tmp_path_factory.mktemp('browser') / 'ablation')
    report.main(['--workdir', str(place)])
    return place / 'report.html'


@pytest.fixture(scope='module')
def chromium():
    with browser.Browser() as opened:
        yield opened


@pytest.mark.parametrize(('width', 'theme'), VIEWS)
def test_it_opens_offline_without_a_message_and_fits_the_screen(page, chromium, width, theme, capsys):
    start = time.perf_counter()
    chromium.open(page, width, 844, theme)
    seconds = time.perf_counter() - start
    chromium.screenshot(page.with_name(f'{width}-{theme}.png'))
    wide, high = (chromium.run(f'document.scrollingElement.scroll{side}') for side in ('Width', 'Height'))
    size = page.stat().st_size
    with capsys.disabled():
        print(
            f'\n300 cells at {width} px, {theme}: {size / 1e6:.2f} MB, {len(chromium.messages)} console messages, '
            f'{len(chromium.requests) - 1} requests beyond the file, opened in {seconds:.2f} s, {wide} x {high} px, '
            f'{page.with_name(f"{width}-{theme}.png")}'
        )
    assert chromium.messages == []
    assert chromium.requests == [page.as_uri()]
    assert size < 5e6
    assert wide <= width
    background = chromium.run('getComputedStyle(document.body).backgroundColor')
    assert background == ('rgb(255, 255, 255)' if theme == 'light' else 'rgb(20, 23, 26)')
    # Every option of every choice, and what opens on demand.
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for index in range(chromium.run("document.querySelectorAll('.choice > input').length")):
        chromium.run(f"document.querySelectorAll('.choice > input')[{index}].click()")
        assert chromium.run('document.scrollingElement.scrollWidth') <= width
    assert chromium.messages == []


def test_sorting_by_keys(page, chromium):
    chromium.open(page)
    column = f'({COLUMN})("accuracy")'
    before = chromium.run(column)
    chromium.run(f"{HEADING.format('accuracy')}.querySelector('button').focus()")
    chromium.press('Enter')
    sort = f"{HEADING.format('accuracy')}.getAttribute('aria-sort')"
    assert chromium.run(sort) == 'descending'
    values = [float(text.split()[0]) for text in chromium.run(column)]
    assert values == sorted(values, reverse=True)
    assert sorted(values) == sorted(float(text.split()[0]) for text in before)
    chromium.press(' ')
    assert chromium.run(sort) == 'ascending'
    assert [float(text.split()[0]) for text in chromium.run(column)] == values[::-1]
    chromium.press('Enter')
    assert chromium.run(sort) == 'none'
    assert chromium.run(column) == before


def test_filtering_by_keys(page, chromium):
    chromium.open(page)
    assert chromium.run("document.getElementById('shown').value") == '100 lines'
    chromium.run("document.getElementById('search').focus()")
    chromium.press(*'dino lin')
    backbones = chromium.run(f'({COLUMN})("backbone")')
    assert set(backbones) == {'dinov2_small'}
    assert (
        chromium.run("document.getElementById('shown').value") == f'{len(backbones)} of 100 lines' == '10 of 100 lines'
    )
    assert chromium.run("document.querySelectorAll('svg a.dim').length") > 0
    chromium.run("document.querySelector('#controls select:nth-of-type(1)').focus()")
    chromium.press(*'vit')  # letters choose an option
    assert chromium.run("document.getElementById('shown').value") == '0 of 100 lines'
    chromium.run("document.querySelector('#controls button[type=reset]').focus()")
    chromium.press('Enter')
    assert (
        chromium.run("new Promise((done) => setTimeout(() => done(document.getElementById('shown').value)))")
        == '100 lines'
    )
    assert chromium.run("document.querySelectorAll('svg a.dim').length") == 0


def test_columns_can_be_chosen(page, chromium):
    chromium.open(page)
    heading = "[...document.querySelectorAll('#lines thead th')].find((each) => each.textContent === 'nll')"
    box = "[...document.querySelectorAll('.chooser label')].find((each) => each.textContent === 'nll').firstChild"
    assert chromium.run(f'getComputedStyle({heading}).display') == 'none'
    chromium.run("document.querySelector('.chooser summary').focus()")
    chromium.press('Enter')
    chromium.run(f'{box}.focus()')
    chromium.press(' ')
    assert chromium.run(f'getComputedStyle({heading}).display') == 'table-cell'


def test_the_menu_of_columns_stays_in_the_window(page, chromium):
    for width in (1280, 800, 390):
        chromium.open(page, width)
        chromium.run("document.querySelector('.chooser summary').click()")
        box = chromium.run(
            """new Promise((done) => setTimeout(() => {
              const box = document.querySelector('.chooser > div').getBoundingClientRect();
              done([box.left, box.right]);
            }, 50))"""
        )
        assert 0 <= box[0] < box[1] <= width


def test_a_narrow_screen_shows_scores_and_whole_figures(page, chromium):
    chromium.open(page, 390)
    heading = HEADING.format('accuracy')
    assert chromium.run(f'{heading}.getBoundingClientRect().right') <= 390
    wide = """[...document.querySelectorAll('#intervals svg')].filter((each) => each.checkVisibility()).map(
      (each) => each.getBoundingClientRect().right)"""
    assert len(ends := chromium.run(wide)) == 1
    assert ends[0] <= 390


def test_the_table_of_results_fits_a_wide_screen(page, chromium):
    chromium.open(page, 1280)
    sizes = "((box) => [box.scrollWidth, box.clientWidth])(document.querySelector('.tall'))"
    assert len({*chromium.run(sizes)}) == 1


def test_a_command_is_shown_whole_and_can_be_copied(page, chromium):
    page.with_name('command.txt').write_text(f'python -m experiments.ablate {"--config.some_key=value " * 20}\n')
    report.main(['--workdir', str(page.parent)])
    for width in (1280, 390):
        chromium.open(page, width)
        sizes = "((box) => [box.scrollWidth, box.clientWidth])(document.querySelector('pre.command'))"
        assert len({*chromium.run(sizes)}) == 1
    chromium.run("document.querySelector('.copy').click()")
    done = "new Promise((done) => setTimeout(() => done(document.querySelector('.copy').textContent), 100))"
    assert chromium.run(done) in ('Copied', 'Selected')


def test_a_point_leads_to_its_line(page, chromium):
    chromium.open(page)
    assert chromium.run('document.querySelectorAll(\'#cost svg:first-of-type a[tabindex="0"]\').length') > 0
    chromium.run('document.querySelector(\'#cost svg[role=group] a[tabindex="0"]\').focus({ focusVisible: true })')
    names = [chromium.run("document.activeElement.getAttribute('aria-label')")]
    chromium.press('ArrowRight')
    names.append(chromium.run("document.activeElement.getAttribute('aria-label')"))
    assert names[0] != names[1]
    assert chromium.run("document.getElementById('tip').textContent") == names[1]
    target = chromium.run("document.activeElement.getAttribute('href')")
    chromium.press('Enter')
    assert chromium.run('location.hash') == target
    assert chromium.run(f"document.querySelector('{target}').matches(':target')")
    assert chromium.run(f"document.querySelector('{target} th').textContent") in names[1]


def test_the_first_tab_skips_to_the_content(page, chromium):
    chromium.open(page)
    chromium.press('Tab')
    assert chromium.run('document.activeElement.className') == 'skip'
    chromium.press('Enter')
    assert chromium.run('location.hash') == '#content'


@pytest.fixture(scope='module')
def text_page(tmp_path_factory) -> Path:
    """The page of a head that mistakes texts, of which two are explained."""
    place, texts = texts_directory(tmp_path_factory.mktemp('browser') / 'texts')
    words = [(at, at + 5, value) for at, value in ((0, 1.0), (6, -1.0), (13, 0.5))]
    explain(place, explained(texts[25], *words), explained('a short one', (0, 1, -1.0)))
    report.main(['--workdir', str(place)])
    return place / 'report.html'


@pytest.mark.parametrize(('width', 'theme'), VIEWS)
def test_texts_fit_the_screen_and_are_legible(text_page, chromium, width, theme):
    chromium.open(text_page, width, theme=theme)
    chromium.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    chromium.screenshot(text_page.with_name(f'{width}-{theme}.png'))
    assert chromium.messages == []
    assert chromium.run('document.scrollingElement.scrollWidth') <= width
    overflowing = (
        "[...document.querySelectorAll('.card.text')].filter((each) => each.scrollWidth > each.clientWidth).length"
    )
    assert chromium.run(overflowing) == 0
    pairs = chromium.run(
        """(() => {
          const canvas = new OffscreenCanvas(1, 1).getContext('2d');
          const seen = (...colours) => {
            canvas.clearRect(0, 0, 1, 1);
            colours.forEach((each) => { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); });
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          return [...document.querySelectorAll('.tokens span, .card.text > .quiet, .excerpt .more')].map((each) => {
            const ground = getComputedStyle(each.closest('.card')).backgroundColor;
            const style = getComputedStyle(each);
            return [seen(style.color), seen(ground, style.backgroundColor)];
          });
        })()"""
    )
    assert len(pairs) > 10
    assert all(contrast(text, ground) >= 4.5 for text, ground in pairs)


def test_a_long_text_opens_by_keys(text_page, chromium):
    chromium.open(text_page)
    height = "document.querySelector('details.excerpt').getBoundingClientRect().height"
    closed = chromium.run(height)
    chromium.run("document.querySelector('details.excerpt summary').focus()")
    chromium.press('Enter')
    assert chromium.run(height) > closed
    assert chromium.run("getComputedStyle(document.querySelector('details.excerpt .more')).display") == 'none'


def test_the_theme_is_remembered(page, chromium):
    chromium.open(page, theme='light')
    chromium.run("document.getElementById('theme').focus()")
    chromium.press('Enter')
    assert chromium.run("document.getElementById('theme').textContent") == 'Light'
    chromium.open(page, theme='light')
    assert chromium.run('getComputedStyle(document.body).backgroundColor') == 'rgb(20, 23, 26)'
    chromium.run('localStorage.clear()')


def test_texts_have_enough_contrast(page, chromium):
    """WCAG 2.1, 1.4.3: 4.5 for text; and 1.4.11: 3 for what is drawn."""
    for theme in ('light', 'dark'):
        chromium.open(page, theme=theme)
        colours = chromium.run(
            """(() => {
              const probe = document.body.appendChild(document.createElement('i'));
              const names = ['page', 'raised', 'text', 'quiet', 'accent', 'warning', 'wash',
                ...[0, 1, 2, 3, 4, 5, 6, 7].map((each) => `series${each}`)];
              return Object.fromEntries(names.map((name) => {
                probe.style.color = `var(--${name})`;
                return [name, getComputedStyle(probe).color.match(/[0-9]+/g).map(Number)];
              }));
            })()"""
        )
        for name in ('text', 'quiet', 'accent', 'warning'):
            assert contrast(colours[name], colours['page']) >= 4.5, (theme, name)
        for text, ground in (('text', 'raised'), ('quiet', 'raised'), ('accent', 'wash'), ('text', 'wash')):
            assert contrast(colours[text], colours[ground]) >= 4.5, (theme, text, ground)
        for series in range(8):
            assert contrast(colours[f'series{series}'], colours['page']) >= 3, (theme, series)


def contrast(one: list[int], other: list[int]) -> float:
    def luminance(colour: list[int]) -> float:
        shares = [each / 255 for each in colour]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
