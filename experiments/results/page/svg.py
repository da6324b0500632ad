"""Plots as SVG text: scales, axes and marks, enough for the figures of the page.

A ``Plot`` is a frame with two scales. Its methods return markup of marks, and ``render`` the whole drawing:

    plot = Plot('Accuracy against labels', x=Scale.covering([10, 1000], 'log'), y=Scale(0, 1), x_label='labels')
    plot.render(plot.line([(10, 0.5), (1000, 0.9)], series=0), plot.marker(10, 0.5, series=0, title='10 labels: 50 %'))

Colours are classes (``series0`` …), which the style sheet defines for light and dark; each series has a shape as well.
A mark's ``title`` is its tooltip, and says everything that its place says.
"""

import dataclasses
from collections.abc import Callable, Sequence

from experiments.results.page.markup import Child, Markup, element, shortened
from experiments.results.page.scales import Scale
from experiments.results.page.shapes import SHAPES, marker_path, number

# Number of colours in the style sheet; a further series repeats the first, with another shape.
COLOURS = 8


@dataclasses.dataclass(frozen=True)
class Plot:
    """A frame with two scales; sizes are in pixels of the drawing, which grows and shrinks with the page.

    Attributes:
        title: what is shown, for readers who do not see it; the caption of the figure is visible instead.
        x: the scale from left to right.
        y: the scale from bottom to top.
        description: the finding, in a sentence, for readers who do not see it.
        x_label: title of the axis; empty for none.
        y_label: title of the axis; empty for none.
        x_ticks: number and label of each tick; ``None`` for those of the scale.
        y_ticks: as ``x_ticks``.
        x_format: label of a tick of the scale.
        y_format: as ``x_format``.
        x_rotated: whether the labels of the x axis stand upright, for many or long ones.
        y_down: whether y grows downwards, as rows of a matrix do.
        grid: whether ticks have lines across the frame.
        links: whether marks are links, so that the keyboard reaches them.
    """

    title: str
    x: Scale
    y: Scale
    description: str = ''
    x_label: str = ''
    y_label: str = ''
    width: float = 640
    height: float = 380
    left: float = 60
    right: float = 16
    top: float = 12
    bottom: float = 48
    x_ticks: Sequence[tuple[float, str]] | None = None
    y_ticks: Sequence[tuple[float, str]] | None = None
    x_format: Callable[[float], str] = '{:g}'.format
    y_format: Callable[[float], str] = '{:g}'.format
    x_rotated: bool = False
    y_down: bool = False
    grid: bool = True
    links: bool = False

    def across(self, value: float) -> float:
        """Pixels from the left of the drawing."""
        return self.left + self.x.place(value) * (self.width - self.left - self.right)

    def down(self, value: float) -> float:
        """Pixels from the top of the drawing."""
        place = self.y.place(value)
        return self.top + (place if self.y_down else 1 - place) * (self.height - self.top - self.bottom)

    def marker(
        self,
        x: float,
        y: float,
        series: int = 0,
        title: str = '',
        *,
        shape: str | None = None,
        size: float = 4.5,
        hollow: bool = False,
        href: str | None = None,
        **attributes: object,
    ) -> Markup:
        """A point.

        Args:
            x: on the x scale.
            y: on the y scale.
            series: its colour, and its shape unless ``shape`` says otherwise.
            title: its tooltip.
            shape: one of ``SHAPES``.
            size: half of its width in pixels.
            hollow: whether only its outline is drawn.
            href: an anchor of the page that it leads to, such as ``#row-3``.
            attributes: of its element.
        """
        kind = f'mark series{series % COLOURS}{" hollow" if hollow else ""}'
        path = marker_path(shape or SHAPES[series % len(SHAPES)], self.across(x), self.down(y), size)
        drawn = element('path', _title(title), d=path, class_=kind, **({} if href else attributes))
        return element('a', drawn, href=href, **attributes) if href else drawn

    def line(self, points: Sequence[tuple[float, float]], series: int | None = 0, kind: str = '') -> Markup:
        """A line through points; ``series=None`` for one in grey, and ``kind`` for further classes."""
        colour = 'neutral' if series is None else f'series{series % COLOURS}'
        return element('path', d=self._path(points), class_=f'line {colour} {kind}'.strip())

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], series: int | None = 0
    ) -> Markup:
        """The area between two lines."""
        colour = 'neutral' if series is None else f'series{series % COLOURS}'
        outline = [*zip(xs, lows, strict=True), *reversed(list(zip(xs, highs, strict=True)))]
        return element('path', d=f'{self._path(outline)}Z', class_=f'band {colour}')

    def interval(
        self, x: float, low: float, high: float, series: int | None = 0, *, horizontal: bool = False, cap: float = 3
    ) -> Markup:
        """An error bar from ``low`` to ``high``; ``horizontal`` for one along the x axis, where ``x`` is its y."""
        colour = 'neutral' if series is None else f'series{series % COLOURS}'
        if horizontal:
            y, ends = self.down(x), (self.across(low), self.across(high))
            path = f'M{number(ends[0])},{number(y)}H{number(ends[1])}'
            caps = ''.join(f'M{number(end)},{number(y - cap)}v{number(2 * cap)}' for end in ends)
        else:
            place, ends = self.across(x), (self.down(low), self.down(high))
            path = f'M{number(place)},{number(ends[0])}V{number(ends[1])}'
            caps = ''.join(f'M{number(place - cap)},{number(end)}h{number(2 * cap)}' for end in ends)
        return element('path', d=path + caps, class_=f'interval {colour}')

    def cell(
        self,
        left: float,
        right: float,
        low: float,
        high: float,
        strength: float,
        title: str = '',
        label: Child = None,
        kind: str = 'heat',
    ) -> Markup:
        """A field of a matrix or a bar of a histogram.

        Args:
            left: its left side, on the x scale.
            right: its right side.
            low: one end on the y scale.
            high: the other end.
            strength: 0 for the colour of the page, 1 for the full colour.
            title: its tooltip.
            label: text within it.
            kind: classes; the style sheet knows ``heat`` and ``series0`` ….
        """
        xs, ys = sorted((self.across(left), self.across(right))), sorted((self.down(low), self.down(high)))
        box = element(
            'rect', _title(title), x=number(xs[0]), y=number(ys[0]), width=number(xs[1] - xs[0]),
            height=number(ys[1] - ys[0]), class_=f'cell {kind}', fill_opacity=number(min(max(strength, 0.0), 1.0)),
        )  # fmt: skip
        if label is None:
            return box
        text = element(
            'text', label, x=number(sum(xs) / 2), y=number(sum(ys) / 2), dy='.35em', class_='middle inside',
            data_strong=strength > 0.55,
        )  # fmt: skip
        return Markup(box + text)

    def text(
        self, x: float, y: float, label: str, *, dx: float = 0, dy: float = 0, kind: str = '', most: int = 36
    ) -> Markup:
        """A text at a place, moved by pixels; ``kind`` may be ``end`` or ``middle`` for its anchor."""
        return element(
            'text',
            shortened(label, most),
            x=number(self.across(x) + dx),
            y=number(self.down(y) + dy),
            class_=kind or None,
        )

    def render(self, *marks: Child) -> Markup:
        """The drawing: axes, then the marks in their order."""
        # Long labels beside the frame would not fit in larger letters.
        fits = self.width <= 600 and self.left <= 80 and not self.x_rotated
        return drawing(
            self.title, self.width, self.height, self._axes(), marks,
            description=self.description, links=self.links, fits=fits,
        )  # fmt: skip

    def _path(self, points: Sequence[tuple[float, float]]) -> str:
        places = [f'{number(self.across(x))},{number(self.down(y))}' for x, y in points]
        return f'M{"L".join(places)}' if places else ''

    def _axes(self) -> Markup:
        bottom, right = self.height - self.bottom, self.width - self.right
        x_ticks = self.x_ticks
        if x_ticks is None:
            x_ticks = [(tick, self.x_format(tick)) for tick in self.x.ticks()]
        y_ticks = self.y_ticks
        if y_ticks is None:
            y_ticks = [(tick, self.y_format(tick)) for tick in self.y.ticks()]
        grid = [f'M{number(self.across(tick))},{number(self.top)}V{number(bottom)}' for tick, _ in x_ticks]
        grid += [f'M{number(self.left)},{number(self.down(tick))}H{number(right)}' for tick, _ in y_ticks]
        parts = [element('path', d=''.join(grid), class_='grid')] if self.grid and grid else []
        for tick, label in x_ticks:
            place = self.across(tick)
            if self.x_rotated:
                turned = f'translate({number(place)},{number(bottom + 8)}) rotate(-90)'
                parts.append(element('text', shortened(label, 30), transform=turned, dy='.35em', class_='tick end'))
            else:
                parts.append(
                    element('text', shortened(label, 30), x=number(place), y=number(bottom + 17), class_='tick middle')
                )
        parts += [
            element(
                'text',
                shortened(label, 44),
                x=number(self.left - 8),
                y=number(self.down(tick)),
                dy='.35em',
                class_='tick end',
            )
            for tick, label in y_ticks
        ]
        frame = f'M{number(self.left)},{number(self.top)}V{number(bottom)}H{number(right)}'
        parts.append(element('path', d=frame, class_='frame'))
        if self.x_label:
            middle = (self.left + right) / 2
            parts.append(
                element('text', self.x_label, x=number(middle), y=number(self.height - 8), class_='label middle')
            )
        if self.y_label:
            turned = f'translate(14,{number((self.top + bottom) / 2)}) rotate(-90)'
            parts.append(element('text', self.y_label, transform=turned, class_='label middle'))
        return element('g', parts, class_='axes', aria_hidden='true' if self.links else None)


