"""huggingface_hub's own client against a hub on the loopback: what it fetches, what it keeps, and what is told."""

import json
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import hub_files
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hub_server import Fault, Hub, Repository, serving
from safetensors.numpy import save

import backbones
from backbones import UserError
from backbones.preprocessing import SMALL_IMAGES
from backbones.pretrained.description import KEY
from backbones.pretrained.hub import _patient_to_a_limit, cached, download
from experiments import train
from experiments.cli import command_line
from tests.backbones.test_parity import same_arrays
from tests.parity.text import texts

ROOT = Path(__file__).parents[2]
PROXIES = ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY')
TOKENS = ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN')
WEIGHTS = bytes(range(256)) * 1_000
FILES = {'config.json': b'{"architecture": "resnet18"}', 'model.safetensors': WEIGHTS, 'README.md': b'# A model'}
PAGE = b'<!doctype html><html><head><title>Sign in</title></head></html>'


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds ``org/name``, and an empty home of the client, as its environment variables would set them."""
    import huggingface_hub
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    home = tmp_path / 'home'
    for variable in (*PROXIES, *TOKENS):
        monkeypatch.delenv(variable, raising=False)
    with serving() as hub:
        settings = {
            'ENDPOINT': hub.address,
            'HUGGINGFACE_CO_URL_TEMPLATE': hub.address + '/{repo_id}/resolve/{revision}/{filename}',
            'HF_HUB_OFFLINE': False,
            'HF_HUB_CACHE': str(home / 'hub'),
            'HF_TOKEN_PATH': str(home / 'token'),
            'HF_STORED_TOKENS_PATH': str(home / 'stored_tokens'),
            'AGENT_HARNESSES_PATH': str(home / 'harnesses.json'),
            'DOWNLOAD_CHUNK_SIZE': 1
            << 16,  # bytes; the test's files have a few of these parts, as large ones of 10 MiB
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        # It waits for seconds before it tries again, and no setting of its own changes that.
        hasty = types.SimpleNamespace(**{**vars(time), 'sleep': lambda seconds: None})
        monkeypatch.setattr(file_download, 'time', hasty)
        monkeypatch.setattr(_http, 'time', hasty)
        hub.repositories['org/name'] = Repository()
        hub.repositories['org/name'].push(FILES)
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


def refused(name: str = 'org/name') -> str:
    """What is told where a repository cannot be had: one line, which begins with the source."""
    with pytest.raises(UserError) as caught:
        download(name)
    told = str(caught.value)
    assert '\n' not in told
    assert f'hf:{name}' in told
    return told


def kept(tmp_path: Path) -> set[str]:
    """Names of the files that the cache has a name for; a part of one, too."""
    blobs = tmp_path / 'home' / 'hub' / 'models--org--name' / 'blobs'
    parts = {path.name for path in blobs.glob('*.incomplete')}
    return parts | {path.name for path in blobs.glob('../snapshots/*/*') if path.exists()}


# --- What is fetched, and what is not. --------------------------------------------------------------------------------

FIRST = [
    'GET /api/models/org/name/revision/main',
    'GET /api/models/org/name/tree/*',
    'GET /content/*',
    'GET /org/name/resolve/*/config.json',
    'HEAD /org/name/resolve/*/config.json',
    'HEAD /org/name/resolve/*/model.safetensors',
]


def test_weights_of_a_repository(hub, tmp_path):
    """A second load asks only which commit is the newest; a new commit is fetched as far as it differs."""
    arrays = hub_files.resnet18()
    directory = hub_files.write_directory(tmp_path / 'published', arrays)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    hub.repositories['org/name'].push(files)

    def loaded(source) -> dict:
        return flatten_dict(backbones.load_weights('resnet18', source)[0], sep='/')

    expected = loaded(directory)
    assert same_arrays(loaded('hf:org/name'), expected)
    assert sorted(hub.lines()) == FIRST
    hub.requests.clear()
    download('org/name')
    assert hub.lines() == FIRST[:1]
    hub.requests.clear()
    hub_files.save_file({**arrays, 'conv1.weight': 2 * arrays['conv1.weight']}, directory / 'model.safetensors')
    hub.repositories['org/name'].push({**files, 'model.safetensors': (directory / 'model.safetensors').read_bytes()})
    kernel = 'params/stem_conv/kernel'
    assert same_arrays(loaded('hf:org/name'), {**expected, kernel: 2 * expected[kernel]})
    assert sorted(hub.lines()) == [line for line in FIRST if line != 'GET /org/name/resolve/*/config.json']


def test_revisions(hub):
    repository = hub.repositories['org/name']
    old = repository.push({**FILES, 'model.safetensors': b'old'}, 'refs/pr/1')
    repository.push(FILES)
    for revision, content in (('refs/pr/1', b'old'), (old, b'old'), ('main', WEIGHTS)):
        assert (download(f'org/name@{revision}') / 'model.safetensors').read_bytes() == content
    hub.requests.clear()
    download(f'org/name@{old}')
    assert hub.lines() == []  # a commit does not change


@pytest.mark.parametrize(
    ('others', 'fetched'),
    [
        ({'model.safetensors': b'1', 'another.safetensors': b'2', 'pytorch_model.bin': b'3'}, 'model.safetensors'),
        ({'pytorch_model.bin': b'3', 'training_args.bin': b'4', 'old/model.safetensors': b'5'}, 'pytorch_model.bin'),
        ({'a.safetensors': b'6', 'model.pth': b'7'}, 'a.safetensors'),
        ({'flax.npz': b'8', 'model.onnx': b'9'}, 'flax.npz'),
        ({'model.safetensors.index.json': b'{}', 'one.safetensors': b'1', 'two.safetensors': b'2'}, None),
    ],
)
def test_only_what_is_read_is_fetched(hub, tmp_path, others, fetched):
    hub.repositories['org/name'].push({'config.json': b'{}', **others})
    download('org/name')
    assert kept(tmp_path) == {'config.json', *([fetched] if fetched else others)}


# --- Connections that break off. --------------------------------------------------------------------------------------


def test_a_connection_that_is_cut_off_is_resumed(hub):
    hub.faults = [Fault('GET /content', 1, cut=200_000), Fault('GET /content', 1, cut=20_000)]
    assert (download('org/name') / 'model.safetensors').read_bytes() == WEIGHTS
    ranges = [request.range for request in hub.requests if request.line.startswith('GET /content')]
    assert ranges == ['', 'bytes=196608-', 'bytes=196608-']  # whole parts of 65,536 bytes are kept


@pytest.mark.parametrize(('fault', 'attempts'), [({}, 6), ({'reset': True}, 1)], ids=['closed', 'reset'])
def test_a_connection_that_stays_cut_off(hub, tmp_path, fault: dict, attempts: int):
    """The client keeps files that came whole, but no part of one."""
    hub.faults = [Fault('GET /content', cut=0, **fault)]
    told = refused()
    assert told.startswith(f'hf:org/name: the connection to the hub at {hub.address} (HF_ENDPOINT) broke off (')
    assert told.endswith('; run it again: files that have come whole are kept, and the rest is fetched')
    assert len(hub.lines('content')) == attempts
    assert kept(tmp_path) == {'config.json'}
    hub.faults.clear()
    hub.requests.clear()
    assert (download('org/name') / 'model.safetensors').read_bytes() == WEIGHTS
    assert sorted(hub.lines()) == [FIRST[0], 'GET /content/*', 'HEAD /org/name/resolve/*/model.safetensors']


@pytest.mark.parametrize(
    'fault',
    [Fault('revision', cut=5), Fault('revision', status=200, body=PAGE), Fault('revision', status=503)],
    ids=['cut off', 'a page of a proxy', 'failing'],
)
def test_the_cache_is_read_where_the_hub_does_not_answer(hub, fault):
    directory = download('org/name')
    hub.faults = [fault]
    assert download('org/name') == directory


@pytest.mark.parametrize('at', ['revision', 'tree', 'HEAD', 'content'])
def test_a_hub_that_does_not_answer(hub, monkeypatch, at: str):
    from huggingface_hub import constants, file_download

    hub.faults = [Fault(at, silent=True)]
    monkeypatch.setattr(constants, 'HF_HUB_ETAG_TIMEOUT', 0.05)
    monkeypatch.setattr(constants, 'HF_HUB_DOWNLOAD_TIMEOUT', 0.05)
    monkeypatch.setattr(file_download, '_ETAG_RETRY_TIMEOUT', 0.05)
    told = refused()
    assert f'the hub at {hub.address} (HF_ENDPOINT) does not answer (it was given 0.05 s for a question and' in told
    assert 'HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT change that' in told


def test_the_cache_is_read_where_the_hub_does_not_answer_in_time(hub, monkeypatch):
    from huggingface_hub import constants

    directory = download('org/name')
    hub.faults = [Fault('', silent=True)]
    monkeypatch.setattr(constants, 'HF_HUB_ETAG_TIMEOUT', 0.05)
    assert download('org/name') == directory


# --- What the hub refuses. --------------------------------------------------------------------------------------------


def test_a_revision_that_is_not_there(hub):
    hub.repositories['org/name'].push(FILES, 'v1.0')
    assert refused('org/name@v1.1') == ("hf:org/name@v1.1: the repository has no revision 'v1.1'; did you mean 'v1.0'?")
    assert refused(f'org/name@{"0" * 40}').endswith('; there are main, v1.0, and the full names of commits')
    hub.faults = [Fault('refs', status=500)]
    assert refused('org/name@v1.1').endswith(f'; {hub.address}/org/name/commits lists its branches, tags and commits')
    del hub.repositories['org/name'].revisions['main']
    assert "hf:org/name: the repository has no revision 'main'" in refused()


def test_a_repository_that_is_not_there(hub, monkeypatch):
    """Who has not logged in cannot see the private ones: the hub does not say which it is."""
    assert re.match(
        r'hf:org/nam: the hub at .* wants a login \(401\), as it also does where there is no such repository: check '
        r'its name; log in \(hf auth login\), or set HF_TOKEN',
        refused('org/nam'),
    )
    monkeypatch.setenv('HF_TOKEN', 'hf_good')
    assert "has no repository 'org/nam', or you have no access to it: check its name, or log in" in refused('org/nam')


def test_a_repository_without_weights(hub):
    hub.repositories['org/name'].push({'config.json': b'{}', 'data.csv': b'1'})
    told = refused()
    assert told.startswith(
        'hf:org/name holds no weights: expected one of weights.safetensors, model.safetensors, *.saf'
    )
    assert told.endswith(' at its top, and it holds config.json, data.csv')
    hub.repositories['org/name'].push({'README.md': b'', 'step-5/model.safetensors': WEIGHTS})
    assert refused().endswith('and it holds step-5/model.safetensors; fetch step-5/model.safetensors and give its path')
    assert not hub.lines('content')


def test_what_lies_beside_a_text_encoder(hub):
    """Its tokenizer, and how it pools; but no other weights than those at the top."""
    wanted = ['1_Pooling/config.json', 'config.json', 'model.safetensors', 'modules.json', 'sentence_bert_config.json']
    wanted += ['tokenizer.json', 'tokenizer_config.json']
    others = ['onnx/config.json', 'onnx/model.safetensors', 'openvino/tokenizer.json', 'vocab.txt']
    hub.repositories['org/name'].push({name: FILES.get(name, b'{}') for name in (*wanted, *others)})
    directory = download('org/name', texts=True)
    assert sorted(str(path.relative_to(directory)) for path in directory.rglob('*') if path.is_file()) == wanted
    assert cached('org/name', 'tokenizer.json') == directory / 'tokenizer.json'


def weights_with(**metadata: str) -> bytes:
    """A file of weights larger than the beginning that is asked for."""
    return save({'weight': np.zeros(100_000, np.float32)}, metadata)


def test_what_lies_beside_weights_is_fetched_without_them(hub, tmp_path):
    """Of the weights, the beginning is asked for: a training of ours keeps there what its weights expect."""
    files = {'config.json': b'{"model_type": "bert"}', 'tokenizer.json': texts.word_piece().encode()}
    hub.repositories['org/name'].push({**files, 'model.safetensors': weights_with()})
    for _ in range(2):
        assert backbones.preprocess('hf:org/name', 'bert_base').tokenizer == texts.word_piece()
    assert kept(tmp_path) == set(files)
    assert {request.range for request in hub.requests if 'content' in request.line} == {'bytes=0-100000'}
    download('org/name')
    hub.requests.clear()
    backbones.preprocess('hf:org/name', 'bert_base')
    assert hub.lines() == FIRST[:1]  # what is here needs no question


def test_no_tokenizer_is_fetched_for_images(hub, tmp_path):
    """Image towers of SigLIP 2 have one of tens of megabytes beside them."""
    published = hub_files.write_directory(tmp_path / 'published', hub_files.resnet18())
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    hub.repositories['org/name'].push({**files, 'tokenizer.json': b'{}', 'tokenizer_config.json': b'{}'})
    expected = backbones.preprocess(str(published))
    assert backbones.preprocess('hf:org/name') == expected
    assert kept(tmp_path) == {'config.json'}
    assert backbones.load_weights('resnet18', 'hf:org/name')[1].preprocessing == expected
    assert kept(tmp_path) == set(files)


@pytest.mark.parametrize('name', ['model.safetensors', 'a.safetensors', 'weights.safetensors'])
def test_weights_that_hold_a_description_are_fetched_for_it(hub, tmp_path, name: str):
    description = backbones.Description('resnet18', SMALL_IMAGES)
    content = weights_with(**{KEY: json.dumps(description.as_json())})
    hub.repositories['org/name'].push({'config.json': b'{}', name: content})
    assert backbones.preprocess('hf:org/name') == SMALL_IMAGES
    assert kept(tmp_path) == {'config.json', name}


def test_weights_with_nothing_beside_them(hub, tmp_path):
    hub.repositories['org/name'].push({'model.pth': b'1'})
    with pytest.raises(UserError, match='hf:org/name does not say what its weights expect; pass the backbone'):
        backbones.preprocess('hf:org/name')
    assert not kept(tmp_path)


def test_a_part_of_a_download_does_not_hide_that_there_are_no_weights(hub, tmp_path):
    """A process that is killed leaves it."""
    hub.repositories['org/name'].push({'config.json': b'{}'})
    blobs = tmp_path / 'home' / 'hub' / 'models--org--name' / 'blobs'
    blobs.mkdir(parents=True)
    (blobs / '0123.89ab.incomplete').touch()
    assert refused().startswith('hf:org/name holds no weights')


def test_gated(hub, monkeypatch):
    hub.repositories['org/name'].readers = {'hf_good'}
    assert refused() == (
        f'hf:org/name: it is gated: accept its terms at {hub.address}/org/name, and log in (hf auth login), or set '
        'HF_TOKEN to a token that may read it'
    )
    monkeypatch.setenv('HF_TOKEN', 'hf_other')
    assert refused().startswith(
        f'hf:org/name: it is gated, and your token has no access: request it at {hub.address}/org/name, or set HF_TOKEN'
    )
    monkeypatch.setenv('HF_TOKEN', 'hf_good')
    hub.requests.clear()
    assert (download('org/name') / 'model.safetensors').read_bytes() == WEIGHTS
    assert {request.token for request in hub.requests if 'content' not in request.line} == {'hf_good'}
    assert [request.token for request in hub.requests if 'content' in request.line] == ['']  # of another host


def test_a_token_that_cannot_be_sent(hub, monkeypatch, tmp_path):
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home' / 'token').write_text('hf_\0secret')
    told = refused()
    monkeypatch.setenv('HF_TOKEN', 'hf_sécret')
    assert refused() == told
    assert told == (
        'hf:org/name: the token that is set (HF_TOKEN, or hf auth login) has characters that none has; set it again'
    )


NOT_THE_HUB = 'what answers is not the hub (a web page of a proxy or of a login, or another HF_ENDPOINT)'


@pytest.mark.parametrize(
    ('fault', 'told'),
    [
        (Fault('revision', status=200, body=PAGE), NOT_THE_HUB),
        (Fault('revision', status=200, body=b'{}'), NOT_THE_HUB),
        (Fault('revision', status=200, body=b'[]'), NOT_THE_HUB),
        (Fault('HEAD', status=200, body=PAGE), NOT_THE_HUB),
        (
            Fault('', status=401, headers=(('X-Error-Message', 'Invalid credentials in Authorization header'),)),
            'wants a login (401)',
        ),
        (Fault('', status=403, body=PAGE), 'access is denied (403): the token may not read it, or a proxy is in the'),
        (
            Fault('', status=403, headers=(('X-Error-Message', 'Access to this resource is disabled.'),)),
            'its authors or the hub have closed it; http://127.0.0.1:',
        ),
        (Fault('', status=429), 'has had too many requests (429); wait some minutes, or set HF_TOKEN'),
        (Fault('revision', status=500), 'is failing (500); wait and run it again, which fetches what is missing'),
        (Fault('tree', status=503), 'is failing (503)'),
        (Fault('HEAD', status=503), 'is failing (503)'),
        (Fault('content', status=503), 'is failing (503)'),
        (Fault('content', status=418), '(418); open it in a browser to see why'),
        (Fault('HEAD', status=404, headers=(('X-Error-Code', 'EntryNotFound'),)), 'did not give http://127.0.0.1:'),
    ],
    ids=lambda value: f'{value.status} {value.at}' if isinstance(value, Fault) else '',
)
def test_what_the_hub_answers_is_explained(hub, fault, told: str):
    hub.faults = [fault]
    assert told in refused()


def test_no_hub_at_all(hub, monkeypatch):
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    assert re.match(
        rf'hf:org/name is not in the cache \({cache}\), and the hub at http://127\.0\.0\.1:9 \(HF_ENDPOINT\) is out of '
        r'reach \(.*\): check the network, or fetch it where there is a network and copy the cache',
        refused(),
    )
    monkeypatch.setattr(constants, 'ENDPOINT', 'mirror.example')
    assert refused() == (
        "hf:org/name: HF_ENDPOINT is 'mirror.example'; expected an address such as https://huggingface.co"
    )


# --- Files that are not what the hub says. ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda content: content[:-6], 'a file came with 255,994 bytes where the hub at .* says 256,000, and was '),
        (lambda content: content + b'\0', 'a file came with 256,001 bytes where the hub at .* says 256,000, and was'),
        (
            lambda content: content[:99] + b'\0' + content[100:],
            r'model\.safetensors is damaged \(256,000 bytes, whose checksum is not [0-9a-f]{64}, as the hub says\); '
            'it has been removed from the cache; fetch it again',
        ),
    ],
    ids=['truncated', 'too long', 'changed'],
)
def test_a_file_that_is_not_what_the_hub_says(hub, tmp_path, change, told: str):
    hub.faults = [Fault('GET /content', 1, change=change)]
    assert re.match(f'hf:org/name: {told}', refused())
    assert kept(tmp_path) == {'config.json'}
    assert (download('org/name') / 'model.safetensors').read_bytes() == WEIGHTS


def test_a_file_of_unknown_size_that_is_cut_off(hub, tmp_path):
    """As some mirrors answer: its end is that of the connection, so the client takes what came for the whole."""
    hub.faults = [Fault('HEAD .*model|content', 2, unsized=True, cut=100_000)]
    assert 'model.safetensors is damaged (100,000 bytes, whose checksum is not' in refused()
    assert kept(tmp_path) == {'config.json'}
    assert (download('org/name') / 'model.safetensors').read_bytes() == WEIGHTS


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_a_cache_that_was_copied_in_part(hub, name: str):
    file = download('org/name') / name
    file.resolve().write_bytes(FILES[name][:-1])
    assert f'{name} is damaged ({len(FILES[name]) - 1:,} bytes, whose checksum is not' in refused()
    assert (download('org/name') / name).read_bytes() == FILES[name]


def test_a_configuration_below_the_weights_is_compared_too(hub):
    content = b'{"pooling_mode_mean_tokens": true}'
    hub.repositories['org/name'].push({**FILES, '1_Pooling/config.json': content})
    file = download('org/name', texts=True) / '1_Pooling/config.json'
    file.resolve().write_bytes(content[:-1])
    assert '1_Pooling/config.json is damaged (33 bytes, whose checksum is not' in refused()
    assert (download('org/name', texts=True) / '1_Pooling/config.json').read_bytes() == content


def test_time_limits_of_several_threads_end_with_them(hub):
    from huggingface_hub import get_session

    before = get_session().event_hooks
    first, second = _patient_to_a_limit(), _patient_to_a_limit()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert get_session().event_hooks == before


@pytest.mark.parametrize('tag', ['v7-12', '"da39a3ee5e6b4b0d3255bfef95601890afd80709"'])  # the SHA-1 of nothing
def test_how_a_mirror_names_files(hub, tag: str):
    content = b'' if tag.startswith('"') else b'{}'
    commit = hub.repositories['org/name'].push({**FILES, 'config.json': content})
    hub.faults = [
        Fault('HEAD .*config', 1, status=200, headers=(('ETag', tag), ('X-Repo-Commit', commit)), body=content)
    ]
    assert (download('org/name') / 'config.json').read_bytes() == content


# --- In a process of its own, as its environment variables set it. ----------------------------------------------------


def process(hub: Hub, tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in (*PROXIES, *TOKENS)}
    environment |= {'HF_ENDPOINT': hub.address, 'HF_HOME': str(tmp_path / 'home')}
    environment |= {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_offline(hub, tmp_path):
    script = 'from backbones.pretrained.hub import download; print(download("org/name"))'
    absent = process(hub, tmp_path, '-c', script, HF_HUB_OFFLINE='1')
    cache = tmp_path / 'home' / 'hub'
    assert absent.stderr.splitlines()[-1] == (
        f'backbones.errors.AbsentWeightsError: hf:org/name is not in the cache ({cache}), and HF_HUB_OFFLINE keeps it '
        'from being fetched: unset it, or fetch it where there is a network and copy the cache (HF_HOME) here, or give '
        'the path of its directory'
    )
    assert not hub.requests
    online = process(hub, tmp_path, '-c', script, HF_TOKEN='hf_mine')
    assert online.returncode == 0, online.stderr
    assert {request.token for request in hub.requests if 'content' not in request.line} == {'hf_mine'}
    hub.requests.clear()
    assert process(hub, tmp_path, '-c', script, HF_HUB_OFFLINE='1').stdout == online.stdout
    assert not hub.requests


def test_a_command(hub, tmp_path, capsys):
    """An error of the hub is one line and status 2."""
    hub.faults = [Fault('revision', status=503)]
    config = 'configs/transfer.py:backbone=resnet18,dataset=digits,weights=hf:org/name'
    arguments = ['--config', config, '--workdir', str(tmp_path / 'run')]
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda _: train.main(arguments))
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f'error: hf:org/name: the hub at {hub.address} (HF_ENDPOINT) is failing (503); wait and run it again, which '
        'fetches what is missing; or fetch it where there is a network and copy the cache (HF_HOME) here, or give the '
        'path of its directory\n'
    )
