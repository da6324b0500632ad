"""Reading the files of JSON that lie beside weights."""

import json
from pathlib import Path
from typing import TypeVar

from backbones.errors import UserError
from backbones.pretrained import links

T = TypeVar('T', dict, list)


def read(path: Path, kind: type[T]) -> T | None:
    """The object or the array in a file; ``None`` where there is no such file.

    Raises:
        UserError: it cannot be read, is not JSON, or is of another kind.
    """
    links.check(path)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text('utf-8'))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise UserError(f'{path} is not valid JSON: {error}') from None
    if not isinstance(content, kind):
        raise UserError(f'{path} holds a {type(content).__name__}, not a JSON {"object" if kind is dict else "array"}')
    return content
