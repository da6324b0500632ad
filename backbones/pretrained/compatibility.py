"""Whether the model that a published configuration describes is the backbone that is to take its weights.

Two checkpoints may have the same keys and shapes and still be different functions: another activation, epsilon, padding
or number of heads. What a ``config.json`` of timm or of transformers says about these is compared with ours.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from backbones import registry
from backbones.preprocessing import as_size
from backbones.pretrained.description import Description
from backbones.pretrained.writers import Writer, writers
from backbones.vit.hiera import Hiera
from backbones.vit.swin import SwinTransformer
from backbones.vit.vit import VisionTransformer

# timm's architecture → our name (a template of the match) and the options that make ours the same function.
_TIMM: list[tuple[str, str, dict[str, Any]]] = [
    (r'resnet(18|34|50|101|152)|resnext50_32x4d|wide_resnet50_2', r'\g<0>', {}),
    (r'vgg(16|19)(_bn)?', r'\g<0>', {}),
    (r'efficientnet_b[0-7]', r'\g<0>', {'epsilon': 1e-5}),
    (r'tf_(efficientnet_b[0-7])', r'\1', {'padding': 'same', 'epsilon': 1e-3}),
    (r'efficientnet_lite[0-2]', r'\g<0>', {'padding': None, 'epsilon': 1e-5}),
    (r'tf_(efficientnet_lite[0-2])', r'\1', {}),
    (r'mobilenetv3_(large|small)_100', r'mobilenet_v3_\1', {'epsilon': 1e-5}),
    (r'tf_mobilenetv3_(large|small)_100', r'mobilenet_v3_\1', {'padding': 'same'}),
    (r'mobilenetv4_(conv_small|conv_medium|hybrid_medium)', r'mobilenet_v4_\1', {}),
    (r'convnext_(tiny|small|base)', r'\g<0>', {}),
    # Of this size there is only DINOv3's; timm's name of an architecture does not tell its tokens.
    (r'convnext_large', r'dinov3_\g<0>', {}),
    (r'convnextv2_(atto|femto|pico|nano|tiny|base|large)', r'\g<0>', {}),
    (r'cspresnet50|cspdarknet53', r'\g<0>', {}),
    (r'(vit_(?:tiny|small|base|large)_patch(?:16|32))_\d+', r'\1', {}),
    (
        r'(vit_(?:(?:wee|little|medium|betwixt)_patch16_reg1|(?:little|medium|mediumd|betwixt)_patch16_reg4)_gap)_\d+',
        r'\1',
        {},
    ),
    (r'(deit_(?:tiny|small|base)(?:_distilled)?_patch16)_\d+', r'\1', {}),
    (r'vit_(small|base|large)_patch14_dinov2', r'dinov2_\1', {}),
    (r'vit_(small|base|large)_patch14_reg4_dinov2', r'dinov2_\1_reg', {}),
    (r'vit_(small|small_plus|base|large)_patch16_dinov3(_qkvb)?', r'dinov3_vit_\1', {}),
    (r'eva02_(tiny|small|base)_patch14_(224|336|448)', r'eva02_\1_patch14', {}),
    (r'vit_base_patch16_clip_quickgelu_224', 'clip_vit_base_patch16', {}),
    (r'vit_base_patch16_clip_(224|384)', 'clip_vit_base_patch16', {'activation': 'gelu'}),
    # Timm runs these weights (SigLIP 2's too) with the exact GELU; their authors, and transformers, with the tanh form.
    (r'vit_base_patch16_siglip_(224|256|384|512)', 'siglip_vit_base_patch16', {'activation': 'gelu'}),
    (r'(hiera_(?:tiny|small|base))_224', r'\1', {}),
    (r'(swin_(?:tiny|small|base))_patch4_window7_224', r'\1', {}),
    (r'(swin_base)_patch4_window12_384', r'\1', {'window': 12}),
]

# Ours whose weights were trained without a classifier, and which timm pools in another way only because its class does:
# it means the patches of DINOv3, whose authors take the class token.
_POOLED_BY_CHOICE = ('dinov3_vit',)

# timm's ``model_args``: our option and their values in our terms; ``None`` for what changes no output in inference.
_TIMM_ARGUMENTS: dict[str, tuple[str, Mapping[Any, Any]] | None] = {
    'global_pool': ('pooling', {'token': 'token', 'avg': 'average', 'map': 'attention'}),
    'act_layer': ('activation', {'gelu': 'gelu', 'quick_gelu': 'quick_gelu', 'gelu_tanh': 'gelu_tanh', 'silu': 'silu'}),
    'patch_size': ('patch', {}),
    'window_size': ('window', {}),
    'reg_tokens': ('registers', {}),
    'mlp_ratio': ('mlp_ratio', {}),
    **dict.fromkeys(
        (
            'num_classes',
            'in_chans',
            'img_size',
            'init_values',
            'drop_rate',
            'drop_path_rate',
            'proj_drop_rate',
            'attn_drop_rate',
            'pos_drop_rate',
            'dynamic_img_size',
            'dynamic_img_pad',
            'fc_norm',
            'weight_init',
        )
    ),
}


@dataclasses.dataclass(frozen=True)
class Fact:
    """One entry of a transformers configuration.

    Attributes:
        key: its name there.
        default: what transformers assumes where the file leaves it out.
        option: our option with the same meaning; ``''`` where ours can only be ``value``.
        value: the only value that ours can have, where there is no ``option``.
        words: their values in our terms.
    """

    key: str
    default: Any
    option: str = ''
    value: Any = None
    words: Mapping[Any, Any] = dataclasses.field(default_factory=dict)


_WORDS = {'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_new': 'gelu_tanh', 'gelu_python': 'gelu', 'swish': 'silu'}


def _activation(default: str) -> Fact:
    return Fact('hidden_act', default, 'activation', words=_WORDS)


def _transformer(epsilon: float, activation: str = 'gelu', patch: int = 16) -> tuple[Fact, ...]:
    return (
        _activation(activation),
        Fact('layer_norm_eps', epsilon, 'epsilon'),
        Fact('num_attention_heads', 12, 'heads'),
        Fact('patch_size', patch, 'patch'),
    )


def _text(hidden: tuple[str, str, str, str, str], padding: int, types: bool = True) -> tuple[Fact, ...]:
    """Of an encoder of texts: its keys for width, depth, heads, hidden channels and activation."""
    width, depth, heads, inside, activation = hidden
    return (
        Fact(activation, 'gelu', 'activation', words=_WORDS),
        Fact(width, 768, 'channels'),
        Fact(depth, 12 if types else 6, 'depth'),
        Fact(heads, 12, 'heads'),
        Fact(inside, 3072, 'hidden'),
        Fact('vocab_size', 50_265 if padding else 30_522, 'vocabulary'),
        Fact('max_position_embeddings', 512, 'positions'),
        Fact('pad_token_id', padding, 'padding_token'),
        *((Fact('type_vocab_size', 2, 'types'), Fact('layer_norm_eps', 1e-12, 'epsilon')) if types else ()),
        Fact('position_embedding_type', 'absolute', value='absolute'),
        Fact('is_decoder', False, value=False),
    )


_BERT = ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size', 'hidden_act')
_DISTILBERT = ('dim', 'n_layers', 'n_heads', 'hidden_dim', 'activation')

# model_type → what is compared.
_TRANSFORMERS: dict[str, tuple[Fact, ...]] = {
    'resnet': (
        Fact('hidden_act', 'relu', value='relu'),
        Fact('downsample_in_first_stage', False, value=False),
        Fact('downsample_in_bottleneck', False, value=False),
    ),
    'convnext': (_activation('gelu'), Fact('layer_norm_eps', 1e-12, 'head_epsilon')),
    'convnextv2': (_activation('gelu'), Fact('layer_norm_eps', 1e-12, 'head_epsilon')),
    'dinov3_convnext': (
        _activation('gelu'),
        Fact('layer_norm_eps', 1e-6, 'epsilon'),
        Fact('layer_norm_eps', 1e-6, 'head_epsilon'),
    ),
    'efficientnet': (
        _activation('silu'),
        Fact('batch_norm_eps', 1e-3, 'epsilon'),
        Fact('pooling_type', 'mean', value='mean'),
        Fact('squeeze_expansion_ratio', 0.25, value=0.25),
    ),
    'vit': (*_transformer(1e-12), Fact('qkv_bias', True, value=True)),
    'deit': (*_transformer(1e-12), Fact('qkv_bias', True, value=True)),
    'dinov2': (*_transformer(1e-6, patch=14), Fact('use_swiglu_ffn', False, value=False)),
    'dinov2_with_registers': (
        *_transformer(1e-6),
        Fact('use_swiglu_ffn', False, value=False),
        Fact('num_register_tokens', 4, 'registers'),
    ),
    'dinov3_vit': (
        _activation('gelu'),
        Fact('layer_norm_eps', 1e-5, 'epsilon'),
        Fact('num_attention_heads', 6, 'heads'),
        Fact('patch_size', 16, 'patch'),
        Fact('num_register_tokens', 0, 'registers'),
        Fact('use_gated_mlp', False, 'gated'),
        Fact('rope_theta', 100.0, value=100.0),
        Fact('query_bias', True, value=True),
        Fact('key_bias', False, value=False),
        Fact('value_bias', True, value=True),
        Fact('proj_bias', True, value=True),
        Fact('mlp_bias', True, value=True),
    ),
    'clip_vision_model': _transformer(1e-5, 'quick_gelu', 32),
    'siglip_vision_model': (*_transformer(1e-6, 'gelu_pytorch_tanh'), Fact('vision_use_head', True, value=True)),
    'hiera': (
        _activation('gelu'),
        Fact('layer_norm_eps', 1e-6, 'epsilon'),
        Fact('masked_unit_attention', [True, True, False, False], 'windows'),
        Fact('masked_unit_size', [8, 8], value=[8, 8]),
        Fact('mlp_ratio', 4.0, value=4.0),
        Fact('num_heads', [1, 2, 4, 8], value=[1, 2, 4, 8]),
        Fact('num_query_pool', 3, value=3),
    ),
    'swin': (
        _activation('gelu'),
        Fact('layer_norm_eps', 1e-5, 'epsilon'),
        Fact('window_size', 7, 'window'),
        Fact('num_heads', [3, 6, 12, 24], 'heads'),
        Fact('use_absolute_embeddings', False, value=False),
    ),
    'bert': _text(_BERT, padding=0),
    'roberta': _text(_BERT, padding=1),
    'distilbert': _text(_DISTILBERT, padding=0, types=False),
}
# model_type → options of ours that it implies.
_IMPLIED: dict[str, Mapping[str, Any]] = {
    'bert': {'counted_positions': False},
    'roberta': {'counted_positions': True},
    'distilbert': {'counted_positions': False, 'types': 0, 'epsilon': 1e-12},
}
# Models with two towers nest the configuration of the visual one.
_INSIDE = {'clip': ('vision_config', 'clip_vision_model'), 'siglip': ('vision_config', 'siglip_vision_model')}

# Path, shape in the file and shape in the model of an array that was resampled.
Reshaped = tuple[str, tuple[int, ...], tuple[int, ...]]

# Options of ours that change no output in inference, or only say how parameters are initialised.
HARMLESS = {
    'name',
    'parent',
    'dtype',
    'stochastic_depth',
    'dropout',
    'hidden_dropout',
    'momentum',
    'auxiliary_classes',
    'pad',
}


def differences(
    configuration: Mapping[str, Any] | None, layout: str, name: str, module: nn.Module, given: Collection[str] = ()
) -> list[str]:
    """What the weights were trained with that differs in our module, each with the option that would match it.

    Args:
        configuration: the content of a ``config.json``, or ``None`` where none comes with the weights.
        layout: layout of the weights' keys; some imply options by themselves.
        name: the registered name of the module.
        module: the backbone that is to take the weights.
        given: options of the module that the user chose. Where no configuration says otherwise, they are not
            questioned, even where they are the defaults.
    """
    possible = writers(module, layout)
    if configuration is None:
        return _asked(possible, layout, module, given)
    if 'architecture' in configuration:
        return _from_timm(configuration, name, module)
    if 'model_cfg' in configuration:
        return _from_open_clip(configuration['model_cfg'], name, module)
    implied = possible[0].options if len(possible) == 1 else {}
    return _from_transformers(configuration, implied, module)


def image_size(configuration: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images that the configuration was made for, if it says so."""
    cfg = configuration.get('pretrained_cfg', configuration)
    if 'input_size' in cfg:
        _, height, width = cfg['input_size']
        return height, width
    if 'model_cfg' in configuration:
        size = (configuration['model_cfg'].get('vision_cfg') or {}).get('image_size')
    else:
        inside, _ = _INSIDE.get(configuration.get('model_type', ''), ('', ''))
        size = (configuration.get(inside, configuration) or {}).get('image_size')
    return None if size is None else as_size(tuple(size) if isinstance(size, list) else size)


