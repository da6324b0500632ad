"""Ask torchvision and timm what they answer to the weights of ``weights.py``, and keep the answers in ``reference/``.

Run in an environment of its own; the tests need none of it:

    pip install torch torchvision timm && python tests/parity/generate.py

The files in the repository were written with the versions that each of them holds under ``made_with``.
"""

import json
import platform
from collections.abc import Callable

import numpy as np
import timm
import torch
import torchvision
import weights
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

COMMAND = 'python tests/parity/generate.py'
MADE_WITH = {
    'command': COMMAND,
    'python': platform.python_version(),
    'numpy': np.__version__,
    'torch': torch.__version__,
    'torchvision': torchvision.__version__,
    'timm': timm.__version__,
}

Outputs = dict[str, Tensor]


def resnet(case: weights.Case) -> tuple[nn.Module, Callable[[Tensor], Outputs], dict[str, str]]:
    """Torchvision's ResNet: stages are the outputs of ``layer1`` to ``layer4``."""
    model = torchvision.models.get_model(case.backbone, weights=None)

    def run(images: Tensor) -> Outputs:
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        outputs = {}
        for index in range(1, 5):
            x = outputs[f'stage{index}'] = getattr(model, f'layer{index}')(x)
        return outputs | {'pooled': model.avgpool(x).flatten(1), 'logits': model(images)}

    return model, run, {key: key for key in model.state_dict()}


def vit(case: weights.Case) -> tuple[nn.Module, Callable[[Tensor], Outputs], dict[str, str]]:
    """Timm's augreg ViT: stages are the outputs of the last block of each quarter, neither normalised nor pooled."""
    model = timm.create_model(f'{case.backbone}_224', img_size=case.image_size)
    quarter = len(model.blocks) // 4

    def run(images: Tensor) -> Outputs:
        last_blocks = [quarter * index - 1 for index in range(1, 5)]
        tokens, maps = model.forward_intermediates(images, indices=last_blocks, norm=False, output_fmt='NCHW')
        outputs = {f'stage{index}': each for index, each in enumerate(maps, start=1)}
        outputs |= {'tokens': tokens, 'pooled': model.forward_head(tokens, pre_logits=True), 'logits': model(images)}
        return outputs | {'position_embedding': model.pos_embed}

    return model, run, {key: key for key in model.state_dict()}


def efficientnet_lite(case: weights.Case) -> tuple[nn.Module, Callable[[Tensor], Outputs], dict[str, str]]:
    """Timm's port of TensorFlow's weights, under the keys that the published files of lukemelas use."""
    model = timm.create_model(f'tf_{case.backbone}')

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        outputs = {f'stage{index}': each for index, each in enumerate(maps, start=1)}
        return outputs | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    layers = {'conv_stem': '_conv_stem', 'bn1': '_bn0', 'conv_head': '_conv_head', 'bn2': '_bn1', 'classifier': '_fc'}
    separable = {'conv_dw': '_depthwise_conv', 'bn1': '_bn1', 'conv_pw': '_project_conv', 'bn2': '_bn2'}
    inverted = {
        'conv_pw': '_expand_conv',
        'bn1': '_bn0',
        'conv_dw': '_depthwise_conv',
        'bn2': '_bn1',
        'conv_pwl': '_project_conv',
        'bn3': '_bn2',
    }
    number = 0
    for group, blocks in enumerate(model.blocks):
        for block in range(len(blocks)):
            for ours, theirs in (separable if group == 0 else inverted).items():
                layers[f'blocks.{group}.{block}.{ours}'] = f'_blocks.{number}.{theirs}'
            number += 1
    published = {}
    for key in model.state_dict():
        layer, _, leaf = key.rpartition('.')
        published[key] = f'{layers[layer]}.{leaf}'
    return model, run, published


BUILDERS = {'resnet': resnet, 'vit': vit, 'efficientnet': efficientnet_lite}


def generate(case: weights.Case) -> dict[str, np.ndarray]:
    """The answers to one case; arrays in NHWC layout."""
    build = next(build for prefix, build in BUILDERS.items() if case.backbone.startswith(prefix))
    in_file, _, published = build(weights.Case(case.backbone, case.file_size, case.file_size))
    shapes = {published[key]: tuple(value.shape) for key, value in in_file.state_dict().items()}
    arrays = weights.state_dict(case.backbone, shapes)

    model, run, _ = build(case)
    state = {key: torch.from_numpy(arrays[name]) for key, name in published.items()}
    if case.image_size != case.file_size:
        side = case.image_size // model.patch_embed.patch_size[0]
        state['pos_embed'] = resample_abs_pos_embed(state['pos_embed'], [side, side], num_prefix_tokens=1)
    model.load_state_dict(state)
    # In float64 the reference adds no error of its own.
    model.double().eval()
    with torch.inference_mode():
        outputs = run(torch.from_numpy(weights.images(case.image_size)).permute(0, 3, 1, 2).double())
    made_of = {'made_with': json.dumps(MADE_WITH), 'shapes': json.dumps(shapes)}
    answers = {key: np.frombuffer(text.encode(), np.uint8) for key, text in made_of.items()}
    for name, output in outputs.items():
        values = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
        answers |= weights.summary(name, values.detach().numpy())
        if name != 'position_embedding':
            check_alive(case, name, values)
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
    for case in weights.CASES:
        np.savez_compressed(case.path, **generate(case))


if __name__ == '__main__':
    main()
