"""The beginning of a text, and the rest of a longer one on demand; also without JavaScript."""

from experiments.results.page.markup import Markup, element
from experiments.results.visible_text import shown

# Characters that are seen at once; a text that is only a little longer is shown whole.
SHORT, SPARED = 300, 60
# Characters back from there in which a cut between words is looked for.
_WORD = 40


def excerpt(text: str) -> Markup:
    """A text as people read it: its lines, its own direction, and every character visible."""
    whole = shown(text).strip()
    if not whole:
        return element('p', 'empty', class_='excerpt quiet')
    if len(whole) <= SHORT + SPARED:
        return element('p', whole, class_='excerpt', dir='auto')
    cut = _cut(whole)
    return element(
        'details',
        element(
            'summary',
            element('span', whole[:cut].rstrip()),
            element('wbr'),
            element('span', f'… {len(whole) - cut:,} more characters', class_='more'),
        ),
        element('span', whole[cut:].lstrip()),
        class_='excerpt',
        dir='auto',
    )


def _cut(text: str) -> int:
    """Where it is cut: between words, if there is such a place."""
    space = max(text.rfind(each, SHORT - _WORD, SHORT) for each in ' \n\t')
    return space if space > 0 else SHORT
