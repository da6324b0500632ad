"""The models that are explained: runs, the backbones of ablations, and published weights."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import ml_collections

import backbones
from backbones.detection_input import DetectionInput
from backbones.errors import MisfitWarning, UserError, unknown
from backbones.explanation.observation import backbone_variables
from backbones.images import ImageReading
from backbones.model import Model
from backbones.prediction import trained_model
from backbones.prediction.trained_model import TrainedModel
from backbones.preprocessing import Preprocessing, as_size
from backbones.pretrained import sources
from experiments.ablation import cells, settings
from experiments.cli import display, work_directories
from experiments.data import loading
from experiments.data.dataset import Dataset
from experiments.data.model_input import input_preprocessing, input_size, reads_texts
from experiments.data.options import KEYS, ReadingOptions
from experiments.explanation.naming import Named
from experiments.prediction import splits

_SIZES = ('image_size', 'image_height')
# Keys of an ablation with one value that may stand in a list, as an axis.
_SINGLE = (*_SIZES, *(key for key in KEYS if not isinstance(cells.KEYS[key].default, tuple)))


@dataclasses.dataclass(frozen=True)
class ExplainedModel:
    """A network that is explained.

    Attributes:
        name: of the backbone, or of a published model.
        about: where its weights come from, for people.
        network: a ``Model`` with a classification head, or a backbone alone.
        variables: of the network.
        input: what it expects of images.
        classes: names of the head's classes; none without a head.
        dataset: reads the data set that it was trained on, given the directory of prepared TFDS data sets; ``None`` if
            that is not known.
    """

    name: str
    about: str
    network: nn.Module
    variables: Any
    input: Preprocessing | DetectionInput
    classes: tuple[str, ...] = ()
    dataset: Callable[[Path | None], Dataset] | None = None

    @property
    def reading(self) -> ImageReading:
        """How files become pixels."""
        return self.input.reading if isinstance(self.input, Preprocessing) else ImageReading()

    def class_index(self, text: str) -> int:
        """The index of a class by its name, in any case, or by its number.

        Raises:
            UserError: there is no such class; the nearest ones are named.
        """
        if text in self.classes:
            return self.classes.index(text)
        lower = [name.lower() for name in self.classes]
        if text.lower() in lower:
            return lower.index(text.lower())
        if text.isdecimal() and int(text) < len(self.classes):
            return int(text)
        raise UserError(f'{unknown("class", text, self.classes)} (--class, of {self.name}, {self.about})')


def read(named: Named, image_size: int | tuple[int, int] | None = None) -> list[ExplainedModel]:
    """Read what a user names: one model, or of an ablation each backbone with pretrained weights.

    Args:
        named: the model.
        image_size: height and width of the input in pixels, in place of those that the weights expect.

    Raises:
        UserError: see ``trained_model.read``; or an ablation without pretrained backbones.
    """
    if named.workdir is None:
        return [_published(named, image_size)]
    config = work_directories.read_config(named.workdir)
    if config is not None and 'backbones' in config and 'datasets' in config:
        return _of_ablation(named.workdir, config, image_size)
    return [_of_run(named.workdir, image_size)]


def _of_run(workdir: Path, image_size: int | tuple[int, int] | None) -> ExplainedModel:
    model = trained_model.read(workdir, image_size=image_size)
    description, older = sources.kept(sources.resolve(str(workdir)))
    name = description.backbone if description is not None else (older or {}).get('backbone', workdir.name)
    regime = (description.head if description is not None else older or {}).get('regime', '')
    about = f'{workdir.resolve().name} · {regime}' if regime else workdir.resolve().name
    return _explained(name, about, model, lambda data_directory: splits.dataset_of(workdir, data_directory))


def _published(named: Named, image_size: int | tuple[int, int] | None) -> ExplainedModel:
    source = named.weights or named.model
    try:
        model = trained_model.read(source, named.model if named.weights else None, image_size)
    except UserError as error:
        if named.model not in backbones.names():
            raise
        weights = named.weights or next(iter(backbones.info(named.model).weights), '')
        try:
            found = _alone(named.model, weights, image_size) if weights else None
        except UserError:
            found = None
        if found is None:
            raise
        _say(f'{named.model}: the backbone alone is explained, since no classifier can be read ({error})')
        return found
    return _explained(named.model, named.weights or model.source, model)


def _explained(
    name: str, about: str, model: TrainedModel, dataset: Callable[[Path | None], Dataset] | None = None
) -> ExplainedModel:
    if model.task == 'classification':
        return ExplainedModel(name, about, model.model, model.variables, model.image_input, model.names, dataset)
    variables = backbone_variables(model.model, model.variables)
    return ExplainedModel(
        name, f'{about} · {model.task}', model.model.backbone, variables, model.image_input, (), dataset
    )


def _alone(name: str, weights: str, image_size: int | tuple[int, int] | None) -> ExplainedModel:
    if reads_texts(name):
        raise UserError(f'{name} reads texts, and what is explained here are images')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', MisfitWarning)
        variables, report = backbones.load_weights(name, weights, image_size=image_size)
    assert isinstance(report.preprocessing, Preprocessing)
    return ExplainedModel(name, weights, backbones.create(name), variables, report.preprocessing)


def _of_ablation(
    workdir: Path, config: dict[str, Any], image_size: int | tuple[int, int] | None
) -> list[ExplainedModel]:
    """An ablation keeps no heads: its backbones, with the input that they had in it.

    Raises:
        UserError: they had inputs of several sizes, and none is chosen; or no backbone has pretrained weights.
    """
    several = {key: values for key, values in settings.axes(config, cells.KEYS).items() if key in _SIZES}
    if image_size is None and several:
        key, values = next(iter(several.items()))
        raise UserError(
            f'the ablation in {str(workdir)!r} has {len(values)} values of {key} '
            f'({", ".join(map(str, values))}), each with features of its own; choose one with --image_size'
        )
    config = {**config, **{key: _one(config[key]) for key in _SINGLE if key in config}}
    values = ml_collections.ConfigDict({'image_size': 0, 'image_height': 0, 'fit': 'crop', **config})
    size = input_size(values) if image_size is None else as_size(image_size)
    found = []
    for text in config['backbones']:
        variant = cells.parse_variant(text)
        if variant.weights in ('', cells.RANDOM):
            continue
        expected = input_preprocessing(variant.backbone, variant.weights, size, values.fit)
        if not isinstance(expected, Preprocessing):
            raise UserError(f'the ablation in {str(workdir)!r} is of texts, and what is explained here are images')
        alone = _alone(variant.backbone, variant.weights, expected.size)
        about = f'{workdir.resolve().name} · {variant.weights}'
        found.append(
            dataclasses.replace(
                alone, about=about, input=expected, dataset=lambda directory: _of_config(config, directory)
            )
        )
    if not found:
        raise UserError(
            f'the ablation in {str(workdir)!r} has no backbone with pretrained weights: '
            f'{", ".join(config["backbones"])}'
        )
    _say(
        f'{workdir} is an ablation, which keeps no heads: its {len(found)} pretrained backbones are explained alone; '
        'one of its trainings has a head (--workdir DIR/trainings/CELL/RATE)'
    )
    return found


def _one(value: Any) -> Any:
    """A single value, also of a key that is an axis of one value."""
    return value[0] if isinstance(value, list) and value else value


def _of_config(config: dict[str, Any], data_directory: Path | None) -> Dataset:
    if len(config['datasets']) > 1:
        raise UserError(
            f'the ablation has {len(config["datasets"])} data sets; choose one with --dataset '
            f'({", ".join(config["datasets"])})'
        )
    options = ReadingOptions(**{key: config[key] for key in KEYS if key in config})
    return loading.load(config['datasets'][0], data_directory, options)


def _say(text: str) -> None:
    display.console.print(text, style='yellow', markup=False, soft_wrap=True, highlight=False)


def distinct(models: Sequence[ExplainedModel]) -> list[str]:
    """A name for each model in messages: with where it comes from, where two have the same."""
    names = [model.name for model in models]
    return [f'{model.name} ({model.about})' if names.count(model.name) > 1 else model.name for model in models]


def has_head(model: ExplainedModel) -> bool:
    """Whether there is a classification head."""
    return isinstance(model.network, Model)
