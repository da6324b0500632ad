"""The preprocessing that a published configuration states; ``compatibility`` compares the model it describes."""

from collections.abc import Mapping
from typing import Any

from backbones.errors import UserError, unknown
from backbones.preprocessing import Preprocessing, as_size

# PIL's filter numbers, as transformers stores them.
_PIL_FILTERS = {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic'}
_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'lanczos')


def preprocessing(
    source: str, configuration: Mapping[str, Any] | None, preprocessor: Mapping[str, Any] | None
) -> Preprocessing | None:
    """The preprocessing that a hub's directory states, or ``None`` if it states none.

    Raises:
        UserError: it states something that cannot be done here; the message names it.
    """
    try:
        if preprocessor is not None:
            return _of_transformers(preprocessor)
        if configuration is not None and 'architecture' in configuration:
            return _of_timm(configuration.get('pretrained_cfg', configuration))
        if configuration is not None and 'preprocess_cfg' in configuration:
            return _of_open_clip(configuration)
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{source}: its preprocessing is incomplete or damaged: {error!r}') from None


def _interpolation(name: str) -> str:
    if name not in _INTERPOLATIONS:
        raise unknown('interpolation', name, _INTERPOLATIONS)
    return name


def _of_timm(config: Mapping[str, Any]) -> Preprocessing:
    """timm's ``pretrained_cfg``: the shorter side to ``size / crop_pct``, or both sides where it says squash."""
    _, height, width = config['input_size']
    mode = config.get('crop_mode', 'center')
    if mode not in ('center', 'squash'):
        raise unknown('crop_mode', mode, ('center', 'squash'))
    return Preprocessing(
        tuple(config['mean']),
        tuple(config['std']),
        (height, width),
        config.get('crop_pct', 0.875),
        _interpolation(config.get('interpolation', 'bilinear')),
        fit='squash' if mode == 'squash' else 'crop',
    )


def _of_open_clip(config: Mapping[str, Any]) -> Preprocessing:
    """open_clip's ``preprocess_cfg``: the shorter side and a crop, or both sides where it says squash."""
    stated = config['preprocess_cfg']
    mode = stated.get('resize_mode', 'shortest')
    if mode not in ('shortest', 'squash'):
        raise unknown('resize_mode', mode, ('shortest', 'squash'))
    return Preprocessing(
        tuple(stated['mean']),
        tuple(stated['std']),
        _sides(config['model_cfg']['vision_cfg']['image_size']),
        1.0,
        _interpolation(stated.get('interpolation', 'bicubic')),
        fit='squash' if mode == 'squash' else 'crop',
    )


def _of_transformers(config: Mapping[str, Any]) -> Preprocessing:
    """transformers' image processors: ``size`` is the shorter side, or both sides (then the image is squashed)."""
    if config.get('do_rescale', True) and abs(config.get('rescale_factor', 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(f'rescale_factor is {config["rescale_factor"]}; only 1/255 is known here')
    if config.get('rescale_offset'):
        raise UserError('rescale_offset shifts the pixels before they are normalised, which is not known here')
    normalised = config.get('do_normalize', True)
    mean = tuple(config['image_mean']) if normalised else (0.0,) * 3
    std = tuple(config['image_std']) if normalised else (1.0,) * 3
    stated = config['size']
    squash = isinstance(stated, dict) and 'height' in stated
    if isinstance(stated, dict):
        size = _sides(stated) if squash else _sides(stated['shortest_edge'])
    else:
        size = _sides(stated)
        # These processors resize both sides to a bare number.
        squash = config.get('image_processor_type', config.get('feature_extractor_type', '')).startswith(
            ('ViT', 'Siglip')
        )
    side, crop = size, 1.0
    if config.get('do_center_crop') and config.get('crop_size') is not None:
        side = _sides(config['crop_size'])
        crop = side[0] / size[0]
        if squash and side[1] * size[0] != side[0] * size[1]:
            raise UserError(f'crop_size {_times(side)} has other proportions than size {_times(size)}')
        if not squash and side[0] != side[1]:
            # The shorter side is resized, whichever it is; no share of ours gives a crop of these proportions.
            raise UserError(f'crop_size {_times(side)} is not square, but size is the shorter side')
    elif config.get('crop_pct') is not None and min(size) < 384:  # ConvNeXt's: below 384 pixels the crop is a share …
        crop = config['crop_pct']
    elif config.get('crop_pct') is not None:  # … and from there on both sides are resized
        squash = True
    filter_number = config.get('resample', 2)
    if filter_number not in _PIL_FILTERS:
        raise unknown('resample', str(filter_number), map(str, _PIL_FILTERS))
    fit = 'squash' if squash else 'crop'
    return Preprocessing(mean, std, side, crop, _PIL_FILTERS[filter_number], fit)


def _sides(size: Any) -> tuple[int, int]:
    """Height and width, however a configuration writes them."""
    if isinstance(size, dict):
        return size['height'], size['width']
    return as_size(tuple(size) if isinstance(size, list) else size)


def _times(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'
