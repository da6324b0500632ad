"""Which of the ``exhaustive`` tests a commit runs: repetition is shared among five commits, each test by one of them.

A test belongs to a fifth by its own name, so that adding or removing another one does not move it.
"""

import zlib

FIFTHS = 5


def fifth_of_commit(commit: str) -> int:
    """Number of the fifth that a commit runs, from 0; any spelling of a commit's hash will do, but the same one."""
    return zlib.crc32(commit.strip().encode()) % FIFTHS


def fifth_of_test(node_id: str) -> int:
    """Number of the fifth that a test belongs to, from 0; ``node_id`` as pytest prints it, ``file::test[case]``."""
    return zlib.crc32(node_id.encode()) % FIFTHS