def resamples(module: nn.Module) -> bool:
    """Whether the module holds a table that belongs to one size of images."""
    return hasattr(module, 'resize_parameter') and getattr(module, 'position_table', True)


def made_for(module: nn.Module, reshaped: Iterable[Reshaped], size: tuple[int, ...]) -> tuple[str, int] | None:
    """The size of images for which a file's table of positions was made, if it was resampled to another.

    Args:
        module: the backbone that took the file.
        reshaped: ``Report.reshaped``.
        size: height and width of the images in use.

    Returns:
        What gives it away, and the side of the images in pixels; ``None`` where nothing does.
    """
    if isinstance(module, SwinTransformer):
        windows = _windows(module, reshaped)
        # Timm's windows are never larger than the map; those of the last stages are smaller for small images.
        smaller = [stage for stage, side in enumerate(windows) if side < max(windows) and side != module.window]
        if not smaller:
            return None
        stage = smaller[-1]
        side, stride = windows[stage], module.stage_strides()[stage]
        if (side * stride,) * 2 == size:
            return None
        told = f'its relative positions are those of a map of {side}x{side} in stage {stage + 1}'
        return told, side * stride
    for path, file, _ in reshaped:
        if path == 'params/backbone/position_embedding' and isinstance(module, VisionTransformer | Hiera):
            prefix = len(module.prefix) if isinstance(module, VisionTransformer) else 0
            side = math.isqrt(file[1] - prefix)
            return f'its positions are a grid of {side}x{side}', side * module.patch
    return None


