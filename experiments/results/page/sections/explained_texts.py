"""Which tokens of texts the decisions hang on, as ``experiments.explain`` has found it for the work directories."""

from collections.abc import Sequence

from experiments.results import explanations
from experiments.results.explanations import ExplainedText, TextEntry
from experiments.results.page import markup
from experiments.results.page.content import Report
from experiments.results.page.markup import Markup, element
from experiments.results.visible_text import shown

# Texts of a work directory, and characters beyond the last token that are shown of each.
_MOST, _BEYOND = 20, 200
# Tokens of each text in the numbers of the figure, and characters on both sides of each.
_TOKENS, _AROUND = 10, 8


def figures(report: Report) -> list[Markup]:
    """A figure for the texts of each work directory and method."""
    found = [(workdir, entry) for workdir in report.workdirs for entry in explanations.read_texts(workdir)]
    several = len({workdir for workdir, _ in found}) > 1
    return [_figure(entry, workdir.resolve().name if several else '') for workdir, entry in found]


def _figure(entry: TextEntry, of: str) -> Markup:
    texts, more = entry.texts[:_MOST], len(entry.texts) - _MOST
    caption = [
        element('b', markup.name(entry.method), ', ' if of else None, markup.name(of) if of else None),
        f'. {explanations.TOKENS}',
        ' Grey: what the model does not read.' if any(each.read_and_beyond()[1] for each in texts) else None,
        f' {more:,} more texts are in the work directory.' if more > 0 else None,
    ]
    command = element('pre', element('code', entry.command), class_='command')
    numbers = [element('div', map(_numbers, texts), class_='panels'), command]
    cards = element('div', map(_card, texts), class_='explained')
    return element(
        'figure',
        element('figcaption', caption),
        cards,
        element('details', element('summary', 'Numbers of this figure'), numbers),
    )


def _card(each: ExplainedText) -> Markup:
    probability = f' {100 * each.probability:.1f}\u00a0%{each.cut_in_words()}'
    head = element('div', element('b', markup.name(each.name, 40)), probability)
    parts, beyond = each.read_and_beyond()
    marked = [text if share is None else _token(text, share) for text, share in parts]
    rest = element('span', markup.escaped(_cut(beyond)), class_='quiet') if beyond else None
    return element('div', head, element('p', marked, rest, class_='tokens', dir='auto'), class_='card text')


def _token(text: str, share: float) -> Markup:
    return element(
        'span', text, class_='for' if share > 0 else 'against', style=f'--s:{abs(share):.3f}', title=f'{share:+.2f}'
    )


def _cut(text: str) -> str:
    whole = shown(text)
    return whole if len(whole) <= _BEYOND else f'{whole[:_BEYOND]}…'


def _numbers(each: ExplainedText) -> Markup:
    """The strongest tokens of a text, the strongest first."""
    inside = [token for token in each.tokens if token.stop > token.start]
    strongest: Sequence[explanations.Token] = sorted(inside, key=lambda token: -abs(token.value))[:_TOKENS]
    rows = [
        [_in_context(each.text, token), 'for' if token.value > 0 else 'against',
         f'{token.value:+.3f}'.replace('-', '−')]
        for token in strongest
    ]  # fmt: skip
    title = element('p', markup.name(each.text, 60), ': ', element('b', markup.name(each.name, 40)), class_='note')
    table = markup.table(['token', 'speaks', 'by'], rows, numbers=1)
    return element('div', title, table)


def _in_context(text: str, token: explanations.Token) -> Markup:
    """A token between what surrounds it: one that is a letter says nothing alone."""
    before, after = text[max(0, token.start - _AROUND) : token.start], text[token.stop : token.stop + _AROUND]
    inside = element('b', markup.escaped(text[token.start : token.stop]))
    return element('bdi', element('span', before, class_='quiet'), inside, element('span', after, class_='quiet'))
