"""How should frozen features be normalised before a linear head? Five ways, for logistic and for ridge regression.

    python -m experiments.ablate --config configs/ablations/normalisation_of_features.py --workdir runs/normalisation

Not measured to its end. To expect: standardised features are best or equal for heads whose penalty is the same for all
channels, most so where channels differ in scale (pixels, and a CNN's features after a ReLU); ``none`` and ``l2`` need
larger C, and are marked where they reach an edge of the grid.

Nearest neighbours are compared by cosine similarity, whatever the normalisation. Arguments: ``datasets`` and
``backbones`` (names separated by commas, each backbone with ``@WEIGHTS`` unless its published weights are meant).
"""

from experiments.ablation.cells import default_config


def get_config(datasets: str = 'digits', backbones: str = 'resnet_micro,vit_micro,pixels'):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'ridge')
    config.normalisation = ('standardise', 'centre', 'none', 'l2', 'layer_norm')
    config.fractions = (0.1, 1.0)
    config.seeds = (0, 1, 2)
    return config
