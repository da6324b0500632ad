"""From a source of weights to a whole model: its modules, its variables, what it expects, what its classes are."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from backbones import published_models, registry
from backbones.assembly import create_detector, create_segmenter
from backbones.detection_input import DetectionInput
from backbones.errors import MissingPartError, UserError, listed, unknown
from backbones.images import ImageReading
from backbones.model import Model
from backbones.prediction import class_names
from backbones.preprocessing import Preprocessing, as_size
from backbones.pretrained import sources
from backbones.pretrained.description import Description
from backbones.pretrained.load import load_weights
from backbones.text.tokenising import Tokenising

_CREATE = {'detection': create_detector, 'segmentation': create_segmenter}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model that can be used.

    Attributes:
        task: ``'classification'``, ``'segmentation'`` or ``'detection'``.
        model: backbone, neck and head.
        variables: arrays of numpy.
        input: what it expects of images, or of texts.
        names: of its classes.
        source: where the weights came from.
        evaluation: options of a detector's head with which it is evaluated, where they are not its own.
    """

    task: str
    model: Model
    variables: Mapping[str, Any]
    input: Preprocessing | DetectionInput | Tokenising
    names: tuple[str, ...]
    source: str
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        expected = self.input
        if self.task == 'classification' or not isinstance(expected, Preprocessing):
            return
        if expected.fit == 'crop' or (expected.fit == 'squash' and expected.crop < 1):
            raise UserError(
                f'the preprocessing of {self.source} cuts off the borders of images (fit={expected.fit!r}, '
                f"crop={expected.crop:g}), where {self.task} would see nothing; describe it with fit='letterbox', or "
                "'squash' and crop=1"
            )

    @property
    def image_input(self) -> Preprocessing | DetectionInput:
        """What it expects of images.

        Raises:
            UserError: it reads texts.
        """
        if isinstance(self.input, Tokenising):
            raise UserError(f'{self.source} reads texts, and this is for models of images')
        return self.input

    @property
    def reading(self) -> ImageReading:
        """How files become pixels."""
        return self.input.reading if isinstance(self.input, Preprocessing) else ImageReading()


def read(
    source: str | Path,
    name: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    **changes: Any,
) -> TrainedModel:
    """Read a model.

    Args:
        source: a run of ``experiments.train``, its file of weights or one of its checkpoints; published weights, as
            ``load_weights`` takes them; or a name, whose usual weights are then taken.
        name: of published weights: the backbone of a classifier, or a row of ``published_models.TABLE``; where it is
            left out, a file's own name may begin with it, as those of torchvision do.
        image_size: see ``predictor.load``.
        classes: names of the classes of published weights that were tuned to others.
        **changes: of published detectors and segmenters: see ``create_published``.

    Raises:
        UserError: no such source or name, weights without a head, or see ``load_weights``.
    """
    text = str(source)
    names = {**registry.TABLE, **published_models.TABLE}
    if name is None and isinstance(source, str) and text.replace('_', '').isalnum() and not Path(text).exists():
        name = text
        text = _usual_weights(text) if text in names else ''
    if name is not None and name not in names:
        if name == str(source):
            near = difflib.get_close_matches(name, names, 3)
            hint = f'; the nearest names are {listed(near)}' if near else ''
            raise UserError(f'{name!r} is neither a file nor a directory here, nor the name of a model{hint}')
        raise unknown('model', name, names)
    with sources.opened(text, weights=False) as place:
        description, older = sources.kept(place)
    of_run = older is not None or (description is not None and description.task)
    if not of_run:
        name = name or sources.published_by(text) or _named_by_file(text)
        if name in published_models.TABLE:
            return _published(text, name, image_size, classes, changes)
    if changes or (of_run and classes is not None):
        given = next(iter(changes), 'classes')
        raise UserError(f'{given} is known of {text}; leave it out')
    if description is not None and description.task:
        return _of_run(text, description, name, image_size)
    return _classifier(text, older['backbone'] if older is not None else str(name), image_size, classes=classes)


def _usual_weights(name: str) -> str:
    known = registry.info(name).weights if name in registry.TABLE else ()
    if not known:
        where = f' ({published_models.address(name)})' if name in published_models.TABLE else ''
        raise UserError(
            f'no source of weights of {name} is known that could be fetched; download its file{where} and pass that: '
            f"load('FILE', {name!r}), or --model {name} --weights FILE"
        )
    return known[0]


