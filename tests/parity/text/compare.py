"""Our text encoders against transformers' answers: of the stored cases, or of a file of ``generate.py --answers``.

python tests/parity/text/compare.py FILE bert_base --seed 3 --length 200
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

sys.path.insert(0, str(Path(__file__).parents[3]))

from backbones.pretrained.recognition import recognise
from backbones.text.encoder import PADDING, TextEncoder
from backbones.text.table import TABLE
from tests.parity.text import cases


def module_of(case: cases.Case) -> TextEncoder:
    """Our encoder of a case."""
    module = TABLE[case.backbone].constructor().clone(**dict(case.options))
    assert isinstance(module, TextEncoder)
    return module


def variables_of(case: cases.Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What ours makes of transformers' arrays."""
    layout, translation = recognise(module_of(case), cases.state_dict(case, shapes), case.backbone, str(case))
    assert layout == 'transformers'
    paths = (path for path in translation.arrays if path.startswith('params/backbone/'))
    kept = {path.replace('/backbone/', '/', 1): translation.arrays[path] for path in paths}
    return unflatten_dict({tuple(path.split('/')): array for path, array in kept.items()})


def batch_of(questions: Mapping[str, cases.Question], longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All questions as one batch, padded on the right: tokens, which of them count, and the type of each."""
    rows = sum(len(question.tokens) for question in questions.values())
    tokens, mask = np.full((rows, longest), PADDING, np.int32), np.zeros((rows, longest), bool)
    types, start = np.zeros((rows, longest), np.int32), 0
    for name, question in questions.items():
        place = np.s_[start : start + len(question.tokens), : question.tokens.shape[1]]
        # With holes, only the mask tells.
        tokens[place] = question.tokens if name == 'holes' else np.where(question.mask, question.tokens, PADDING)
        mask[place] = question.mask
        types[place] = 0 if question.types is None else question.types
        start += len(question.tokens)
    return tokens, mask, types


def compare(case: cases.Case, stored: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every deviation as a share of the reference's largest magnitude."""
    module, errors = module_of(case), {}
    variables = variables_of(case, json.loads(str(stored['shapes'])))
    questions = cases.questions(case, module.vocabulary, module.longest(), module.types)
    tokens, mask, types = batch_of(questions, module.longest())
    with jax.default_matmul_precision('highest'):
        found = jax.jit(module.apply)(variables, tokens, mask=mask, types=types if module.types else None)
    assert not any(np.asarray(each)[~mask].any() for each in found.stages.values()), 'features at padding'
    start = 0
    for name, question in questions.items():
        count, length = question.tokens.shape
        outputs = {stage: each[start : start + count, :length][question.mask] for stage, each in found.stages.items()}
        outputs['pooled'] = found.pooled[start : start + count]
        for output, ours in outputs.items():
            theirs = stored[f'{name}/{output}']
            largest = float(stored.get(f'{name}/{output}/largest', np.abs(theirs).max()))
            ours = np.asarray(ours) if ours.shape == theirs.shape else cases.sample(ours)
            errors[f'{name}/{output}'] = float(np.abs(ours - theirs).max()) / largest
        start += count
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file')
    parser.add_argument('name')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--length', type=int, default=64)
    arguments = parser.parse_args()
    case = cases.Case(arguments.name, (), arguments.length, arguments.seed)
    with np.load(arguments.file) as stored:
        errors = compare(case, dict(stored))
    for name, each in errors.items():
        print(f'{name:20} {each:.1e}')
    print(f'{arguments.name:20} largest {max(errors.values()):.1e}')


if __name__ == '__main__':
    main()
