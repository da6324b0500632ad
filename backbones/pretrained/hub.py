"""Weights from the Hugging Face Hub, through its own library: its cache, its tokens and its offline mode apply."""

from pathlib import Path

from backbones.errors import UserError

_DESCRIPTIONS = ('config.json', 'open_clip_config.json', 'preprocessor_config.json')
# Tried in this order; a repository often holds the same weights in several formats.
_WEIGHTS = (('*.safetensors', '*.safetensors.index.json'), ('*.bin', '*.bin.index.json'), ('*.pth', '*.pt'), ('*.npz',))


def download(name: str) -> Path:
    """The directory of a repository, from the cache or the hub; only what is needed is fetched.

    Args:
        name: ``ORG/REPO``, or ``ORG/REPO@REVISION`` with a branch, a tag or a commit.

    Raises:
        UserError: no such repository or revision, no access, too many requests, an answer that is not the hub's, no
            network and nothing (or not all) in the cache, or no weights in it.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition('@')
    directory = None
    for patterns in _WEIGHTS:
        try:
            directory = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=[*_DESCRIPTIONS, *patterns])
            )
        # The library passes on what the network, a parser or the disk below it raises.
        except Exception as error:
            raise _explained(name, error) from None
        if any(any(directory.glob(pattern)) for pattern in patterns):
            return directory
    begun = sorted(directory.parent.parent.glob('blobs/*.incomplete')) if directory is not None else []
    if begun:
        raise UserError(f'the cache holds only a part of hf:{name} (a download was cut off: {begun[0]}); {_ANEW}')
    raise UserError(f'hf:{name} holds no weights ({", ".join(each for kind in _WEIGHTS for each in kind)})')


_ANEW = 'fetch it again where there is a network and without HF_HUB_OFFLINE, or copy the whole cache (HF_HOME) here'
_LOGIN = 'log in (hf auth login), or set HF_TOKEN to a token that may read it'
_COPY = 'fetch it where there is a network and copy the cache (HF_HOME) here, or give the path of its directory'


def _explained(name: str, error: Exception) -> UserError:
    """What went wrong at the hub, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition('@')
    match error:
        case HFValidationError():
            return UserError(f'hf:{name} names no repository; expected hf:ORG/REPO or hf:ORG/REPO@REVISION')
        case GatedRepoError():
            return UserError(f'hf:{name} is gated: accept its terms on the hub and log in (hf auth login, or HF_TOKEN)')
        case RevisionNotFoundError():
            return UserError(f'hf:{repository} has no revision {revision!r}')
        case RepositoryNotFoundError():
            return UserError(f'the hub has no repository {repository!r}, or you have no access to it: {_LOGIN}')
        case IncompleteSnapshotError():
            return UserError(
                f'the cache holds only a part of hf:{name} (a download was cut off: {error.snapshot_path}); {_ANEW}'
            )
        case LocalEntryNotFoundError(__cause__=HfHubHTTPError() as cause):
            return _of_status(name, cause.response.status_code)
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return UserError(
                f'hf:{name} is not in the cache, and the hub is out of reach (no network, or HF_HUB_OFFLINE is set); '
                f'{_COPY}'
            )
        case HfHubHTTPError():
            return _of_status(name, error.response.status_code)
        # No JSON, or not what the hub says in it.
        case ValueError() | TypeError() | KeyError() | AttributeError() | AssertionError():
            return UserError(
                f'hf:{name} was asked for, but the answer is not from the hub (a web page of a proxy or of a login, or '
                f'another HF_ENDPOINT): open https://huggingface.co in a browser to see what is in the way; or {_COPY}'
            )
    reason = str(error).partition('\n')[0] or type(error).__name__
    return UserError(f'hf:{name} could not be fetched: {reason}')


def _of_status(name: str, status: int) -> UserError:
    """An error that the hub, or something on the way to it, answered with."""
    if status == 401:
        return UserError(f'the hub wants a login for hf:{name} (401); {_LOGIN}; one that is set may have expired')
    if status == 403:
        return UserError(
            f'access to hf:{name} is denied (403): the token may not read it, or a proxy is in the way; {_LOGIN}'
        )
    if status == 429:
        return UserError(
            f'the hub had too many requests to give hf:{name} (429); wait some minutes, or set HF_TOKEN, which raises '
            f'the limit; or {_COPY}'
        )
    if status >= 500:
        return UserError(f'the hub is failing and did not give hf:{name} ({status}); wait and try again; or {_COPY}')
    return UserError(f'the hub did not give hf:{name} ({status})')
