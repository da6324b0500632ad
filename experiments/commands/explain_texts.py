"""The work of ``experiments.explain`` for a model that reads texts: which tokens its decision hangs on."""

import argparse
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from rich.text import Text

from backbones.errors import UserError, unknown
from backbones.explanation import occlusion
from backbones.prediction.text_predictor import TextPredictor, beginning
from backbones.text.tokenising import Piece, Tokenising
from experiments.cli import atomic_files, display, work_directories
from experiments.commands import predict_texts
from experiments.explanation import explanation_files
from experiments.results import explanations as stored

# Red, green and blue of tokens that speak for the class, and against it; white on neither.
_FOR, _AGAINST = (31, 119, 180), (214, 39, 40)
METHOD = 'occlusion'
_NOTE = (
    'A token’s colour is what the log-probability of the class loses without it: blue speaks for the class, red '
    'against it; the darkest is the strongest of its text.'
)


class Attributed(NamedTuple):
    """A text and what its tokens do.

    Attributes:
        text: the text.
        pieces: its tokens, with their places in it.
        values: of each, what the log-probability of the class loses without it.
        name: of the class.
        probability: of the class.
    """

    text: str
    pieces: Sequence[Piece]
    values: Float[np.ndarray, ' pieces']
    name: str
    probability: float


def run(predictor: TextPredictor, options: argparse.Namespace, argv: Sequence[str]) -> None:
    """Attribute the classes of texts to their tokens.

    Raises:
        UserError: options that are for images, or no place to write to.
    """
    _check(options)
    texts = list(predict_texts.expanded(options.images))[: options.limit]
    target = None
    if options.target is not None:
        if options.target not in predictor.names:
            raise unknown('class', options.target, predictor.names)
        target = predictor.names.index(options.target)
    output = _output(options)
    found = []
    console = display.make_console(stderr=False)
    with display.progress() as bar:
        task = bar.add_task('explaining', total=len(texts), note='', brief=True)
        for text in texts:
            found.append(_attributed(predictor, text, target))
            bar.advance(task)
    for each in found:
        console.print(Text(f'{each.name} {each.probability:.1%}  ', style='bold') + _coloured(each), soft_wrap=True)
    work_directories.make(output)
    command = explanation_files.command(argv)
    with atomic_files.os_errors_as_user_errors(lambda: 'choose another --output'):
        with atomic_files.atomic_write(output / 'texts.html') as stream:
            stream.write(_page(found, predictor.model.source, command))
        atomic_files.write_json(
            output / 'explanation.json', {'command': command, 'method': METHOD, 'texts': list(map(_as_json, found))}
        )
    told = f'{len(found):,} text{"" if len(found) == 1 else "s"}; written: {output / "texts.html"}'
    display.console.print(told, soft_wrap=True, markup=False, highlight=False)


def _check(options: argparse.Namespace) -> None:
    if len(options.named) > 1:
        raise UserError('texts are explained for one model at a time; name one --workdir or --model')
    for option in ('method', 'stage', 'nearest', 'image_size'):
        if getattr(options, option) is not None:
            raise UserError(f'--{option} is of images; tokens of texts have one method, {METHOD}')


def _output(options: argparse.Namespace) -> Path:
    if options.output is not None:
        return options.output
    workdir = options.named[0].workdir
    if workdir is None or work_directories.read_config(workdir) is None:
        raise UserError('published weights have no work directory: name a directory with --output DIR')
    return workdir / stored.DIRECTORY / METHOD


def _attributed(predictor: TextPredictor, text: str, target: int | None) -> Attributed:
    tokenising = predictor.model.input
    assert isinstance(tokenising, Tokenising)
    (prediction,) = predictor(text)
    values, chosen = occlusion.attributions(
        predictor.model.model, jax.tree.map(np.asarray, predictor.model.variables), tokenising.encode([text])[0], target
    )
    pieces = tokenising.pieces(text)
    return Attributed(
        text, pieces, values[: len(pieces)], predictor.names[chosen], float(prediction.probabilities[chosen])
    )


def _runs(each: Attributed) -> list[tuple[str, float | None]]:
    """The text in parts, each with its token's share of the strongest; ``None`` between tokens and beyond them."""
    inside = [piece.stop > piece.start for piece in each.pieces]
    most = max((abs(value) for value, there in zip(each.values, inside, strict=True) if there), default=0) or 1.0
    parts: list[tuple[str, float | None]] = []
    last = 0
    for piece, value, there in zip(each.pieces, each.values, inside, strict=True):
        if not there or piece.start < last:  # of the tokenizer, or a further token of the same character
            continue
        parts += [(each.text[last : piece.start], None), (each.text[piece.start : piece.stop], float(value) / most)]
        last = piece.stop
    return [part for part in (*parts, (each.text[last:], None)) if part[0]]


def _colour(share: float) -> tuple[int, int, int]:
    strongest = _FOR if share > 0 else _AGAINST
    red, green, blue = (round(255 + (channel - 255) * min(abs(share), 1)) for channel in strongest)
    return red, green, blue


def _coloured(each: Attributed) -> Text:
    found = Text()
    for part, share in _runs(each):
        style = '' if share is None else f'black on rgb({",".join(map(str, _colour(share)))})'
        found.append(part.replace('\n', ' '), style)
    return found


def _page(found: Sequence[Attributed], source: str, command: str) -> str:
    texts = []
    for each in found:
        marked = ''.join(
            html.escape(part)
            if share is None
            else f'<span style="background:rgb{_colour(share)}" title="{share:+.2f}">{html.escape(part)}</span>'
            for part, share in _runs(each)
        )
        texts.append(
            f'<article><h2>{html.escape(each.name)} <small>{each.probability:.1%}</small></h2><p>{marked}</p></article>'
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>Tokens of {html.escape(source)}</title><style>'
        'body{font:16px/1.6 system-ui,sans-serif;max-width:46em;margin:2em auto;padding:0 1em;color:#222;'
        'background:#fff}article{border-top:1px solid #ddd;padding:.5em 0}h2{font-size:1.05em;margin:.4em 0}'
        'small{color:#666;font-weight:normal}p{white-space:pre-wrap;margin:.3em 0 1em}'
        'span{border-radius:3px;color:#111}code{color:#666}</style>'
        f'<h1>What decides, token by token</h1><p>{_NOTE}</p>{"".join(texts)}<p><code>{html.escape(command)}</code></p>'
        '</html>\n'
    )


def _as_json(each: Attributed) -> dict[str, Any]:
    return {
        'text': each.text,
        'class': each.name,
        'probability': each.probability,
        'tokens': [
            {'token': piece.token, 'start': piece.start, 'stop': piece.stop, 'value': float(value)}
            for piece, value in zip(each.pieces, each.values, strict=True)
        ],
        'summary': beginning(each.text),
    }
