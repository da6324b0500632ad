"""Real weights on real photographs: what no comparison of shapes or random weights can show."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import backbones
from backbones.pretrained import sources


@cache
def photographs() -> list[tuple[np.ndarray, int]]:
    """The ImageNet photographs of the package foolbox with their labels; its code is not imported."""
    spec = importlib.util.find_spec('foolbox')
    if spec is None or not spec.submodule_search_locations:
        pytest.skip('the package foolbox, which holds the photographs, is not installed')
    labelled = []
    for path in sorted(Path(spec.submodule_search_locations[0], 'data').glob('imagenet_*.jpg')):
        label = re.fullmatch(r'imagenet_\d+_(\d+)', path.stem)
        assert label, path.name
        with Image.open(path) as image:
            labelled.append((np.asarray(image.convert('RGB')), int(label[1])))
    return labelled


def ranks_of_the_labels(name: str, source: str) -> list[int]:
    """How many classes the classifier puts before the right one, per photograph."""
    if importlib.util.find_spec(sources.PACKAGES[source.removeprefix('pip:')].module) is None:
        pytest.skip(f'the weights {source} are not installed')
    variables, _ = backbones.load_weights(name, source, classifier=True)
    preprocess = backbones.preprocess(source)
    images = np.concatenate([preprocess(pixels[None]) for pixels, _ in photographs()])
    logits = jax.jit(backbones.create_classifier(name, num_classes=1000).apply)(variables, images)
    return [
        int((scores > scores[label]).sum())
        for scores, (_, label) in zip(np.asarray(logits), photographs(), strict=True)
    ]


def count_right(ranks: list[int]) -> tuple[int, int]:
    """Photographs whose label comes first, and whose label is among the first five."""
    return sum(rank == 0 for rank in ranks), sum(rank < 5 for rank in ranks)


@pytest.mark.slow
def test_lite0_knows_the_photographs():
    assert len(photographs()) == 20
    first, among_five = count_right(ranks_of_the_labels('efficientnet_lite0', 'pip:efficientnet-lite0'))
    assert first >= 17
    assert among_five == 20


@pytest.mark.parametrize(
    'variant', [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.exhaustive)]
)
def test_larger_lites_know_the_photographs(variant: int):
    ranks = ranks_of_the_labels(f'efficientnet_lite{variant}', f'pip:efficientnet-lite{variant}')
    assert count_right(ranks) == {1: (19, 20), 2: (18, 20)}[variant]
