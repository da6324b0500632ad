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
        UserError: no such repository or revision, no access, no network and nothing in the cache, or no weights in it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition('@')
    for patterns in _WEIGHTS:
        try:
            directory = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=[*_DESCRIPTIONS, *patterns])
            )
        except HFValidationError:
            raise UserError(f'hf:{name} names no repository; expected hf:ORG/REPO or hf:ORG/REPO@REVISION') from None
        except GatedRepoError:
            raise UserError(
                f'hf:{name} is gated: accept its terms on the hub and log in (hf auth login, or HF_TOKEN)'
            ) from None
        except RevisionNotFoundError:
            raise UserError(f'hf:{repository} has no revision {revision!r}') from None
        except RepositoryNotFoundError:
            raise UserError(f'the hub has no repository {repository!r}, or you have no access to it') from None
        except LocalEntryNotFoundError:
            raise UserError(
                f'hf:{name} is not in the cache, and the hub is out of reach (no network, or HF_HUB_OFFLINE is set); '
                'fetch it where there is a network and copy the cache (HF_HOME) here, or give the path of its directory'
            ) from None
        except (HfHubHTTPError, OSError) as error:
            raise UserError(f'hf:{name} could not be fetched: {error}') from None
        if any(any(directory.glob(pattern)) for pattern in patterns):
            return directory
    raise UserError(f'hf:{name} holds no weights ({", ".join(each for kind in _WEIGHTS for each in kind)})')
