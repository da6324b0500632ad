"""The work of ``experiments.explain`` for a model that reads texts: which tokens its decision hangs on."""

import argparse
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.text import Text

from backbones.errors import UserError, unknown
from backbones.explanation import occlusion
from backbones.prediction.text_predictor import TextPredictor, beginning
from backbones.text.tokenising import Tokenising, whole_characters
from experiments.cli import atomic_files, display, work_directories
from experiments.commands import predict_texts
from experiments.data.account import number_of
from experiments.explanation import explanation_files
from experiments.results import explanations as stored
from experiments.results.explanations import ExplainedText

# Red, green and blue of tokens that speak for the class, and against it; white on neither.
_FOR, _AGAINST = (0, 114, 178), (213, 94, 0)
# Share of the colour of the strongest token, so that black is legible on it.
_OPACITY = 0.6
METHOD = 'occlusion'


def run(predictor: TextPredictor, options: argparse.Namespace, argv: Sequence[str]) -> None:
    """Attribute the classes of texts to their tokens.

    Raises:
        UserError: options that are for images, no text, or no place to write to.
    """
    _check(options)
    texts = list(predict_texts.expanded(options.images))[: options.limit]
    if not texts:
        raise UserError('there is no text to explain')
    target = None
    if options.target is not None:
        if options.target not in predictor.names:
            raise unknown('class', options.target, predictor.names)
        target = predictor.names.index(options.target)
    output = _output(options)
    found, variables = [], jax.device_put(predictor.model.variables)
    console = display.make_console(stderr=False)
    with display.progress() as bar:
        task = bar.add_task('explaining', total=len(texts), note='', brief=True)
        for text in texts:
            found.append(_attributed(predictor, variables, text, target))
            bar.advance(task)
    for each in found:
        head = f'{each.name} {each.probability:.1%}{each.cut_in_words()}  '
        console.print(Text(head, style='bold') + _coloured(each), soft_wrap=True)
    work_directories.make(output)
    command = explanation_files.command(argv)
    with atomic_files.os_errors_as_user_errors(lambda: 'choose another --output'):
        with atomic_files.atomic_write(output / 'texts.html') as stream:
            stream.write(whole_characters(_page(found, predictor.model.source, command)))
        atomic_files.write_json(
            output / stored.NUMBERS, {'command': command, 'method': METHOD, 'texts': list(map(_as_json, found))}
        )
    cut = predict_texts.cut_in_words(predictor, sum(each.is_cut for each in found))
    told = f'{number_of(len(found), "text")}{cut}; written: {output / "texts.html"}'
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


def _attributed(predictor: TextPredictor, variables: Any, text: str, target: int | None) -> ExplainedText:
    tokenising = predictor.model.input
    assert isinstance(tokenising, Tokenising)
    (prediction,) = predictor(text)
    values, chosen = occlusion.attributions(
        predictor.model.model, variables, tokenising.encode([text])[0], tokenising.pieces(text), target
    )
    tokens = tuple(
        stored.Token(*piece, float(value)) for piece, value in zip(tokenising.pieces(text), values, strict=False)
    )
    probability = float(prediction.probabilities[chosen])
    return ExplainedText(text, tokens, predictor.names[chosen], probability, prediction.is_cut)


def _colour(share: float) -> tuple[int, int, int]:
    strongest = _FOR if share > 0 else _AGAINST
    red, green, blue = (round(255 + (channel - 255) * _OPACITY * min(abs(share), 1)) for channel in strongest)
    return red, green, blue


def _coloured(each: ExplainedText) -> Text:
    found = Text()
    parts, beyond = each.read_and_beyond()
    for part, share in parts:
        style = '' if share is None else f'black on rgb({",".join(map(str, _colour(share)))})'
        found.append(whole_characters(part).replace('\n', ' '), style)
    if beyond:
        found.append(' [cut]', 'yellow').append(f' {beginning(beyond)}', 'dim')
    return found


def _page(found: Sequence[ExplainedText], source: str, command: str) -> str:
    texts = []
    for each in found:
        parts, beyond = each.read_and_beyond()
        marked = ''.join(
            html.escape(part)
            if share is None
            else f'<span class="{"for" if share > 0 else "against"}" style="--s:{abs(share):.3f}" title="{share:+.2f}">'
            f'{html.escape(part)}</span>'
            for part, share in parts
        )
        texts.append(
            f'<article><h2>{html.escape(each.name)} <small>{each.probability:.1%}{each.cut_in_words()}</small></h2>'
            f'<p>{marked}{f"<small>{html.escape(beyond)}</small>" if beyond else ""}</p></article>'
        )
    grey = ' Grey: what the model does not read.' if any(each.read_and_beyond()[1] for each in found) else ''
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>Tokens of {html.escape(source)}</title><style>'
        ':root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;max-width:46em;margin:2em auto;'
        'padding:0 1em;color:light-dark(#1b1f23,#e4e7ea);background:light-dark(#fff,#14171a);overflow-wrap:anywhere}'
        'h1{font-size:1.5em}h2{font-size:1.05em;margin:.4em 0}small,code{color:light-dark(#59626b,#a0a9b2)}'
        'small{font-weight:normal}article{border-top:1px solid light-dark(#dde1e5,#31373d);padding:.5em 0}'
        'p{white-space:pre-wrap;margin:.3em 0 1em}span{border-radius:3px}'
        '.for{background:color-mix(in srgb,light-dark(#0072b2,#5ab0e8) calc(var(--s)*45%),transparent)}'
        '.against{background:color-mix(in srgb,light-dark(#d55e00,#f28a3c) calc(var(--s)*45%),transparent)}</style>'
        f'<h1>What decides, token by token</h1><p>{stored.TOKENS}{grey}</p>{"".join(texts)}'
        f'<p><code>{html.escape(command)}</code></p></html>\n'
    )


def _as_json(each: ExplainedText) -> dict[str, Any]:
    return {**stored.as_json(each), 'summary': beginning(each.text)}
