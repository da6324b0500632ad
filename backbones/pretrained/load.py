"""Loading weights into the variables of a backbone, and saving them."""

import dataclasses
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from backbones import registry
from backbones.errors import UserError, unknown
from backbones.heads.classification import Classifier
from backbones.preprocessing import Preprocessing
from backbones.pretrained import keymaps, sources
from backbones.pretrained.keymaps.rules import identity, translate
from backbones.pretrained.merge import Report, merge
from backbones.pretrained.torch_file import read_torch_file

# The reader for numpy that safetensors brings knows no bfloat16, in which many files are published.
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


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for key, entry in safetensors.deserialize(path.read_bytes()):
        if entry['dtype'] not in _SAFETENSORS_TYPES:
            raise unknown(f'type of {key}', entry['dtype'], _SAFETENSORS_TYPES)
        arrays[key] = np.frombuffer(entry['data'], _SAFETENSORS_TYPES[entry['dtype']]).reshape(entry['shape'])
    return arrays


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a weight file, by the file's own keys.

    Raises:
        UserError: an unknown kind of file, or one that can't be read.
    """
    if path.suffix in ('.pth', '.pt'):
        return read_torch_file(path)
    try:
        if path.suffix == '.safetensors':
            return _read_safetensors(path)
        if path.suffix == '.npz':
            # Given a path, numpy would leave a damaged file open.
            with path.open('rb') as stream, np.load(stream, allow_pickle=False) as archive:
                return dict(archive)
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f'{path} is truncated, damaged or no {path.suffix} file: {error}') from None
    raise unknown('kind of weight file', path.suffix, sources.SUFFIXES)


def preprocess(name_or_weights: str) -> Preprocessing:
    """What a backbone's weights expect: a callable ``uint8[batch, height, width, 1 or 3] → float[batch, h, w, 3]``.

    Args:
        name_or_weights: a registered name (its usual weights), or a source such as ``pip:efficientnet-lite0``.

    Raises:
        UserError: neither a name nor a source that is known to belong to a backbone.
    """
    name = sources.published_by(name_or_weights) or name_or_weights
    if name not in registry.TABLE:
        published = {source for row in registry.TABLE.values() for source in row.weights}
        raise unknown('backbone or published weights', name_or_weights, {*registry.TABLE, *published})
    return registry.info(name).preprocessing


def load_weights(
    name: str, source: str | Path, classifier: bool = False, image_size: int | None = None, strict: bool = True
) -> tuple[dict, Report]:
    """Read published or own weights into the variables of a registered backbone.

    Args:
        name: a registered name.
        source: a file (.safetensors, .pth, .pt, .npz), a work directory, ``pip:NAME`` or ``bundled:NAME``.
        classifier: whether the classifier is wanted too; the variables then are those of ``create_classifier``.
        image_size: side of the images in pixels; positions of a ViT are resampled to it.
        strict: whether anything missing, unexpected or misfitting is an error; if not, it is a warning, and what is
            missing is left out of the variables.

    Returns:
        The variables (float32 arrays of numpy) and the report.

    Raises:
        UserError: no such name or source, an unreadable file, a layout of another architecture, or (``strict``)
            arrays that do not fit, both shapes named.
    """
    module = registry.create(name)
    arrays = read_arrays(sources.resolve(str(source)))
    layout, translated, report = _translate(module, arrays, name, str(source))
    head = translated.get('params/head/kernel')
    if classifier and head is None:
        raise UserError(f'{source} holds no classifier; load it with classifier=False')

    num_classes = head.shape[-1] if head is not None and head.ndim else 1
    size = registry.info(name).image_size if image_size is None else image_size
    expected = _expected_shapes(module, num_classes, size)
    if not classifier:
        in_head = [path for path in translated if path.split('/')[1] == 'head']
        report = dataclasses.replace(report, unused=tuple(in_head))
        translated = {path: array for path, array in translated.items() if path not in in_head}
        expected = {path: shape for path, shape in expected.items() if path.split('/')[1] != 'head'}
    fitting, report = merge(expected, translated, report)

    problems = report.problems()
    if problems:
        shown = '; '.join(problems[:3]) + (f'; and {len(problems) - 3} more' if len(problems) > 3 else '')
        message = f'{source} does not fit {name} ({layout} layout, {len(report.matched)} of {len(expected)}): {shown}'
        if strict:
            raise UserError(message)
        warnings.warn(message, stacklevel=2)
    for path, array in fitting.items():
        if not np.isfinite(array).all():
            warnings.warn(f'{source}: {path} holds values that are not finite', stacklevel=2)
    if not classifier:
        fitting = {path.replace('/backbone/', '/', 1): array for path, array in fitting.items()}
    return unflatten_dict({tuple(path.split('/')): array for path, array in fitting.items()}), report


def _translate(
    module: nn.Module, arrays: Mapping[str, np.ndarray], name: str, source: str
) -> tuple[str, dict[str, np.ndarray], Report]:
    """Recognise the layout (the one that knows most of the keys) and bring the arrays to our paths and axes."""
    candidates = {
        layout: {key: found for key in arrays if (found := translate(key, rules))}
        for layout, rules in keymaps.layouts(module).items()
    }
    layout, known = max(candidates.items(), key=lambda item: len(item[1]))
    if not known:
        example = next(iter(arrays), 'nothing')
        raise UserError(
            f'{source} holds no weights of {name} in a known layout ({", ".join(candidates)}): its keys look like '
            f'{example!r}'
        )
    translated, converted = {}, []
    for key, (path, transform) in known.items():
        if not path:
            continue
        array = arrays[key]
        steps = [] if transform is identity else [getattr(transform, '__name__', 'transformed')]
        if array.dtype != np.float32:
            steps.append(f'{array.dtype} to float32')
        try:
            translated[path] = np.ascontiguousarray(transform(array), np.float32)
        except ValueError:
            raise UserError(
                f'{source}: {key} has {array.ndim} axes {list(array.shape)}, which {path} cannot have'
            ) from None
        if steps:
            converted.append((path, ', '.join(steps)))
    unexpected = tuple(key for key in arrays if key not in known)
    return layout, translated, Report(source, layout, unexpected=unexpected, converted=tuple(converted))


def _expected_shapes(module: nn.Module, num_classes: int, image_size: int) -> dict[str, tuple[int, ...]]:
    model = Classifier(module, num_classes)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep='/').items()}


def save_weights(path: Path | str, variables: Mapping) -> None:
    """Write variables as safetensors under their own paths, so that ``load_weights`` reads them back bit by bit.

    Args:
        path: a file name ending in ``.safetensors``.
        variables: of a backbone or of a classifier.

    Raises:
        UserError: another suffix, which ``load_weights`` would not read back.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise UserError(f'weights are saved as .safetensors, not {path.name!r}')
    flat = flatten_dict({name: tree for name, tree in variables.items() if tree}, sep='/')
    partial = path.with_name(f'.{path.name}.partial')
    save_file({key: np.ascontiguousarray(leaf) for key, leaf in flat.items()}, partial)
    partial.chmod(0o644)
    partial.replace(path)
