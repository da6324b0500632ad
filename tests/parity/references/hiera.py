"""Hiera of timm, its authors and transformers.

The authors' code is github.com/facebookresearch/hiera, here at commit b12b842542ee5c757fcfec8c41f6b56fcbe89b65: clone
it and add the clone to PYTHONPATH. It is imported where it is asked for, as nothing else needs it.
"""

import timm
import transformers
from references.common import Outputs, Reference, numbered
from torch import Tensor
from weights import Case


def timm_hiera(case: Case) -> Reference:
    """Stages are those of ``features_only``."""
    changes = {'drop_path_rate': dict(case.options).get('stochastic_depth', 0.0)}
    model = timm.create_model(f'{case.backbone}_224', img_size=case.image_size, **changes)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        outputs = numbered(maps) | {'tokens': last, 'pooled': model.forward_head(last, pre_logits=True)}
        return outputs | {'logits': model(images)}

    return Reference(model, run)


def _sizes(case: Case) -> tuple[int, tuple[int, ...]]:
    """Channels of the first stage and blocks per stage: those of the tiny one, unless the case changes them."""
    options = dict(case.options)
    return options.get('channels', 96), options.get('depths', (1, 2, 7, 2))


def facebook_hiera(case: Case) -> Reference:
    """``Hiera``, whose classifier gives probabilities, unless it is in training mode."""
    from hiera.hiera import Hiera  # ty: ignore[unresolved-import]

    channels, depths = _sizes(case)
    model = Hiera(input_size=(case.image_size,) * 2, embed_dim=channels, num_heads=1, stages=depths)

    def run(images: Tensor) -> Outputs:
        _, maps = model(images, return_intermediates=True)
        tokens = maps[-1].flatten(1, 2)
        pooled = model.norm(tokens.mean(1))
        outputs = numbered(each.permute(0, 3, 1, 2) for each in maps)
        return outputs | {'tokens': tokens, 'pooled': pooled, 'logits': model.head.projection(pooled)}

    return Reference(model, run)


def transformers_hiera(case: Case) -> Reference:
    """``HieraForImageClassification``."""
    channels, depths = _sizes(case)
    configuration = transformers.HieraConfig(
        image_size=[case.image_size] * 2, embed_dim=channels, depths=list(depths), num_labels=1000
    )
    model = transformers.HieraForImageClassification(configuration)

    def run(images: Tensor) -> Outputs:
        seen = model.hiera(images, output_hidden_states=True)
        maps = [each.permute(0, 3, 1, 2) for each in seen.reshaped_hidden_states[1:]]
        outputs = numbered(maps) | {'tokens': seen.last_hidden_state, 'pooled': seen.pooler_output}
        return outputs | {'logits': model.classifier(seen.pooler_output)}

    return Reference(model, run)
