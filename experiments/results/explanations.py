"""Explanations in a work directory, as ``experiments.explain`` wrote them: pictures with what they show, or texts."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.cli import json_files

DIRECTORY = 'explanations'
FILE = 'explanations.json'
# In a directory of each method: the numbers of the texts, or images, that were explained last.
NUMBERS = 'explanation.json'
# What the colours of tokens are.
TOKENS = (
    'A token’s colour is what the log-probability of the class loses without it: blue speaks for the class, orange '
    'against it; the strongest colour is the strongest of its text.'
)
# Changes when an older reader would misread the file.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Entry:
    """One picture.

    Attributes:
        file: the picture.
        title: what was done.
        caption: what each method shows.
        header: what the columns are: the image, then each model.
        rows: what each row says, for readers who do not see the picture.
        command: the command that wrote it.
        size: width and height of the picture in pixels.
    """

    file: Path
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    command: str
    size: tuple[int, int]


def read_documents(workdir: Path) -> list[dict[str, Any]]:
    """The entries as they are stored; none where there are none, or a newer version or somebody else wrote the file."""
    try:
        document = json_files.parse((workdir / DIRECTORY / FILE).read_text())
        return list(document['explanations']) if document['version'] <= VERSION else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def read(workdir: Path) -> list[Entry]:
    """The entries whose pictures are there, the latest first."""
    found = []
    for each in reversed(read_documents(workdir)):
        file = workdir / DIRECTORY / Path(str(each.get('picture', ''))).name
        if file.is_file():
            found.append(
                Entry(
                    file,
                    each.get('title', ''),
                    each.get('caption', ''),
                    tuple(each.get('header', ())),
                    tuple(map(tuple, each.get('rows', ()))),
                    each.get('command', ''),
                    (each.get('width', 0), each.get('height', 0)),
                )
            )
    return found


class Token(NamedTuple):
    """A token of a text.

    Attributes:
        token: as the vocabulary writes it.
        start, stop: its characters in the text; equal for one that the tokenizer added.
        value: what speaks for the class, if positive, or against it.
    """

    token: str
    start: int
    stop: int
    value: float


@dataclasses.dataclass(frozen=True)
class ExplainedText:
    """A text and what its tokens do.

    Attributes:
        text: the whole, of which the model may have read the beginning alone.
        tokens: those that it read.
        name: of the class.
        probability: of the class.
        is_cut: whether the text has more tokens than the model reads.
    """

    text: str
    tokens: tuple[Token, ...]
    name: str
    probability: float
    is_cut: bool = False

    def parts(self) -> list[tuple[str, float | None]]:
        """The text in parts, each with its token's share of the strongest; ``None`` between tokens and beyond them."""
        inside = [token for token in self.tokens if token.stop > token.start]
        most = max((abs(token.value) for token in inside), default=0) or 1.0
        found: list[tuple[str, float | None]] = []
        last = 0
        for token in inside:
            if token.start < last:  # a further token of the same character
                continue
            found += [(self.text[last : token.start], None), (self.text[token.start : token.stop], token.value / most)]
            last = token.stop
        return [part for part in (*found, (self.text[last:], None)) if part[0]]

    def read_and_beyond(self) -> tuple[list[tuple[str, float | None]], str]:
        """The parts of what was read, and the rest of a text that was cut."""
        parts = self.parts()
        rest, share = parts[-1] if parts else ('', None)
        # What earlier versions wrote does not say whether it is cut, but a word without a token is.
        if share is not None or not (self.is_cut or any(map(str.isalnum, rest))):
            return parts, ''
        return parts[:-1], rest

    def cut_in_words(self) -> str:
        """Such as ``', cut at 32 tokens'``; empty for a text that is not cut."""
        return f', cut at {len(self.tokens)} tokens' if self.is_cut else ''


@dataclasses.dataclass(frozen=True)
class TextEntry:
    """Texts that were explained together.

    Attributes:
        method: how.
        texts: in the order of the command.
        command: the command that wrote them.
    """

    method: str
    texts: tuple[ExplainedText, ...]
    command: str


def as_json(text: ExplainedText) -> dict[str, Any]:
    """A text as ``read_texts`` takes it."""
    return {
        'text': text.text,
        'class': text.name,
        'probability': text.probability,
        'is_cut': text.is_cut,
        'tokens': [token._asdict() for token in text.tokens],
    }


def read_texts(workdir: Path) -> list[TextEntry]:
    """The texts that were explained with each method; files that are damaged, or of images, are left out."""
    found = []
    for file in sorted((workdir / DIRECTORY).glob(f'*/{NUMBERS}')):
        try:
            document = json_files.parse(file.read_text(encoding='utf-8'))
            texts = tuple(map(_text, document['texts']))
            found.append(TextEntry(str(document['method']), texts, str(document['command'])))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue
    return [entry for entry in found if entry.texts]


def _text(value: dict[str, Any]) -> ExplainedText:
    text, tokens = str(value['text']), [Token(**token) for token in value['tokens']]
    return ExplainedText(
        text,
        _checked(tokens, len(text)),
        str(value['class']),
        float(value['probability']),
        bool(value.get('is_cut', False)),  # versions before did not say it
    )


def _checked(tokens: Sequence[Token], length: int) -> tuple[Token, ...]:
    """The tokens.

    Raises:
        ValueError, TypeError, OverflowError: one lies outside the text, or its places are no whole numbers, or its
            value is no number.
    """
    for token in tokens:
        # A truth value is an int of Python, but no place.
        is_inside = type(token.start) is type(token.stop) is int and 0 <= token.start <= token.stop <= length
        if not (is_inside and math.isfinite(token.value)):
            raise ValueError('a token that is none of its text')
    return tuple(tokens)
