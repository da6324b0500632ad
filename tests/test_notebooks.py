"""A notebook and its text are a pair, and what it shows names no path of the machine that executed it."""

import re
from pathlib import Path

import nbformat
import pytest

from notebooks import execute

ROOT = Path(__file__).parent.parent


def test_every_text_has_its_notebook():
    assert {file.stem for file in execute.SOURCES} == {file.stem for file in execute.HERE.glob('*.ipynb')}


@pytest.mark.parametrize('source', execute.SOURCES, ids=lambda source: source.stem)
def test_a_notebook_has_the_cells_of_its_text(source):
    text, notebook = execute.read(source), nbformat.read(source.with_suffix('.ipynb'), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]


@pytest.mark.parametrize('source', execute.SOURCES, ids=lambda source: source.stem)
def test_a_notebook_names_no_path_of_a_machine(source):
    text = source.with_suffix('.ipynb').read_text()
    assert not re.search(r'(?<![\w.])/(home|root|tmp|Users|work)/', text)
    assert len(text) < 1e6
