"""Tables for LaTeX: escaping, and pdfLaTeX itself where it is installed."""

import re
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experiments.results import aggregates, latex, tables
from tests.experiments import synthetic_results

HOSTILE = '\\input{/etc/passwd} $x_1^2$ % & # ~ {} <|> "a" `b\' -- ünï şž ß שלום 日本 \udcff\x1b\n\n– ± † × µ'
# A document that is as strict as a paper's: T1 or not, no package but booktabs.
DOCUMENT = r'\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}'


# What ``escaped`` may write beside letters, digits and harmless signs.
COMMANDS = re.compile(
    r'\\text[a-z]+\{(U\+[0-9A-F]{4,6}|\\dag)?\}'  # \textbackslash{}, \texttt{U+05E9}, \textsuperscript{\dag}
    r'|\\[`\'^"~=.uHvrck]\{[A-Za-z]\}'  # an accent
    r'|\\(ss|ae|o|l|dots)\{\}|\\[{}$&#_%]'
    r'|\$(\\pm|\\times|\\cdot|\\mu|-)\$'
    r'|(?<=-)\{\}(?=-)'
)


@given(st.text())
@example(HOSTILE)
def test_no_character_of_a_text_is_a_command(text):
    written = latex.escaped(text)
    assert written.isascii()
    assert '\n' not in written
    assert not set(COMMANDS.sub('', written)) & set('\\{}$&#_%^~')


def test_letters_and_signs():
    assert latex.escaped('50 % of a_b, é ş Å') == r'50 \% of a\_b, \'{e} \c{s} \r{A}'
    assert latex.escaped('90.8 ± 1.2 †') == r'90.8 $\pm$ 1.2 \textsuperscript{\dag}'
    assert latex.escaped('a--b') == 'a-{}-b'
    assert latex.escaped('日') == r'\texttt{U+65E5}'


def views(place, **changes):
    values = {'backbones': synthetic_results.BACKBONES[:2], 'fractions': (0.1, 1.0), 'test': 40, **changes}
    found = aggregates.load(synthetic_results.work_directory(place, **values))
    return [tables.view(found, name) for name in aggregates.datasets(found)]


def test_a_table_per_data_set(tmp_path):
    text = latex.tables(views(tmp_path))
    assert text.count(r'\begin{tabular}{lllrrrr}') == text.count(r'\end{table}') == 2
    lines = [line for line in text.splitlines() if line.endswith(r'\\')]
    assert {line.count('&') for line in lines} == {6}
    assert len(lines) == 2 * (1 + 4)
    assert r'hub:timm/resnet18' in text
    assert r'0.1 (400 images)' in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='pdflatex is not installed')
def test_pdflatex_compiles_it(tmp_path):
    hostile = views(
        tmp_path / 'work', datasets=((f'folder:{HOSTILE}', 1.0), ('pets', 1.0)), backbones=[(HOSTILE, 1000, 1.0, 0.1)],
        weights=HOSTILE, regimes=('linear', HOSTILE),
    )  # fmt: skip
    (tmp_path / 'table.tex').write_text(latex.tables([*hostile, *views(tmp_path / 'plain')]))
    (tmp_path / 'paper.tex').write_text(DOCUMENT)
    command = ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'paper.tex']
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors='replace')
    assert run.returncode == 0, run.stdout[-2000:]
    assert (tmp_path / 'paper.pdf').stat().st_size > 1000
