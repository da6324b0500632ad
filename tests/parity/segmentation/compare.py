"""Torchvision's FCN and DeepLabv3 against ours in one process, in full, at any size and with any seed.

Needs an environment with both this repository's requirements and torchvision:

    python tests/parity/segmentation/compare.py fcn_resnet50 deeplabv3_resnet101 --size 97 131 --seed 3
"""

import argparse
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import torch
import torchvision
from flax import linen as nn
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).parents[3]))

import backbones
from backbones import freezing, published_models
from tests.parity.segmentation import cases


def compare(name: str, size: tuple[int, int], seed: int) -> dict[str, float]:
    """The largest deviation of the logits and of the auxiliary ones, as a share of the reference's largest."""
    reference = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    arrays = cases.state({key: value.shape for key, value in reference.state_dict().items()}, seed)
    reference.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    images = cases.noise('images', 2, *size, 3, seed=seed)
    with torch.inference_mode():
        answers = reference.double().eval()(torch.from_numpy(images).permute(0, 3, 1, 2).double())

    model = backbones.create_published(name)
    backbone = published_models.TABLE[name].backbone
    with tempfile.TemporaryDirectory() as directory:
        file, back = Path(directory) / 'weights.safetensors', Path(directory) / 'back.safetensors'
        save_file(arrays, file)
        variables, report = backbones.load_weights(backbone, file, model=model)
        assert not report.problems()
        backbones.save_weights(back, variables, 'torchvision', backbone)
        reference.float().load_state_dict(load_file(back), strict=True)
    for key, array in reference.state_dict().items():
        assert np.array_equal(array.numpy(), arrays[key]), key

    mask = freezing.mask(variables['params'], (('head/auxiliary/classifier/.*', 'trainable'), ('.*', 'frozen')))

    def without_dropout(call, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)

    @jax.jit
    def run(variables, images):
        with freezing.inference_where_frozen(mask), nn.intercept_methods(without_dropout):
            return model.apply(variables, images, train=True, mutable=['auxiliary_logits'])

    with jax.default_matmul_precision('highest'):
        logits, sown = run(variables, images)
    found = {'out': logits, 'aux': sown['auxiliary_logits']['head']['auxiliary']['logits'][0]}
    deviations = {}
    for key, answer in answers.items():
        expected = answer.permute(0, 2, 3, 1).numpy()
        assert found[key].shape == expected.shape
        deviations[key] = float(np.abs(np.asarray(found[key], np.float64) - expected).max() / np.abs(expected).max())
    return deviations


def compare_resizing(count: int, seed: int) -> float:
    """The largest deviation of our bilinear interpolation from torch's between random sizes, of values of about 1."""
    random = np.random.RandomState(seed)
    worst = 0.0
    for _ in range(count):
        old, new = random.randint(1, 150, 2), random.randint(1, 600, 2)
        x = random.standard_normal((1, *old, 2)).astype(np.float32)
        expected = interpolate(torch.from_numpy(x).permute(0, 3, 1, 2).double(), size=tuple(new), mode='bilinear')
        ours = backbones.necks.levels.resize(x, tuple(map(int, new)))
        worst = max(worst, float(np.abs(ours - expected.permute(0, 2, 3, 1).numpy()).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='+', help='published models')
    parser.add_argument('--size', type=int, nargs=2, default=(97, 131), help='height and width of the images')
    parser.add_argument('--seed', type=int, default=1)
    arguments = parser.parse_args()
    print(f'bilinear interpolation {compare_resizing(50, arguments.seed):.1e}')
    for name in arguments.names:
        deviations = compare(name, tuple(arguments.size), arguments.seed)
        print(name, *arguments.size, ' '.join(f'{key} {error:.1e}' for key, error in deviations.items()))
        if max(deviations.values()) > 1e-4:
            sys.exit(1)


if __name__ == '__main__':
    main()
