"""Loading weights into the variables of a backbone."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from backbones import registry
from backbones.errors import UserError, unknown
from backbones.preprocessing import Preprocessing
from backbones.pretrained import compatibility, configuration, keymaps, sources
from backbones.pretrained.keymaps.rules import ForeignFileError, KeyMap, Rule, Translation, translate
from backbones.pretrained.merge import Report, Shape, merge
from backbones.published import WEIGHTS

NATIVE = 'native'

# What wrappers of torch put before every key: DataParallel, DistributedDataParallel; torch.compile.
_WRAPPERS = ('module.', '_orig_mod.')


def preprocess(name_or_weights: str, name: str | None = None) -> Preprocessing:
    """What weights expect of images: a callable ``uint8[batch, height, width, 1 or 3] → float[batch, h, w, 3]``.

    Args:
        name_or_weights: a registered name (its usual weights), or a source as ``load_weights`` takes it.
        name: the backbone that a source is for, where neither a configuration nor our table of published weights says
            what it expects; its layout then decides.

    Raises:
        UserError: neither a name nor a source, a source without a configuration and without ``name``, or a
            configuration that can't be followed.
    """
    if name_or_weights in registry.TABLE:
        return registry.info(name_or_weights).preprocessing
    published = sources.published_by(name_or_weights)
    on_hub = name_or_weights.startswith('hf:')
    if published is not None and not on_hub:
        return registry.info(published).preprocessing
    if name is not None or on_hub or Path(name_or_weights).expanduser().exists():
        place = sources.resolve(name_or_weights)
        if place.is_dir():
            stated = configuration.preprocessing(name_or_weights, *sources.configurations(place))
            if stated is not None:
                return stated
        if name is None:
            raise UserError(f'{name_or_weights} does not say what its weights expect; say whose they are: name=…')
        arrays = without_wrapper(sources.read(name_or_weights).arrays)
        layout, _ = recognise(registry.create(name), arrays, name, name_or_weights)
        return registry.preprocessing_of(name, layout)
    known = {source for listed in WEIGHTS.values() for source in listed}
    raise unknown('backbone or published weights', name_or_weights, {*registry.TABLE, *known})


def load_weights(
    name: str,
    source: str | Path,
    classifier: bool = False,
    image_size: int | None = None,
    strict: bool = True,
    input_channels: int = 3,
    **overrides,
) -> tuple[dict, Report]:
    """Read published or own weights into the variables of a registered backbone.

    Args:
        name: a registered name.
        source: a file (.safetensors, .pth, .pt, .bin, .npz), a directory as a hub lays it out (one file or shards),
            a work directory or a checkpoint of ``experiments.train``, ``hf:ORG/REPO``, ``pip:NAME``, ``bundled:NAME``.
        classifier: whether the classifier is wanted too; the variables then are those of ``create_classifier``.
        image_size: side of the images in pixels; positions of a ViT are resampled to it.
        strict: whether anything missing, unexpected or misfitting is an error; if not, it is a warning, and what is
            missing is left out of the variables.
        input_channels: of the images; a first convolution trained on RGB is summed over its three channels for one,
            and repeated and scaled by ``3 / input_channels`` for more.
        **overrides: options of the backbone, as ``create`` takes them.

    Returns:
        The variables (float32 arrays of numpy) and the report.

    Raises:
        UserError: no such name or source, an unreadable file, a layout of another architecture, a key that gives away
            a file of another model, or (``strict``) arrays that do not fit, both shapes named.
    """
    module = registry.create(name, **overrides)
    checkpoint = sources.read(source)
    arrays = without_wrapper(checkpoint.arrays)
    layout, translation = recognise(module, arrays, name, str(source))
    head = translation.arrays.get('params/head/kernel')
    if classifier and head is None:
        raise UserError(f'{source} holds no classifier; load it with classifier=False')
    num_classes = head.shape[-1] if classifier and head is not None and head.ndim else None
    size = registry.info(name).image_size if image_size is None else image_size
    expected = expected_shapes(name, num_classes, (1, size, size, input_channels), overrides)
    stated = configuration.preprocessing(str(source), checkpoint.configuration, checkpoint.preprocessor)
    differences = compatibility.differences(checkpoint.configuration, layout, name, module)
    if checkpoint.configuration is not None:
        made_for = compatibility.image_size(checkpoint.configuration)
        if image_size is None and made_for not in (None, size) and hasattr(module, 'resize_parameter'):
            differences.append(
                f'its configuration is for images of {made_for} pixels where ours are {size} '
                f'(pass image_size={made_for}, or image_size={size} to have its positions resampled)'
            )
    expects = stated or registry.preprocessing_of(name, layout)
    report = Report(str(source), layout, expects.for_channels(input_channels), differences=tuple(differences))
    fitting, report = merge(expected, translation, report, lambda *args: _resize(module, *args))

    problems = report.problems()
    if problems:
        shown = '; '.join(problems[:3]) + (f'; and {len(problems) - 3} more' if len(problems) > 3 else '')
        message = f'{source} does not fit {name} ({layout} layout, {len(report.matched)} of {len(expected)}): {shown}'
        if report.misfit or report.missing or report.unexpected:
            message += _suggestion(arrays, name)
        if strict:
            raise UserError(message)
        warnings.warn(message, stacklevel=2)
    for path, array in fitting.items():
        if not np.isfinite(array).all():
            warnings.warn(f'{source}: {path} holds values that are not finite', stacklevel=2)
    if not classifier:
        fitting = {path.replace('/backbone/', '/', 1): array for path, array in fitting.items()}
    return unflatten_dict({tuple(path.split('/')): array for path, array in fitting.items()}), report


def without_wrapper(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays without the prefix that a wrapper of torch puts before every key."""
    for prefix in _WRAPPERS:
        if arrays and all(key.startswith(prefix) for key in arrays):
            arrays = {key.removeprefix(prefix): array for key, array in arrays.items()}
    return dict(arrays)


