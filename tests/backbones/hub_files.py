"""Files as timm publishes them on the hub."""

import json
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

import backbones
from backbones.pretrained.save import to_layout


def resnet18() -> dict[str, np.ndarray]:
    """A file of resnet18 in torchvision's layout, written by our own export."""
    images = np.zeros((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(backbones.create_classifier('resnet18', 5).init, jax.random.key(0), images)
    random = np.random.default_rng(0)
    variables = {
        path: np.abs(random.standard_normal(leaf.shape, np.float32))
        if path.endswith('/var')
        else random.standard_normal(leaf.shape, np.float32)
        for path, leaf in flatten_dict(shapes, sep='/').items()
    }
    exported = to_layout(variables, 'torchvision', 'resnet18')
    return {key: np.asarray(array, order='C') for key, array in exported.items()}  # safetensors ignores strides


def write_directory(directory: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A directory of timm on the hub."""
    directory.mkdir()
    save_file(arrays, directory / 'model.safetensors')
    configuration = {
        'architecture': 'resnet18',
        'num_classes': 5,
        'pretrained_cfg': {
            'input_size': [3, 160, 160],
            'interpolation': 'bicubic',
            'crop_pct': 0.95,
            'crop_mode': 'center',
            'mean': [0.1, 0.2, 0.3],
            'std': [0.4, 0.5, 0.6],
        },
    }
    (directory / 'config.json').write_text(json.dumps(configuration))
    return directory
