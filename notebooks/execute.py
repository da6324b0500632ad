"""Execute every notebook in this directory on a finished quickstart and write copies with their output.

python notebooks/execute.py OUTPUT_DIRECTORY
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from experiments.cli.display import console


def main() -> None:
    """Execute in the notebooks' directory, as Jupyter does; an error in a cell ends with its traceback."""
    here = Path(__file__).parent
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(here.glob('*.ipynb')):
        notebook = nbformat.read(file, as_version=4)
        NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(here)}}).execute()
        nbformat.write(notebook, output / file.name)
        console.print(f'executed {file.name} → {output / file.name}')


if __name__ == '__main__':
    main()
