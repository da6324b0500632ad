"""A hub on the loopback: as much of huggingface.co's protocol as its client needs to fetch a repository.

As there, small files are answered at once and named as git does; weights are answered with a redirection to another
host, where they are named by their SHA-256. Xet is not offered, so that the client fetches over HTTP.
"""

import dataclasses
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = ('.safetensors', '.bin')


@dataclasses.dataclass
class Repository:
    """Commits, what they hold, and who may read it.

    Attributes:
        commits: commit → name → content.
        revisions: branch or tag → commit.
        readers: the tokens that may fetch files; ``None`` for everyone. As on the hub, its list of files is open.
    """

    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    revisions: dict[str, str] = dataclasses.field(default_factory=dict)
    readers: set[str] | None = None

    def push(self, files: Mapping[str, bytes], revision: str = 'main') -> str:
        """A new commit of these files; its name."""
        text = json.dumps([revision, {name: blob(content) for name, content in files.items()}, len(self.commits)])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.revisions[revision] = commit
        return commit


@dataclasses.dataclass
class Fault:
    """What goes wrong with requests.

    Attributes:
        at: pattern of ``METHOD PATH``.
        times: for how many requests.
        status: answered instead, with ``headers`` and ``body``.
        cut: number of bytes of the content after which the connection is cut off.
        reset: whether it is cut off by a reset, as a firewall does, and not closed.
        unsized: whether it is not said how long the content is.
        silent: whether there is no answer at all.
        change: what becomes of the content on its way.
    """

    at: str
    times: int = 1_000
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b''
    cut: int | None = None
    reset: bool = False
    unsized: bool = False
    silent: bool = False
    change: Callable[[bytes], bytes] = bytes


@dataclasses.dataclass(frozen=True)
class Request:
    """What the client asked: ``METHOD PATH``, with which token, and for which part."""

    line: str
    token: str
    range: str


class Hub:
    """Repositories, faults, and the requests so far; a server's state."""

    def __init__(self, address: str, elsewhere: str):
        self.address, self.elsewhere = address, elsewhere
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.closing = threading.Event()

    def fault(self, line: str) -> Fault | None:
        found = next((each for each in self.faults if each.times and re.search(each.at, line)), None)
        if found is not None:
            found.times -= 1
        return found

    def lines(self, pattern: str = '') -> list[str]:
        """The requests so far that match, without commits and addresses of content."""
        lines = [re.sub(r'[0-9a-f]{40,64}', '*', request.line) for request in self.requests]
        return [line for line in lines if re.search(pattern, line)]


