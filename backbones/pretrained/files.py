"""Reading weight files into numpy arrays, whatever wrote them; nothing in a file is ever executed."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict

from backbones import lora
from backbones.errors import UserError, unknown
from backbones.pretrained import description
from backbones.pretrained.checksums import CHECKSUMS, find_damage
from backbones.pretrained.kinds import SUFFIXES, kind_of
from backbones.pretrained.plain_paths import plain
from backbones.pretrained.torch_file import read_torch_file

# Safetensors' own numpy reader does not know bfloat16, in which many files are published.
_SAFETENSORS_TYPES = {
    'F64': np.float64,
    'F32': np.float32,
    'F16': np.float16,
    'BF16': ml_dtypes.bfloat16,
    'I64': np.int64,
    'I32': np.int32,
    'I16': np.int16,
    'I8': np.int8,
    'U8': np.uint8,
    'BOOL': np.bool_,
}
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    safetensors.SafetensorError,
)


# Parts of a training state; a later one takes precedence over an earlier one.
_PARAMETERS = ('frozen', 'trainable', 'average')


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for key, entry in safetensors.deserialize(path.read_bytes()):
        if entry['dtype'] not in _SAFETENSORS_TYPES:
            raise unknown(f'type of {key}', entry['dtype'], _SAFETENSORS_TYPES)
        arrays[key] = np.frombuffer(entry['data'], _SAFETENSORS_TYPES[entry['dtype']]).reshape(entry['shape'])
    return arrays


def _recovered(array: np.ndarray) -> np.ndarray:
    """Restore bfloat16, in which big_vision publishes, from the two untyped bytes that numpy stores."""
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype('V2') else array


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a weight file, by the file's own keys; those of nested dictionaries are joined by dots.

    What the file is, its content says; its suffix only where the content does not.

    Raises:
        UserError: an unknown kind of file, one that cannot be read, or something else under a weight file's name (a
            pointer of git-LFS, a web page, …), named for what it is.
    """
    kind = kind_of(path)
    if kind == 'torch':
        return read_torch_file(path)
    try:
        if kind == 'safetensors':
            return _read_safetensors(path)
        if kind == 'npz':
            # Given a path, numpy would leave a damaged file open.
            with path.open('rb') as stream, np.load(stream, allow_pickle=False) as archive:
                return {key: _recovered(archive[key]) for key in archive.files}
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f'{path} is truncated, damaged or not a .{kind} file: {_reason(error)}') from None
    raise unknown('kind of weight file', path.suffix, SUFFIXES)


def _reason(error: Exception) -> str:
    """The first line of an error, unless it advises what must not be done."""
    line = str(error).partition('\n')[0]
    return type(error).__name__ if not line or 'pickle' in line else line


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file; no array is read.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            return file.metadata() or {}
    except _DAMAGE as error:
        raise UserError(f'{path} is truncated, damaged or not a {path.suffix} file: {_reason(error)}') from None


def read_checkpoint(directory: Path) -> dict[str, np.ndarray]:
    """Parameters and statistics in a checkpoint that ``experiments.train`` wrote, by our own paths.

    They are what a finished run would save: the moving average of the parameters where the run keeps one, and
    low-rank adapters merged into their kernels.

    Args:
        directory: directory with the arrays of one checkpoint, ``WORKDIR/checkpoints/STEP/default``.

    Raises:
        UserError: it cannot be read, holds no training state, or a file differs from ``checksums.json`` beside it; or
            it holds adapters, and neither its description nor the configuration of the run says how they are scaled.
    """
    import orbax.checkpoint as ocp

    step = directory.resolve().parent
    if (step / CHECKSUMS).is_file() and (damage := find_damage(step)):
        raise UserError(f'{step}/{damage}; name another checkpoint, or put the file back from a copy')
    try:
        with ocp.PyTreeCheckpointer() as checkpointer, plain(directory.resolve()) as stored:
            tree = checkpointer.metadata(stored).item_metadata.tree
            # Into numpy: the devices that held the arrays may not exist here.
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            state = checkpointer.restore(stored, restore_args=arguments)
    except UserError:
        raise
    # Orbax raises whatever the storage below it raises.
    except Exception as error:
        raise UserError(f'{directory} is damaged or not a checkpoint: {error}') from None
    if not isinstance(state, dict) or not {'trainable', 'frozen', 'batch_stats'} <= state.keys():
        raise UserError(f'{directory} holds no training state')
    flat = {name: flatten_dict(state.get(name) or {}, sep='/') for name in (*_PARAMETERS, 'batch_stats')}
    params = {path: np.asarray(leaf) for name in _PARAMETERS for path, leaf in flat[name].items()}
    if any(path.rpartition('/')[2] in lora.LEAVES for path in params):
        merged = lora.merge(unflatten_dict(params, sep='/'), _adapter_scale(step, params))
        params = {path: np.asarray(leaf) for path, leaf in flatten_dict(merged, sep='/').items()}
    arrays = {f'params/{path}': leaf for path, leaf in params.items()}
    return arrays | {f'batch_stats/{path}': np.asarray(leaf) for path, leaf in flat['batch_stats'].items()}


def _adapter_scale(step: Path, params: Mapping[str, np.ndarray]) -> float:
    """The factor of a run's adapters, from their rank and the run's ``lora_alpha``."""
    rank = next(leaf.shape[-1] for path, leaf in params.items() if path.endswith('lora_a'))
    kept = description.read(step / description.METADATA, description.KEY)
    if kept is not None and 'lora_alpha' in kept.head:
        return lora.scale(rank, kept.head['lora_alpha'] or None)
    # Checkpoints of earlier versions do not say it.
    file = step.parent.parent / 'config.json'
    try:
        alpha = json.loads(file.read_text()).get('lora_alpha')
    except (OSError, ValueError, AttributeError):
        raise UserError(
            f'{step} holds low-rank adapters, whose scale is in the config.json of their run, but none can be '
            f'read at {file}; bring the checkpoint back to its work directory (WORKDIR/checkpoints/STEP)'
        ) from None
    return lora.scale(rank, alpha or None)
