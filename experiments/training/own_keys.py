"""Errors about a config in terms of the keys that its command has, and keys that nothing reads."""

import contextlib
import re
from collections.abc import Callable, Generator, Iterable

import ml_collections

from backbones.errors import ImageSizeError, UserError
from experiments.training import regimes
from experiments.training.config import KEYS

_NAMED = re.compile(r"(?P<before>config key '?|--config\.)(?P<key>\w+(\.\w+)*)")


@contextlib.contextmanager
def named(rename: Callable[[str], str] = str) -> Generator[None]:
    """Raise a ``UserError`` again with its keys as the user can set them.

    A size of images that a backbone does not take is one of the config: options of the backbone are none of its keys.

    Args:
        rename: from a key of a training (``config.KEYS``) to the key that the command has for it.
    """
    try:
        yield
    except UserError as error:
        text = str(error)
        if isinstance(error, ImageSizeError):
            text = f'{error.problem}; set {" or ".join(_setting(*size) for size in error.sizes)}'

        def renamed(found: re.Match) -> str:
            key = found['key']
            return found['before'] + (rename(key) if key in KEYS else key)

        text = _NAMED.sub(renamed, text)
        if text == str(error):
            raise
        raise UserError(text) from None


def _setting(height: int, width: int) -> str:
    """The arguments of a command for images of this size."""
    square = '' if height == width else f' --config.image_height={height}'
    return f'--config.image_size={width}{square}'


def unread(config: ml_collections.ConfigDict, names: Iterable[str], before: str = '') -> list[str]:
    """A sentence on each key that has another value than its default, though none of the regimes reads it.

    Args:
        config: of a training.
        names: of the regimes that are run with it.
        before: what precedes its keys, such as ``'training.'``.
    """
    names = tuple(names)
    run = {name.partition(':')[0] for name in names}
    return [
        f'config key {before + key!r} is {config[key]!r}, but it is only for {", ".join(readers)}, and the '
        f'regime{"" if len(names) == 1 else "s"} {"is" if len(names) == 1 else "are"} {", ".join(names)}; leave it at '
        f'{KEYS[key].default!r}'
        for key, readers in regimes.READERS.items()
        if config[key] != KEYS[key].default and run.isdisjoint(readers)
    ]
