"""Exported models: every backbone and head in ONNX Runtime, reloaded StableHLO, and the command."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from PIL import Image

import backbones
from backbones import UserError
from backbones.prediction.trained_model import TrainedModel
from backbones.preprocessing import SMALL_IMAGES, Preprocessing
from backbones.pretrained.description import Description
from experiments import evaluate, train
from experiments.export import __main__ as command
from experiments.export import onnx_file, stablehlo_file
from experiments.export.exports import Export, export_of
from experiments.export.onnx_file import Session, largest_difference

ROOT = Path(__file__).parents[2]
LETTERBOX = SMALL_IMAGES.replace(size=(64, 96), fit='letterbox')
NAMES = ('disc', 'square', 'ring')
# One of each family in the default tests: those that compile in a second or two.
SMALL = ('resnet_micro', 'vit_micro', 'mobilenet_v3_small')
FAMILIES = (
    'resnext50_32x4d', 'googlenet', 'efficientnet_b0', 'cspresnet50', 'convnext_tiny', 'swin_tiny', 'yolo26n',
    'mobilenet_v4_hybrid_medium', 'hiera_tiny', 'deit_tiny_distilled_patch16',
)  # fmt: skip
OTHERS = [name for name in backbones.names() if name not in (*SMALL, *FAMILIES, *backbones.names('text'))]


def values(model, height, width, seed=0):
    """Variables of which every one matters, with statistics as far from 0 and 1 as trained ones."""
    images = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    generator = np.random.default_rng(seed)

    def value(path, leaf):
        drawn = generator.standard_normal(leaf.shape, np.float32)
        if path[-2].key == 'query':
            # Made-up statistics normalise nothing: scores would be in the hundreds, and their rounding seen.
            drawn /= 100
        if path[0].key == 'batch_stats' and path[-1].key == 'var':
            return 0.5 + np.abs(drawn)
        if leaf.ndim <= 1:
            return np.float32(path[-1].key == 'scale') + 0.2 * drawn
        return drawn / np.sqrt(np.prod(leaf.shape[:-1], dtype=np.float32))

    return jax.tree.map_with_path(value, shapes)


def compared(exported: Export, batches=(1, 3)) -> dict[str, float]:
    model = onnx_file.build(exported)
    return largest_difference(exported, Session(model.SerializeToString(), threads=1), batches)


def whole_backbone(name: str) -> Export:
    """Every stage, the pooled features and the tokens."""
    model = backbones.create(name)
    side = 56 if name.startswith(('dinov2', 'eva02')) else 64
    variables = values(model, side, side)
    known = TrainedModel('classification', backbones.create_classifier(name, 3), {}, SMALL_IMAGES, NAMES, 'made')
    exported = export_of(known, image_size=side)

    def function(images):
        return tuple(jax.tree.leaves(model.apply(variables, images, train=False)))

    count = len(jax.eval_shape(function, exported.example(1)))
    return Export(function, 'images', exported.images, tuple(f'output{number}' for number in range(count)), {})


@pytest.mark.parametrize(
    'name',
    [
        *SMALL,
        *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in OTHERS),
    ],
)
def test_a_backbone_computes_the_same(name):
    differences = compared(whole_backbone(name), batches=(2,))
    assert differences and max(differences.values()) < 1e-5


def trained(task, create, *arguments, expected=LETTERBOX, **options) -> TrainedModel:
    model = create(*arguments, num_classes=3, **options)
    return TrainedModel(task, model, values(model, *expected.size), expected, NAMES, 'made')


@pytest.fixture(scope='module')
def classifier():
    return trained('classification', backbones.create_classifier, 'resnet_micro', expected=SMALL_IMAGES)


def detector(backbone='resnet_micro', head='fcos', neck='fpn', **options):
    if neck == 'fpn':
        options['neck_options'] = {'channels': 8, 'strides': (4, 8), 'extra': 'none'}
        options['head_options'] = {'channels': 8, **({} if head == 'faster_rcnn' else {'depth': 1})}
    return trained('detection', backbones.create_detector, backbone, head=head, neck=neck, **options)


def test_a_classifier_and_its_metadata(classifier, tmp_path):
    exported = export_of(classifier)
    assert max(compared(exported).values()) < 1e-5
    model = onnx_file.build(exported)
    onnx_file.save(model, tmp_path / 'a' / 'model.onnx')
    kept = {entry.key: entry.value for entry in onnx.load(tmp_path / 'a' / 'model.onnx').metadata_props}
    assert kept['task'] == 'classification' and json.loads(kept['classes']) == list(NAMES)
    assert Preprocessing.from_json(json.loads(kept['preprocessing'])) == SMALL_IMAGES
    assert [each.name for each in model.graph.output] == ['logits']
    (batch, *rest) = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == 'batch' and [each.dim_value for each in rest] == [32, 32, 3]


def test_pixels_are_normalised_inside(classifier):
    exported = export_of(classifier, pixels=True)
    assert exported.input == 'pixels' and exported.images.dtype == np.uint8
    assert max(compared(exported).values()) < 1e-5
    images = np.random.default_rng(0).integers(0, 256, exported.example(2).shape, np.uint8)
    wanted = export_of(classifier).function(SMALL_IMAGES(images))[0]
    np.testing.assert_allclose(exported.function(images)[0], wanted, rtol=1e-5, atol=1e-5)


def test_pixels_are_resized_inside(classifier):
    exported = export_of(classifier, pixels=(47, 43))
    assert exported.images.shape[1:] == (47, 43, 3)
    images = np.random.default_rng(0).integers(0, 256, exported.example(2).shape, np.uint8)
    wanted = export_of(classifier).function(SMALL_IMAGES(images))[0]
    np.testing.assert_allclose(exported.function(images)[0], wanted, rtol=1e-5, atol=1e-5)
    # Pixels between two whole numbers may be rounded to either.
    prepared = Export(lambda images: (SMALL_IMAGES(images),), 'pixels', exported.images, ('input',), {})
    found = Session(onnx_file.build(prepared).SerializeToString())(images)[0]
    levels = np.abs(found - SMALL_IMAGES(images)) * 255 * SMALL_IMAGES.std[0]
    assert levels.max() < 1.01 and (levels > 0.01).mean() < 0.01
    assert max(compared(exported).values()) < exported.tolerance < 0.011


@pytest.mark.parametrize('tap', ('pooled', 'stages', 'grid'))
def test_features_of_the_backbone_alone(classifier, tap):
    exported = export_of(classifier, tap)
    assert exported.outputs == ('features',) and max(compared(exported).values()) < 1e-5


@pytest.mark.parametrize(
    ('backbone', 'head'),
    [
        ('vit_micro', 'linear'),
        ('resnet_micro', 'fcn'),
        pytest.param('resnet_micro', 'deeplabv3', marks=pytest.mark.slow),
        pytest.param('vit_micro', 'fcn', marks=pytest.mark.slow),
    ],
)
def test_a_segmenter(backbone, head):
    exported = export_of(trained('segmentation', backbones.create_segmenter, backbone, head=head))
    assert max(compared(exported).values()) < 1e-5


@pytest.mark.parametrize(
    ('backbone', 'head', 'neck'),
    [
        ('resnet_micro', 'fcos', 'fpn'),
        pytest.param('vit_micro', 'retinanet', 'fpn', marks=pytest.mark.slow),
        pytest.param('resnet_micro', 'faster_rcnn', 'fpn', marks=pytest.mark.slow),
        pytest.param('yolo26n', 'yolo', 'yolo_pan', marks=pytest.mark.slow),
        pytest.param('yolo11n', 'yolo', 'yolo_pan', marks=pytest.mark.slow),
    ],
)
def test_a_detector_finds_the_same(backbone, head, neck):
    model = detector(backbone, head, neck)
    exported = export_of(model)
    assert exported.outputs == ('boxes', 'scores', 'classes', 'valid')
    session = Session(onnx_file.build(exported).SerializeToString(), threads=1)
    images = np.random.default_rng(0).standard_normal(exported.example(2).shape, np.float32)
    wanted, found = (
        dict(zip(exported.outputs, map(np.asarray, each), strict=True))
        for each in (jax.jit(exported.function)(images), session(images))
    )
    assert wanted['valid'].sum() > 20
    np.testing.assert_array_equal(found['valid'], wanted['valid'])
    np.testing.assert_allclose(found['scores'], wanted['scores'], atol=1e-5)
    # Of scores that differ in the last bits either may come first.
    apart = np.abs(np.diff(wanted['scores'], axis=1, prepend=2, append=-1))
    clear = wanted['valid'] & (np.minimum(apart[:, :-1], apart[:, 1:]) > 1e-5)
    assert clear.sum() > 10
    np.testing.assert_array_equal(found['classes'][clear], wanted['classes'][clear])
    np.testing.assert_allclose(found['boxes'][clear], wanted['boxes'][clear], atol=1e-3)


@pytest.mark.parametrize(
    ('backbone', 'head', 'neck'),
    [('resnet_micro', 'fcos', 'fpn'), pytest.param('yolo26n', 'yolo', 'yolo_pan', marks=pytest.mark.slow)],
)
def test_a_detector_before_boxes_suppress_each_other(backbone, head, neck):
    exported = export_of(detector(backbone, head, neck), before_suppression=True)
    boxes, scores = jax.eval_shape(exported.function, exported.example(2))
    assert boxes.shape[:2] == scores.shape[:2] and boxes.shape[2:] == (4,) and scores.shape[2:] == (3,)
    assert max(compared(exported).values()) < 1e-5


def test_what_is_refused(classifier):
    with pytest.raises(UserError, match=r'made is no detector'):
        export_of(classifier, before_suppression=True)
    with pytest.raises(UserError, match=r'features of made are no boxes'):
        export_of(classifier, 'pooled', before_suppression=True)
    with pytest.raises(UserError, match=r"no tap 'class_token'"):
        export_of(classifier, 'class_token')
    with pytest.raises(UserError, match=r'between its two stages'):
        export_of(detector(head='faster_rcnn'), before_suppression=True)


def test_stablehlo_is_reloaded(classifier, tmp_path):
    exported = export_of(classifier)
    stablehlo_file.save(stablehlo_file.build(exported), tmp_path / 'model.hlo')
    run = stablehlo_file.load(tmp_path / 'model.hlo')
    assert max(largest_difference(exported, run).values()) < 1e-6
    (tmp_path / 'other').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'no program that jax\.export has written'):
        stablehlo_file.load(tmp_path / 'other')


def test_the_command(classifier, tmp_path, capsys):
    weights = tmp_path / 'weights.safetensors'
    described = Description('resnet_micro', SMALL_IMAGES, task='classification', classes=NAMES)
    backbones.save_weights(weights, classifier.variables, description=described)
    command.main(['--workdir', str(weights), '--to', str(tmp_path / 'x.onnx'), '--pixels'])
    told = ' '.join(''.join(capsys.readouterr()).split())
    assert (
        'input │ pixels │ uint8 │ batch × 32 × 32 × 3' in told
        and 'of the largest value' in told
        and 'x.onnx: 1.8 MB' in told
    )
    # What anyone needs to run it is in the file and in ONNX Runtime.
    image = np.asarray(Image.new('RGB', (32, 32), (200, 30, 60)))
    (logits,) = Session(tmp_path / 'x.onnx')(image[None])
    seen = backbones.load(weights)(image)[0]
    kept = {entry.key: entry.value for entry in onnx.load(tmp_path / 'x.onnx').metadata_props}
    assert json.loads(kept['classes']) == list(NAMES)
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], seen.probabilities, atol=1e-6)


# With numpy, Pillow and ONNX Runtime alone: the classes of photographs, in their order.
PLAIN = """
import sys
for name in ('jax', 'flax', 'backbones', 'experiments'):
    sys.modules[name] = None  # as if it were not installed
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
height, width = session.get_inputs()[0].shape[1:3]
for path in sys.argv[2:]:
    image = Image.open(path).convert('RGB').resize((width, height), Image.Resampling.BICUBIC)
    scores = session.run(None, {'pixels': numpy.asarray(image)[None]})[0][0]
    print(*numpy.argsort(-scores)[:5])
