"""What a training keeps with its weights, so that whoever loads them uses them as it did."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones import inputs
from backbones.errors import UserError
from backbones.inputs import AnyPreprocessing

# Under this key it lies in the metadata of a .safetensors file and in ``metadata.json`` of a checkpoint.
KEY = 'vision_backbones'
METADATA = 'metadata.json'
# The file that holds it in a work directory.
FILE = 'description.json'
# Changes when an older reader would misread a description; a new key that has a default does not change it.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Description:
    """What weights are, and what they were trained to see.

    Attributes:
        backbone: its registered name.
        options: options that the backbone was created with, as ``create`` takes them.
        task: what was learned, such as ``'classification'``; empty if the weights are of a backbone alone.
        classes: name of each class, in the order of the outputs.
        preprocessing: from an image, or a text, as it comes to the model's input.
        data: ``'name'`` and ``'fingerprint'`` of the data set.
        head: how the head was made: its kind, and the values that say so (regime, weights, seed, …).
        model: what ``create_segmenter`` or ``create_detector`` was called with, beside the backbone, its options and
            the number of classes; empty for a classifier, and where an earlier version wrote it.
    """

    backbone: str
    preprocessing: AnyPreprocessing
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    task: str = ''
    classes: tuple[str, ...] = ()
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    head: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The description as JSON represents it."""
        return {
            'version': VERSION,
            'backbone': self.backbone,
            'options': dict(self.options),
            'task': self.task,
            'classes': list(self.classes),
            'preprocessing': self.preprocessing.as_json(),
            'data': dict(self.data),
            'head': dict(self.head),
            'model': dict(self.model),
        }

    @staticmethod
    def from_json(value: Any, where: str) -> 'Description':
        """The inverse of ``as_json``.

        Args:
            where: what holds it, for messages.

        Raises:
            UserError: a newer version wrote it, or it is damaged.
        """
        version = value.get('version') if isinstance(value, Mapping) else None
        if isinstance(version, int) and version > VERSION:
            raise UserError(
                f'{where} was written by a newer version (description {version}; this one reads up to {VERSION}): '
                'update this program'
            )
        try:
            return Description(
                backbone=str(value['backbone']),
                preprocessing=inputs.from_json(value['preprocessing']),
                options={name: _hashable(each) for name, each in dict(value['options']).items()},
                task=str(value['task']),
                classes=tuple(map(str, value['classes'])),
                data=dict(value['data']),
                head=dict(value['head']),
                model={name: _hashable(each) for name, each in dict(value.get('model', {})).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f'the description in {where} is damaged ({type(error).__name__}: {error}); put the file back from a '
                'copy, or save the weights again'
            ) from None


def _hashable(value: Any) -> Any:
    """Lists as tuples, which is what options of modules are."""
    if isinstance(value, dict):
        return {name: _hashable(each) for name, each in value.items()}
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def parse(text: str, where: str, key: str | None = None) -> Description | None:
    """The description in a JSON text, or in a JSON object under a key; ``None`` if the object has no such key.

    Raises:
        UserError: see ``Description.from_json``; or the text is not JSON.
    """
    try:
        value = json.loads(text)
        if key is not None and key not in value:
            return None
        value = value if key is None else value[key]
    except (ValueError, TypeError) as error:
        raise UserError(f'{where} is not valid JSON: {error}') from None
    return Description.from_json(value, where)


def read(path: Path, key: str | None = None) -> Description | None:
    """The description in a JSON file; ``None`` if there is no such file, or nothing in it under the key.

    Raises:
        UserError: it cannot be read, or see ``Description.from_json``.
    """
    if not path.is_file():
        return None
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}') from None
    return parse(text, str(path), key)
