"""Files and records that cannot be read, or used: named, counted, and skipped up to a limit."""

import re
from collections.abc import Sequence

from backbones.errors import UserError, listed
from experiments.cli import display

BadRecords = Sequence[tuple[str, str]]


def reason(error: Exception, name: str = '') -> str:
    """Why reading failed, in one line, without the file's ``name`` (shown next to it) or a stream's address."""
    text = re.sub('<[^<>]* object at 0x[0-9a-f]+>', 'record', ' '.join(str(error).split()))
    return (text.replace(name, 'file') if name else text) or type(error).__name__


def sentence(bad: BadRecords, what: str, how: str = 'read') -> str:
    """The number of bad records and the first few of them, as a sentence.

    Args:
        bad: ``(name, reason)`` of each.
        what: their total and location, such as ``"of 20 files in 'flowers'"``.
        how: what cannot be done with them: they can be ``'read'`` or ``'used'``.
    """
    shown = listed((f'{name}: {why}' for name, why in bad), 5, '; ')
    return f'{len(bad)} {what} cannot be {how} ({shown})'


def skipped(bad: BadRecords, what: str) -> str:
    """The end of a sentence, such as ``'; 1 unreadable file skipped'``; nothing if all were read."""
    return f'; {len(bad)} unreadable {what}{"" if len(bad) == 1 else "s"} skipped' if bad else ''


def by_reason(bad: BadRecords) -> dict[str, tuple[str, ...]]:
    """Names by reason, for the account of a data set."""
    found: dict[str, list[str]] = {}
    for name, why in bad:
        found.setdefault(f'unreadable, {why}', []).append(name)
    return {why: tuple(names) for why, names in found.items()}


def check_limit(bad: BadRecords, what: str, limit: int, how: str = 'read') -> None:
    """Refuse more bad records than the limit; arguments are those of ``sentence``.

    Raises:
        UserError: the limit is exceeded; the first few are named.
    """
    if len(bad) > limit:
        raise UserError(f'{sentence(bad, what, how)}; at most {limit} are skipped (config key bad_files_limit)')


def report(bad: BadRecords, what: str, limit: int) -> None:
    """Print what is skipped.

    Raises:
        UserError: there are more than ``limit``.
    """
    check_limit(bad, what, limit)
    if bad:
        display.console.print(f'skipped: {sentence(bad, what)}', style='yellow', soft_wrap=True)
