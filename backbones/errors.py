"""Errors whose message is meant for the person who launched the program."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message names the value, what was expected and the nearest valid choice; no traceback needed."""


def unknown(kind: str, value: object, choices: Iterable[str]) -> UserError:
    """An error for a name that is not among ``choices``, which offers the nearest ones."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(map(repr, near))}?' if near else f'valid choices: {", ".join(choices)}'
    return UserError(f'unknown {kind} {value!r}; {hint}')
