"""Loading weights into the variables of a backbone."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from backbones import inputs, registry
from backbones.errors import MisfitWarning, MissingPartError, UserError, listed, unknown
from backbones.inputs import AnyPreprocessing
from backbones.model import Model
from backbones.preprocessing import Preprocessing
from backbones.pretrained import advice, compatibility, configuration, sources, texts, values
from backbones.pretrained.description import Description
from backbones.pretrained.keymaps.native import NATIVE, PARTS, part_of
from backbones.pretrained.keymaps.rules import Translation
from backbones.pretrained.merge import Report, Shape, merge
from backbones.pretrained.parts import backbone_of, find_network, possible_layouts, wanted_parts
from backbones.pretrained.recognition import recognise
from backbones.pretrained.selection import select
from backbones.pretrained.text_files import NONE
from backbones.published import WEIGHTS
from backbones.published_models import preprocessing_of as published_preprocessing
from backbones.text.encoder import TextEncoder
from backbones.text.tokenising import Tokenising


def preprocess(name_or_weights: str | Path, name: str | None = None) -> AnyPreprocessing:
    """Preprocessing that weights expect: a callable ``uint8[batch, height, width, 1 or 3] → float[batch, h, w, 3]``.

    Of a text encoder it is its tokenizer, with the length of its texts (``encode``: texts → ``int32[batch, length]``).
    It comes with the weights (``tokenizer.json``); for a registered name, with its first published weights that are at
    hand without a download.

    Args:
        name_or_weights: a registered name (its usual weights), or a source as ``load_weights`` takes it.
        name: the backbone that a source is for, where neither what a training kept with it, nor a configuration, nor
            our table of published weights says what it expects; its layout then decides.

    Raises:
        UserError: neither a name nor a source, a source that says nothing and no ``name``, a source of another backbone
            than ``name``, a configuration that cannot be followed, or no tokenizer beside the weights.
    """
    name_or_weights = str(name_or_weights)
    if name_or_weights in registry.TABLE:
        if texts.is_text(name_or_weights):
            return texts.of_random(name_or_weights)
        return registry.info(name_or_weights).preprocessing
    published = sources.published_by(name_or_weights)
    if published is not None and texts.is_text(published):
        name = name or published
        published = None
    on_hub = name_or_weights.startswith('hf:')
    if published is not None and not on_hub:
        return registry.info(published).preprocessing
    if name is not None or on_hub or Path(sources.split(name_or_weights)[0]).expanduser().exists():
        of_texts = name is not None and texts.is_text(name)
        with sources.opened(name_or_weights, weights=False, texts=of_texts) as place:
            kept = _kept(name_or_weights, *sources.kept(place))
            beside = sources.configurations(place) if kept is None and place.is_dir() else (None, None)
            files = sources.texts_in(place) if kept is None and of_texts else NONE
        if kept is not None:
            other = None if name is None else compatibility.of_another_backbone(kept, name, registry.create(name))
            if other:
                raise UserError(f'{name_or_weights} does not fit {name}: {other}')
            return kept.preprocessing
        if name is not None and of_texts:
            return texts.of_source(name, name_or_weights, files)
        stated = configuration.preprocessing(name_or_weights, *beside)
        if stated is not None:
            return stated
        if name is None:
            raise UserError(
                f'{name_or_weights} does not say what its weights expect; pass the backbone they are for: name=…'
            )
        module, checkpoint = registry.create(name), sources.read(name_or_weights)
        arrays, _ = select(module, checkpoint.arrays, checkpoint.prefix, name, name_or_weights)
        layout, _ = recognise(module, arrays, name, name_or_weights)
        return registry.preprocessing_of(name, layout)
    known = {source for listed in WEIGHTS.values() for source in listed}
    raise unknown('backbone or published weights', name_or_weights, {*registry.TABLE, *known})


def preprocessing_of(name: str, weights: str) -> AnyPreprocessing:
    """Preprocessing of a run that begins from ``weights``; the backbone's own if they are random (or ``''``).

    Raises:
        UserError: see ``preprocess``.
    """
    return preprocess(name if weights in ('', 'random') else weights, name)


def _kept(source: str, description: Description | None, older_config: Mapping[str, Any] | None) -> Description | None:
    """What is known of weights of ours: what was kept with them, or what the config of an earlier version implies."""
    backbone = None if older_config is None else older_config['backbone']
    if description is not None or older_config is None or backbone not in registry.TABLE:
        return description
    try:
        expects = preprocessing_of(backbone, older_config['weights'])
    except UserError as error:
        expects = registry.info(backbone).preprocessing
        warnings.warn(
            f'{source} was written by an earlier version, and what it began from is not there ({error}); mean and std '
            f'are taken to be those of {backbone}',
            stacklevel=3,
        )
    assert isinstance(expects, Preprocessing)  # earlier versions knew no texts
    size = older_config['image_size'] or expects.size
    # Trainings see images without a centre crop.
    expects = expects.for_stored_images().replace(size=size, crop=1.0, fit=older_config.get('fit', 'crop'))
    return Description(backbone, expects, task=older_config.get('task', 'classification'))


def load_weights(
    name: str,
    source: str | Path,
    classifier: bool = False,
    image_size: int | tuple[int, ...] | None = None,
    strict: bool = True,
    input_channels: int = 3,
    parts: Sequence[str] | None = None,
    check_values: bool = True,
    prefix: str = '',
    model: Model | None = None,
    **overrides,
) -> tuple[dict, Report]:
    """Read published weights or our own into the variables of a registered backbone, or of a model that has one.

    A whole detector: ``load_weights('resnet50', file, model=create_published('fcos_resnet50_fpn'))``.

    Args:
        name: a registered name.
        source: a file (.safetensors, .pth, .pt, .bin, .npz), a directory as a hub lays it out (one file or shards),
            a work directory or a checkpoint of ``experiments.train`` (averaged where there is an average, adapters
            merged), ``hf:ORG/REPO``, ``pip:NAME``, ``bundled:NAME``; any of them with ``#PREFIX`` at the end. What a
            training kept with its weights is in the report: the preprocessing, the names of the classes, and more.
        classifier: the same as ``parts=('backbone', 'head')``.
        image_size: height and width of the images in pixels, or the side of square ones; positions of a ViT are
            resampled to it. By default, the size of the training that wrote the weights, or else that of the backbone,
            and a file that was made for another one is refused. Of a text encoder it is ``(length,)``, the most tokens
            of a text.
        strict: whether anything missing, unexpected or misfitting is an error; if not, it is a warning, and what is
            missing is left out of the variables. A file of which nothing fits is an error all the same.
        input_channels: number of channels of the images; a first convolution trained on RGB is summed over its three
            channels for one, and repeated and scaled by ``3 / input_channels`` for more.
        parts: which of ``'backbone'``, ``'neck'`` and ``'head'`` are wanted; by default the backbone, or all parts of
            ``model``. Without ``model``, the shapes of a linear head and of a backbone are checked; a neck, and any
            other head, is taken as the file holds it.
        check_values: whether a value that is NaN or infinite (in float32), or a negative running variance, is an error.
        prefix: which network of a file that holds several is wanted: the name of a dictionary in it, or what is in
            front of the keys, such as ``'teacher'`` or ``'module.encoder_q'``.
        model: the model that is to take the weights, with this backbone: every variable of the wanted parts must be in
            the file, with its shape, and nothing else of them.
        **overrides: options of the backbone, as ``create`` takes them. Where a layout was trained in several ways and
            the file does not tell which, an option that is passed is not questioned.

    Returns:
        The variables (float32 arrays of numpy) and the report. The variables are those of the backbone if that is all
        that is wanted, and otherwise those of a ``Model`` with the parts wanted.

    Raises:
        UserError: no such name, source, prefix or part, a ``model`` with another backbone or beside ``overrides``, a
            part that the source does not hold, several networks and no prefix to choose by, an unreadable file, a
            layout of another architecture, a key that gives away a file of another model, (``strict``) the weights of a
            training of another backbone, or arrays that do not fit, both shapes named, or (``check_values``) values
            that no trained network has.
    """
    wanted = wanted_parts(parts, classifier, model)
    module = registry.create(name, **overrides) if model is None else backbone_of(model, name, overrides)
    given = None if image_size is None else inputs.as_size(module, image_size)  # before a large file is read
    checkpoint = sources.read(source, isinstance(module, TextEncoder))
    if prefix and checkpoint.prefix:
        raise UserError(f'{source} names a part of the file already; leave out prefix={prefix!r}, or the part after #')
    kept = _kept(str(source), checkpoint.description, checkpoint.older_config)
    other = None if kept is None else compatibility.of_another_backbone(kept, name, module, overrides)
    if other and strict:
        raise UserError(f'{source} does not fit {name}: {other}')
    layouts = possible_layouts(model, module, name, wanted, overrides)
    start = prefix or checkpoint.prefix
    arrays, apart, layout, translation = find_network(
        module, checkpoint.arrays, start, name, str(source), layouts, wanted
    )
    if model is not None and layout == NATIVE:
        translation = dataclasses.replace(translation, optional=frozenset())  # what it has must all have a place
    held = {part_of(path) for path in translation.arrays}
    if absent := [part for part in wanted if part not in held]:
        others = tuple(part for part in PARTS if part in held)
        hint = ', or classifier=False' if classifier else ''
        raise MissingPartError(f'{source} holds no {absent[0]}; load what it holds with parts={others}{hint}')
    made_for = kept.preprocessing if kept is not None else registry.info(name).preprocessing
    size = made_for.size if given is None else given
    if isinstance(module, TextEncoder) and image_size is None:
        size = (min(size[0], module.longest()),)  # which may be shorter than usual
    images = inputs.spec(size, channels=input_channels).shape
    if model is None:
        expected = _expected(name, translation, wanted, images, overrides)
    else:
        expected = {path: shape for path, shape in model_shapes(model, images).items() if part_of(path) in wanted}
    if isinstance(module, TextEncoder):
        stated: AnyPreprocessing | None = texts.tokenising(name, checkpoint.texts, module)
    else:
        stated = configuration.preprocessing(str(source), checkpoint.configuration, checkpoint.preprocessor)
    differences = compatibility.differences(checkpoint.configuration, layout, name, module, overrides)
    if isinstance(module, TextEncoder):
        differences += texts.differences(checkpoint.texts, module, overrides)
    if kept is not None:
        differences += [other] if other else compatibility.kept_differences(kept, module, overrides)
    differs = False
    if checkpoint.configuration is not None:
        stated_size = compatibility.image_size(checkpoint.configuration)
        differs = image_size is None and stated_size not in (None, size) and compatibility.resamples(module)
        if differs:
            theirs, ours = (side[0] if side[0] == side[1] else side for side in (stated_size, size))
            differences.append(
                f'its configuration is for images of {theirs} pixels where ours are {ours} '
                f'(pass image_size={theirs}, or image_size={ours} to have its positions resampled)'
            )
    usual = None if model is None or layout == NATIVE else published_preprocessing(model)
    usual = usual or registry.preprocessing_of(name, layout)
    expects = kept.preprocessing if kept is not None else stated or usual
    if isinstance(expects, Tokenising):
        expects = expects.replace(length=None if image_size is None else size[0])
    else:
        expects = expects.replace(size=None if image_size is None else size).for_channels(input_channels)
    report = Report(str(source), layout, expects, description=kept)
    lenient = ('head',) if model is None else ()
    fitting, report = merge(expected, translation, report, lambda *args: _resize(module, size, *args), lenient)
    # A configuration that says another size has been objected to above.
    chosen = {*overrides, *(['image_size'] if image_size is not None or differs else [])}
    differences += compatibility.resampled(module, report.reshaped, size, chosen)
    report = dataclasses.replace(report, dropped=(*report.dropped, *apart), differences=tuple(differences))
    problems = report.problems()
    if problems:
        shown = listed(problems, separator='; ')
        message = f'{source} does not fit {name} ({layout} layout, {len(report.matched)} of {len(expected)}): {shown}'
        if report.misfit or report.missing or report.unexpected:
            known = advice.remedies(module, report, arrays, input_channels, translation.arrays)
            message += ''.join(f'; {each}' for each in known) or advice.suggestion(arrays, name)
        # A model of which nothing was read is no lenient reading of the file.
        if strict or not report.matched:
            raise UserError(message)
        warnings.warn(message, MisfitWarning, stacklevel=2)
    if check_values and (damage := values.damage(fitting)):
        raise UserError(
            f'{source} is damaged, or its training diverged: {damage}; take another file or an earlier checkpoint, '
            'or pass check_values=False to load it as it is'
        )
    if wanted == ('backbone',):
        fitting = {path.replace('/backbone/', '/', 1): array for path, array in fitting.items()}
    return unflatten_dict({tuple(path.split('/')): array for path, array in fitting.items()}), report


def _expected(
    name: str, translation: Translation, wanted: Sequence[str], images: Shape, overrides: Mapping
) -> dict[str, Shape]:
    """Path → shape of what is wanted; what no table of ours describes is expected to be as the file holds it."""
    kernel = translation.arrays.get('params/head/kernel')
    linear = kernel is not None and 'head' in wanted
    classes = (kernel.shape[-1] if kernel.ndim else 1) if linear else None
    shapes = expected_shapes(name, classes, images, overrides) if linear or 'backbone' in wanted else {}
    shapes = {path: shape for path, shape in shapes.items() if part_of(path) in wanted}
    free = {'neck', *(() if linear else ('head',))}.intersection(wanted)
    return shapes | {path: array.shape for path, array in translation.arrays.items() if part_of(path) in free}


def expected_shapes(name: str, num_classes: int | None, images: Shape, overrides: Mapping) -> dict[str, Shape]:
    """Path → shape of every variable of a classifier, or of its backbone alone where ``num_classes`` is ``None``."""
    shapes = model_shapes(registry.create_classifier(name, num_classes or 1, **overrides), images)
    return {path: shape for path, shape in shapes.items() if num_classes or part_of(path) != 'head'}


def model_shapes(model: nn.Module, images: Shape) -> dict[str, Shape]:
    """Path → shape of every variable of a model, for images, or tokens, of this shape."""
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs.spec_of_shape(images))
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep='/').items()}


def _resize(module: nn.Module, size: tuple[int, ...], path: str, array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """Let the family resample the array at this path, if it depends on the size of the images."""
    resize = getattr(module, 'resize_parameter', None)
    return None if resize is None else resize(path.removeprefix('params/backbone/'), array, shape, size)
