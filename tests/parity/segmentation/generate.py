"""Ask the references of necks, segmentation heads, losses and resizing; keep what they answer beside this file.

Run in an environment of its own; the tests need none of it:

    pip install torch torchvision transformers
    python tests/parity/segmentation/generate.py
"""

import importlib.metadata
import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops import FeaturePyramidNetwork, feature_pyramid_network
from torchvision.ops.misc import Conv2dNormActivation
from transformers import ResNetConfig, UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.parity import weights
from tests.parity.segmentation import cases

PACKAGES = ('numpy', 'torch', 'torchvision', 'transformers')
Arrays = dict[str, np.ndarray]


def prepared(module: nn.Module, seed: int = 0) -> tuple[nn.Module, Arrays]:
    """The module in float64 and inference mode, with our weights; and the keys and shapes of these."""
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.from_numpy(array) for key, array in cases.state(shapes, seed).items()})
    return module.double().eval(), {'shapes': np.frombuffer(json.dumps(shapes).encode(), np.uint8)}


def channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2).double()


def stored(outputs: dict[str, Tensor]) -> Arrays:
    """Summaries of maps, in NHWC layout."""
    answers: Arrays = {}
    for name, output in outputs.items():
        values = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
        answers |= weights.summary(name, values.detach().numpy())
        print(f'{name:12} {tuple(values.shape)!s:22} deviation {values.std():.3f}')
        if not 0.01 < values.std() < 100:
            raise SystemExit(f'{name} is no test of anything; change the scales of the weights')
    return answers


class Extra(nn.Module):
    """Torchvision's choice of extra levels by name."""

    def __new__(cls, kind: str, from_stage: bool):
        if kind == 'pool':
            return feature_pyramid_network.LastLevelMaxPool()
        inputs = cases.MAPS['stage4'][2] if from_stage else cases.CHANNELS
        return feature_pyramid_network.LastLevelP6P7(inputs, cases.CHANNELS) if kind == 'p6p7' else None


def pyramid(name: str) -> Arrays:
    """Torchvision's FPN on three maps."""
    kind, from_stage, norm = cases.PYRAMIDS[name]
    maps = {key: channels_first(array) for key, array in list(cases.maps().items())[1:]}
    module = FeaturePyramidNetwork(
        [each.shape[1] for each in maps.values()],
        cases.CHANNELS,
        Extra(kind, from_stage),
        nn.BatchNorm2d if norm else None,
    )
    module, answers = prepared(module)
    outputs = module(OrderedDict(maps))
    return answers | stored({f'p{number}': each for number, each in enumerate(outputs.values(), start=3)})


class PathAggregation(nn.Module):
    """Liu et al. 2018: torchvision's FPN with BatchNorms, and the way back."""

    def __init__(self, inputs: list[int], channels: int):
        super().__init__()
        self.fpn = FeaturePyramidNetwork(inputs, channels, norm_layer=nn.BatchNorm2d)
        steps = range(len(inputs) - 1)
        self.down = nn.ModuleList([Conv2dNormActivation(channels, channels, 3, stride=2) for _ in steps])
        self.output = nn.ModuleList([Conv2dNormActivation(channels, channels, 3) for _ in steps])

    def forward(self, maps: OrderedDict) -> list[Tensor]:
        first, *others = self.fpn(maps).values()
        outputs = [first]
        for down, output, x in zip(self.down, self.output, others, strict=True):
            outputs.append(output(x + down(outputs[-1])))
        return outputs


def path_aggregation() -> Arrays:
    maps = {key: channels_first(array) for key, array in list(cases.maps().items())[1:]}
    module, answers = prepared(PathAggregation([each.shape[1] for each in maps.values()], cases.CHANNELS))
    return answers | stored({f'p{number}': each for number, each in enumerate(module(OrderedDict(maps)), start=3)})


class ChannelNorm(nn.LayerNorm):
    """A LayerNorm over the channels of an NCHW map."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def simple_pyramid() -> Arrays:
    """ViTDet's levels of one map at scales 4, 2, 1 and 1/2, built as detectron2's ``SimpleFeaturePyramid`` builds them.

    Its keys are those of detectron2, except that a convolution and its norm are layers of their own.
    """
    x = channels_first(cases.maps()['stage4'])
    dim, out = x.shape[1], cases.CHANNELS

    def ending(channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, out, 1, bias=False),
            ChannelNorm(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            ChannelNorm(out),
        ]

    up = [nn.ConvTranspose2d(dim, dim // 2, 2, 2), ChannelNorm(dim // 2), nn.GELU()]
    up.append(nn.ConvTranspose2d(dim // 2, dim // 4, 2, 2))
    levels = {
        'simfp_2': nn.Sequential(*up, *ending(dim // 4)),
        'simfp_3': nn.Sequential(nn.ConvTranspose2d(dim, dim // 2, 2, 2), *ending(dim // 2)),
        'simfp_4': nn.Sequential(*ending(dim)),
        'simfp_5': nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), *ending(dim)),
    }
    module, answers = prepared(nn.ModuleDict(levels))
    outputs = {f'p{name[-1]}': level(x) for name, level in module.items()}
    outputs['p6'] = functional.max_pool2d(outputs['p5'], 1, 2)
    return answers | stored(outputs)


class Narrow(ResNet):
    """Torchvision's ResNet with a sixteenth of the channels, and the usual stem."""

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 16, blocks, stride, dilate)

    def __init__(self):
        # The classifier, which is thrown away, has 2,048 inputs.
        super().__init__(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])


