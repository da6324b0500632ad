"""A tokenizer that needs no vocabulary of words: the bytes of a text in UTF-8, a beginning and an end.

Its longest texts are short, but it knows every language, and nothing has to be downloaded or trained.
"""

import json

_SPECIAL = ('[PAD]', '[CLS]', '[SEP]')
VOCABULARY = len(_SPECIAL) + 256


def byte_tokenizer() -> str:
    """The content of its ``tokenizer.json``."""
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *_characters()))}
    beginning, end = _SPECIAL[1:]
    pieces = [{'SpecialToken': {'id': beginning, 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}]
    ending = {'SpecialToken': {'id': end, 'type_id': 0}}
    added = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False, 'special': True}
    content = {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [{'id': number, 'content': token, **added} for number, token in enumerate(_SPECIAL)],
        'normalizer': None,
        'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False},
        'post_processor': {
            'type': 'TemplateProcessing',
            'single': [*pieces, ending],
            'pair': [*pieces, ending, {'Sequence': {'id': 'B', 'type_id': 1}}, ending],
            'special_tokens': {
                token: {'id': token, 'ids': [vocabulary[token]], 'tokens': [token]} for token in (beginning, end)
            },
        },
        'decoder': {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True},
        'model': {'type': 'BPE', 'vocab': vocabulary, 'merges': []},
    }
    return json.dumps(content, ensure_ascii=False)


def _characters() -> list[str]:
    """The character by which the ``tokenizers`` library writes each byte (GPT-2, ``bytes_to_unicode``).

    Bytes that are printable in Latin-1 are themselves; the others, in their order, come after the first 256 characters.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]
