"""CNN against ViT on one data set of your choice.

    python -m experiments.ablate --config configs/ablations/cnn_vs_vit.py:dataset=tfds:fashion_mnist --workdir runs/fashion_mnist

Arguments: ``dataset`` (``tfds:NAME``, ``folder:PATH``, ``mnist5k``, ``digits``), ``backbones`` (names separated by
commas, each with ``@WEIGHTS`` unless its published weights are meant, ``@random`` for the untrained control) and
``regimes``.
"""

from experiments.ablation.cells import default_config

PAIR = 'pixels,resnet_micro,vit_micro'


def get_config(dataset: str = 'tfds:fashion_mnist', backbones: str = PAIR, regimes: str = 'linear,knn'):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = (dataset,)
    config.regimes = tuple(regimes.split(','))
    config.fractions = (0.01, 0.1, 1.0)
    config.seeds = (0, 1, 2)
    return config
