"""The convolutional backbones of the registry, one row each."""

from functools import partial

from backbones import preprocessing
from backbones.cnn.convnext import ConvNeXt, ConvNeXtWithTokens
from backbones.cnn.cspnet import BottleneckBlock, CSPNet, DarkBlock
from backbones.cnn.efficientnet import EfficientNet
from backbones.cnn.googlenet import GoogLeNet
from backbones.cnn.mobilenet import LARGE, SMALL, MobileNetV3
from backbones.cnn.mobilenet_v4 import CONV_MEDIUM, CONV_SMALL, HYBRID_MEDIUM, MobileNetV4
from backbones.cnn.resnet import BasicBlock, Bottleneck, ResNet
from backbones.cnn.vgg import VGG
from backbones.cnn.yolo import YOLO
from backbones.entry import Entry
from backbones.preprocessing import Preprocessing


def _vgg(depths, params, batch_norm=False) -> Entry:
    return Entry(partial(VGG, depths, batch_norm), 'cnn', params, preprocessing.TORCHVISION, dropout=0.5)


def _resnet(block, depths, params, **widths) -> Entry:
    return Entry(
        partial(ResNet, block, depths, **widths),
        'cnn',
        params,
        preprocessing.TORCHVISION,
        layout_preprocessing={'transformers': preprocessing.TORCHVISION.replace(interpolation='bicubic')},
    )


# From B5 on, torchvision's BatchNorms have TensorFlow's constants.
_TENSORFLOW_NORM = {'epsilon': 1e-3, 'momentum': 0.99}


def _timm_efficientnet(size, crop, **constants) -> Preprocessing:
    """What timm's default weights of an EfficientNet expect."""
    return preprocessing.EFFICIENTNET.replace(size=size, crop=crop, **constants)


def _efficientnet(width, depth, params, dropout, size, resized, timm, original=None, **options) -> Entry:
    """Torchvision crops ``size`` from images of ``resized`` pixels; the authors' own weights expect ``original``."""
    usual = preprocessing.EFFICIENTNET
    whole = usual.replace(size=original or size, crop=1.0)
    return Entry(
        partial(EfficientNet, width, depth, **options),
        'cnn',
        params,
        usual.replace(size=size, crop=size / resized),
        dropout=dropout,
        # The weights published for transformers were evaluated on images resized without interpolation.
        layout_preprocessing={
            'timm': timm,
            'lukemelas': whole,
            'transformers': whole.replace(interpolation='nearest'),
        },
    )


def _efficientnet_lite(width, depth, size, timm_crop, params, dropout) -> Entry:
    lite = {'activation': 'relu6', 'squeeze_excitation': False, 'fixed_ends': True, 'padding': 'same'}
    return Entry(
        partial(EfficientNet, width, depth, **lite, epsilon=1e-3, momentum=0.99),
        'cnn',
        params,
        preprocessing.EFFICIENTNET_LITE.replace(size=size),
        dropout,
        {'timm': _timm_efficientnet(size, timm_crop, **preprocessing.INCEPTION)},
    )


def _cspnet(block, depths, channels, params, **options) -> Entry:
    return Entry(partial(CSPNet, block, depths, channels, **options), 'cnn', params, preprocessing.CSPNET)


# Depth, width and channel limit per size, and whether every C3k2 is nested: the same for YOLO11 and YOLO26.
_YOLO_SIZES = {
    'n': (0.5, 0.25, 1024, False),
    's': (0.5, 0.5, 1024, False),
    'm': (0.5, 1.0, 512, True),
    'l': (1.0, 1.0, 512, True),
    'x': (1.0, 1.5, 512, True),
}


def _yolo11(size, params) -> Entry:
    module = partial(YOLO, *_YOLO_SIZES[size], sppf_activation='silu', sppf_shortcut=False)
    return Entry(module, 'cnn', params, preprocessing.YOLO)


def _yolo26(size, params) -> Entry:
    module = partial(YOLO, *_YOLO_SIZES[size], sppf_activation='none', sppf_shortcut=True)
    return Entry(module, 'cnn', params, preprocessing.YOLO)


def _mobilenet(rows, hidden, params) -> Entry:
    layouts = {'timm': preprocessing.TORCHVISION.replace(interpolation='bicubic')}
    module = partial(MobileNetV3, rows, hidden)
    return Entry(module, 'cnn', params, preprocessing.TORCHVISION, dropout=0.2, layout_preprocessing=layouts)


