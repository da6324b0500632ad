"""How much of a pretrained backbone should be trained? Every regime, for a matched CNN and ViT, on CIFAR-10.

    python -m experiments.ablate --config configs/ablations/regimes.py --workdir runs/regimes --data_dir TFDS_DIRECTORY

``linear`` is a head on features that are computed once. All other regimes train with the backbone in the loop, by one
recipe, with the learning rate of each selected on validation. The bundled backbones were themselves pretrained on
CIFAR-10's training images (without augmentation beyond shifts and flips), so this compares ways to train on few labels,
not transfer to new data. Arguments: ``dataset``, ``fraction`` (of the training labels) and ``seeds`` (how many).
docs/regimes.md has the result.
"""

from experiments.ablation.cells import default_config


def get_config(dataset: str = 'tfds:cifar10', fraction: float = 0.02, seeds: int = 3):
    config = default_config()
    config.backbones = ('resnet_micro', 'vit_micro')
    config.datasets = (dataset,)
    config.regimes = ('linear', 'partial:1', 'partial:2', 'lpft', 'finetune', 'bitfit', 'lora:8', 'scratch')
    config.fractions = (fraction,)
    config.seeds = tuple(range(seeds))
    # The best rates of the regimes lie up to four orders of magnitude apart; where one lies beyond, the sweep goes on.
    config.training_learning_rates = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    config.training.epochs = 6.0
    config.training.probe_epochs = 3.0
    config.training.evaluate_epochs = 6
    config.training.checkpoint_epochs = 6.0
    config.training.batch_size = 64
    config.training.shift = 4
    config.training.layer_decay = 0.8
    return config
