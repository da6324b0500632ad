"""A real browser for tests of pages: Chromium without a window, over the pipe of its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
# Seconds that a slow machine may take for one answer.
PATIENCE = 120
# The browser expects its pipe as descriptors 3 and 4. Another process moves them there: a function between fork and
# exec of this one would be called among JAX's threads.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
# Key → its code and the text that it types.
KEYS = {'Enter': (13, '\r'), ' ': (32, ' '), 'Tab': (9, ''), 'ArrowRight': (39, ''), 'ArrowLeft': (37, '')}


def installed() -> str | None:
    """The browser's command, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. ``events`` has what the browser reported since the page was opened."""

    def __init__(self):
        own_end, self._output = os.pipe()
        self._input, other_end = os.pipe()
        # Out of the way of 3 and 4.
        ends = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (own_end, other_end)]
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            str(installed()), '--headless=new', '--remote-debugging-pipe', f'--user-data-dir={self._profile.name}',
            '--no-first-run', '--disable-gpu', '--hide-scrollbars', '--disable-background-networking',
            *(['--no-sandbox'] if os.geteuid() == 0 else []), 'about:blank',
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, '-c', LAUNCH, *map(str, ends), *command], pass_fds=ends, stderr=subprocess.DEVNULL
        )
        for each in (own_end, other_end, *ends):
            os.close(each)
        self._received, self._number, self._session = b'', 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.call(f'{domain}.enable')

    def __enter__(self) -> 'Browser':
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._output)
        os.close(self._input)
        self._profile.cleanup()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result."""
        self._number += 1
        message: dict[str, object] = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._output, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer['error']
                return answer['result']
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b'\0' not in self._received:
            ready, _, _ = select.select([self._input], [], [], PATIENCE)
            assert ready, f'the browser has not answered for {PATIENCE} s'
            more = os.read(self._input, 1 << 20)
            assert more, 'the browser has ended'
            self._received += more
        first, _, self._received = self._received.partition(b'\0')
        return json.loads(first)

    def open(self, file: Path, width: int = 1280, height: int = 900, theme: str = 'light') -> None:
        """Open a file and wait until it is loaded."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': theme}])
        self.events = []
        self.call('Page.navigate', url=file.as_uri())
        while not any(event.get('method') == 'Page.loadEventFired' for event in self.events):
            self.events.append(self._read())

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        result = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def press(self, *keys: str) -> None:
        """Press keys: names of ``KEYS``, or letters."""
        for key in keys:
            code, text = KEYS.get(key, (0, key))
            shared = {'key': key, 'windowsVirtualKeyCode': code}
            self.call('Input.dispatchKeyEvent', type='keyDown', text=text, **shared)
            self.call('Input.dispatchKeyEvent', type='keyUp', **shared)
        self.run('new Promise(requestAnimationFrame)')

    def screenshot(self, file: Path) -> None:
        """Save the whole page as a PNG."""
        picture = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture['data']))

    @property
    def messages(self) -> list[str]:
        """What the page wrote to the console, and its errors."""
        methods = ('Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded')
        return [json.dumps(event['params']) for event in self.events if event.get('method') in methods]

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for; what it contains itself is none."""
        asked = [event['params'] for event in self.events if event.get('method') == 'Network.requestWillBeSent']
        addresses = [each['request']['url'] for each in asked]
        return [address for address in addresses if not address.startswith('data:')]