def segmenter(head: str) -> nn.Module:
    """Torchvision's FCN or DeepLabv3 on a narrow ResNet."""
    backbone = IntermediateLayerGetter(Narrow(), {'layer4': 'out', 'layer3': 'aux'})
    auxiliary = FCNHead(64, cases.CLASSES)
    if head == 'fcn':
        return FCN(backbone, FCNHead(128, cases.CLASSES), auxiliary)
    width = 16
    classifier = nn.Sequential(
        ASPP(128, (12, 24, 36), width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, cases.CLASSES, 1),
    )
    return DeepLabV3(backbone, classifier, auxiliary)


def segmented(head: str) -> Arrays:
    module, answers = prepared(segmenter(head))
    outputs = module(channels_first(cases.images()))
    return answers | stored({'logits': outputs['out'], 'auxiliary': outputs['aux']})


def trained(head: str) -> Arrays:
    """Loss, gradients and running statistics of one step, with the loss of references/segmentation/train.py."""

    def step(dtype: torch.dtype) -> tuple[float, Arrays, Arrays]:
        module, _ = prepared(segmenter(head), seed=1)
        module.to(dtype).train()
        for layer in module.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        outputs = module(channels_first(cases.images(cases.BATCH, seed=1)).to(dtype))
        targets = torch.from_numpy(cases.labels(cases.BATCH)).long()
        losses = {name: functional.cross_entropy(x, targets, ignore_index=cases.IGNORE) for name, x in outputs.items()}
        loss = losses['out'] + 0.5 * losses['aux']
        loss.backward()
        gradients = {key: weights.digest(key, each.grad.numpy()) for key, each in module.named_parameters()}
        statistics = {
            key: weights.digest(key, buffer.numpy())
            for key, buffer in module.named_buffers()
            if key.endswith(('running_mean', 'running_var'))
        }
        return loss.item(), gradients, statistics

    loss, gradients, statistics = step(torch.float64)
    rounded = step(torch.float32)
    print(head, 'loss', loss, "the reference's float32:", weights.worst(gradients, rounded[1]))
    answers = weights.packed('gradients', gradients) | weights.packed('statistics', statistics)
    return answers | {'loss': np.array(loss)}


class Levels(nn.Module):
    """UPerNet's two heads on maps."""

    def __init__(self):
        super().__init__()
        config = UperNetConfig(
            backbone_config=ResNetConfig(), hidden_size=12, auxiliary_channels=6, num_labels=cases.CLASSES
        )
        inputs = [channels for *_, channels in cases.MAPS.values()]
        self.decode_head = UperNetHead(config, inputs)
        self.auxiliary_head = UperNetFCNHead(config, inputs)


def upernet() -> Arrays:
    module, answers = prepared(Levels())
    maps = [channels_first(array) for array in cases.maps().values()]
    outputs = {'logits': module.decode_head(maps), 'auxiliary': module.auxiliary_head(maps)}
    for name, each in outputs.items():
        outputs[name] = functional.interpolate(each, size=cases.SIZE, mode='bilinear', align_corners=False)
    return answers | stored(outputs)


def resized() -> Arrays:
    answers: Arrays = {}
    for number, (old, new) in enumerate(cases.RESIZED):
        x = channels_first(cases.noise('resized', 2, *old, 3))
        for mode, options in (('bilinear', {'align_corners': False}), ('nearest', {})):
            answers |= stored({f'{mode}{number}': functional.interpolate(x, size=new, mode=mode, **options)})
    return answers


def losses() -> Arrays:
    """Cross-entropy of all images, and of the first two."""
    logits = channels_first(cases.noise('logits', cases.BATCH, *cases.SIZE, cases.CLASSES))
    targets = torch.from_numpy(cases.labels(cases.BATCH)).long()
    chosen = {'all': slice(None), 'two': slice(2)}
    return {
        name: functional.cross_entropy(logits[rows], targets[rows], ignore_index=cases.IGNORE).numpy()
        for name, rows in chosen.items()
    }


def main() -> None:
    made_with = {package: importlib.metadata.version(package) for package in PACKAGES}
    answers = {f'fpn_{name}': pyramid(name) for name in cases.PYRAMIDS}
    answers |= {'pan': path_aggregation(), 'simple_pyramid': simple_pyramid()}
    for head in ('fcn', 'deeplabv3'):
        answers |= {head: segmented(head), f'{head}_training': trained(head)}
    answers |= {'upernet': upernet(), 'resizing': resized(), 'cross_entropy': losses()}
    for name, arrays in answers.items():
        text = np.frombuffer(json.dumps(made_with).encode(), np.uint8)
        np.savez_compressed(cases.DIRECTORY / f'{name}.npz', made_with=text, **arrays)


if __name__ == '__main__':
    main()
