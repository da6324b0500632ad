"""The page: one HTML file without any other, which opens offline and reads without JavaScript.

A section is a function ``(Report) -> markup | None`` in a module of ``sections``, and a row of ``SECTIONS`` here; with
``None`` the report has nothing for it and the section is left out. Inside a section, headings begin at ``h3``, ids
begin with the section's, and every text from outside goes through ``markup`` (which escapes it). Figures are drawn with
``svg`` and wrapped in ``markup.figure``, with their numbers as a table.
"""

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.results.page import markup
from experiments.results.page.content import Report
from experiments.results.page.markup import Markup, element
from experiments.results.page.sections import (
    across_datasets,
    comparison,
    configuration,
    confusion,
    corruptions,
    cost,
    curves,
    detection_curves,
    explained_images,
    learning,
    mistakes,
    reliability,
    results,
    summary,
    trained,
)

ASSETS = Path(__file__).parent / 'assets'


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its anchor.
        title: its heading.
        build: makes its content, or ``None``.
    """

    key: str
    title: str
    build: Callable[[Report], Markup | None]


SECTIONS = (
    Section('summary', 'Summary', summary.section),
    Section('results', 'Results', results.section),
    Section('cost', 'Score against cost', cost.section),
    Section('intervals', 'Intervals', comparison.intervals),
    Section('significance', 'Significance', comparison.significance),
    Section('across', 'Across data sets', across_datasets.section),
    Section('labels', 'Score against labels', curves.labels),
    Section('settings', 'Score against settings', curves.settings),
    Section('learning', 'Learning curves', learning.section),
    Section('confusion', 'Confusion', confusion.section),
    Section('precision', 'Precision and recall', detection_curves.section),
    Section('reliability', 'Reliability', reliability.section),
    Section('corruptions', 'Corruptions', corruptions.section),
    Section('mistakes', 'Mistakes', mistakes.section),
    Section('looking', 'Looking into the backbones', explained_images.section),
    Section('trained', 'What trained', trained.section),
    Section('configuration', 'Configuration', configuration.section),
)


def html(report: Report) -> str:
    """The page of a report."""
    built = [(section, section.build(report)) for section in SECTIONS]
    present = [(section, content) for section, content in built if content is not None]
    return document(title(report), subtitle(report), [(each.key, each.title, content) for each, content in present])


def title(report: Report) -> str:
    """Names of the work directories."""
    names = [workdir.resolve().name for workdir in report.workdirs]
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def subtitle(report: Report) -> Markup:
    """When and from how many rows the page was made."""
    when = element(
        'time', f'{report.written:%Y-%m-%d %H:%M %Z}'.strip(), datetime=report.written.isoformat('T', 'minutes')
    )
    return markup.escaped([f'{len(report.rows):,} result{"" if len(report.rows) == 1 else "s"} · ', when])


def document(
    heading: str, under: Markup, sections: Sequence[tuple[str, str, Markup]], extra: Sequence[str] = ()
) -> str:
    """An HTML document with the style and the script of the page.

    The policy in its head permits nothing else: no request, and no script that is not the page's own.

    Args:
        heading: title of the document.
        under: a line under the heading.
        sections: anchor, title and content of each; one without a title has no heading.
        extra: names of further styles and scripts of ``assets``.
    """
    style = ''.join((ASSETS / f'{name}.css').read_text() for name in ('page', *extra))
    script = ''.join((ASSETS / f'{name}.js').read_text() for name in ('page', *extra))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        'head',
        element('meta', charset='utf-8'),
        element('meta', http_equiv='Content-Security-Policy', content=policy),
        element('meta', name='viewport', content='width=device-width, initial-scale=1'),
        element('meta', name='color-scheme', content='light dark'),
        element('link', rel='icon', href='data:,'),
        element('title', heading),
        element('style', Markup(style)),
        element('script', Markup(script)),
    )
    named = [(key, name) for key, name, _ in sections if name]
    contents = element(
        'nav', element('ul', [element('li', element('a', name, href=f'#{key}')) for key, name in named]),
        aria_label='Sections',
    )  # fmt: skip
    toggle = element('button', 'Dark', type='button', id='theme', hidden=True)
    body = element(
        'body',
        element('a', 'Skip to the content', href='#content', class_='skip'),
        element(
            'header',
            element('div', element('h1', markup.name(heading)), toggle),
            element('p', under),
            contents if named else None,
        ),
        element(
            'main',
            [
                element('section', element('h2', name) if name else None, content, id=key, aria_labelledby=None)
                for key, name, content in sections
            ],
            id='content',
        ),
        element('div', id='tip', role='status', aria_live='polite', hidden=True),
    )
    return f'<!DOCTYPE html>\n{element("html", head, body, lang="en")}\n'