def blob(content: bytes) -> str:
    """How git names a content."""
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub, until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = urlsplit(self.path).path
            line = f'{self.command} {path}'
            if path == '/api/agent-harnesses':  # which the client asks for on its own account
                return self.send(404)
            token = self.headers.get('Authorization', '').removeprefix('Bearer ')
            hub.requests.append(Request(line, token, self.headers.get('Range', '')))
            fault = hub.fault(line) or Fault('')
            if fault.reset:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            if fault.silent:
                hub.closing.wait(10)
                return None
            if fault.status:
                return self.send(fault.status, fault.body, *fault.headers)
            if found := re.fullmatch(r'/api/models/(\w+/\w+)/(revision|tree|refs)(?:/(.+))?', path):
                return self.describe(found[1], found[2], unquote(found[3] or ''), token, fault)
            if found := re.fullmatch(r'/(\w+/\w+)/resolve/([^/]+)/(.+)', path):
                return self.resolve(found[1], unquote(found[2]), unquote(found[3]), token, fault)
            if found := re.fullmatch(r'/content/(\w+)', path):
                return self.content(found[1], fault)
            return self.send(404)

        do_HEAD = do_GET  # noqa: N815

        def repository(self, name: str, token: str) -> Repository | None:
            repository = hub.repositories.get(name)
            if repository is None and token:
                self.send(404, b'', ('X-Error-Code', 'RepoNotFound'), ('X-Error-Message', 'Repository not found'))
            elif repository is None:
                self.send(401, b'', ('X-Error-Message', 'Invalid username or password.'))
            return repository

        def describe(self, name: str, question: str, revision: str, token: str, fault: Fault) -> None:
            repository = self.repository(name, token)
            if repository is None:
                return
            if question == 'refs':
                branches = [
                    {'name': each, 'ref': f'refs/heads/{each}', 'targetCommit': commit}
                    for each, commit in repository.revisions.items()
                ]
                self.json({'branches': branches, 'converts': [], 'tags': []}, fault)
                return
            commit = repository.revisions.get(revision, revision)
            if commit not in repository.commits:
                self.send(404, b'', ('X-Error-Code', 'RevisionNotFound'), ('X-Error-Message', 'Invalid rev id'))
            elif question == 'revision':
                self.json({'id': name, 'sha': commit, 'private': False}, fault)
            else:
                self.json([entry(*each) for each in repository.commits[commit].items()], fault)

        def resolve(self, name: str, revision: str, file: str, token: str, fault: Fault) -> None:
            repository = self.repository(name, token)
            if repository is None:
                return
            commit = repository.revisions.get(revision, revision)
            content = repository.commits.get(commit, {}).get(file)
            if repository.readers is not None and token not in repository.readers:
                told = f'Access to model {name} is restricted.'
                self.send(403 if token else 401, b'', ('X-Error-Code', 'GatedRepo'), ('X-Error-Message', told))
            elif content is None:
                self.send(404, b'', ('X-Error-Code', 'EntryNotFound'), ('X-Repo-Commit', commit))
            elif file.endswith(LARGE):
                size = () if fault.unsized else (('X-Linked-Size', str(len(content))),)
                self.send(
                    302,
                    b'',
                    ('X-Repo-Commit', commit),
                    *size,
                    ('X-Linked-Etag', f'"{sha256(content)}"'),
                    ('Location', f'{hub.elsewhere}/content/{sha256(content)}'),
                )
            else:
                self.pour(content, fault, ('X-Repo-Commit', commit), ('ETag', f'"{blob(content)}"'))

        def content(self, name: str, fault: Fault) -> None:
            contents = (
                content
                for repository in hub.repositories.values()
                for files in repository.commits.values()
                for content in files.values()
            )
            self.pour(next(content for content in contents if sha256(content) == name), fault)

        def pour(self, content: bytes, fault: Fault, *headers: tuple[str, str]) -> None:
            """Send a content, or the rest of it that was asked for."""
            if self.command == 'GET':
                content = fault.change(content)
            wanted = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', ''))
            if wanted is None:
                self.send(200, content, *headers, most=fault.cut, unsized=fault.unsized)
                return
            begin, end = int(wanted[1]), min(int(wanted[2] or len(content)) + 1, len(content))
            part = f'bytes {begin}-{end - 1}/{len(content)}'
            self.send(206, content[begin:end], *headers, ('Content-Range', part), most=fault.cut)

        def json(self, content: object, fault: Fault) -> None:
            self.send(200, json.dumps(content).encode(), ('Content-Type', 'application/json'), most=fault.cut)

        def send(
            self,
            status: int,
            content: bytes = b'',
            *headers: tuple[str, str],
            most: int | None = None,
            unsized: bool = False,
        ) -> None:
            self.send_response(status)
            for header, value in (*headers, *(() if unsized else (('Content-Length', str(len(content))),))):
                self.send_header(header, value)
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(content[:most])

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def shutdown_request(self, request):
            self.close_request(request)  # no end of the stream before it, so that a reset is one

        def handle_error(self, *_):
            """The client went away, as one that lost its patience does."""

    with Server(('127.0.0.1', 0), Handler) as server:
        # Another name is another host: what the client sends to one is not meant for the other.
        hub = Hub(f'http://127.0.0.1:{server.server_port}', f'http://localhost:{server.server_port}')
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()


def entry(name: str, content: bytes) -> dict:
    """A file in a list of files."""
    told = {'type': 'file', 'path': name, 'size': len(content), 'oid': blob(content)}
    large = {'lfs': {'oid': sha256(content), 'size': len(content), 'pointerSize': 134}}
    return told | large if name.endswith(LARGE) else told
