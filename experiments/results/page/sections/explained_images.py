"""What the backbones look at, as ``experiments.explain`` has drawn it into the work directories."""

import base64

from experiments.results import explanations
from experiments.results.page import markup
from experiments.results.page.content import Report
from experiments.results.page.markup import Markup, element
from experiments.results.page.sections import explained_texts

# Bytes of all pictures together, as the page holds them; the latest come first.
_BUDGET = 1_000_000


def section(report: Report) -> Markup | None:
    """Texts with their tokens; and each picture once, with what its methods show, and what it says as a table."""
    figures = explained_texts.figures(report)
    seen: set[str] = set()
    left, more = _BUDGET, 0
    for workdir in report.workdirs:
        for entry in explanations.read(workdir):
            try:
                data = base64.b64encode(entry.file.read_bytes()).decode()
            except OSError:
                continue
            if data in seen:  # of several models, each work directory has it
                continue
            seen.add(data)
            if len(data) > left:
                more += 1
                continue
            left -= len(data)
            figures.append(_figure(entry, data))
    if not figures:
        return None
    note = f'{more:,} more in the work directories, which the page has no room for.' if more else None
    return markup.escaped([*figures, element('p', note, class_='note') if note else None])


def _figure(entry: explanations.Entry, data: str) -> Markup:
    width, height = entry.size
    picture = element(
        'img',
        src=f'data:image/jpeg;base64,{data}',
        alt=f'{entry.title}; the table below says what each row shows',
        width=width or None,
        height=height or None,
        loading='lazy',
    )
    command = element('pre', element('code', entry.command), tabindex=0)
    told = [markup.table(list(entry.header), [list(map(markup.name, row)) for row in entry.rows]), command]
    return markup.figure(picture, [element('strong', markup.name(entry.title)), '. ', entry.caption], told)