def _windows(module: SwinTransformer, reshaped: Iterable[Reshaped]) -> list[int]:
    """The side of a file's windows in each stage."""
    windows = [module.window] * len(module.depths)
    for path, file, _ in reshaped:
        if found := re.fullmatch(r'params/backbone/stage(\d+)/.*/relative_position_bias_table', path):
            windows[int(found[1]) - 1] = (math.isqrt(file[0]) + 1) // 2
    return windows


def resampled(
    module: nn.Module, reshaped: Sequence[Reshaped], size: tuple[int, ...], given: Collection[str]
) -> list[str]:
    """Tables that were made for other images or windows than ours and that nobody asked to have resampled.

    Args:
        module: the backbone that took the file.
        reshaped: ``Report.reshaped``.
        size: height and width of the images in use.
        given: what the user chose: options of the module, and ``'image_size'``.
    """
    lines = []
    if 'image_size' not in given and (found := made_for(module, reshaped, size)) is not None:
        told, theirs = found
        ours = size[0] if size[0] == size[1] else size
        lines.append(
            f'{told}, for images of {theirs} pixels where ours are {ours} '
            f'(pass image_size={theirs}, or image_size={ours} to have them resampled)'
        )
    # Timm's windows grow with the images, so whoever chooses a size chooses a window.
    if isinstance(module, SwinTransformer) and not {'window', 'image_size'} & {*given}:
        theirs, ours = max(_windows(module, reshaped)), module.window
        if theirs != ours:
            lines.append(
                f'its relative positions are those of windows of {theirs}x{theirs} patches where ours are '
                f'{ours}x{ours} (pass window={theirs}, or window={ours} to have them resampled)'
            )
    return lines


