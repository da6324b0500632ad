"""Execute the notebooks of this directory, on the rows in results/ and weights that are installed.

    python notebooks/execute.py                   make every NAME.ipynb again, from NAME.py, with its output
    python notebooks/execute.py --into DIRECTORY  leave the notebooks as they are, and write what they give now

A notebook is a pair (jupytext): NAME.py has its cells as text, which is what one edits and reviews, and NAME.ipynb the
same cells with output, to be read in a browser.
"""

import argparse
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from experiments.cli.display import console

HERE = Path(__file__).parent
SOURCES = sorted(file for file in HERE.glob('*.py') if file != Path(__file__))


def read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a file of text, without output; the same text gives the same notebook."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell['id'] = f'cell-{number}'  # as random ids would change at every execution
    return notebook


def _shrink(notebook: nbformat.NotebookNode) -> None:
    """Keep one encoding of each picture, the smaller one."""
    for cell in notebook.cells:
        for output in cell.get('outputs', ()):
            data = output.get('data', {})
            pictures = sorted((kind for kind in data if kind.startswith('image/')), key=lambda kind: len(data[kind]))
            for kind in pictures[1:]:
                del data[kind]


def main() -> None:
    """Execute in the notebooks' directory, as Jupyter does; an error in a cell ends with its traceback."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('--into', type=Path, default=HERE, metavar='DIRECTORY', help='directory of the output')
    into = arguments.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        notebook = read(source)
        client = NotebookClient(notebook, timeout=600, record_timing=False, resources={'metadata': {'path': str(HERE)}})
        client.execute()
        _shrink(notebook)
        file = into / f'{source.stem}.ipynb'
        nbformat.write(notebook, file)
        console.print(f'executed {source.name} → {file}')


if __name__ == '__main__':
    main()
