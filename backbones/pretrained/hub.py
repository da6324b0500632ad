"""Weights from the Hugging Face Hub, through its own library: its cache, its tokens and its offline mode apply."""

import contextlib
import functools
import hashlib
from collections.abc import Generator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from backbones.errors import UserError, listed
from backbones.pretrained import text_files
from backbones.pretrained.description import KEY
from backbones.pretrained.hub_errors import ANEW, explained

_CONFIGURATIONS = ('config.json', 'open_clip_config.json', 'preprocessor_config.json')
_DESCRIPTIONS = (*_CONFIGURATIONS, *text_files.NAMES)
# What a training of ours writes; a description is in it, or beside it.
_OUR_WEIGHTS = 'weights.safetensors'
# Tried in this order, which is that in which a directory's files are read; a repository often holds the same weights in
# several formats, or other files beside them.
_WEIGHTS = (
    (_OUR_WEIGHTS, 'model.safetensors'),
    ('*.safetensors', '*.safetensors.index.json'),
    ('pytorch_model.bin',),
    ('*.bin', '*.bin.index.json'),
    ('*.pth', '*.pt'),
    ('*.npz',),
)


def download(name: str, weights: bool = True, texts: bool = False) -> Path:
    """The directory of a repository, from the cache or the hub; only what is needed is fetched.

    Without weights, the directory may be none, where nothing lies beside them; those with a description of ours are
    fetched all the same.

    The library resumes a connection that is cut off, and gives up after some attempts. Where the hub is out of reach,
    is failing, or something else answers in its place, what is in the cache is taken. Every file is compared with the
    hub's checksum, once in a process; one that differs is removed from the cache.

    Args:
        name: ``ORG/REPO``, or ``ORG/REPO@REVISION`` with a branch, a tag or a commit.
        weights: whether the weights are wanted, or only what lies beside them.
        texts: whether that includes what belongs to a text encoder. Encoders of images that were trained with one have
            its tokenizer beside them, which may be tens of megabytes.

    Raises:
        UserError: no such repository or revision, no access, too many requests, an answer that is not the hub's, no
            network and nothing (or not all) in the cache, a connection that stays cut off, a file that is not what the
            hub says it is, or no weights in it where they are wanted.
    """
    from huggingface_hub import ResolvedRevision

    repository, _, named = name.partition('@')
    revision, files = named or None, None
    beside = [*_CONFIGURATIONS, *(text_files.NAMES if texts else ())]
    if not weights:
        directory = _checked(name, revision, beside)
        files = _files(repository, directory.name)
        if not _may_describe(repository, directory, files):
            return directory
        revision = ResolvedRevision(resolved=directory.name, initial=named or None)
    for patterns in _WEIGHTS:
        if files is not None and not _matching(files, patterns):
            continue
        directory = _checked(name, revision, [*beside, *patterns])
        if any(any(directory.glob(pattern)) for pattern in patterns):
            return directory
        # From here on the same commit, whatever is pushed in the meantime.
        revision = ResolvedRevision(resolved=directory.name, initial=named or None)
        files = _files(repository, directory.name)
    # Where it is known which files there are, the library itself has noticed that one is missing.
    begun = sorted(directory.parent.parent.glob('blobs/*.incomplete')) if files is None else []
    if begun:
        raise UserError(f'the cache holds only a part of hf:{name} (a download was cut off: {begun[0]}); {ANEW}')
    held = [each.name for each in _held(directory)] if files is None else files
    expected = ', '.join(pattern for patterns in _WEIGHTS for pattern in patterns)
    below = [file for file in held if '/' in file and _matching([file.rpartition('/')[2]], sum(_WEIGHTS, ()))]
    advice = f'; fetch {below[0]} and give its path' if below else ''
    raise UserError(
        f'hf:{name} holds no weights: expected one of {expected} at its top, and it holds '
        f'{listed(below or held, 8) or "nothing"}{advice}'
    )


def cached(name: str, file: str) -> Path | None:
    """A file of a repository where the cache has it; nothing is fetched.

    Args:
        name: see ``download``.
        file: its name in the repository.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.partition('@')
    try:
        path = try_to_load_from_cache(repository, file, revision=revision or None)
    except HFValidationError:
        return None
    # Not a text where the cache knows that there is no such file.
    return Path(path) if isinstance(path, str) else None


def _may_describe(repository: str, directory: Path, files: Sequence[str] | None) -> bool:
    """Whether weights that are not here yet hold a description of ours, or are not known to hold none.

    Of their file, the beginning alone is fetched.

    Args:
        repository: ``ORG/REPO``.
        directory: of a commit, in the cache.
        files: all files of that commit; ``None`` where they are not known.
    """
    from huggingface_hub import HfApi

    if files is None:
        return True
    found = next((found for patterns in _WEIGHTS if (found := _matching(files, patterns))), [])
    if _OUR_WEIGHTS in found:
        return True
    # In shards, and in other formats, there is none.
    if len(found) != 1 or not found[0].endswith('.safetensors') or (directory / found[0]).is_file():
        return False
    try:
        header = HfApi().parse_safetensors_file_metadata(repository, found[0], revision=directory.name)
    except Exception:  # who fetches the whole file says what is wrong
        return True
    return KEY in header.metadata


def _matching(files: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those files at the top of a repository whose names match a pattern."""
    return [file for file in files if '/' not in file and any(fnmatch(file, pattern) for pattern in patterns)]


