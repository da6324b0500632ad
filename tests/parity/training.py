"""What the reference does in training mode: gradients, running statistics, and the rates of its regularisers."""

import numpy as np
import references
import torch
import weights
from torch import Tensor, nn

# The regularisers of torch, torchvision, timm and transformers, and the attribute that holds their rate.
STOCHASTIC_DEPTH = {'StochasticDepth': 'p', 'DropPath': 'drop_prob', 'SwinDropPath': 'drop_prob'}
DROPOUT = {'Dropout': 'p', 'Dropout2d': 'p'}


def regularisers(model: nn.Module) -> list[tuple[str, nn.Module, float]]:
    """Kind, module and rate of everything random in the model."""
    found = []
    for module in model.modules():
        for kind, classes in (('stochastic_depth', STOCHASTIC_DEPTH), ('dropout', DROPOUT)):
            if type(module).__name__ in classes:
                found.append((kind, module, float(getattr(module, classes[type(module).__name__]))))
    return found


def logits_of(case: weights.Case, reference: references.Reference, images: Tensor) -> Tensor:
    """The output that is trained: logits, or the pooled features where there is no classifier."""
    if not case.classifier:
        return reference.run(images)['pooled']
    output = reference.model(images)
    return output if isinstance(output, Tensor) else output.logits


def train(case: weights.Case, arrays: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, dict[str, np.ndarray]]:
    """The reference's answers; keys are those of the published file.

    ``gradient``: of every parameter for the first batch. ``statistics``: running ones after three steps of plain
    gradient descent on three batches. Regularisers are off for both, their rates are under ``rates``.
    """
    reference = references.build(case)
    model = reference.model
    published = {key: reference.keys.get(key, key) for key in model.state_dict()}
    model.load_state_dict({key: torch.from_numpy(arrays[name]) for key, name in published.items()})
    model.to(dtype).train()

    called: dict[str, list[float]] = {'stochastic_depth': [], 'dropout': []}
    for kind, module, rate in regularisers(model):
        module.eval()
        module.register_forward_hook(lambda *_, kind=kind, rate=rate: called[kind].append(rate))
    gradient: dict[str, np.ndarray] = {}
    rates: dict[str, np.ndarray] = {}
    for step in range(weights.TRAINING_STEPS):
        images = torch.from_numpy(weights.images(case, step)).permute(0, 3, 1, 2).to(dtype)
        logits = logits_of(case, reference, images)
        rates = rates or {kind: np.array([rate for rate in called[kind] if rate]) for kind in called}
        targets = torch.from_numpy(weights.targets(case, tuple(logits.shape), step)).to(dtype)
        model.zero_grad()
        ((logits - targets) ** 2).mean().backward()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.grad is not None:
                    if step == 0:
                        gradient[published[key]] = weights.digest(published[key], parameter.grad.numpy())
                    parameter -= weights.LEARNING_RATE * parameter.grad
    statistics = {
        published[key]: weights.digest(published[key], buffer.numpy())
        for key, buffer in model.named_buffers()
        if key.endswith(('running_mean', 'running_var'))
    }
    return {'gradient': gradient, 'statistics': statistics, 'rates': rates}


def answers(case: weights.Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is stored.

    Raises:
        SystemExit: the reference's own float32 is too far from its float64 (somewhere a value lies within rounding of a
            ReLU's kink); another seed, or fewer pixels, gives a case that can be decided.
    """
    exact, rounded = (train(case, arrays, dtype) for dtype in (torch.float64, torch.float32))
    stored = {f'rates/{kind}': rates for kind, rates in exact['rates'].items()}
    for name in ('gradient', 'statistics'):
        if exact[name]:
            stored |= weights.packed(name, exact[name])
            key, error = weights.worst(exact[name], rounded[name])
            print(f"{case!s:32} {name:12} the reference's float32: {error:.1e} ({key})")
            if error > weights.TRAINING_TOLERANCE / 2:
                raise SystemExit(f'{case}: float32 cannot decide {name}; change the seed or the size')
    return stored
