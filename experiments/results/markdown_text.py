"""Texts from outside in Markdown: what GitHub's dialect would take for markup is escaped, and nothing else.

Names, classes and errors stay as readable in the file as they are in the page that is made of it.
"""

import re
from collections.abc import Iterable, Sequence

from experiments.results.visible_text import shown

_PUNCTUATION = r'!-/:-@\[-`{-~'
_MARKUP = re.compile(
    '|'.join(
        (
            # Bold and slanted type, code, formulas, strikes, and borders of cells.
            r'[*`$~|]',
            # Between letters, as in resnet_micro, it is no markup.
            r'(?<![^\W_])_|_(?![^\W_])',
            # HTML, which a renderer may drop, and its characters by name; "< 0.001" and "a & b" are none.
            r'<(?=[A-Za-z/!?])|&(?=\#?\w+;)',
            # The target of a link, after its text.
            r'(?<=\])[(\[]',
            # An escape.
            rf'\\(?=[{_PUNCTUATION}])',
        )
    )
)


class Markdown(str):
    """Text that is Markdown and must not be escaped again."""

    __slots__ = ()


def escaped(text: str) -> Markdown:
    """A text, in one line, of which Markdown shows every character."""
    if isinstance(text, Markdown):
        return text
    return Markdown(_MARKUP.sub(r'\\\g<0>', ' '.join(shown(text).splitlines())))


def bold(text: str) -> Markdown:
    """A text in bold type."""
    return Markdown(f'**{escaped(text)}**')


def table(header: Sequence[str], rows: Iterable[Sequence[str]], labels: int) -> list[str]:
    """The lines of a table whose first columns, as many as there are labels, stand to the left."""

    def line(texts: Sequence[str]) -> str:
        return f'| {" | ".join(map(escaped, texts))} |'

    return [line(header), f'|{"---|" * labels}{"---:|" * (len(header) - labels)}', *map(line, rows)]
