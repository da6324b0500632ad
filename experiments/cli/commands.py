"""The commands that computed what is in a work directory: ``command.txt``, a line for each."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from backbones.errors import UserError
from experiments.cli.atomic_files import atomic_write

FILE = 'command.txt'
# What a shell expands between double quotes; '!' at its prompt only.
_EXPANDED = frozenset('$`"\\!')
_ESCAPES = str.maketrans({'\\': r'\\', "'": r'\'', '\n': r'\n', '\r': r'\r'})


def of_this_process(without: str = '') -> str:
    """The command line that started this process; empty if it did not start a module of this project.

    Args:
        without: an option that takes a value and is left out with it.
    """
    module = getattr(sys.modules['__main__'], '__spec__', None)
    if module is None or not module.name.startswith('experiments.'):
        return ''
    given = sys.argv[1:]
    arguments = [
        text
        for text, before in zip(given, ['', *given], strict=False)
        if not without or (without not in (text, before) and not text.startswith(f'{without}='))
    ]
    return joined(['python', '-m', module.name, *arguments])


def joined(arguments: Sequence[str]) -> str:
    """A command in one line that bash and zsh read as these arguments."""
    return ' '.join(map(_quoted, arguments))


def _quoted(text: str) -> str:
    if '\n' in text or '\r' in text:
        return f"$'{text.translate(_ESCAPES)}'"
    # Within single quotes, each single quote of a config's tuple of names would become five characters.
    return f'"{text}"' if "'" in text and not _EXPANDED & {*text} else shlex.quote(text)


def record(path: Path, without: str = '', keep: bool = True) -> None:
    """Add the command that started this process to those of a work directory, as the last one; each is there once.

    Args:
        path: the work directory.
        without: see ``of_this_process``.
        keep: whether the earlier ones stay, which have computed something.

    Raises:
        OSError: the file cannot be written; the earlier one is intact.
    """
    command, earlier = of_this_process(without), read(path)
    commands = [*(each for each in earlier if keep and each != command), command]
    if not command or commands == earlier:
        return
    with atomic_write(path / FILE) as stream:
        stream.writelines(f'{each}\n' for each in commands)


def read(path: Path) -> list[str]:
    """The commands of a work directory, in the order of their last runs; the last one set its config.

    Earlier versions kept that one alone, or none.

    Raises:
        UserError: the file cannot be read.
    """
    file = path / FILE
    try:
        text = file.read_text(encoding='utf-8', errors='surrogateescape')
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f'{file} cannot be read ({error.strerror or error}); remove it') from None
    return [line for line in text.split('\n') if line.strip()]
