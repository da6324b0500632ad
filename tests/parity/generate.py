"""Ask the reference implementations what they answer to the weights of ``weights.py``; keep it in ``reference/``.

Run in an environment of its own; the tests need none of it:

    pip install torch torchvision timm transformers ultralytics open_clip_torch
    python tests/parity/generate.py                     # every case that has no file yet
    python tests/parity/generate.py resnet50 vit_tiny   # all cases of the backbones whose names begin so, again

The files in the repository were written with the versions that each of them holds under ``made_with``.
"""

import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import numpy as np
import references
import torch
import training
import weights
from torch import Tensor

PACKAGES = ('numpy', 'torch', 'torchvision', 'timm', 'transformers', 'ultralytics', 'open_clip_torch')
MADE_WITH = {
    'command': 'python tests/parity/generate.py',
    'python': platform.python_version(),
    **{package: importlib.metadata.version(package) for package in PACKAGES},
}


def shapes_for(case: weights.Case) -> dict[str, list[int]]:
    """The published keys of the file that this case loads, and the shapes in it."""
    in_file = references.build(case.of_the_file())
    return {in_file.keys.get(key, key): list(value.shape) for key, value in in_file.model.state_dict().items()}


def state_for(case: weights.Case) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """The file that this case loads, by its published keys, and the shapes in it."""
    shapes = shapes_for(case)
    return weights.state_dict(case, shapes), shapes


def ask(case: weights.Case, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The reference's outputs, maps in NHWC layout."""
    reference = references.build(case)
    keys = {key: reference.keys.get(key, key) for key in reference.model.state_dict()}
    state = {key: torch.from_numpy(arrays[published]) for key, published in keys.items()}
    if case.image_size != case.file_size:
        state = reference.resample(state)
    reference.model.load_state_dict(state)
    # In float64 the reference adds no error of its own.
    reference.model.double().eval()
    with torch.inference_mode():
        outputs = reference.run(torch.from_numpy(weights.images(case)).permute(0, 3, 1, 2).double())
    return {name: each.permute(0, 2, 3, 1) if each.ndim == 4 else each for name, each in outputs.items()}


def made_of(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """What every stored file begins with: the versions it was made with, and the keys and shapes of the weights."""
    texts = {'made_with': json.dumps(MADE_WITH), 'shapes': json.dumps(shapes)}
    return {key: np.frombuffer(text.encode(), np.uint8) for key, text in texts.items()}


def generate(case: weights.Case) -> dict[str, np.ndarray]:
    """The answers to one case."""
    if not case.image_size:
        return made_of(shapes_for(case))
    arrays, shapes = state_for(case)
    answers = made_of(shapes)
    for name, output in ask(case, arrays).items():
        answers |= weights.summary(name, output.detach().numpy())
        if name != 'position_embedding':
            check_alive(case, name, output)
    return answers


def check_alive(case: weights.Case, name: str, values: Tensor) -> None:
    """Weights under which an output dies, explodes or ignores the image would prove nothing."""
    deviation = values.std().item()
    ignored = len(values) > 1 and (values[0] - values[1]).std().item() < 0.05 * deviation
    print(f'{case!s:32} {name:20} {tuple(values.shape)!s:22} deviation {deviation:8.3f}  mean {values.mean():8.3f}')
    if not 0.05 < deviation < 100 or ignored:
        raise SystemExit(f'{case}: {name} is no test of anything; change the scales in weights.py')


def main() -> None:
    weights.REFERENCE.mkdir(exist_ok=True)

    def wanted(case: weights.Case, path: Path) -> bool:
        return case.backbone.startswith(tuple(sys.argv[1:])) if sys.argv[1:] else not path.exists()

    for case in (*weights.CASES, *weights.KEYS_ONLY, *weights.WHOLE):
        if wanted(case, case.path):
            np.savez_compressed(case.path, **generate(case))
    for case in weights.TRAINING:
        if wanted(case, case.training_path):
            arrays, shapes = state_for(case)
            np.savez_compressed(case.training_path, **made_of(shapes), **training.answers(case, arrays))


if __name__ == '__main__':
    main()
