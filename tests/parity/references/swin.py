"""Swin of torchvision, timm and transformers, and under the keys of its authors' files.

Torchvision's answers at any size. The others disagree with it, and with each other, where a map is no multiple of the
window; they are asked at ``32 * window`` pixels, as their files are published (224 and 7, 384 and 12).
"""

import re

import timm
import torchvision
from references.common import Outputs, Reference, numbered
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor
from torch.nn.functional import pad
from transformers import SwinConfig, SwinForImageClassification
from weights import Case


def torchvision_swin(case: Case) -> Reference:
    """Stages are the outputs before the next merging layer; with ``pad``, images are padded to whole patches."""
    model = torchvision.models.get_model(case.backbone[: len('swin_t')], weights=None)

    def run(images: Tensor) -> Outputs:
        if dict(case.options).get('pad'):
            images = pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
        x, maps = images, []
        for index, layer in enumerate(model.features):
            x = layer(x)
            if index % 2:
                maps.append(x.permute(0, 3, 1, 2))
        tokens = model.norm(x).flatten(1, 2)
        return numbered(maps) | {'tokens': tokens, 'pooled': tokens.mean(1), 'logits': model(images)}

    return Reference(model, run)


def timm_swin(case: Case) -> Reference:
    """Stages are those of ``features_only``."""
    name = f'{case.backbone}_patch4_window7_224'
    model = timm.create_model(name, img_size=case.image_size, window_size=case.image_size // 32)

    def run(images: Tensor) -> Outputs:
        last, maps = model.forward_intermediates(images)
        outputs = numbered(maps) | {'tokens': last.flatten(1, 2)}
        outputs |= {'pooled': model.forward_head(last, pre_logits=True), 'logits': model(images)}
        table = model.layers[2].blocks[1].attn.relative_position_bias_table
        return outputs | {'stage3/block2/attention/relative_position_bias_table': table}

    def resample(state: dict[str, Tensor]) -> dict[str, Tensor]:
        tables = {key: value for key, value in model.state_dict().items() if key.endswith('bias_table')}
        window = (case.image_size // 32,) * 2
        return state | {key: resize_rel_pos_bias_table(state[key], window, new.shape) for key, new in tables.items()}

    return Reference(model, run, resample=resample)


def microsoft_swin(case: Case) -> Reference:
    """Timm's model, its buffers stored too; the keys are those that its ``checkpoint_filter_fn`` converts from."""
    reference = timm_swin(case)
    for module in reference.model.modules():
        module._non_persistent_buffers_set.clear()
    for key in reference.model.state_dict():
        ends = re.sub(r'(?<=^layers\.)\d(?=\.downsample)', lambda found: str(int(found[0]) - 1), key)
        reference.keys[key] = ends.replace('head.fc.', 'head.')
    return reference


def transformers_swin(case: Case) -> Reference:
    """Built from the sizes of timm's model; the keys are those of the published files, which loading renames."""
    sizes = timm.create_model(f'{case.backbone}_patch4_window7_224')
    config = SwinConfig(
        image_size=case.image_size,
        window_size=case.image_size // 32,
        embed_dim=sizes.embed_dim,
        depths=[len(stage.blocks) for stage in sizes.layers],
        num_heads=[stage.blocks[0].attn.num_heads for stage in sizes.layers],
        num_labels=1000,
    )
    model = SwinForImageClassification(config)
    published = {
        'attention.q_proj': 'attention.self.query',
        'attention.k_proj': 'attention.self.key',
        'attention.v_proj': 'attention.self.value',
        'attention.o_proj': 'attention.output.dense',
        'attention.relative_position_bias.': 'attention.self.',
        'mlp.fc1': 'intermediate.dense',
        'mlp.fc2': 'output.dense',
    }
    keys = {}
    for key in model.state_dict():
        keys[key] = key
        for ours, theirs in published.items():
            keys[key] = keys[key].replace(ours, theirs)

    def run(images: Tensor) -> Outputs:
        (x, size), maps = model.swin.embeddings(images), []
        for stage in model.swin.encoder.layers:
            x, before, _ = stage(x, size, output_hidden_states_before_downsampling=True)
            maps.append(before)
            size = [side // 2 for side in size]
        outputs = model.swin(images)
        tokens, pooled = outputs.last_hidden_state, outputs.pooler_output
        return numbered(maps) | {'tokens': tokens, 'pooled': pooled, 'logits': model(images).logits}

    return Reference(model, run, keys)