def _asked(possible: Sequence[Writer], layout: str, module: nn.Module, given: Collection[str]) -> list[str]:
    """What to ask about a file that does not say whose it is: nothing where the module matches one of the writers."""
    chosen = {option: getattr(module, option) for option in given}
    # A user who chose options other than a writer's does not have that writer's file.
    possible = [
        writer
        for writer in possible
        if all(_same(theirs, chosen.get(option, theirs)) for option, theirs in writer.options.items())
    ]
    if len(possible) == 1:
        return _compared(possible[0].options, module, f'weights in the {layout} layout have')
    if not possible or any(not _compared(writer.options, module) for writer in possible):
        return []
    ours = ', '.join(f'{option} {getattr(module, option)!r}' for option in possible[0].options)
    theirs = ' or '.join(
        f'{", ".join(f"{option}={value!r}" for option, value in writer.options.items())} ({writer.name})'
        for writer in possible
    )
    return [
        f'weights in the {layout} layout have options other than ours ({ours}), and the file does not say which: '
        f'pass {theirs}'
    ]


def _from_timm(configuration: Mapping[str, Any], name: str, module: nn.Module) -> list[str]:
    architecture = str(configuration['architecture'])
    matches = ((re.fullmatch(pattern, architecture), template, options) for pattern, template, options in _TIMM)
    theirs, options = next(
        ((found.expand(template), options) for found, template, options in matches if found), ('', {})
    )
    if not theirs:
        return [f'its configuration is for {architecture!r}, which is not an architecture known here']
    described = registry.create(theirs, **options)
    if not isinstance(module, type(described)):
        return [f'its configuration is for {architecture!r}, which is {theirs} here, not {name}']
    stated = {
        field.name: getattr(described, field.name)
        for field in dataclasses.fields(described)  # ty: ignore[invalid-argument-type]
        if field.name not in {*HARMLESS, 'output_stride'}  # which belongs to the task, not to the weights
    }
    lines = []
    arguments = dict(configuration.get('model_args') or {})
    if 'global_pool' in configuration and hasattr(module, 'pooling'):
        arguments.setdefault('global_pool', configuration['global_pool'])
    for key, value in arguments.items():
        if key not in _TIMM_ARGUMENTS:
            lines.append(f'its configuration sets {key}={value!r}, which is not known here')
        elif (known := _TIMM_ARGUMENTS[key]) is not None and hasattr(module, known[0]):
            option, words = known
            # A distilled model pools two tokens, which timm calls by the same name.
            if (stated.get(option), value) != ('distillation', 'token'):
                stated[option] = words.get(value, value)
    if theirs.startswith(_POOLED_BY_CHOICE):
        stated.pop('pooling')
    return lines + _compared(stated, module)


