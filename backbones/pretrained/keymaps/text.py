"""BERT, RoBERTa and DistilBERT as transformers stores them, alone or below one of its heads."""

import dataclasses

from backbones.pretrained.keymaps.rules import TRANSPOSE, Ignored, Line, Rule, aliases, dense_rules, layer_norm_rules
from backbones.pretrained.keymaps.vit import blocks, packed_rules
from backbones.text.encoder import TextEncoder


@dataclasses.dataclass(frozen=True)
class _Keys:
    """What an architecture calls its parts; ``{}`` is the number of a block.

    Attributes:
        prefix: what its keys begin with below a head.
        block: prefix of a block.
        qkv, projection: the layers of the attention.
        dense: the feed-forward layers.
        norms: normalisations after the attention and after the feed-forward layers.
        heads: of tasks, as a regular expression.
    """

    prefix: str
    block: str
    qkv: tuple[str, str, str]
    projection: str
    dense: tuple[str, str]
    norms: tuple[str, str]
    heads: str


_BERT = _Keys(
    'bert.',
    'encoder.layer.{}.',
    ('attention.self.query.', 'attention.self.key.', 'attention.self.value.'),
    'attention.output.dense',
    ('intermediate.dense', 'output.dense'),
    ('attention.output.LayerNorm', 'output.LayerNorm'),
    r'(cls|qa_outputs|classifier)\..*',
)
# A hidden layer comes before its classifier, so that the classifier is not a linear head on what ours pools.
_ROBERTA = dataclasses.replace(_BERT, prefix='roberta.', heads=r'(lm_head|qa_outputs|classifier)\..*')
_DISTILBERT = _Keys(
    'distilbert.',
    'transformer.layer.{}.',
    ('attention.q_lin.', 'attention.k_lin.', 'attention.v_lin.'),
    'attention.out_lin',
    ('ffn.lin1', 'ffn.lin2'),
    ('sa_layer_norm', 'output_layer_norm'),
    r'(vocab_(transform|layer_norm|projector)|pre_classifier|classifier|qa_outputs)\..*',
)


def transformers(module: TextEncoder) -> list[Line]:
    """``bert.encoder.layer.7.attention.self.query.weight`` is the first third of our ``qkv/kernel``.

    Read with and without the prefix, which is written below a head: encoders of sentences have none.

    Which of the architectures it is, the options say and not the registered name: an encoder without types of tokens is
    a DistilBERT (``text_micro``, or ``bert_base`` with ``types=0`` and without the pooler, for which DistilBERT has no
    place), one that counts its positions a RoBERTa, and any other a BERT. None of them counts positions and has no
    types.
    """
    if module.counted_positions and not module.types:
        return []
    keys = _DISTILBERT if not module.types else _ROBERTA if module.counted_positions else _BERT
    prefixes = ('', keys.prefix) if module.pooling == 'mean' else (keys.prefix, '')
    first, second = (_encoder(module, keys, prefix) for prefix in prefixes)
    rules = [*first, *aliases(second), *_older(first), *_older(second)]
    if keys is _BERT and module.pooling == 'pooler':
        rules += dense_rules('classifier', 'head')
    # Positions in the order in which they are: a buffer.
    return [*rules, Ignored(rf'({keys.prefix})?embeddings\.position_ids'), Ignored(keys.heads)]


def _encoder(module: TextEncoder, keys: _Keys, prefix: str) -> list[Line]:
    embeddings, path = f'{prefix}embeddings.', 'backbone/embedding'
    tables = ['word', 'position', *(['token_type'] if module.types else [])]
    rules: list[Line] = [Rule(f'{embeddings}{name}_embeddings.weight', f'params/{path}/{name}') for name in tables]
    rules += layer_norm_rules(f'{embeddings}LayerNorm', f'{path}/norm')
    for number, path in blocks(module):
        block = prefix + keys.block.format(number)
        rules += packed_rules([block + key for key in keys.qkv], f'{path}/attention/qkv')
        rules += dense_rules(block + keys.projection, f'{path}/attention/projection')
        for branch, (norm, dense) in enumerate(zip(keys.norms, keys.dense, strict=True), start=1):
            rules += layer_norm_rules(block + norm, f'{path}/norm{branch}')
            rules += dense_rules(block + dense, f'{path}/mlp/dense{branch}')
    if keys is not _DISTILBERT:
        # Files have it, whether the encoder pools with it or not.
        pooler, optional = 'params/backbone/pooler', module.pooling != 'pooler'
        rules.append(Rule(f'{prefix}pooler.dense.weight', f'{pooler}/kernel', TRANSPOSE, optional=optional))
        rules.append(Rule(f'{prefix}pooler.dense.bias', f'{pooler}/bias', optional=optional))
    return rules


def _older(lines: list[Line]) -> list[Line]:
    """The names that a normalisation's arrays had in TensorFlow, and still have in files made of its own."""
    names = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
    return [
        dataclasses.replace(line, key=line.key.replace(ours, theirs), alias=True)
        for line in lines
        for ours, theirs in names.items()
        if isinstance(line, Rule) and line.key.endswith(ours)
    ]
