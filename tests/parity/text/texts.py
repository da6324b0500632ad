"""Texts that are hard to take apart, pairs of sentences, and small tokenizers of the two kinds, made here."""

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent
# Of the tokenizers below and of MiniLM's, by transformers.
TOKENS = DIRECTORY / 'tokens.json'
# Of MiniLM's published weights.
SIMILARITIES = DIRECTORY / 'similarities.json'

# The most tokens of a text, and of those that are hard.
LENGTHS = (24, 512)

HARD = (
    '',
    ' ',
    'A photo of a cat.',
    'Ünïcödé — naïve façade, ÅNGSTRÖM',
    'cafe\u0301 and café',
    '猫は机の上で寝ている。',
    'Привет, мир! مرحبا بالعالم',
    'emoji 😀👩‍👩‍👧 end',
    'a [PAD] b [SEP] c [CLS] [MASK] [UNK] </s><s> <pad>',
    '[pad] [ PAD ]',
    'line one\nline two\r\n\ttabbed\u00a0space\u200bzero',
    'control\x00\x07\ufffd characters',
    'x' * 101,
    'pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism',
    "don't can't it's 3.14159 1,000,000 $5 50% #tag @user http://example.org/?q=1&r=2",
    '한국어 문장 ไทย हिन्दी',
    'ﬁne ligatures ½ ² Ⅷ',
    'word ' * 700,
    '猫' * 600,
)

PAIRS = (
    ('A man is playing a guitar.', 'Someone plays an instrument.'),
    ('A man is playing a guitar.', 'The stock market fell sharply today.'),
    ('The cat sleeps on the sofa.', 'A kitten is napping on a couch.'),
    ('The cat sleeps on the sofa.', 'The dog runs in the park.'),
    ('How do I reset my password?', 'I forgot my login credentials.'),
    ('How do I reset my password?', 'What is the capital of France?'),
    ('Paris is the capital of France.', 'What is the capital of France?'),
    ('It will rain tomorrow.', 'The forecast predicts showers for the next day.'),
    ('It will rain tomorrow.', 'It will not rain tomorrow.'),
    ('Two children are building a sand castle.', 'Kids play at the beach.'),
    ('The film was dull and far too long.', 'I loved every minute of this movie.'),
    ('The film was dull and far too long.', 'What a boring picture.'),
    ('Gradient descent minimises a loss.', 'Training a network means optimising its objective.'),
    ('Gradient descent minimises a loss.', 'She sold the house at a loss.'),
    ('', 'An empty text has no words.'),
    ('UPPER CASE TEXT', 'upper case text'),
    ('Le chat dort.', 'The cat is sleeping.'),
    ('Numbers: 1, 2, 3', 'one two three'),
    ('quick brown fox ' * 120, 'quick brown fox'),
    ('A', 'B'),
)


def word_piece() -> str:
    """A ``tokenizer.json`` as BERT's, with a truncation and a padding of its own, as MiniLM's file has them."""
    words = ['a', 'photo', 'of', 'the', 'cat', 'cafe', 'word', 'line', 'end', 'don', 'user', 'one', 'two', 'and']
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'[]()/<>#@$%&=:猫机上日"
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    pieces = [*words, *letters, *(f'##{letter}' for letter in letters if letter.isalnum()), '##ing', '##s']
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*special, *pieces]))}
    return _written(
        special,
        vocabulary,
        normalizer={
            'type': 'BertNormalizer',
            'clean_text': True,
            'handle_chinese_chars': True,
            'strip_accents': None,
            'lowercase': True,
        },
        pre_tokenizer={'type': 'BertPreTokenizer'},
        post_processor={
            'type': 'BertProcessing',
            'sep': ['[SEP]', vocabulary['[SEP]']],
            'cls': ['[CLS]', vocabulary['[CLS]']],
        },
        decoder={'type': 'WordPiece', 'prefix': '##', 'cleanup': True},
        model={
            'type': 'WordPiece',
            'unk_token': '[UNK]',
            'continuing_subword_prefix': '##',
            'max_input_chars_per_word': 100,
            'vocab': vocabulary,
        },
        truncation={'direction': 'Right', 'max_length': 8, 'strategy': 'LongestFirst', 'stride': 0},
        padding={
            'strategy': {'Fixed': 8},
            'direction': 'Right',
            'pad_to_multiple_of': None,
            'pad_id': 0,
            'pad_type_id': 0,
            'pad_token': '[PAD]',
        },
    )


def byte_pairs() -> str:
    """A ``tokenizer.json`` as RoBERTa's."""
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    letters = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    merges = ['Ġ w', 'o r', 'Ġw or', 'Ġwor d', 'w or', 'wor d', 'c a', 'ca t', 'Ġ a', 'Ġ cat', 'i n', 'in g']
    vocabulary = {token: n for n, token in enumerate([*special, *letters, *(each.replace(' ', '') for each in merges)])}
    return _written(
        special,
        vocabulary,
        normalizer=None,
        pre_tokenizer={'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True},
        post_processor={
            'type': 'RobertaProcessing',
            'sep': ['</s>', vocabulary['</s>']],
            'cls': ['<s>', vocabulary['<s>']],
            'trim_offsets': True,
            'add_prefix_space': False,
        },
        decoder={'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True},
        model={'type': 'BPE', 'vocab': vocabulary, 'merges': merges},
        truncation=None,
        padding=None,
    )


def _written(special: list[str], vocabulary: dict[str, int], **parts: Any) -> str:
    added = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False, 'special': True}
    tokens = [{'id': vocabulary[token], 'content': token, **added} for token in special]
    return json.dumps({'version': '1.0', 'added_tokens': tokens, **parts})
