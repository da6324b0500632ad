"""The lengths of texts in tokens: what batches are padded to, and how many texts are cut off."""

from backbones.text.tokenising import BUCKETS, PADDING, Tokenising
from experiments.data.texts import Texts

# The share of texts that is few, where batches of a training are much shorter without them.
_FEW = 0.05


def in_words(texts: Texts, tokenising: Tokenising, trains: bool) -> str:
    """How many tokens of a text are read, and what batches are padded to.

    Args:
        texts: all of a data set.
        tokenising: the tokenizer, and the most tokens that are read of a text.
        trains: whether a training reads them, whose batches all have the length of the longest text.

    Raises:
        UserError: the tokenizer cannot be read.
    """
    padded = texts.tokens(tokenising).values.shape[1]
    how = f'every batch of a training is padded to {padded}' if trains else f'batches are padded to {padded} or fewer'
    return f'at most {tokenising.length} tokens of each text; {how}'


def notes(texts: Texts, tokenising: Tokenising, trains: bool, longest: int) -> list[str]:
    """What an account should say: how many texts are cut off, and whether few of them make a training slow.

    Args:
        texts, tokenising, trains: as for ``in_words``.
        longest: the most tokens that the backbone takes.

    Raises:
        UserError: the tokenizer cannot be read.
    """
    tokens, count = texts.tokens(tokenising), len(texts.values)
    found = []
    if cut := int(tokens.cut.sum()):
        remedy = '--config.text_length' if tokenising.length < longest else 'the backbone takes no more'
        found.append(cut_in_words(cut, count, tokenising.length, remedy))
    lengths, padded = (tokens.values != PADDING).sum(1), tokens.values.shape[1]
    # A length that is not halved is hardly worth a text.
    beyond = {size: int((lengths > size).sum()) for size in BUCKETS if trains and 2 * size <= padded}
    shorter = next((size for size in beyond if beyond[size] <= _FEW * count), None)
    if shorter:
        found.append(
            f'few texts make every batch of a training {padded} tokens long, and it slow: '
            f'--config.text_length={shorter} would cut {beyond[shorter]:,} of {count:,} texts'
        )
    return found


def cut_in_words(cut: int, count: int, length: int, remedy: str) -> str:
    """Such as ``'2 of 10 texts are longer than 32 tokens and are cut off (--config.text_length)'``.

    Args:
        cut: how many are cut.
        count: how many there are.
        length: tokens that are read of each.
        remedy: what reads more of them, or that nothing does.
    """
    are = 'is' if cut == 1 else 'are'
    return f'{cut:,} of {count:,} texts {are} longer than {length} tokens and {are} cut off ({remedy})'
