"""The work of ``experiments.predict`` for a model that reads texts."""

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from backbones.errors import UserError
from backbones.prediction.text_predictor import TextPrediction, TextPredictor, beginning
from experiments.cli import atomic_files, display
from experiments.data.account import number_of
from experiments.data.texts import Texts
from experiments.prediction import splits

# Up to so many texts, each has a table of its own.
_TABLES = 3


def run(predictor: TextPredictor, options: argparse.Namespace) -> None:
    """Classify the texts that options name, or those of a split.

    Raises:
        UserError: options that are for images, a file that cannot be read, or nothing to classify.
    """
    _check(options)
    names, texts, truths = _of_split(options) if options.split else _of_arguments(options)
    if not texts:
        raise UserError('there is no text to classify')
    in_full = len(texts) <= _TABLES
    with contextlib.ExitStack() as stack:
        stack.enter_context(atomic_files.os_errors_as_user_errors(lambda: 'choose another file for --json'))
        files = [stack.enter_context(atomic_files.atomic_write(path)) for path in options.json]
        bar = stack.enter_context(display.progress())
        output = display.beside(bar)
        task = bar.add_task('classifying', total=len(texts), note='', brief=in_full)
        cut = 0
        for name, truth, result in zip(names, truths, predictor.stream(texts), strict=True):
            bar.advance(task)
            if isinstance(result, UserError):
                raise result
            cut += result.is_cut
            in_table = f'{name}  {result.tokens} tokens{", cut" if result.is_cut else ""}'
            line = (in_table if in_full else result.summary(name)) + (f'  (truth: {truth})' if truth else '')
            output.print(line, soft_wrap=True, markup=False, highlight=False)
            if in_full:
                output.print(_table(result))
            for file in files:
                row = {**result.as_json(), **({'id': name, 'truth': truth} if truth else {})}
                file.write(f'{json.dumps(row, allow_nan=False)}\n')
    told = f'{number_of(len(texts), "text")}{cut_in_words(predictor, cut)}'
    told += f'; results in {", ".join(map(str, options.json))}' if options.json else ''
    display.console.print(told, soft_wrap=True, markup=False, highlight=False)


def cut_in_words(predictor: TextPredictor, cut: int) -> str:
    """How many of some texts are cut, after their number; empty for none."""
    return f', of which {cut:,} {"is" if cut == 1 else "are"} cut at {predictor.length} tokens' if cut else ''


def _check(options: argparse.Namespace) -> None:
    if options.save:
        raise UserError('--save writes pictures, and the model reads texts; --json FILE.jsonl keeps the results')
    if options.image_size:
        raise UserError('--image_size is of images, and the model reads texts')
    if any(path.suffix == '.json' for path in options.json):
        raise UserError('the layout of COCO has no texts: write them to --json FILE.jsonl')


def _of_arguments(options: argparse.Namespace) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """A text as it is, or each line of a file that ends in .txt."""
    found = list(expanded(options.images))[: options.limit]
    return [beginning(text) for text in found], found, [''] * len(found)


def expanded(arguments: Sequence[str]) -> Iterator[str]:
    """Each argument as a text, or the lines of a file that ends in .txt.

    Raises:
        UserError: such a file cannot be read, or an argument is the name of another file.
    """
    for argument in arguments:
        if not _names_file(argument):
            if Path(argument).suffix and _is_file(argument):
                raise UserError(
                    f'{argument} is a file; texts are read from a .txt file with a text on every line. '
                    '--workdir RUN --split test takes those of the data set of a run'
                )
            yield argument
            continue
        try:
            # Not ``splitlines``: texts may contain what it takes for an end of line, such as U+2028.
            lines = Path(argument).read_text(encoding='utf-8-sig').split('\n')
        except FileNotFoundError:
            raise UserError(
                f'there is no file {argument!r}; what ends in .txt names a file with a text on every line'
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'{argument} cannot be read as lines of text in UTF-8: {error}') from None
        yield from (line for line in lines if line.strip())


def _names_file(argument: str) -> bool:
    """Whether an argument is no text: a text of several words may end in .txt, but no file then has its name."""
    if not argument.endswith('.txt') or not any(map(str.isspace, argument)):
        return argument.endswith('.txt')
    return _is_file(argument)


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).is_file()
    except OSError:  # too long for a name
        return False


def _of_split(options: argparse.Namespace) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    dataset = splits.dataset_of(options.workdir, options.data_dir)
    indices = splits.chosen(dataset, options.split, options.limit)
    assert isinstance(dataset.images, Texts)
    return (
        [dataset.ids[index] for index in indices],
        [dataset.images.values[index] for index in indices],
        [dataset.classes[dataset.targets[index]] for index in indices],
    )


def _table(prediction: TextPrediction) -> Table:
    result = Table()
    result.add_column('class')
    result.add_column('probability', justify='right')
    for name, share in prediction.most_likely:
        result.add_row(escape(name), f'{share:.1%}')
    return result
