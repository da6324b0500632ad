"""A file of an untrained classifier with a description, as a training keeps it."""

from pathlib import Path

import jax
import numpy as np

import backbones
from backbones.preprocessing import SMALL_IMAGES
from backbones.pretrained.description import Description

CLASSES = ('cat', 'dog', 'newt')


def write_classifier(directory: Path) -> Path:
    file = directory / 'weights.safetensors'
    model = backbones.create_classifier('resnet_micro', len(CLASSES))
    variables = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)))
    described = Description('resnet_micro', SMALL_IMAGES, task='classification', classes=CLASSES)
    backbones.save_weights(file, variables, description=described)
    return file
