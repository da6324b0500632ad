"""Which of the ``exhaustive`` tests a commit runs: repetition is shared among twenty commits, each test by one of them.

A test belongs to a part by its own name, so that adding or removing another one does not move it.
"""

import zlib

PARTS = 20


def part_of_commit(commit: str) -> int:
    """Number of the part that a commit runs, from 0; any spelling of a commit's hash will do, but the same one."""
    return zlib.crc32(commit.strip().encode()) % PARTS


def part_of_test(node_id: str) -> int:
    """Number of the part that a test belongs to, from 0; ``node_id`` as pytest prints it, ``file::test[case]``."""
    return zlib.crc32(node_id.encode()) % PARTS
