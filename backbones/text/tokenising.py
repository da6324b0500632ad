"""From texts to tokens, on the host: what a set of weights expects of texts.

The tokenizer belongs to the weights, as a mean and a deviation belong to those of an image backbone; it is read by the
``tokenizers`` library from their own ``tokenizer.json``.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int32

from backbones.errors import UserError

# Lengths in tokens that batches are padded to, so that few programs are compiled.
BUCKETS = (16, 32, 64, 128, 256, 512)
_HALVES = re.compile('[\ud800-\udfff]')
# What fills a batch whose texts have several lengths. Tokenizers number their tokens from 0, and some count a padding
# token among those of a text.
PADDING = -1


class Piece(NamedTuple):
    """A token of a text.

    Attributes:
        token: as the vocabulary writes it.
        start, stop: its characters in the text; equal for one that the tokenizer added.
    """

    token: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Tokenising:
    """How texts become what a text encoder takes.

    Attributes:
        length: the most tokens of a text, with those that the tokenizer adds; what is beyond them is cut off.
        tokenizer: the content of the weights' ``tokenizer.json``; empty where it is not known yet.
    """

    length: int
    tokenizer: str = ''

    def __post_init__(self):
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 3:
            raise UserError(f'the length of texts is a number of tokens, at least 3, not {self.length!r}')

    def __repr__(self) -> str:
        """In short: the content of a tokenizer is long."""
        return f'Tokenising({self.vocabulary_in_words()}, length={self.length})'

    def vocabulary_in_words(self) -> str:
        """How many tokens the tokenizer has; or that it is not known, or cannot be read."""
        if not self.tokenizer:
            return 'no tokenizer'
        try:
            return f'{self._tokenizer.get_vocab_size():,} tokens'
        except UserError:
            return f'a tokenizer.json of {len(self.tokenizer):,} characters'

    @property
    def size(self) -> tuple[int]:
        """The size of an input: its length."""
        return (self.length,)

    def replace(self, **changes) -> 'Tokenising':
        """A copy with some of the values changed; ``None`` leaves one as it is."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})

    def __call__(self, tokens: Int32[jax.Array, 'batch length']) -> Int32[jax.Array, 'batch length']:
        """Nothing is left to do on the device."""
        return jnp.asarray(tokens)

    def encode(self, texts: Sequence[str]) -> Int32[np.ndarray, 'texts length']:
        """The tokens of texts, cut at ``length`` and padded on the right to the bucket of the longest.

        A row depends on its own text alone.

        Raises:
            UserError: the tokenizer is not known, or cannot be read; or something is no text, or no list of them.
        """
        return self.encode_and_tell(texts)[0]

    def encode_and_tell(
        self, texts: Sequence[str]
    ) -> tuple[Int32[np.ndarray, 'texts length'], Bool[np.ndarray, ' texts']]:
        """The same as ``encode``, and which texts were cut."""
        if isinstance(texts, str | bytes):
            raise UserError(f'texts are given as a list, such as encode([{texts!r:.60}]), not as one')
        found = self._tokenizer.encode_batch([whole_characters(text) for text in texts])
        tokens = np.full(
            (len(found), self.bucket(max((len(each.ids) for each in found), default=1))), PADDING, np.int32
        )
        for row, each in zip(tokens, found, strict=True):
            row[: len(each.ids)] = each.ids
        return tokens, np.array([bool(each.overflowing) for each in found], bool)

    def pieces(self, text: str) -> list[Piece]:
        """The tokens of a text, in order, and where in it each lies."""
        found = self._tokenizer.encode(whole_characters(text))
        return [Piece(token, *place) for token, place in zip(found.tokens, found.offsets, strict=True)]

    def bucket(self, longest: int) -> int:
        """The length that texts of at most so many tokens are padded to."""
        return min(self.length, next((size for size in BUCKETS if size >= longest), self.length))

    def trimmed(self, tokens: Int32[np.ndarray, 'texts length']) -> int:
        """The length that the tokens of some texts can be cut to: the bucket of the longest."""
        return min(tokens.shape[1], self.bucket(int((tokens != PADDING).sum(1).max(initial=1))))

    @functools.cached_property
    def _tokenizer(self) -> Any:
        if not self.tokenizer:
            raise UserError('the tokenizer of these texts is not known: it comes with the weights (tokenizer.json)')
        try:
            from tokenizers import Tokenizer  # imported late: only texts need it
        except ImportError:
            raise UserError('texts become tokens by a package that is not installed: pip install tokenizers') from None
        try:
            made = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises plain exceptions
            raise UserError(f'tokenizer.json cannot be read: {error}') from None
        # Files bring truncation and padding of their own, which are not what the encoder was trained with.
        made.enable_truncation(self.length)
        made.no_padding()
        return made

    def as_json(self) -> dict[str, Any]:
        """The values as JSON represents them."""
        return {'length': self.length, 'tokenizer': self.tokenizer}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> 'Tokenising':
        """The inverse of ``as_json``."""
        return Tokenising(value['length'], value['tokenizer'])


def whole_characters(text: str) -> str:
    """A text without halves of characters (lone surrogates, as a file of JSON may hold them), of the same length.

    The library refuses them; decoders of bytes write the same character for what they cannot read.

    Raises:
        UserError: it is no text.
    """
    if not isinstance(text, str):
        raise UserError(f'a text is a string, not {type(text).__name__}')
    return _HALVES.sub('\ufffd', text)
