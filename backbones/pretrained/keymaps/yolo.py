"""YOLO11 and YOLO26 as ultralytics stores them."""

from backbones.cnn.yolo import YOLO
from backbones.pretrained.keymaps.rules import Foreign, Ignored, Line, conv_norm_rules

# The heads of YOLO11, whatever their task, hold the bins of a distribution, as older models' do; YOLO26's do not.
_YOLO11 = [
    Foreign(
        r'model\.\d+\.dfl\.conv\.weight',
        'belongs to the head of YOLO11 and older models; a YOLO11 loads into yolo11n … yolo11x',
    ),
]
# Of the two, only YOLO26 has attention inside a C3k2 of its neck, whatever its head; its model for semantic
# segmentation has half a neck, and a head that only YOLO26 has. (An end-to-end head is no mark: any model can get one.)
_YOLO26 = [
    Foreign(pattern, f'belongs to the {part} of a YOLO26; load it into yolo26n … yolo26x')
    for pattern, part in (
        (r'model\.(1[1-9]|[2-9]\d)\.m\.\d+\.1\.attn\..*', 'neck'),
        (r'model\.17\.(aux_head|classifier)\..*', 'head'),
    )
]
_CLASSIFIER = Foreign(r'model\.10\.linear\.weight', 'belongs to a classification model, whose backbone has no SPPF')
_NECK_AND_HEAD = Ignored(r'model\.(1[1-9]|[2-9]\d)\..*')


def ultralytics(module: YOLO) -> list[Line]:
    """``model.4.m.0.cv1.conv.weight`` is ``backbone/stage3/c3k2/block1/conv1/conv/kernel``.

    A detector's neck and head (``model.11`` and up) are dropped. They also tell a whole YOLO11 from a whole YOLO26,
    which are refused in each other's place; files of layers 0 to 10 alone have the same keys and shapes in both.

    A .pt file of ultralytics is a pickled model, which is refused; its state dictionary is what is read
    (``torch.save(YOLO('yolo11n.pt').model.state_dict(), 'yolo11n.pth')``).
    """
    rules = [
        *conv_norm_rules('model.0', 'backbone/stage1'),
        *conv_norm_rules('model.9.cv{n}', 'backbone/stage5/sppf/conv{n}'),
        *conv_norm_rules('model.10.cv{n}', 'backbone/stage5/c2psa/conv{n}'),
    ]
    for stage in range(2, 6):
        c3k2, path = f'model.{2 * stage - 2}', f'backbone/stage{stage}/c3k2/'
        rules += conv_norm_rules(f'model.{2 * stage - 3}', f'backbone/stage{stage}/downsample')
        rules += conv_norm_rules(f'{c3k2}.cv{{n}}', f'{path}conv{{n}}')
        rules += conv_norm_rules(f'{c3k2}.m.{{b}}.cv{{n}}', f'{path}block{{b+1}}/conv{{n}}')
        rules += conv_norm_rules(f'{c3k2}.m.{{b}}.m.{{c}}.cv{{n}}', f'{path}block{{b+1}}/block{{c+1}}/conv{{n}}')
    block, path = 'model.10.m.{b}.', 'backbone/stage5/c2psa/block{b+1}/'
    rules += conv_norm_rules(f'{block}attn.qkv', f'{path}attention/qkv')
    rules += conv_norm_rules(f'{block}attn.pe', f'{path}attention/position')
    rules += conv_norm_rules(f'{block}attn.proj', f'{path}attention/projection')
    rules += conv_norm_rules(f'{block}ffn.{{n}}', f'{path}mlp_conv{{n+1}}')
    others = _YOLO11 if module.sppf_shortcut else _YOLO26
    return [*rules, *others, _CLASSIFIER, _NECK_AND_HEAD]
