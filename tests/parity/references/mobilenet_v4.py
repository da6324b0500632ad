"""MobileNetV4 of timm; stages are those of ``features_only``, of which the first is the stem."""

import timm
from references.common import Outputs, Reference, numbered
from torch import Tensor
from weights import Case


def timm_mobilenet_v4(case: Case) -> Reference:
    """The classifier always has a stride of 32; for another one the same variables are given to ``features_only``."""
    options = dict(case.options)
    changes = {'act_layer': options.get('activation', 'relu'), 'drop_path_rate': options.get('stochastic_depth', 0.0)}
    name = case.backbone.replace('_v4', 'v4')
    model = timm.create_model(name, **changes)
    if 'output_stride' not in options:

        def run(images: Tensor) -> Outputs:
            last, maps = model.forward_intermediates(images)
            return numbered(maps) | {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}

        return Reference(model, run)

    dilated = timm.create_model(name, features_only=True, output_stride=options['output_stride'], **changes)

    def run_dilated(images: Tensor) -> Outputs:
        state = {key: value for key, value in model.state_dict().items() if key in dilated.state_dict()}
        dilated.to(images.dtype).eval().load_state_dict(state)
        maps = dilated(images)
        pooled = model.forward_head(maps[-1], pre_logits=True)
        return numbered(maps) | {'pooled': pooled, 'logits': model.classifier(pooled)}

    return Reference(model, run_dilated)
