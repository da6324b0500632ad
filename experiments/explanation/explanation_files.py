"""The files that are written of explanations, and what the page of a work directory embeds of them."""

import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.cli import atomic_files
from experiments.results import explanations

# Side of a cell in the sheet of all images and in the picture of each.
SHEET_CELL, IMAGE_CELL = 256, 384
# What the page embeds: rows of a sheet, side of a cell, and the most bytes of a picture.
PAGE_ROWS, PAGE_CELL, PAGE_BYTES = 6, 200, 250_000
# Rows of a sheet; further images have pictures of their own alone.
SHEET_ROWS = 40


def key(method: str | None, stage: str | None, target: str | None) -> str:
    """The name of a set of explanations in a work directory; the same options replace it."""
    parts = [method or 'usual', stage or '', target or '']
    return '-'.join(''.join(c if c.isalnum() else '_' for c in part) for part in parts if part)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG.

    Raises:
        UserError: it cannot be written.
    """
    with (
        atomic_files.os_errors_as_user_errors(lambda: 'the pictures before it are written'),
        atomic_files.atomic_write(path, 'wb') as stream,
    ):
        picture.save(stream, format='png')


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write the numbers.

    Raises:
        UserError: they cannot be written.
    """
    with atomic_files.os_errors_as_user_errors(lambda: 'the pictures are written'):
        atomic_files.write_json(path, value)


def write_for_page(workdir: Path, name: str, picture: Image.Image, about: Mapping[str, Any]) -> Path:
    """Write what the page embeds: a picture of at most ``PAGE_BYTES``, and its entry among the explanations.

    Args:
        workdir: whose page it is.
        name: see ``key``.
        picture: a sheet.
        about: the fields of ``explanations.Entry`` but the picture.

    Returns:
        The picture's file.

    Raises:
        UserError: it cannot be written.
    """
    directory = workdir / explanations.DIRECTORY
    entries = [each for each in explanations.read_documents(workdir) if each['picture'] != f'{name}.jpg']
    with atomic_files.os_errors_as_user_errors(lambda: 'the other pictures are written'):
        with atomic_files.atomic_write(directory / f'{name}.jpg', 'wb') as stream:
            stream.write(_compressed(picture))
        entry = {**about, 'picture': f'{name}.jpg', 'width': picture.width, 'height': picture.height}
        atomic_files.write_json(
            directory / explanations.FILE, {'version': explanations.VERSION, 'explanations': [*entries, entry]}
        )
    return directory / f'{name}.jpg'


def _compressed(picture: Image.Image) -> bytes:
    """A JPEG of the best quality that is small enough."""
    for quality in (88, 80, 70, 55, 40):
        stream = io.BytesIO()
        picture.save(stream, format='jpeg', quality=quality, optimize=True, progressive=True)
        if stream.tell() <= PAGE_BYTES:
            break
    return stream.getvalue()


def command(argv: Sequence[str]) -> str:
    """The command that writes the same again."""
    return f'python -m experiments.explain {shlex.join(argv)}'
