"""HTML and SVG elements as text: whatever is not markup already is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.results.visible_text import shown

# Elements that HTML writes without an end tag.
_VOID = {'br', 'col', 'hr', 'img', 'input', 'link', 'meta'}
# What an element may contain; an iterable is its items.
Child = str | float | None | Iterable[Any]


class Markup(str):
    """Text that is HTML or SVG and must not be escaped again."""

    __slots__ = ()


def escaped(child: Child) -> Markup:
    """A child of an element as markup; ``None`` is nothing, and a sequence is its items one after another."""
    if child is None:
        return Markup()
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return Markup(html.escape(shown(child)))
    return Markup(''.join(map(escaped, child)))


def element(tag: str, *children: Child, **attributes: object) -> Markup:
    """One element.

    Args:
        tag: its name.
        children: markup, and text, which is escaped.
        attributes: ``class_`` stands for ``class`` and ``data_key`` for ``data-key``; ``None`` and ``False`` leave an
            attribute out, and ``True`` gives it no value.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        text = '' if value is True else html.escape(shown(value))
        parts.append(f'{name.rstrip("_").replace("_", "-")}="{text}"')
    start = ' '.join(parts)
    inside = escaped(children)
    if tag in _VOID:
        return Markup(f'<{start}/>')
    return Markup(f'<{start}>{inside}</{tag}>')


def name(text: object, most: int = 0) -> Markup:
    """A name from outside, kept apart from the direction of the text around it.

    Args:
        text: the name.
        most: number of characters after which it is cut, with the whole as a tooltip; 0 for no cut.
    """
    whole = shown(text)
    if most and len(whole) > most:
        return element('bdi', shortened(whole, most), title=whole)
    return element('bdi', whole)


def shortened(text: object, most: int) -> str:
    """A text of at most ``most`` characters; what is left out in the middle is an ellipsis."""
    whole = shown(text)
    if len(whole) <= most:
        return whole
    end = (most - 1) // 3
    return f'{whole[: most - 1 - end]}…{whole[len(whole) - end :]}'


def table(header: Sequence[Child], rows: Iterable[Sequence[Child]], numbers: int = 0, **attributes: object) -> Markup:
    """A plain table in a box of its own that scrolls; the last ``numbers`` columns are aligned to the right.

    The first cell of a row is its header.
    """
    texts = len(header) - numbers

    def cells(row: Sequence[Child], tag: str) -> Markup:
        found = [
            element(
                'th' if tag == 'th' or not index else 'td',
                cell,
                class_='number' if index >= texts else None,
                scope='col' if tag == 'th' else None if index else 'row',
            )
            for index, cell in enumerate(row)
        ]
        return element('tr', found)

    head = element('thead', cells(header, 'th'))
    body = element('tbody', [cells(row, 'td') for row in rows])
    return element('div', element('table', head, body, **attributes), class_='scroll', tabindex=0)


def figure(drawing: Child, caption: Child, data: Child = None, **attributes: object) -> Markup:
    """A figure with its caption and, for those who do not see it, its numbers as a table that opens on demand."""
    numbers = element('details', element('summary', 'Numbers of this figure'), data) if data else None
    return element(
        'figure',
        element('figcaption', caption),
        element('div', drawing, class_='scroll', tabindex=0),
        numbers,
        **attributes,
    )


def choice(key: str, title: str, options: Sequence[tuple[str, Child]]) -> Markup:
    """Several contents of which the reader sees one, chosen by radio buttons; also without JavaScript.

    Args:
        key: begins the ids, and must be unique in the page.
        title: what is chosen.
        options: name and content of each; the first is shown at first. A single one is shown as it is.
    """
    if len(options) == 1:
        return element('div', options[0][1])
    parts: list[Child] = [element('legend', title)]
    for index, (label, content) in enumerate(options):
        anchor = f'{key}-{index}'
        parts += [
            element('input', type='radio', name=key, id=anchor, checked=not index),
            element('label', element('bdi', shortened(label, 60)), for_=anchor),
            element('div', content, class_='option'),
        ]
    return element('fieldset', parts, class_='choice')