def _checked(name: str, revision: str | None, patterns: list[str]) -> Path:
    """The directory of a revision, in which the files that match are, as the hub has them.

    Raises:
        UserError: see ``download``.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    repository, _, _ = name.partition('@')
    try:
        directory = _fetched(repository, revision, patterns)
    except RevisionNotFoundError as error:
        raise explained(name, error, _revisions(repository)) from None
    # The library passes on what the network, a parser or the disk below it raises.
    except Exception as error:
        raise explained(name, error) from None
    _check(name, directory)
    return directory


def _fetched(repository: str, revision: str | None, patterns: list[str]) -> Path:
    """The directory of a revision, in which the files that match are."""
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = is_offline_mode()
    # The library's patterns match slashes, too, but no weights are read from a directory in a repository.
    nested = [f'*/{pattern}' for pattern in patterns if pattern not in _DESCRIPTIONS]
    options: dict[str, Any] = {'revision': revision, 'allow_patterns': patterns, 'ignore_patterns': nested}
    try:
        with _patient_to_a_limit():
            return Path(snapshot_download(repository, local_files_only=offline, **options))
    except Exception as error:
        if offline or isinstance(error, (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)):
            raise
        # The library itself reads the cache where there is no connection or the hub is failing, but not where the
        # connection breaks off, or the page of a proxy answers.
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(repository, local_files_only=True, **options))
        raise


@contextlib.contextmanager
def _patient_to_a_limit() -> Generator[None]:
    """A context in which no request of the library waits for ever.

    It asks for the commit and for the list of files without any limit: behind a firewall that drops what it does not
    let through, what is in the cache would be read only after minutes, or never. The limit is that of its other
    questions (``HF_HUB_ETAG_TIMEOUT``, in seconds).
    """
    from huggingface_hub import constants, get_session

    def limit(request: Any) -> None:
        if not any((request.extensions.get('timeout') or {}).values()):
            kinds = ('connect', 'read', 'write', 'pool')
            request.extensions['timeout'] = dict.fromkeys(kinds, constants.HF_HUB_ETAG_TIMEOUT)

    session = get_session()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, 'request': [*hooks['request'], limit]}
    try:
        yield
    finally:
        # Threads share the session, and another may have set hooks of its own meanwhile.
        hooks = session.event_hooks
        session.event_hooks = {**hooks, 'request': [hook for hook in hooks['request'] if hook is not limit]}


def _files(repository: str, commit: str) -> list[str] | None:
    """All files of a commit; ``None`` for a cache of older versions of the library, which did not keep their names."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [file.path for file in get_cached_repo_tree(repository, revision=commit)]
    except CachedRepoTreeNotFoundError:
        return None


def _revisions(repository: str) -> list[str]:
    """The branches and tags of a repository; none where the hub does not say."""
    from huggingface_hub import HfApi

    try:
        with _patient_to_a_limit():
            refs = HfApi().list_repo_refs(repository)
    except Exception:  # the error about the revision is what matters
        return []
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def _held(directory: Path) -> list[Path]:
    """What is in a directory, which the library makes only for files that match."""
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _check(name: str, directory: Path) -> None:
    """Compare the files of a directory of the cache with the checksums in whose names they are kept.

    The library compares their sizes alone, and only when it fetches them; a cache may also have been copied in part.

    Raises:
        UserError: a file differs; it has been removed from the cache.
    """
    below = [link for pattern in _DESCRIPTIONS if '/' in pattern for link in directory.glob(pattern)]
    for link in (*_held(directory), *below):
        # Where links are not supported there is nothing to compare with. One that leads nowhere is named when it is
        # read.
        if not link.is_symlink() or not link.is_file():
            continue
        told, file = link.readlink().name, link.resolve()
        state = file.stat()
        if _is_as_told(file, told, state.st_size, state.st_mtime_ns):
            continue
        # A shared file of the library is a link of the cache to it, and all of them are damaged.
        places = {link, link.parent / link.readlink(), file}
        with contextlib.suppress(OSError):
            for place in places:
                place.unlink(missing_ok=True)
        kept = [str(place) for place in sorted(places) if place.exists() or place.is_symlink()]
        removed = f'remove {listed(kept)}' if kept else 'it has been removed from the cache'
        raise UserError(
            f'hf:{name}: {link.relative_to(directory)} is damaged ({state.st_size:,} bytes, whose checksum is not '
            f'{told}, as the hub says); {removed}; {ANEW}. If it comes damaged again, a proxy or a mirror on the way '
            'changes it'
        )


@functools.cache
def _is_as_told(file: Path, told: str, size: int, _changed: int) -> bool:
    """Whether a file has the checksum that it is named by; a name that is none of the known ones says nothing.

    The hub names large files by their SHA-256 and small ones as git does, and some mirrors by a plain SHA-1.
    """
    if set(told) - set('0123456789abcdef') or len(told) not in (40, 64):
        return True
    kinds = [('sha256', b'')] if len(told) == 64 else [('sha1', b'blob %d\0' % size), ('sha1', b'')]
    for kind, head in kinds:
        digest = hashlib.new(kind, head, usedforsecurity=False)
        with file.open('rb') as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
        if digest.hexdigest() == told:
            return True
    return False
