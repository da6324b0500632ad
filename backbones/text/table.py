"""The encoders for texts of the registry, one row each."""

from functools import partial
from typing import Any

from backbones.entry import Entry
from backbones.text.byte_tokenizer import VOCABULARY, byte_tokenizer
from backbones.text.encoder import TextEncoder
from backbones.text.tokenising import Tokenising

# Of the tokenizer without capital letters that BERT, DistilBERT and MiniLM share.
_UNCASED = 30_522


def _text(
    channels: int, depth: int, heads: int, params: int, vocabulary: int = _UNCASED, length: int = 512, **options: Any
) -> Entry:
    # transformers: the rate before a BERT's classifier.
    dropout = options.pop('dropout', 0.1)
    module = partial(
        TextEncoder,
        channels,
        depth,
        heads,
        vocabulary,
        hidden=4 * channels,
        **{'positions': 512, **options},
    )
    return Entry(module, 'text', params, Tokenising(length), dropout)


TABLE: dict[str, Entry] = {
    'bert_base': _text(768, 12, 12, 109_482_240, types=2, pooling='pooler'),
    'distilbert_base': _text(768, 6, 12, 66_362_880, dropout=0.2),
    # Its configuration has types, of which there is one. Positions are counted from 2 on, so that 512 of them are used.
    'roberta_base': _text(
        768,
        12,
        12,
        124_055_040,
        50_265,
        positions=514,
        types=1,
        padding_token=1,
        counted_positions=True,
        epsilon=1e-5,
    ),
    # sentence-transformers/all-MiniLM-L6-v2: its vectors are compared by their angle.
    'minilm_l6': _text(384, 6, 12, 22_565_376, length=256, types=2, pooling='mean', normalised=True),
    # For laptops and tests: a token is a byte, so its tokenizer needs no download.
    'text_micro': Entry(
        partial(TextEncoder, 96, 4, 3, VOCABULARY, positions=256, hidden=384, pooling='mean'),
        'text',
        496_992,
        Tokenising(256, byte_tokenizer()),
    ),
}
