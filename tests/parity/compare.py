"""Ours against the reference in one process, at any size and with any seed: what the stored cases cannot cover.

Needs an environment with both this repository's requirements and the packages that ``generate.py`` names:

    python tests/parity/compare.py resnet50 --size 224 97 --seed 3
    python tests/parity/compare.py vit_base_patch16 --layout torchvision
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import weights
from generate import ask, state_for
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

import backbones
from tests.backbones.test_parity import load, outputs_of, same_arrays


def compare(case: weights.Case) -> dict[str, float]:
    """The largest deviation of each output as a share of the reference's largest magnitude."""
    arrays, _ = state_for(case)
    answers = {name: values.detach().numpy() for name, values in ask(case, arrays).items()}
    with tempfile.TemporaryDirectory() as directory:
        file, back = Path(directory) / 'weights.safetensors', Path(directory) / 'back.safetensors'
        save_file(arrays, file)
        variables, report = load(case, file, classifier='logits' in answers)
        outputs = outputs_of(case, variables, classifier='logits' in answers)
        if case.image_size == case.file_size:
            backbones.save_weights(back, variables, report.layout, case.backbone, **dict(case.options))
            assert same_arrays(load_file(back), arrays), f'{case}: the round trip changes the file'
    errors = {}
    for name, expected in answers.items():
        ours = np.asarray(outputs[name], np.float64)
        assert ours.shape == expected.shape, (name, ours.shape, expected.shape)
        errors[name] = float(np.abs(ours - expected).max() / np.abs(expected).max())
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='+', help='registered backbones')
    parser.add_argument(
        '--size', type=int, nargs='+', default=[], help="sides of the images; by default the backbone's"
    )
    parser.add_argument('--layout', default='', help="whose implementation; by default the family's first")
    parser.add_argument('--seed', type=int, default=1)
    arguments = parser.parse_args()
    failed = False
    for name in arguments.names:
        for size in arguments.size or [backbones.info(name).image_size]:
            errors = compare(weights.Case(name, size, size, arguments.layout, arguments.seed))
            worst = max(errors.values())
            failed |= not worst <= 1e-4
            print(f'{name:28} {size:4} {worst:.1e}  ' + ' '.join(f'{key} {error:.1e}' for key, error in errors.items()))
    sys.exit(failed)


if __name__ == '__main__':
    main()