def _from_open_clip(configuration: Mapping[str, Any], name: str, module: nn.Module) -> list[str]:
    vision = configuration.get('vision_cfg') or {}
    if 'timm_model_name' in vision:
        pooling = {'global_pool': vision['timm_pool']} if vision.get('timm_pool') else {}
        return _from_timm({'architecture': vision['timm_model_name'], **pooling}, name, module)
    stated = {'activation': 'quick_gelu' if configuration.get('quick_gelu') else 'gelu'}
    stated |= {
        ours: vision[theirs] for theirs, ours in (('patch_size', 'patch'), ('width', 'channels')) if theirs in vision
    }
    if 'head_width' in vision and 'width' in vision:
        stated['heads'] = vision['width'] // vision['head_width']
    return _compared(stated, module)


def _from_transformers(configuration: Mapping[str, Any], implied: Mapping[str, Any], module: nn.Module) -> list[str]:
    kind = configuration['model_type']
    if kind in _INSIDE:
        inside, kind = _INSIDE[kind]
        configuration = configuration.get(inside) or {}
    if kind not in _TRANSFORMERS:
        return [f'its configuration is for {kind!r}, which is not a kind of model known here']
    stated, lines = {**implied, **_IMPLIED.get(kind, {})}, []
    for fact in _TRANSFORMERS[kind]:
        value = configuration.get(fact.key, fact.default)
        if fact.option:
            stated[fact.option] = fact.words.get(value, value) if isinstance(value, str) else value
        elif value != fact.value:
            lines.append(f'its configuration sets {fact.key}={value!r}; here it is always {fact.value!r}')
    return lines + _compared(stated, module)


