"""The other end of ``forward_pass.py``, in our environment."""

import json
import subprocess
from pathlib import Path


class Peers:
    """The process that runs the peers' passes; none without a Python that has them."""

    def __init__(self, python: Path | None):
        self._process = None
        if python is not None:
            script = Path(__file__).with_name('forward_pass.py')
            self._process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def prepare(self, name: str, batch: int, size: int) -> tuple[str, ...]:
        """The kinds that are ready."""
        if self._process is None:
            return ()
        return tuple(self._ask({'model': name, 'batch': batch, 'size': size}))

    def seconds(self, kind: str) -> float:
        """Of one pass."""
        return self._ask({'kind': kind})

    def _ask(self, question: dict):
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
