"""What goes wrong between a user and the Hugging Face Hub, said with what to do about it."""

import difflib
import re
from collections.abc import Sequence

from backbones.errors import AbsentWeightsError, UserError, listed

ANEW = 'fetch it again where there is a network and without HF_HUB_OFFLINE, or copy the whole cache (HF_HOME) here'
_LOGIN = 'log in (hf auth login), or set HF_TOKEN to a token that may read it'
_COPY = 'fetch it where there is a network and copy the cache (HF_HOME) here, or give the path of its directory'
_AGAIN = 'run it again: files that have come whole are kept, and the rest is fetched'


def explained(name: str, error: Exception, revisions: Sequence[str] = ()) -> UserError:
    """What went wrong with ``hf:NAME``, and what to do; in one line.

    It is an ``AbsentWeightsError`` where the cache has nothing and the hub could not be asked.

    Args:
        name: ``ORG/REPO`` or ``ORG/REPO@REVISION``, as the user wrote it.
        error: what the library raised.
        revisions: branches and tags of the repository, where they are known.
    """
    # The client of huggingface_hub, whose errors it passes on.
    from httpx2 import (
        ConnectError,
        LocalProtocolError,
        ProxyError,
        TimeoutException,
        TransportError,
        UnsupportedProtocol,
    )
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.errors import (
        DisabledRepoError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition('@')
    page = f'{constants.ENDPOINT}/{repository}'
    reason = (str(error.__cause__ or error).partition('\n')[0] or type(error).__name__).rstrip('.')
    absent = f'hf:{name} is not in the cache ({constants.HF_HUB_CACHE})'
    # This one only says that the cache has nothing, either; why the hub was not asked is behind it.
    asked = type(error) is not LocalEntryNotFoundError
    kind = UserError if asked else AbsentWeightsError
    match error if asked else error.__cause__:
        case HFValidationError():
            told = 'it names no repository; expected hf:ORG/REPO or hf:ORG/REPO@REVISION'
        case GatedRepoError(response=response) if response.status_code == 403:
            told = (
                f'it is gated, and your token has no access: request it at {page}, or set HF_TOKEN to a token that has '
                'it (a fine-grained one must be allowed to read gated repositories)'
            )
        case GatedRepoError():
            told = f'it is gated: accept its terms at {page}, and {_LOGIN}'
        case RevisionNotFoundError():
            told = _no_revision(revision or constants.DEFAULT_REVISION, revisions, page)
        case RepositoryNotFoundError():
            told = (
                f'{_hub()} has no repository {repository!r}, or you have no access to it: check its name, or {_LOGIN}'
            )
        case DisabledRepoError():
            told = f'its authors or the hub have closed it; {page} may say why'
        case IncompleteSnapshotError(snapshot_path=path):
            return UserError(f'the cache holds only a part of hf:{name} (a download was cut off: {path}); {ANEW}')
        case HfHubHTTPError(response=response):
            told = _of_status(response.status_code, str(response.url))
        case _ if not asked and is_offline_mode():
            return kind(f'{absent}, and HF_HUB_OFFLINE keeps it from being fetched: unset it, or {_COPY}')
        case UnsupportedProtocol():
            told = f'HF_ENDPOINT is {constants.ENDPOINT!r}; expected an address such as https://huggingface.co'
        case UnicodeEncodeError() | LocalProtocolError():  # whose text may hold the token
            told = 'the token that is set (HF_TOKEN, or hf auth login) has characters that none has; set it again'
        case ProxyError():
            told = f'the proxy gives no way to {_hub()} ({reason}); check HTTPS_PROXY; or {_COPY}'
        case TimeoutException():
            told = (
                f'{_hub()} does not answer (it was given {constants.HF_HUB_ETAG_TIMEOUT} s for a question and '
                f'{constants.HF_HUB_DOWNLOAD_TIMEOUT} s for the next part of a file; HF_HUB_ETAG_TIMEOUT and '
                f'HF_HUB_DOWNLOAD_TIMEOUT change that); {_AGAIN}; or {_COPY}'
            )
        case ConnectError() if not asked:
            return kind(f'{absent}, and {_hub()} is out of reach ({reason}): check the network, or {_COPY}')
        case TransportError():
            told = f'the connection to {_hub()} broke off ({reason}); {_AGAIN}'
        case OSError() if sizes := re.search(r'should be of size (\d+) but has size (\d+)', reason):
            told = (
                f'a file came with {int(sizes[2]):,} bytes where {_hub()} says {int(sizes[1]):,}, and was thrown away; '
                f'{_AGAIN}. If it comes so again, a proxy or a mirror on the way changes it'
            )
        # No JSON, or not what the hub says in it.
        case FileMetadataError() | ValueError() | TypeError() | KeyError() | AttributeError() | AssertionError():
            told = (
                f'what answers is not the hub (a web page of a proxy or of a login, or another HF_ENDPOINT): open '
                f'{constants.ENDPOINT} in a browser to see what is in the way; or {_COPY}'
            )
        case _:
            told = f'it could not be fetched into the cache ({constants.HF_HUB_CACHE}): {reason}'
    return kind(f'hf:{name}: {told}')


def _hub() -> str:
    """The hub, with its address where it is not the usual one."""
    from huggingface_hub import constants

    usual = constants.ENDPOINT == 'https://huggingface.co'
    return 'the hub' if usual else f'the hub at {constants.ENDPOINT} (HF_ENDPOINT)'


def _no_revision(revision: str, revisions: Sequence[str], page: str) -> str:
    near = difflib.get_close_matches(revision, revisions, n=3, cutoff=0.5)
    if near:
        advice = f'did you mean {" or ".join(map(repr, near))}?'
    elif revisions:
        advice = f'there are {listed(revisions, 8)}, and the full names of commits'
    else:
        advice = f'{page}/commits lists its branches, tags and commits'
    return f'the repository has no revision {revision!r}; {advice}'


def _of_status(status: int, address: str) -> str:
    """What the hub, or something on the way to it, answered with an error."""
    if status == 401:
        return (
            f'{_hub()} wants a login (401), as it also does where there is no such repository: check its name; '
            f'{_LOGIN}; a token that is set may have expired'
        )
    if status == 403:
        return f'access is denied (403): the token may not read it, or a proxy is in the way; {_LOGIN}'
    if status == 429:
        return (
            f'{_hub()} has had too many requests (429); wait some minutes, or set HF_TOKEN, which raises the limit; or '
            f'{_COPY}'
        )
    if status >= 500:
        return f'{_hub()} is failing ({status}); wait and run it again, which fetches what is missing; or {_COPY}'
    return f'{_hub()} did not give {address} ({status}); open it in a browser to see why; or {_COPY}'