def native_keymap(arrays: Mapping[str, np.ndarray]) -> KeyMap:
    """Our own layout: every key is a path, of a classifier or of a backbone alone, whose stages tell it from flax's."""
    lines = []
    if not any('/stage1/' in key for key in arrays):
        return KeyMap(lines)
    for key in arrays:
        kind, _, rest = key.partition('/')
        if kind in ('params', 'batch_stats') and rest:
            inside = rest.startswith(('backbone/', 'head/'))
            lines.append(Rule(key, key if inside else f'{kind}/backbone/{rest}', optional=rest.startswith('head/')))
    return KeyMap(lines)


def recognise(module: nn.Module, arrays: Mapping[str, np.ndarray], name: str, source: str) -> tuple[str, Translation]:
    """Recognise the layout (the one that knows most of the keys) and bring the arrays to our paths and axes."""
    candidates = {NATIVE: native_keymap(arrays)}
    candidates |= {layout: KeyMap(lines) for layout, lines in keymaps.layouts(module).items()}
    known = {layout: keymap.known(arrays) for layout, keymap in candidates.items()}
    layout = max(candidates, key=lambda each: known[each])
    if not known[layout]:
        example = next(iter(arrays), 'nothing')
        raise UserError(
            f'{source} holds no weights of {name} in a known layout ({", ".join(candidates)}): its keys look like '
            f'{example!r}{_suggestion(arrays, name)}'
        )
    try:
        return layout, translate(arrays, candidates[layout])
    except ForeignFileError as error:
        raise UserError(f'{source} does not fit {name}: {error}') from None
    except ValueError as error:
        key, path, shape = error.args
        raise UserError(f'{source}: {key} has {len(shape)} axes {list(shape)}, which {path} cannot have') from None


def nearest(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The registered backbones whose key map knows every key and whose parameters are as many as the file's."""
    names = []
    for name, row in registry.TABLE.items():
        keymaps_of_name = [native_keymap(arrays), *map(KeyMap, keymaps.layouts(row.constructor()).values())]
        if any(_size(arrays, keymap) == row.params for keymap in keymaps_of_name):
            names.append(name)
    return names


def _size(arrays: Mapping[str, np.ndarray], keymap: KeyMap) -> int | None:
    """How many parameters of a backbone the arrays hold, or ``None`` where the key map doesn't know all keys."""
    size = 0
    for key, array in arrays.items():
        found = keymap.find(key)
        if found is None:
            return None
        line = found[0]
        size += (
            array.size
            if isinstance(line, Rule) and not line.optional and line.path.startswith('params/backbone/')
            else 0
        )
    return size


def _suggestion(arrays: Mapping[str, np.ndarray], name: str) -> str:
    names = [each for each in nearest(arrays) if each != name]
    return f'; it fits {" or ".join(names[:3])}' if names else ''


def expected_shapes(name: str, num_classes: int | None, images: Shape, overrides: Mapping) -> dict[str, Shape]:
    """Path → shape of every variable of a classifier, or of its backbone alone where ``num_classes`` is ``None``."""
    model = registry.create_classifier(name, num_classes or 1, **overrides)
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(images, jnp.float32))
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables, sep='/').items()}
    return {path: shape for path, shape in shapes.items() if num_classes or path.split('/')[1] != 'head'}


def _resize(module: nn.Module, path: str, array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Let the family resample an array that depends on the size of the images, if it has one at this path."""
    resize = getattr(module, 'resize_parameter', None)
    return None if resize is None else resize(path.removeprefix('params/backbone/'), array, shape)
