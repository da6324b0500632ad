"""Our end of the scripts that run in the environment of the peers: a line of JSON asks, a line of JSON answers."""

import json
import subprocess
from pathlib import Path
from typing import Any

from backbones import UserError


class Peer:
    """A process of another Python.

    Args:
        python: of an environment with ``requirements.txt``.
        script: its file in this directory.
        settings: its first line, which has no answer; ``None``: it has none.

    Raises:
        UserError: there is no such Python, or the process ends instead of answering; it has said why.
    """

    def __init__(self, python: Path, script: str, settings: dict[str, Any] | None = None):
        self._python = python
        command = [python, Path(__file__).with_name(script)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise UserError(f'--peers {python}: {error.strerror}; `make bench` installs the environment') from None
        if settings is not None:
            self._say(settings)

    def ask(self, question: object) -> Any:
        """The answer to a question."""
        self._say(question)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise self._ended()
        return json.loads(answer)

    def _say(self, line: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line) + '\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> UserError:
        return UserError(
            f'the process of --peers {self._python} ended with status {self._process.wait()}, for the reason above; '
            f'`make bench` installs what it needs (benchmarks/peers/requirements.txt)'
        )


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
