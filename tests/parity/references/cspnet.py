"""Timm's CSPNet."""

import timm
from references.common import Outputs, Reference, numbered
from torch import Tensor
from weights import Case


def cspnet(case: Case) -> Reference:
    """Stages are the stem's convolution, before a pool, and the outputs of the cross-stage partial stages."""
    changed = {'act_layer': value for option, value in case.options if option == 'activation'}
    model = timm.create_model(case.backbone, **changed)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    return Reference(model, run)
