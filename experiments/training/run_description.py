"""What a run keeps with its weights: in its work directory, in every checkpoint, and in ``weights.safetensors``."""

import dataclasses
from typing import Any

import ml_collections

from backbones.model import Model
from backbones.preprocessing import Preprocessing
from backbones.pretrained.description import Description
from experiments import tasks
from experiments.data.dataset import Dataset
from experiments.tasks import Task

# The values of a config that say how the head was made, whatever the task.
_OF_EVERY_HEAD = ('regime', 'weights', 'lora_alpha', 'fraction', 'seed')


def describe(config: ml_collections.ConfigDict, dataset: Dataset, model: Model, task: Task) -> Description:
    """Describe a run's weights.

    Args:
        config: the run's config.
        dataset: its data set.
        model: its model.
        task: its task. In the description, its preprocessing begins with the files, which the data set has read and
            stored.
    """
    preprocessing = task.preprocessing
    if isinstance(preprocessing, Preprocessing):
        # Texts come as they are.
        preprocessing = dataclasses.replace(preprocessing, stored_size=dataset.stored_size, reading=dataset.reading)
    keys = (*_OF_EVERY_HEAD, *tasks.find(config.task).model_keys)
    return Description(
        backbone=config.backbone,
        preprocessing=preprocessing,
        options={} if config.dtype == 'float32' else {'dtype': config.dtype},
        task=config.task,
        classes=tuple(dataset.classes),
        data={'name': dataset.name, 'fingerprint': dataset.fingerprint()},
        head={'module': type(model.head).__name__, **{key: _plain(config[key]) for key in keys}},
        model=task.model_arguments(),
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
