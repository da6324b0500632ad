r"""Tables of results for LaTeX: to ``\input`` into a paper that loads ``booktabs``.

Everything is written in ASCII, so that pdfLaTeX, XeLaTeX and LuaLaTeX take it with any fonts.
"""

import unicodedata
from collections.abc import Sequence

from experiments.results.tables import View
from experiments.results.visible_text import shown

_SPECIAL = {
    '\\': r'\textbackslash{}', '{': r'\{', '}': r'\}', '$': r'\$', '&': r'\&', '#': r'\#', '_': r'\_', '%': r'\%',
    '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': r'\textless{}', '>': r'\textgreater{}',
    '|': r'\textbar{}', '`': r'\textasciigrave{}', "'": r'\textquotesingle{}',
    '–': '--', '—': '---', '…': r'\dots{}', '±': r'$\pm$', '×': r'$\times$', '·': r'$\cdot$',
    '†': r'\textsuperscript{\dag}',
    '−': '$-$', '’': "'", '“': '``', '”': "''", 'µ': r'$\mu$', 'ß': r'\ss{}', 'æ': r'\ae{}', 'ø': r'\o{}', 'ł': r'\l{}',
}  # fmt: skip
# Combining accents and the commands that put them on a letter.
_ACCENTS = {
    '\u0300': '`', '\u0301': "'", '\u0302': '^', '\u0303': '~', '\u0304': '=', '\u0306': 'u', '\u0307': '.',
    '\u0308': '"', '\u030a': 'r', '\u030b': 'H', '\u030c': 'v', '\u0327': 'c', '\u0328': 'k',
}  # fmt: skip


def tables(views: Sequence[View]) -> str:
    """All tables, each a float with a caption and a label."""
    start = '% In the preamble: \\usepackage{booktabs}\n'
    return start + '\n'.join(_table(view, number) for number, view in enumerate(views, 1))


def escaped(text: str) -> str:
    """A text with every character as LaTeX writes it in ASCII; those that it has no command for by their code."""
    found = ''
    for character in unicodedata.normalize('NFC', shown(text)):
        if character in _SPECIAL:
            found += _SPECIAL[character]
        elif character.isspace():
            found += ' '
        elif character.isascii():
            # Two hyphens would become a dash.
            found += '{}-' if character == '-' and found.endswith('-') else character
        else:
            found += _accented(character) or rf'\texttt{{U+{ord(character):04X}}}'
    return found


def _accented(character: str) -> str | None:
    base, *marks = unicodedata.normalize('NFD', character)
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return rf'\{_ACCENTS[marks[0]]}{{{base}}}'
    return None


def _table(view: View, number: int) -> str:
    texts = len(view.labels)
    header = view.header
    # A page of a paper has no room for all costs.
    costs = ('parameters', f'GFLOP/{view.noun}')
    kept = [*range(texts + len(view.fractions)), *(header.index(title) for title in costs)]
    lines = []
    for row in view.rows:
        cells = [escaped(cell) for cell in view.cells(row)]
        for index, aggregate in enumerate(row, texts):
            if aggregate and aggregate.best:
                cells[index] = rf'\textbf{{{cells[index]}}}'
        lines.append(' & '.join(cells[index] for index in kept) + r' \\')
    titles = ' & '.join(escaped(header[index]) for index in kept) + r' \\'
    return '\n'.join(
        [
            r'\begin{table}',
            r'\centering',
            r'\small',
            rf'\caption{{Test {escaped(view.aggregates[0].metric)} in per cent on {escaped(view.dataset)}.}}',
            rf'\label{{tab:results-{number}}}',
            rf'\begin{{tabular}}{{{"l" * texts}{"r" * (len(kept) - texts)}}}',
            r'\toprule',
            titles,
            r'\midrule',
            *lines,
            r'\bottomrule',
            r'\end{tabular}',
            r'',
            rf'\smallskip\begin{{minipage}}{{\linewidth}}\footnotesize {escaped(view.note())}\end{{minipage}}',
            r'\end{table}',
            '',
        ]
    )