def _named_by_file(source: str) -> str:
    """The longest name with which the file's name begins: ``fcos_resnet50_fpn_coco-99b0c9b7.pth``."""
    stem = Path(sources.split(source)[0]).name.replace('-', '_')
    fitting = [name for name in (*published_models.TABLE, *registry.TABLE) if stem.startswith(name)]
    if not fitting:
        if Path(source).is_dir():
            raise UserError(
                f'{source!r} is no work directory of experiments.train; of published weights, pass the name'
            )
        raise UserError(
            f'{source} does not say which model its weights are of; pass its name as well, such as '
            f"load({source!r}, 'resnet50') (names: python -m experiments.models, and --published)"
        )
    return max(fitting, key=len)


def _of_run(
    source: str, description: Description, name: str | None, image_size: int | tuple[int, int] | None
) -> TrainedModel:
    if name not in (None, description.backbone):
        raise UserError(
            f'{source} was trained with the backbone {description.backbone}, not {name}; leave out the name'
        )
    if description.task == 'classification':
        return _classifier(source, description.backbone, image_size, description)
    if description.task not in _CREATE:
        raise unknown('task', description.task, ('classification', *_CREATE))
    arguments = description.model or _of_earlier_version(description)
    model = _CREATE[description.task](
        description.backbone, num_classes=len(description.classes), **_options(description), **arguments
    )
    variables, report = load_weights(description.backbone, source, model=model, image_size=image_size)
    return TrainedModel(description.task, model, variables, report.preprocessing, description.classes, source)


def _of_earlier_version(description: Description) -> dict[str, Any]:
    """How the model of a dense run was created whose description has only the values of its config."""
    values = description.head
    neck = {'channels': values['neck_channels']} if values['neck_channels'] else {}
    if values['strides']:
        neck['strides'] = tuple(values['strides'])
    head: dict[str, Any] = {}
    if description.task == 'detection':
        channels = values['head_channels'] or values['neck_channels']
        head = {'score_threshold': values['score_threshold'], 'max_detections': values['max_detections']}
        head |= {'channels': channels} if channels else {}
        head |= {'depth': values['head_depth']} if values['head_depth'] else {}
    else:
        width = values['head_channels'] and values['head'] != 'linear'
        head = {'channels': values['head_channels']} if width else {}
        head |= {} if values['head'] == 'linear' else {'auxiliary': values['auxiliary_head']}
    arguments = {
        'head': values['head'],
        'neck': None if values['neck'] == 'none' else values['neck'],
        'neck_options': neck if values['neck'] != 'none' else None,
        'head_options': head,
    }
    return arguments | ({'output_stride': values['output_stride']} if values.get('output_stride') else {})


def _published(
    source: str,
    name: str,
    image_size: int | tuple[int, int] | None,
    classes: Sequence[str] | None,
    changes: Mapping[str, Any],
) -> TrainedModel:
    row = published_models.TABLE[name]
    classes = classes or sources.class_names(source)
    if classes is not None:
        changes = {**changes, 'num_classes': len(classes)}
    model = published_models.create_published(name, **changes)
    variables, report = load_weights(row.backbone, source, model=model)
    task = 'detection' if row.create is create_detector else 'segmentation'
    names = tuple(classes or class_names.of_published(task, model.num_classes))
    expected = row.input or report.preprocessing
    if image_size is not None:
        if isinstance(expected, DetectionInput):
            expected = expected.of_size(image_size)
        else:
            expected = expected.replace(size=as_size(image_size))
    return TrainedModel(task, model, variables, expected, names, source, row.evaluation)


def _classifier(
    source: str,
    name: str,
    image_size: int | tuple[int, int] | None,
    description: Description | None = None,
    classes: Sequence[str] | None = None,
) -> TrainedModel:
    options = {} if description is None else _options(description)
    try:
        variables, report = load_weights(name, source, classifier=True, image_size=image_size, **options)
    except MissingPartError:
        raise UserError(
            f'{source} holds no classifier, which predictions need: its features come from '
            f'backbones.load_weights({name!r}, {source!r}), and a classifier is trained on them by experiments.train, '
            "whose run predicts (backbones.load('runs/NAME'), --workdir runs/NAME)"
        ) from None
    count = len(variables['params']['head']['bias'])
    if classes is not None and len(classes) != count:
        raise UserError(f'{source} has {count} classes, not the {len(classes)} that are named')
    model = registry.create_classifier(name, count, **options)
    names = classes or report.classes or class_names.of_published('classification', count)
    return TrainedModel('classification', model, variables, report.preprocessing, tuple(names), source)


def _options(description: Description) -> dict[str, Any]:
    options = dict(description.options)
    return options | ({'dtype': jnp.dtype(options['dtype'])} if 'dtype' in options else {})
