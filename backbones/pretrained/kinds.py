"""What a file is, by its first bytes: a kind of weight file, or something else that was saved under such a name."""

import codecs
import json
import re
import zipfile
from pathlib import Path

from backbones.errors import UserError

SUFFIXES = ('.safetensors', '.pth', '.pt', '.pth.tar', '.ckpt', '.bin', '.npz')

# First bytes of files that hold weights which are not read here, or hold them in a wrapping: what they are, what to do.
_OTHERS = (
    (b'\x89HDF\r\n\x1a\n', 'an HDF5 file, such as Keras writes', 'save its arrays as .safetensors or .npz'),
    (b'\x93NUMPY', 'a single array of numpy without a name', 'save all arrays in one .npz (numpy.savez)'),
    (b'GGUF', 'a GGUF file of quantised weights', 'take the weights from which it was made, as .safetensors'),
    (b'\x1f\x8b', 'compressed by gzip', 'decompress it (gunzip, or tar -xzf)'),
    (b'BZh', 'compressed by bzip2', 'decompress it (bunzip2, or tar -xjf)'),
    (b'\xfd7zXZ\x00', 'compressed by xz', 'decompress it (unxz, or tar -xJf)'),
    (b'\x28\xb5\x2f\xfd', 'compressed by zstd', 'decompress it (unzstd)'),
)
_LFS = b'version https://git-lfs.github.com/spec/'
_AGAIN = 'download the file again'
_HEAD = 4096


def is_weight_file(path: Path) -> bool:
    """Whether the name ends like a weight file's, in small or capital letters."""
    return path.name.lower().endswith(SUFFIXES)


def kind_of(path: Path) -> str:
    """``'safetensors'``, ``'torch'`` or ``'npz'``, by the content where it tells, otherwise by the name.

    Returns:
        The kind, or an empty string where neither tells.

    Raises:
        UserError: the content is something else; the message says what it is and how to get the real file.
    """
    try:
        size = path.stat().st_size
        with path.open('rb') as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from None
    known = is_weight_file(path)
    if known and not size:
        raise UserError(f'{path} is empty: a download or a copy of it was cut off; {_AGAIN}')
    _refuse_others(path, head, size)
    return _by_content(path, head, size) or (_by_name(path) if known else '')


def _by_content(path: Path, head: bytes, size: int) -> str:
    if head.startswith(b'PK\x03\x04'):
        return _in_zip(path)
    # The length of a header in JSON, and the header.
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') + 8 <= size:
        return 'safetensors'
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return 'torch'
    return ''


def _in_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return ''
    if any(name.rpartition('/')[2] == 'data.pkl' for name in names):
        return 'torch'
    if all(name.endswith('.npy') for name in names):
        return 'npz'
    if inside := [name for name in names if name.lower().endswith(SUFFIXES)]:
        raise UserError(f'{path} is a zip archive that holds {inside[0]}; unpack it')
    return ''


def _by_name(path: Path) -> str:
    name = path.name.lower()
    return 'safetensors' if name.endswith('.safetensors') else 'npz' if name.endswith('.npz') else 'torch'


def _refuse_others(path: Path, head: bytes, size: int) -> None:
    """Raise a ``UserError`` that says what the file is, if it is known not to hold weights."""
    for start, what, advice in _OTHERS:
        if head.startswith(start):
            raise UserError(f'{path} is {what}, not a weight file that is read here; {advice}')
    if head.startswith(_LFS):
        stated = re.search(rb'^size (\d+)$', head, re.MULTILINE)
        of = f' to a file of {int(stated[1]):,} bytes' if stated else ''
        raise UserError(
            f'{path} is a git-LFS pointer{of}, not the file itself; run `git lfs pull` in its repository '
            '(after `git lfs install`), or download the file'
        )
    text = _text(head, size)
    if text is None:
        return
    shown = _shortened(text)
    if re.match(r'(<!doctype\s+html|<html|<head|<\?xml)', text, re.IGNORECASE):
        title = re.search(r'<title[^>]*>(.*?)</title>', text, re.IGNORECASE | re.DOTALL)
        named = f' ({_shortened(title[1])!r})' if title else ''
        raise UserError(
            f'{path} is a web page{named}, not weights: the page of a login, of a proxy or of an error was saved under '
            f'this name; open its address in a browser to see what it asks for, and {_AGAIN}'
        )
    if _is_json(text, size):
        raise UserError(
            f"{path} is a JSON document ({shown}), not weights: a server's answer was saved under this name; "
            f'mend what it says, and {_AGAIN}'
        )
    if is_weight_file(path):
        raise UserError(f'{path} is a text ({shown}), not weights; {_AGAIN}')


def _text(head: bytes, size: int) -> str | None:
    """The beginning of a text; ``None`` for binary content, and for the few bytes that may be the start of any."""
    try:
        # The last character may have been cut in two, but no other may be damaged.
        text = codecs.getincrementaldecoder('utf-8-sig')().decode(head, final=len(head) == size)
    except UnicodeDecodeError:
        return None
    printable = all(character.isprintable() or character.isspace() for character in text)
    return text.strip() if printable and len(text) > 8 else None


def _is_json(text: str, size: int) -> bool:
    if not text.startswith(('{', '[')):
        return False
    try:
        json.loads(text)
    except ValueError:
        return size > _HEAD  # only its beginning was read
    return True


def _shortened(text: str, most: int = 80) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= most else f'{line[: most - 1]}…'
