"""Our end of the scripts that run in the environment of the peers: a line of JSON asks, a line of JSON answers."""

import json
import subprocess
from pathlib import Path
from typing import Any


class Peer:
    """A process of another Python.

    Args:
        python: of an environment with ``requirements.txt``.
        script: its file in this directory.
        settings: its first line, which has no answer; ``None``: it has none.
    """

    def __init__(self, python: Path, script: str, settings: dict[str, Any] | None = None):
        command = [python, Path(__file__).with_name(script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if settings is not None:
            self._say(settings)

    def ask(self, question: object) -> Any:
        """The answer to a question."""
        self._say(question)
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _say(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + '\n')
        self._process.stdin.flush()


class ForwardPasses:
    """Passes of ``forward_pass.py``; none without a Python that has the peers."""

    def __init__(self, python: Path | None):
        self._peer = None if python is None else Peer(python, 'forward_pass.py')

    def prepare(self, name: str, batch: int, size: int) -> tuple[str, ...]:
        """The kinds that are ready."""
        return () if self._peer is None else tuple(self._peer.ask({'model': name, 'batch': batch, 'size': size}))

    def seconds(self, kind: str) -> float:
        """Of one pass."""
        assert self._peer is not None, 'nothing is ready without peers'
        return self._peer.ask({'kind': kind})
