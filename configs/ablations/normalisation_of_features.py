"""How should frozen features be normalised before a linear head? Five ways, for logistic and for ridge regression.

    python -m experiments.ablate --config configs/ablations/normalisation_of_features.py --workdir runs/normalisation

Measured on digits with ridge regression, accuracy in per cent with all labels, in the order of the config: resnet_micro
96.7, 96.9, 96.9, 97.2 and 96.9; vit_micro 96.7, 96.7, 96.4, 96.1 and 96.4; pixels 92.8, 92.5 and three times 92.8. With a
tenth of the labels only standardised pixels, whose empty corners are amplified, fall behind (87.5 against 89.4 to 89.8).
So where the penalty is selected, normalisation hardly matters. The linear head is not measured.

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
