"""What a forward pass costs, in floating-point operations: the one definition, for every table, plot and model card.

FLOPs are those of the matrix products and convolutions in the traced program, before any compiler changes it, so they
are the same on every platform. A multiply-add counts as two; many papers and tables count it as one, so their numbers
are half of ours. Everything else (activations, normalisations, softmax, resizing) is left out, as it is in papers.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.extend import core

from backbones import inputs
from backbones.layers.resizing import INTERPOLATION


def count_flops(module: nn.Module, size: int | tuple[int, ...], channels: int = 3) -> int:
    """FLOPs of one image or text through the module in inference mode; nothing is computed.

    Args:
        module: a module called with images, or with tokens, and ``train``.
        size: height and width of the image in pixels, where a number stands for a square; or ``(length,)``, the number
            of tokens of the text.
        channels: number of channels of the image.
    """
    images = inputs.spec(inputs.as_size(module, size), channels=channels)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return forward_flops(lambda variables, images: module.apply(variables, images, train=False), variables, images)


def forward_flops(apply: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of one call of any function; nothing is computed.

    Every step of a ``scan`` counts, and of a ``cond`` only the most expensive branch. The body of a ``while`` counts
    once, as nobody can tell how often it will run.

    Args:
        apply: a function that jax can trace, such as ``(variables, images) → outputs``.
        *arguments: its arguments, arrays or their shapes (``jax.ShapeDtypeStruct``). The FLOPs are those of the whole
            batch.
    """
    return _count(jax.make_jaxpr(apply)(*arguments).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            left = equation.invars[0].aval.shape
            total += 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == 'conv_general_dilated':
            features = equation.invars[1].aval.shape[equation.params['dimension_numbers'].rhs_spec[0]]
            total += 2 * _size(equation.outvars[0]) * _size(equation.invars[1]) // features
        elif equation.params.get('name') == INTERPOLATION:
            continue  # resizing, which is a matrix product only to be fast
        elif equation.primitive.name == 'cond':
            # The branches may be the lowerings for several platforms; one without a convolution multiplies and adds
            # elementwise, which does not count.
            total += max(_count(branch.jaxpr) for branch in equation.params['branches'])
        else:
            times = equation.params['length'] if equation.primitive.name == 'scan' else 1
            total += times * sum(
                _count(inner) for inner in map(_jaxpr_of, equation.params.values()) if inner is not None
            )
    return total


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _jaxpr_of(parameter: object) -> Any:
    if isinstance(parameter, core.ClosedJaxpr):
        return parameter.jaxpr
    return parameter if isinstance(parameter, core.Jaxpr) else None


# At the image size that ``info`` gives, of texts at the length of their usual weights; a test compares each value with
# ``count_flops``.
GFLOPS: dict[str, float] = {
    'vgg16': 30.93,
    'vgg16_bn': 30.93,
    'vgg19': 39.26,
    'vgg19_bn': 39.26,
    'googlenet': 2.995,
    'resnet18': 3.627,
    'resnet34': 7.326,
    'resnet50': 8.174,
    'resnet101': 15.6,
    'resnet152': 23.02,
    'resnext50_32x4d': 8.457,
    'wide_resnet50_2': 22.79,
    'efficientnet_b0': 0.7691,
    'efficientnet_b1': 1.371,
    'efficientnet_b2': 2.172,
    'efficientnet_b3': 3.651,
    'efficientnet_b4': 8.784,
    'efficientnet_b5': 20.53,
    'efficientnet_b6': 38.13,
    'efficientnet_b7': 75.49,
    'efficientnet_lite0': 0.7678,
    'efficientnet_lite1': 1.198,
    'efficientnet_lite2': 1.717,
    'mobilenet_v3_small': 0.111,
    'mobilenet_v3_large': 0.4306,
    'mobilenet_v4_conv_small': 0.3695,
    'mobilenet_v4_conv_medium': 2.158,
    'mobilenet_v4_hybrid_medium': 2.54,
    'convnext_tiny': 8.91,
    'convnext_small': 17.37,
    'convnext_base': 30.71,
    'convnextv2_atto': 1.094,
    'convnextv2_femto': 1.558,
    'convnextv2_pico': 2.733,
    'convnextv2_nano': 4.89,
    'convnextv2_tiny': 8.91,
    'convnextv2_base': 30.71,
    'convnextv2_large': 68.72,
    'dinov3_convnext_tiny': 8.91,
    'dinov3_convnext_small': 17.37,
    'dinov3_convnext_base': 30.71,
    'dinov3_convnext_large': 68.72,
    'cspresnet50': 9.032,
    'cspdarknet53': 13.07,
    'yolo11n': 3.1,
    'yolo11s': 12.1,
    'yolo11m': 39.38,
    'yolo11l': 49.57,
    'yolo11x': 111.1,
    'yolo26n': 3.1,
    'yolo26s': 12.1,
    'yolo26m': 39.38,
    'yolo26l': 49.57,
    'yolo26x': 111.1,
    'vit_tiny_patch16': 2.507,
    'vit_small_patch16': 9.197,
    'vit_base_patch16': 35.13,
    'vit_large_patch16': 123.1,
    'vit_tiny_patch32': 0.6117,
    'vit_small_patch32': 2.285,
    'vit_base_patch32': 8.817,
    'vit_large_patch32': 30.75,
    'vit_wee_patch16_reg1_gap': 7.65,
    'vit_little_patch16_reg1_gap': 12.51,
    'vit_little_patch16_reg4_gap': 12.67,
    'vit_medium_patch16_reg1_gap': 21.23,
    'vit_medium_patch16_reg4_gap': 21.49,
    'vit_mediumd_patch16_reg4_gap': 35.69,
    'vit_betwixt_patch16_reg1_gap': 32.6,
    'vit_betwixt_patch16_reg4_gap': 33.0,
    'deit_tiny_patch16': 2.507,
    'deit_small_patch16': 9.197,
    'deit_base_patch16': 35.13,
    'deit_tiny_distilled_patch16': 2.521,
    'deit_small_distilled_patch16': 9.247,
    'deit_base_distilled_patch16': 35.31,
    'dinov2_small': 93.39,
    'dinov2_base': 303.1,
    'dinov2_large': 1014,
    'dinov2_small_reg': 93.77,
    'dinov2_base_reg': 304.2,
    'dinov2_large_reg': 1017,
    'dinov3_vit_small': 12.49,
    'dinov3_vit_small_plus': 16.19,
    'dinov3_vit_base': 47.15,
    'dinov3_vit_large': 164.7,
    'eva02_tiny_patch14': 9.324,
    'eva02_small_patch14': 30.9,
    'eva02_base_patch14': 213.8,
    'clip_vit_base_patch16': 35.13,
    'siglip_vit_base_patch16': 35.42,
    'siglip2_vit_base_patch16': 35.42,
    'hiera_tiny': 9.8,
    'hiera_small': 12.81,
    'hiera_base': 18.75,
    'swin_tiny': 8.98,
    'swin_small': 17.48,
    'swin_base': 30.86,
    'resnet_micro': 0.08317,
    'vit_micro': 0.06459,
    'bert_base': 96.64,
    'distilbert_base': 48.32,
    'roberta_base': 96.64,
    'minilm_l6': 6.04,
    'text_micro': 0.3272,
}