def _mobilenet_v4(rows, size, crop, params, **options) -> Entry:
    expected = preprocessing.TORCHVISION.replace(size=size, crop=crop, interpolation='bicubic')
    return Entry(partial(MobileNetV4, rows, **options), 'cnn', params, expected)


def _convnext(channels, depths, stochastic_depth, size, params) -> Entry:
    original = preprocessing.CONVNEXT
    return Entry(
        partial(ConvNeXt, channels, depths, stochastic_depth),
        'cnn',
        params,
        preprocessing.TORCHVISION.replace(crop=224 / size),
        layout_preprocessing={'timm': original, 'transformers': original, 'facebook': original},
    )


def _convnext_v2(channels, depths, stochastic_depth, params) -> Entry:
    module = partial(ConvNeXt, channels, depths, stochastic_depth, layer_scale=None, response_norm=True)
    return Entry(module, 'cnn', params, preprocessing.CONVNEXT)


def _dinov3_convnext(channels, depths, params) -> Entry:
    authors = preprocessing.DINOV3.replace(interpolation='bilinear', fit='squash')
    return Entry(
        partial(ConvNeXtWithTokens, channels, depths, 0.0),
        'cnn',
        params,
        preprocessing.DINOV3.replace(size=224),
        layout_preprocessing={'facebook': authors, 'transformers': authors.replace(size=224)},
    )