"""


@pytest.mark.slow
def test_photographs_are_known_without_jax(tmp_path):
    spec = importlib.util.find_spec('foolbox')
    assert spec is not None and spec.submodule_search_locations
    photographs = sorted(Path(spec.submodule_search_locations[0], 'data').glob('imagenet_*.jpg'))
    labels = [int(path.stem.split('_')[2]) for path in photographs]
    file = tmp_path / 'lite0.onnx'
    command.main(['--model', 'efficientnet_lite0', '--pixels', '--to', str(file)])
    run = subprocess.run(
        [sys.executable, '-c', PLAIN, str(file), *map(str, photographs)], capture_output=True, text=True, check=True
    )
    best = [list(map(int, line.split())) for line in run.stdout.splitlines()]
    assert len(best) == 20
    assert sum(label == five[0] for label, five in zip(labels, best, strict=True)) == 17
    assert all(label in five for label, five in zip(labels, best, strict=True))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name the model'),
        (['--model', 'resnet9'], 'nor the name of a model'),
        (['--model', 'resnet_micro', '--format', 'int8'], 'name some to calibrate with'),
        (['--model', 'resnet_micro', '--calibrate', 'x.jpg'], 'belong to --format int8'),
        (['--model', 'resnet_micro', '--format', 'int8', '--features', 'pooled'], 'of a whole model on pixels'),
        (['--model', 'vgg16_bn', '--weights', 'x', '--workdir', 'y'], 'were both given'),
    ],
)
def test_mistakes(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        command.main([*arguments, '--to', str(tmp_path / 'x.onnx')])
    assert not (tmp_path / 'x.onnx').exists()


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(UserError, match='is a directory; name a file'):
        command.main(['--model', 'resnet_micro', '--to', str(tmp_path)])


def test_the_extra_is_named(classifier, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed; pip install -e '.\[onnx\]'"):
        Session(tmp_path / 'x.onnx')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run that has learned a little of digits."""
    directory = tmp_path_factory.mktemp('run') / 'run'
    config = f'{ROOT}/configs/transfer.py:backbone=resnet_micro,dataset=digits,regime=linear'
    quick = ('--config.epochs=2.0', '--config.image_size=16')
    train.main(['--config', config, *quick, '--workdir', str(directory)])
    return directory


@pytest.mark.slow
def test_eight_bits(run, tmp_path, capsys):
    file = tmp_path / 'digits.onnx'
    command.main(['--workdir', str(run), '--format', 'int8', '--to', str(file)])
    told = ''.join(capsys.readouterr())
    # Small networks have relatively more of what is not quantised.
    share = float(re.search(r'MB, (\d\.\d+) of the', told)[1])
    assert share < 0.4 and 'calibrating on 128 images' in told
    whole, quantised = map(float, re.search(r'accuracy +│ +([\d.]+) │ +([\d.]+)', told).groups())
    assert whole > 50 and abs(whole - quantised) < 5
    evaluate.main(['--workdir', str(run)])
    assert f'{whole}' in capsys.readouterr().out
