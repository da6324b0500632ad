"""At which input size should a frozen backbone see small images? Accuracy against GFLOPs, for a matched CNN and ViT.

    python -m experiments.ablate --config configs/ablations/image_size.py --workdir runs/image_size

Not measured to its end. To expect: accuracy rises up to about the size of the pretraining (32 pixels), the cost with the
square of the side, and a ViT, whose positions are resampled, loses more than a CNN beyond that.

Arguments: ``datasets``, ``backbones`` and ``sizes`` (in pixels), separated by commas.
"""

from experiments.ablation.cells import default_config


def get_config(
    datasets: str = 'digits,mnist5k', backbones: str = 'resnet_micro,vit_micro', sizes: str = '16,24,32,48,64'
):
    config = default_config()
    config.backbones = tuple(backbones.split(','))
    config.datasets = tuple(datasets.split(','))
    config.regimes = ('linear', 'knn')
    config.image_size = tuple(map(int, sizes.split(',')))
    config.seeds = (0,)
    return config
