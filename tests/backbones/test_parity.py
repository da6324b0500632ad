"""Stage by stage, our outputs against those of torchvision and timm under the same weights (``tests/parity``)."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import backbones
from tests.parity import weights

# Largest deviation allowed, as a share of the reference's largest magnitude. Float32 alone makes less than 1e-6; the
# smallest mistake known, a GELU by its tanh formula, makes 1.2e-4.
TOLERANCE = 2e-5


def outputs_of(case: weights.Case, variables: dict) -> dict[str, np.ndarray]:
    """All outputs of the classifier and of the backbone inside it, from one compilation."""
    model = backbones.create_classifier(case.backbone, num_classes=1000)

    @jax.jit
    def run(variables, images):
        return model.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: module.name == 'backbone',
            mutable=['intermediates'],
        )

    with jax.default_matmul_precision('highest'):
        logits, state = run(variables, weights.images(case.image_size))
    (features,) = state['intermediates']['backbone']['__call__']
    outputs = dict(features.stages, pooled=features.pooled, logits=logits)
    if features.tokens is not None:
        outputs['tokens'] = features.tokens
        outputs['position_embedding'] = variables['params']['backbone']['position_embedding']
    return outputs


@pytest.mark.parametrize('case', weights.CASES, ids=str)
def test_every_stage_equals_the_reference(case: weights.Case, tmp_path: Path):
    with np.load(case.path) as stored:
        reference = dict(stored)
    shapes = json.loads(reference.pop('shapes').tobytes())
    reference.pop('made_with')
    file = tmp_path / 'reference.safetensors'
    save_file(weights.state_dict(case.backbone, shapes), file)
    variables, report = backbones.load_weights(case.backbone, file, classifier=True, image_size=case.image_size)
    file.unlink()
    assert not report.problems()
    assert [path for path, *_ in report.reshaped] == (
        [] if case.file_size == case.image_size else ['params/backbone/position_embedding']
    )

    outputs = outputs_of(case, variables)
    assert {key.rpartition('/')[0] for key in reference} == set(outputs)
    errors = {}
    for name, values in outputs.items():
        ours = weights.summary(name, values)
        assert ours[f'{name}/shape'].tolist() == reference[f'{name}/shape'].tolist(), name
        largest = reference[f'{name}/moments'][2]
        errors[name] = max(
            np.abs(ours[key] - reference[key]).max() / largest for key in (f'{name}/moments', f'{name}/values')
        )
    print(case, ' '.join(f'{name} {error:.1e}' for name, error in errors.items()))
    assert max(errors.values()) <= TOLERANCE, errors
