"""A name that orbax takes as it is, for a directory whose own name it would take for something else.

Orbax looks for files with ``glob``, and so takes ``[1]`` in a path for a pattern; tensorstore below it takes a
backslash for a slash, ``gs:`` for a bucket, and refuses names that are not UTF-8.
"""

import contextlib
import re
import tempfile
from collections.abc import Generator
from pathlib import Path

from backbones.errors import UserError

_PLAIN = re.compile(r'[\w./-]*', re.ASCII)


@contextlib.contextmanager
def plain(directory: Path) -> Generator[Path]:
    """Name a directory by letters, digits and ``_./-`` only: by its own path, or by a link that lasts as the context.

    Args:
        directory: an absolute path; the directory need not exist.

    Raises:
        UserError: a link is needed, and there is no place for it.
    """
    if _PLAIN.fullmatch(str(directory)):
        yield directory
        return
    with contextlib.ExitStack() as contexts:
        try:
            folder = Path(contexts.enter_context(tempfile.TemporaryDirectory(prefix='checkpoints-'))).resolve()
            link = folder / 'link'
            link.symlink_to(directory)
        except OSError as error:
            raise UserError(_refusal(directory, f'cannot be made in {tempfile.gettempdir()!r} ({error})')) from None
        if not _PLAIN.fullmatch(str(folder)):
            raise UserError(_refusal(directory, f'would be in {str(folder)!r}'))
        yield link


def _refusal(directory: Path, why: str) -> str:
    characters = ' '.join(dict.fromkeys(_PLAIN.sub('', str(directory))))
    return (
        f'{str(directory)!r} needs a link, because checkpoints cannot be kept under a name with {characters!r}, and it '
        f'{why}; choose a directory named by letters, digits and _./- only, or set TMPDIR to one'
    )
