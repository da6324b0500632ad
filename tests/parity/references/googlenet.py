"""Torchvision's GoogLeNet."""

import torchvision
from references.common import Outputs, Reference, numbered
from torch import Tensor
from weights import Case


def googlenet(case: Case) -> Reference:
    """Stages are the outputs of the last layer before each max-pool, and of the very last.

    ``transform_input`` is preprocessing and left off. The auxiliary heads answer in inference mode, too.
    """
    auxiliary = 'auxiliary_classes' in dict(case.options)
    model = torchvision.models.googlenet(weights=None, aux_logits=auxiliary, init_weights=False)
    seen: Outputs = {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda layer, inputs, output, name=name: seen.update({name: output}))

    def run(images: Tensor) -> Outputs:
        outputs = {'logits': model(images), 'pooled': seen['avgpool'].flatten(1)}
        outputs |= numbered(seen[name] for name in ('conv1', 'conv3', 'inception3b', 'inception4e', 'inception5b'))
        if auxiliary:
            outputs |= {'auxiliary1': model.aux1(seen['inception4a']), 'auxiliary2': model.aux2(seen['inception4d'])}
        return outputs

    return Reference(model, run)
