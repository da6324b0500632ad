"""Run the code that made ImageNet-C, CIFAR-10-C and Tiny ImageNet-C, and keep some of what it answers.

Run in an environment of its own; the tests need none of it:

    git clone https://github.com/hendrycks/robustness
    apt-get install libmagickwand-6.q16-6
    pip install scikit-image opencv-python wand
    python tests/parity/corruptions/generate.py robustness/ImageNet-C/create_c      # writes reference.npz beside it

Only names that newer libraries no longer have are replaced. ``np.random.poisson`` is replaced by the inverse of the
distribution function at uniform numbers, so that ours can be given the same ones.
"""

import argparse
import ast
import importlib.metadata
import json
from pathlib import Path

import cases
import numpy as np
import skimage
from PIL import Image
from scipy import stats
from scipy.ndimage import map_coordinates
from skimage import color, filters, util

FILES = {32: 'make_cifar_c.py', 64: 'make_tinyimagenet_c.py', 224: 'make_imagenet_c.py'}
NAMES = (
    'gaussian_noise', 'shot_noise', 'impulse_noise', 'defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur', 'snow',
    'fog', 'brightness', 'contrast', 'elastic_transform', 'pixelate', 'jpeg_compression', 'speckle_noise',
    'gaussian_blur', 'spatter', 'saturate',
)  # fmt: skip


def gaussian(image, sigma, multichannel=False, **options):
    """scikit-image's function as it was called then."""
    return filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)


def random_noise(image, mode, amount):
    """scikit-image's function, from a known seed."""
    return util.random_noise(image, mode, rng=np.random.default_rng(cases.SEED), amount=amount)


def poisson(rate):
    """Poisson counts as the inverse of their distribution at uniform numbers."""
    return stats.poisson.ppf(np.random.uniform(size=rate.shape), rate)  # noqa: NPY002 what the reference draws from


class Libraries:
    """A module with some names replaced."""

    def __init__(self, module, **replaced):
        self._module, self.__dict__ = module, {**replaced, '_module': module}

    def __getattr__(self, name):
        return getattr(self._module, name)


def reference(file: Path) -> dict:
    """The functions of one of the files, without the training code around them."""
    tree = ast.parse(file.read_text())
    imports = ('torch', 'skimage.filters', 'scipy.ndimage.interpolation', 'tqdm')
    kept = []
    for node in tree.body:
        modules = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        modules += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if any(module.startswith(imports) for module in modules):
            continue
        if isinstance(node, ast.ClassDef) and node.name == 'DistortImageFolder':
            continue
        is_function = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        if is_function or 'argtypes' in ast.unparse(node):
            kept.append(node)
    names: dict = {}
    exec(compile(ast.Module(kept, []), str(file), 'exec'), names)

    random = Libraries(np.random, poisson=poisson)
    names['np'] = Libraries(np, random=random, float_=np.float64, fromstring=np.frombuffer)
    names['sk'] = Libraries(skimage, util=Libraries(util, random_noise=random_noise), color=color)
    names['gaussian'] = gaussian
    names['map_coordinates'] = map_coordinates
    return names


def main() -> None:
    """Write the outputs at some places of an image for each size, corruption and severity."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument('directory', type=Path, help='ImageNet-C/create_c of the reference')
    directory = arguments.parse_args().directory
    arrays = {}
    for size, file in FILES.items():
        functions = reference(directory / file)
        for name in NAMES:
            outputs = []
            for severity in cases.SEVERITIES:
                np.random.seed(cases.SEED)  # noqa: NPY002 what the reference draws from
                given = cases.image(size)
                answer = np.uint8(functions[name](Image.fromarray(given), severity))
                assert answer.shape == given.shape
                outputs.append(answer[cases.places(size)])
            arrays[f'{name}_{size}'] = np.stack(outputs)
            print(size, name, flush=True)
    packages = ('numpy', 'scipy', 'scikit-image', 'opencv-python', 'pillow', 'wand')
    versions = {package: importlib.metadata.version(package) for package in packages}
    arrays['versions'] = np.array(json.dumps(versions))
    np.savez_compressed(Path(__file__).with_name('reference.npz'), **arrays)


if __name__ == '__main__':
    main()
