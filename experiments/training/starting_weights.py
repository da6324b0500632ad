"""The weights that a training or a frozen pass begins from, read as its config asks; what does not fit is said."""

import warnings
from collections.abc import Iterable, Sequence

import jax

import backbones
from backbones import Report
from backbones.errors import MisfitWarning, UserError, listed
from backbones.model import Model
from backbones.pretrained import compatibility
from experiments.cli import display

_SHOWN = 10


def load(name: str, weights: str, size: tuple[int, ...], size_is_chosen: bool, strict: bool) -> dict:
    """The variables of a backbone from a source.

    Args:
        name: a registered name.
        weights: a source as ``load_weights`` takes it.
        size: height and width of the model's input in pixels; the length of texts does not matter.
        size_is_chosen: whether the config says this size (``image_size``). Otherwise it is what the preprocessing of
            the weights says, and a file whose positions were made for another one is an error.
        strict: whether anything that does not fit is an error. If not, it is printed, and what is missing from the file
            is missing from the variables.

    Raises:
        UserError: see ``load_weights``.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', UserWarning)
        of_images = size if len(size) == 2 else None
        variables, report = backbones.load_weights(name, weights, image_size=of_images, strict=strict)
    told = [each for each in caught if issubclass(each.category, UserWarning)]
    for each in caught:
        if each not in told:  # what libraries say to programmers
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    chosen = ['image_size'] if size_is_chosen else []
    resampled = compatibility.resampled(backbones.create(name), report.reshaped, of_images, chosen) if of_images else []
    if resampled and strict:
        raise UserError(
            f'{weights}: {resampled[0]}; the config key image_size is 0, which keeps the size of the backbone: set it '
            f'(--config.image_size={size[1]}{"" if size[0] == size[1] else f" --config.image_height={size[0]}"})'
        )
    _print(str(each.message) for each in told if each.category is not MisfitWarning)
    if not strict:
        misfit = [str(each.message) for each in told if each.category is MisfitWarning]
        lines = (*misfit, *(f'{weights}: {line}' for line in resampled), *left_out(report))
        _print(f'strict_weights=False: {line}' for line in lines)
    return variables


def load_parts(
    name: str, weights: str, size: tuple[int, ...], model: Model, parts: Sequence[str], strict: bool
) -> dict:
    """The variables of other parts of a model than its backbone.

    Args:
        name: of the backbone.
        weights: a source as ``load_weights`` takes it.
        size: height and width of the model's input in pixels.
        model: that is to take them.
        parts: ``'neck'``, ``'head'``.
        strict: see ``load``.

    Raises:
        UserError: see ``load_weights``.
    """
    of_images = size if len(size) == 2 else None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', MisfitWarning)
        try:
            variables, report = backbones.load_weights(
                name, weights, image_size=of_images, strict=strict, parts=parts, model=model
            )
        except UserError as error:
            if not strict:
                raise
            raise UserError(
                f'{error} (a training takes what fits with --config.strict_weights=False, and less with '
                '--config.weights_parts)'
            ) from None
    _print(f'strict_weights=False: {line}' for line in left_out(report))
    return variables


def tell(text: str) -> None:
    """Say what a training begins from."""
    if jax.process_index() == 0:
        display.console.print(text, soft_wrap=True, markup=False, highlight=False)


def _print(lines: Iterable[str]) -> None:
    if jax.process_index() == 0:
        for line in lines:
            display.console.print(line, style='yellow', soft_wrap=True, markup=False, highlight=False)


def left_out(report: Report) -> list[str]:
    """What of a file was not used, and which parameters got nothing from it; a line for each kind."""
    misfit = [path for path, _, _ in report.misfit]
    kinds = (
        ('missing from the file, so they keep their random values', report.missing),
        ('of another shape in the file, so they keep their random values', misfit),
        ('in the file and not in the model, so they are not used', report.unexpected),
    )
    return [f'arrays {what}: {len(paths):,} ({listed(paths, _SHOWN)})' for what, paths in kinds if paths]