def _compared(stated: Mapping[str, Any], module: nn.Module, subject: str = 'its configuration has') -> list[str]:
    """What differs, and the option of ``load_weights`` and ``create`` that makes it equal."""
    lines = []
    for option, theirs in stated.items():
        if not hasattr(module, option):
            lines.append(f'{subject} {option} {theirs!r}, which ours does not know')
            continue
        ours = getattr(module, option)
        theirs = tuple(theirs) if isinstance(theirs, list) else theirs
        if not _same(theirs, ours):
            lines.append(f'{subject} {option} {theirs!r} where ours is {ours!r} (pass {option}={theirs!r})')
    return lines


def _same(theirs: Any, ours: Any) -> bool:
    numbers = isinstance(ours, float) and isinstance(theirs, int | float)
    return math.isclose(theirs, ours, rel_tol=1e-9) if numbers else theirs == ours


def of_another_backbone(kept: Description, name: str, module: nn.Module, overrides: Collection[str] = ()) -> str | None:
    """That weights were kept as those of another backbone, in words; ``None`` if they are of this one.

    Two names of one function, such as ``vit_base_patch16`` and ``deit_base_patch16``, are not different backbones.

    Args:
        kept: what was kept with the weights.
        name, module: the backbone that is to take them.
        overrides: options that were passed for it, and are not questioned.
    """
    if kept.backbone in registry.TABLE:
        theirs = registry.create(kept.backbone, **kept.options)
        if kept.backbone == name or (type(theirs) is type(module) and not _differing(theirs, module, overrides)):
            return None
    return f'a run of the backbone {kept.backbone!r} wrote it, not of {name!r}; load_weights({kept.backbone!r}, …)'


def kept_differences(kept: Description, module: nn.Module, overrides: Collection[str] = ()) -> list[str]:
    """In which options a backbone differs from the one of the same name whose weights were kept."""
    apart = {*HARMLESS, *overrides}
    stated = {option: value for option, value in kept.options.items() if option not in apart}
    return _compared(stated, module, 'the run that wrote it has')


def _differing(theirs: nn.Module, ours: nn.Module, overrides: Collection[str]) -> dict[str, Any]:
    """Options of one module that another one of its class has otherwise."""
    apart = {*HARMLESS, *overrides}
    fields = dataclasses.fields(theirs)  # ty: ignore[invalid-argument-type]
    return {
        field.name: getattr(theirs, field.name)
        for field in fields
        if field.name not in apart and getattr(theirs, field.name) != getattr(ours, field.name)
    }
