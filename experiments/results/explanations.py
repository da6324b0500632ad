"""Explanations in a work directory, as ``experiments.explain`` wrote them: pictures with what they show."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.cli import json_files

DIRECTORY = 'explanations'
FILE = 'explanations.json'
# Changes when an older reader would misread the file.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Entry:
    """One picture.

    Attributes:
        file: the picture.
        title: what was done.
        caption: what each method shows.
        header: what the columns are: the image, then each model.
        rows: what each row says, for readers who do not see the picture.
        command: the command that wrote it.
        size: width and height of the picture in pixels.
    """

    file: Path
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    command: str
    size: tuple[int, int]


def read_documents(workdir: Path) -> list[dict[str, Any]]:
    """The entries as they are stored; none where there are none, or a newer version or somebody else wrote the file."""
    try:
        document = json_files.parse((workdir / DIRECTORY / FILE).read_text())
        return list(document['explanations']) if document['version'] <= VERSION else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def read(workdir: Path) -> list[Entry]:
    """The entries whose pictures are there, the latest first."""
    found = []
    for each in reversed(read_documents(workdir)):
        file = workdir / DIRECTORY / Path(str(each.get('picture', ''))).name
        if file.is_file():
            found.append(
                Entry(
                    file,
                    each.get('title', ''),
                    each.get('caption', ''),
                    tuple(each.get('header', ())),
                    tuple(map(tuple, each.get('rows', ()))),
                    each.get('command', ''),
                    (each.get('width', 0), each.get('height', 0)),
                )
            )
    return found
