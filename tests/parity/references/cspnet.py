"""Timm's CSPNet."""

import timm
from references.common import Outputs, Reference, numbered
from torch import Tensor
from weights import Case


def cspnet(case: Case) -> Reference:
    """Stages are the stem's convolution, before a pool, and the outputs of the cross-stage partial stages."""
    activation = dict(case.options).get('activation')
    model = timm.create_model(case.backbone, **({'act_layer': activation} if activation else {}))

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

    return Reference(model, run)
