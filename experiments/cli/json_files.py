"""JSON files of work directories, which people copy, edit and damage: read, or refused with what is wrong."""

import json
from pathlib import Path
from typing import Any

from backbones.errors import UserError

_KINDS = {list: 'list', str: 'text', int: 'number', float: 'number', bool: 'truth value', type(None): 'null'}


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, is nested deeper than Python reads it, or a text in it holds half of a surrogate
            pair, which cannot be written. Escaped bytes of paths that are not UTF-8 can.
    """
    try:
        found = json.loads(text)
        if '\\u' in text:
            json.dumps(found, ensure_ascii=False).encode('utf-8', 'surrogateescape')
    except RecursionError:
        raise ValueError('it is nested too deep') from None
    except UnicodeEncodeError as error:
        raise ValueError(f'it contains the half character {error.object[error.start]!r}') from None
    return found


def parse_object(text: str) -> dict[str, Any]:
    """The same, for an object.

    Raises:
        ValueError: see ``parse``, or it is another value.
    """
    found = parse(text)
    if not isinstance(found, dict):
        raise ValueError(f'it is a JSON {_KINDS[type(found)]}, expected an object')
    return found


def read(file: Path, advice: str) -> dict[str, Any] | None:
    """The JSON object in a file; ``None`` if there is no such file.

    Args:
        file: the file.
        advice: what mends a file that cannot be read.

    Raises:
        UserError: it is a directory, may not be read, or is no JSON object.
    """
    text = _text(file, 'strict', advice)
    try:
        return None if text is None else parse_object(text)
    except ValueError as error:
        raise UserError(f'{file} is not a JSON file of a run ({error}); {advice}') from None


def lines(file: Path, advice: str) -> list[tuple[int, str]]:
    """Number, from 1, and text of the lines of a file that are not empty; none if there is no such file.

    A damaged byte makes only its line unreadable, not the file.

    Raises:
        UserError: it is a directory, or may not be read.
    """
    text = _text(file, 'replace', advice) or ''
    # Not splitlines(), which also ends a line at characters that may stand in a JSON text.
    return [(number, line) for number, line in enumerate(text.split('\n'), 1) if line.strip()]


def _text(file: Path, errors: str, advice: str) -> str | None:
    try:
        return file.read_text(encoding='utf-8', errors=errors)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f'{file} cannot be read ({error.strerror or error}); {advice}') from None
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is not a JSON file of a run ({error}); {advice}') from None
