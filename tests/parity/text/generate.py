"""Ask transformers' encoders of texts; keep what they answer, or write it for ``compare.py`` in the usual sizes.

Run in an environment of its own; the tests need none of it:

    pip install torch transformers
    python tests/parity/text/generate.py                # write the .npz files beside this one
    python tests/parity/text/generate.py --answers FILE bert_base --seed 3 --length 200
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import cases
import numpy as np
import torch
import transformers
from torch import Tensor

# As published: class, and what differs from the class's own defaults.
PUBLISHED: dict[str, tuple[type, dict[str, Any]]] = {
    'bert_base': (transformers.BertForPreTraining, {}),
    'distilbert_base': (transformers.DistilBertForMaskedLM, {}),
    'roberta_base': (
        transformers.RobertaForMaskedLM,
        {'vocab_size': 50265, 'max_position_embeddings': 514, 'type_vocab_size': 1, 'layer_norm_eps': 1e-5},
    ),
    'minilm_l6': (transformers.BertModel, {'hidden_size': 384, 'num_hidden_layers': 6, 'intermediate_size': 1536}),
}


def build(case: cases.Case) -> transformers.PreTrainedModel:
    """The model of a case, with its head, in float64: there the reference adds no error of its own."""
    kind, settings = PUBLISHED[case.backbone]
    distilled = case.backbone == 'distilbert_base'
    chosen = {cases.NAMES[option][distilled]: value for option, value in case.options}
    model = kind(kind.config_class(**{**settings, **chosen}, attn_implementation='eager'))
    state = {key: torch.from_numpy(each) for key, each in cases.state_dict(case, shapes(model)).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and {*missing}.isdisjoint(shapes(model))
    return model.double().eval()


def shapes(model: transformers.PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Key → shape of what a file holds: an array that has two names, such as the embedding of words, is in it once."""
    seen: dict[int, str] = {}
    state = model.state_dict()
    return {key: tuple(each.shape) for key, each in state.items() if seen.setdefault(each.data_ptr(), key) == key}


def pooled(case: cases.Case, model: torch.nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Features of whole texts; the first token is that of the text, wherever the padding is."""
    if case.backbone == 'minilm_l6':
        weight = mask[..., None].to(tokens.dtype)
        mean = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)
    first = tokens[torch.arange(len(tokens)), mask.int().argmax(1)]
    return model.pooler(first[:, None]) if case.backbone == 'bert_base' else first


@torch.inference_mode()
def answers(case: cases.Case) -> dict[str, np.ndarray]:
    """Outputs after each quarter of the depth, at the tokens that count, and the features of whole texts."""
    whole = build(case)
    model, configuration = whole.base_model, whole.config
    padding = configuration.pad_token_id
    used = configuration.max_position_embeddings - (padding + 1 if case.backbone == 'roberta_base' else 0)
    types = getattr(configuration, 'type_vocab_size', 0)
    depth = configuration.num_hidden_layers
    result = {}
    for name, question in cases.questions(case, configuration.vocab_size, used, types).items():
        mask = torch.from_numpy(question.mask)
        tokens = torch.from_numpy(question.tokens)
        if name != 'holes':
            tokens = tokens.masked_fill(~mask, padding)
        more = {} if question.types is None else {'token_type_ids': torch.from_numpy(question.types)}
        found = model(tokens, attention_mask=mask.long(), output_hidden_states=True, **more)
        for number in range(1, 5):
            hidden = found.hidden_states[-(-number * depth // 4)]
            result[f'{name}/stage{number}'] = hidden[mask].numpy()
        result[f'{name}/pooled'] = pooled(case, model, found.last_hidden_state, mask).numpy()
    return result


def check_alive(name: str, values: np.ndarray) -> None:
    """Weights under which all texts have the same features would prove nothing."""
    deviation = values.std()
    apart = min((values[0] - each).std() for each in values[1:]) if len(values) > 1 else deviation
    print(f'{name:40} {values.shape!s:14} deviation {deviation:.3f}, between rows {apart:.3f}')
    if name.split('/')[1] != 'longest' and not 0.1 * deviation < apart:
        raise SystemExit(f'{name} is no test of anything; change the scales in cases.py')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--answers', nargs=2, metavar=('FILE', 'NAME'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--length', type=int, default=64)
    arguments = parser.parse_args()
    if arguments.answers:
        path, name = arguments.answers
        case = cases.Case(name, (), arguments.length, arguments.seed)
        np.savez(Path(path), shapes=json.dumps(shapes(build(case))), **answers(case))
        return
    packages = ('torch', 'transformers')
    made_with = json.dumps({package: importlib.metadata.version(package) for package in packages})
    for case in cases.CASES:
        found = answers(case)
        for name, values in found.items():
            check_alive(f'{case}/{name}', values)
        largest = {f'{name}/largest': np.abs(values).max() for name, values in found.items()}
        kept = {name: cases.sample(values).astype(np.float32) for name, values in found.items()}
        np.savez_compressed(case.path, made_with=made_with, shapes=json.dumps(shapes(build(case))), **kept, **largest)


if __name__ == '__main__':
    main()
