"""What lies beside the weights of a text encoder: its tokenizer, and how texts are cut and pooled."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.errors import UserError, listed
from backbones.pretrained import json_files, links

TOKENIZER = 'tokenizer.json'
_TOKENIZER_CONFIG = 'tokenizer_config.json'
_MODULES = 'modules.json'
# Of sentence-transformers; it has another name for some architectures.
_SENTENCES = 'sentence_*config.json'
_POOLING = 'config.json'
# What the hub gives of a repository beside its weights.
NAMES = (TOKENIZER, _TOKENIZER_CONFIG, _MODULES, _SENTENCES, f'*_Pooling/{_POOLING}')
# Files that tokenizers were kept in before there was one file for all of it.
_OLDER = ('vocab.txt', 'vocab.json', 'merges.txt', 'spiece.model', 'sentencepiece.bpe.model', 'tokenizer.model')

# sentence-transformers' ways to pool, in our terms.
_WAYS = {'mean': 'mean', 'cls': 'token'}


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """What a directory says of a text encoder.

    Attributes:
        tokenizer: the content of ``tokenizer.json``; empty where there is none.
        vocabulary: how many tokens it numbers; 0 where it does not say so in a way that is known here.
        length: the most tokens of a text, where sentence-transformers' configuration says so.
        tokenizer_length: the same of ``tokenizer_config.json``, which may be any number.
        pooled: options of our encoder that ``modules.json`` implies; empty where there is none.
        unknown: what it asks for that ours does not have, in words.
        older: other files of a tokenizer, which are not read.
    """

    tokenizer: str = ''
    vocabulary: int = 0
    length: int | None = None
    tokenizer_length: int | None = None
    pooled: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    older: tuple[str, ...] = ()


NONE = TextFiles()


def read(directory: Path) -> TextFiles:
    """What lies in a directory as a hub lays it out.

    Raises:
        UserError: a file cannot be read.
    """
    found = [length for path in sorted(directory.glob(_SENTENCES)) if (length := _length(path, 'max_seq_length'))]
    pooled, unknown = _pooling(directory)
    tokenizer = _text(directory / TOKENIZER)
    return TextFiles(
        tokenizer,
        _tokens(tokenizer),
        found[0] if found else None,
        _length(directory / _TOKENIZER_CONFIG, 'model_max_length'),
        pooled,
        unknown,
        tuple(name for name in _OLDER if (directory / name).is_file()),
    )


def absent(source: str, files: TextFiles) -> UserError:
    """That a source has no tokenizer which is read here."""
    others = f'; it has {listed(files.older)}, which is not read here' if files.older else ''
    return UserError(
        f'{source} has no {TOKENIZER}, which says how texts become tokens{others}: take the whole repository of the '
        f'weights, or write the file with transformers (AutoTokenizer.from_pretrained(…).save_pretrained(DIRECTORY))'
    )


def _text(path: Path) -> str:
    links.check(path)
    if not path.is_file():
        return ''
    try:
        return path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}') from None


def _tokens(tokenizer: str) -> int:
    """How many tokens a tokenizer numbers."""
    try:
        content = json.loads(tokenizer or '{}')
        vocabulary = content.get('model', {}).get('vocab', {})
        numbers = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return 1 + max((*numbers, *(token['id'] for token in content.get('added_tokens', []))), default=-1)
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0  # whoever makes tokens says what is wrong with it


def _length(path: Path, key: str) -> int | None:
    value = (json_files.read(path, dict) or {}).get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _pooling(directory: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our options, and what cannot be done, of the modules that follow the encoder."""
    modules = json_files.read(directory / _MODULES, list)
    if modules is None:
        return {}, ()
    options: dict[str, Any] = {'normalised': False}
    unknown = []
    for module in filter(lambda each: isinstance(each, dict), modules):
        kind = str(module.get('type', '')).rpartition('.')[2]
        if kind == 'Normalize':
            options['normalised'] = True
        elif kind == 'Pooling':
            place = directory / Path(str(module.get('path', ''))).name
            way = _way(json_files.read(place / _POOLING, dict) or {})
            if way in _WAYS:
                options['pooling'] = _WAYS[way]
            else:
                unknown.append(f'its texts are pooled by {way!r}, where ours can only be by {listed(_WAYS)}')
        elif kind != 'Transformer':
            unknown.append(f'its {_MODULES} has a module {kind!r}, which ours does not have')
    return options, tuple(unknown)


def _way(config: Mapping[str, Any]) -> str:
    """The name of a way to pool; several at once are joined by ``+``."""
    if isinstance(config.get('pooling_mode'), str):
        return config['pooling_mode']
    start, ends = 'pooling_mode_', ('_tokens', '_token')
    names = [key.removeprefix(start) for key, value in config.items() if key.startswith(start) and value is True]
    for end in ends:
        names = [name.removesuffix(end) for name in names]
    return '+'.join(names)