TABLE: dict[str, Entry] = {
    # VGG.
    'vgg16': _vgg((2, 2, 3, 3, 3), 134_260_544),
    'vgg16_bn': _vgg((2, 2, 3, 3, 3), 134_268_992, batch_norm=True),
    'vgg19': _vgg((2, 2, 4, 4, 4), 139_570_240),
    'vgg19_bn': _vgg((2, 2, 4, 4, 4), 139_581_248, batch_norm=True),
    # GoogLeNet.
    'googlenet': Entry(GoogLeNet, 'cnn', 5_599_904, preprocessing.GOOGLENET, dropout=0.2),
    # ResNet, ResNeXt, Wide ResNet.
    'resnet18': _resnet(BasicBlock, (2, 2, 2, 2), 11_176_512),
    'resnet34': _resnet(BasicBlock, (3, 4, 6, 3), 21_284_672),
    'resnet50': _resnet(Bottleneck, (3, 4, 6, 3), 23_508_032),
    'resnet101': _resnet(Bottleneck, (3, 4, 23, 3), 42_500_160),
    'resnet152': _resnet(Bottleneck, (3, 8, 36, 3), 58_143_808),
    'resnext50_32x4d': _resnet(Bottleneck, (3, 4, 6, 3), 22_979_904, groups=32, base_width=4),
    'wide_resnet50_2': _resnet(Bottleneck, (3, 4, 6, 3), 66_834_240, base_width=128),
    # EfficientNet.
    'efficientnet_b0': _efficientnet(1.0, 1.0, 4_007_548, 0.2, 224, 256, _timm_efficientnet(224, 0.875)),
    'efficientnet_b1': _efficientnet(
        1.0, 1.1, 6_513_184, 0.2, 240, 256, _timm_efficientnet(240, 0.9, **preprocessing.INCEPTION)
    ),
    'efficientnet_b2': _efficientnet(1.1, 1.2, 7_700_994, 0.3, 288, 288, _timm_efficientnet(256, 0.875), original=260),
    'efficientnet_b3': _efficientnet(1.2, 1.4, 10_696_232, 0.3, 300, 320, _timm_efficientnet(288, 0.875)),
    'efficientnet_b4': _efficientnet(1.4, 1.8, 17_548_616, 0.4, 380, 384, _timm_efficientnet(320, 0.875)),
    'efficientnet_b5': _efficientnet(
        1.6, 2.2, 28_340_784, 0.4, 456, 456, _timm_efficientnet(448, 1.0), **_TENSORFLOW_NORM
    ),
    'efficientnet_b6': _efficientnet(
        1.8, 2.6, 40_735_704, 0.5, 528, 528, _timm_efficientnet(528, 0.942), **_TENSORFLOW_NORM
    ),
    'efficientnet_b7': _efficientnet(
        2.0, 3.1, 63_786_960, 0.5, 600, 600, _timm_efficientnet(600, 0.949), **_TENSORFLOW_NORM
    ),
    'efficientnet_lite0': _efficientnet_lite(1.0, 1.0, 224, 0.875, 3_371_008, 0.2),
    'efficientnet_lite1': _efficientnet_lite(1.0, 1.1, 240, 0.882, 4_135_680, 0.2),
    'efficientnet_lite2': _efficientnet_lite(1.1, 1.2, 260, 0.89, 4_811_072, 0.3),
    # MobileNetV3.
    'mobilenet_v3_small': _mobilenet(SMALL, 1024, 1_517_856),
    'mobilenet_v3_large': _mobilenet(LARGE, 1280, 4_202_032),
    # MobileNetV4.
    'mobilenet_v4_conv_small': _mobilenet_v4(CONV_SMALL, 224, 0.875, 2_493_024),
    'mobilenet_v4_conv_medium': _mobilenet_v4(CONV_MEDIUM, 256, 0.95, 8_434_512),
    'mobilenet_v4_hybrid_medium': _mobilenet_v4(HYBRID_MEDIUM, 256, 0.95, 9_793_648, layer_scale=1e-5),
    # ConvNeXt.
    'convnext_tiny': _convnext((96, 192, 384, 768), (3, 3, 9, 3), 0.1, 236, 27_820_128),
    'convnext_small': _convnext((96, 192, 384, 768), (3, 3, 27, 3), 0.4, 230, 49_454_688),
    'convnext_base': _convnext((128, 256, 512, 1024), (3, 3, 27, 3), 0.5, 232, 87_566_464),
    'convnextv2_atto': _convnext_v2((40, 80, 160, 320), (2, 2, 6, 2), 0.1, 3_387_400),
    'convnextv2_femto': _convnext_v2((48, 96, 192, 384), (2, 2, 6, 2), 0.1, 4_848_240),
    'convnextv2_pico': _convnext_v2((64, 128, 256, 512), (2, 2, 6, 2), 0.1, 8_553_280),
    'convnextv2_nano': _convnext_v2((80, 160, 320, 640), (2, 2, 8, 2), 0.1, 14_982_800),
    'convnextv2_tiny': _convnext_v2((96, 192, 384, 768), (3, 3, 9, 3), 0.2, 27_866_496),
    'convnextv2_base': _convnext_v2((128, 256, 512, 1024), (3, 3, 27, 3), 0.1, 87_692_800),
    'convnextv2_large': _convnext_v2((192, 384, 768, 1536), (3, 3, 27, 3), 0.1, 196_419_840),
    'dinov3_convnext_tiny': _dinov3_convnext((96, 192, 384, 768), (3, 3, 9, 3), 27_820_128),
    'dinov3_convnext_small': _dinov3_convnext((96, 192, 384, 768), (3, 3, 27, 3), 49_454_688),
    'dinov3_convnext_base': _dinov3_convnext((128, 256, 512, 1024), (3, 3, 27, 3), 87_566_464),
    'dinov3_convnext_large': _dinov3_convnext((192, 384, 768, 1536), (3, 3, 27, 3), 196_230_336),
    # CSPNet.
    'cspresnet50': _cspnet(
        BottleneckBlock,
        (3, 3, 5, 2),
        (128, 256, 512, 1024),
        20_591_168,
        expansions=(2, 2, 2, 2),
        bottlenecks=(0.5, 0.5, 0.5, 0.5),
        stem=(64, 7, 2),
        stem_pool=True,
        downsample_grows=False,
        expand_activation='none',
    ),
    'cspdarknet53': _cspnet(
        DarkBlock,
        (1, 2, 8, 8, 4),
        (64, 128, 256, 512, 1024),
        26_617_184,
        expansions=(2, 1, 1, 1, 1),
        bottlenecks=(0.5, 1, 1, 1, 1),
        stem=(32, 3, 1),
        stem_pool=False,
        downsample_grows=True,
    ),
    # YOLO.
    'yolo11n': _yolo11('n', 1_365_472),
    'yolo11s': _yolo11('s', 5_441_984),
    'yolo11m': _yolo11('m', 10_352_192),
    'yolo11l': _yolo11('l', 12_833_600),
    'yolo11x': _yolo11('x', 28_847_328),
    'yolo26n': _yolo26('n', 1_365_472),
    'yolo26s': _yolo26('s', 5_441_984),
    'yolo26m': _yolo26('m', 10_352_192),
    'yolo26l': _yolo26('l', 12_833_600),
    'yolo26x': _yolo26('x', 28_847_328),
    # For images of 32 pixels: within 1 % of the parameters of ``vit_micro``; 0.083 GFLOPs to its 0.065.
    'resnet_micro': Entry(
        partial(ResNet, BasicBlock, (1, 1, 1, 1), (32, 48, 96, 128), stem_channels=32, small_images=True),
        'cnn',
        456_576,
        preprocessing.SMALL_IMAGES,
    ),
}