def drawing(
    title: str,
    width: float,
    height: float,
    *children: Child,
    description: str = '',
    links: bool = False,
    fits: bool = False,
    **attributes: object,
) -> Markup:
    """An ``svg`` element.

    Args:
        title: its name for screen readers.
        width: in pixels.
        height: in pixels.
        children: what is drawn.
        description: what it shows, for screen readers.
        links: whether it is a group of links instead of a picture.
        fits: whether it becomes as narrow as the screen, with larger text; otherwise it scrolls in its box.
        attributes: of the element.
    """
    return element(
        'svg',
        element('title', title),
        element('desc', description) if description else None,
        children,
        viewBox=f'0 0 {number(width)} {number(height)}',
        class_='fit' if fits else None,
        style=f'--width:{number(width)}px',
        role='group' if links else 'img',
        aria_label=title,
        **attributes,
    )


def legend(entries: Sequence[tuple[int, str]], shapes: Sequence[str] | None = None) -> Markup:
    """A list of series with their colour and shape; ``shapes`` in the order of the entries, if not those of series."""
    items = []
    for index, (series, label) in enumerate(entries):
        shape = shapes[index] if shapes else SHAPES[series % len(SHAPES)]
        path = element('path', d=marker_path(shape, 8, 8, 5), class_=f'mark series{series % COLOURS}')
        key = element('svg', path, viewBox='0 0 16 16', class_='key', aria_hidden='true')
        items.append(element('li', key, element('bdi', shortened(label, 60))))
    return element('ul', items, class_='legend')


def shades(entries: Sequence[tuple[str, float]]) -> Markup:
    """A list of strengths of colour, as ``Plot.cell`` takes them, with what they mean."""
    items = []
    for label, strength in entries:
        box = element('rect', x=1, y=1, width=14, height=14, class_='cell heat', fill_opacity=number(strength))
        items.append(element('li', element('svg', box, viewBox='0 0 16 16', class_='key', aria_hidden='true'), label))
    return element('ul', items, class_='legend')


def _title(text: str) -> Markup | None:
    return element('title', text) if text else None
