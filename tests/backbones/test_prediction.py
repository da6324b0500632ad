"""Predictors: images of any sizes, fitted on the host as on the device, and results in their own pixels."""

import dataclasses
import io
import json
import os
import warnings

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

import backbones
from backbones import UserError, published_models
from backbones.detection_input import DetectionInput
from backbones.images import ImageReading
from backbones.prediction import class_names, drawing, fitting, image_sources, predictor, trained_model
from backbones.prediction.predictor import Predictor
from backbones.prediction.trained_model import TrainedModel
from backbones.preprocessing import SMALL_IMAGES, Preprocessing
from backbones.pretrained.description import Description

NAMES = ('disc', 'square', 'ring')
DETECTOR = {
    'head': 'fcos',
    'neck': 'fpn',
    'neck_options': {'channels': 8, 'strides': (4, 8), 'extra': 'none'},
    'head_options': {'depth': 1, 'channels': 8, 'score_threshold': 1e-3},
}
LETTERBOX = SMALL_IMAGES.replace(size=(32, 48), fit='letterbox')


def photograph(height, width, seed=0):
    """An image with structure, so that a wrong place shows."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def random_values(model, images, seed=3):
    """Variables of which every one matters."""
    variables = jax.jit(model.init)(jax.random.key(seed), images)
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [np.asarray(leaf) * (1 + 0.1 * rng.random(leaf.shape, np.float32)) + np.float32(0.01) for leaf in leaves]
    )


def model_input(image):
    fitted = fitting.fit(image, LETTERBOX)
    return fitting.normalisation(LETTERBOX, LETTERBOX.size)(fitted.pixels[None])


@pytest.fixture(scope='module')
def detector():
    model = backbones.create_detector('vit_micro', num_classes=3, **DETECTOR)
    variables = random_values(model, np.zeros((1, 32, 48, 3), np.float32))
    return TrainedModel('detection', model, variables, LETTERBOX, NAMES, 'made')


@pytest.fixture(scope='module')
def seeing(detector):
    return Predictor(detector, batch_size=2, score_threshold=0)


@pytest.fixture(scope='module')
def segmenter():
    model = backbones.create_segmenter('vit_micro', 'linear', 3)
    variables = random_values(model, np.zeros((1, 32, 48, 3), np.float32))
    return TrainedModel('segmentation', model, variables, LETTERBOX, NAMES, 'made')


@pytest.fixture(scope='module')
def classifier():
    model = backbones.create_classifier('resnet_micro', 3)
    variables = random_values(model, np.zeros((1, 32, 32, 3), np.float32))
    return TrainedModel('classification', model, variables, SMALL_IMAGES, NAMES, 'made')


# --- Fitting. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('stored', [None, (40, 40)])
@pytest.mark.parametrize('method', ['bilinear', 'bicubic', 'lanczos', 'bilinear_opencv'])
@pytest.mark.parametrize('fit', ['crop', 'squash', 'letterbox'])
def test_images_are_fitted_on_the_host_as_on_the_device(fit, method, stored):
    expected = Preprocessing((0.5,) * 3, (0.25,) * 3, (24, 36), 0.9, method, fit, stored)
    for size in ((30, 51), (17, 9)):
        image = photograph(*size)
        fitted = fitting.fit(image, expected)
        rest = fitting.normalisation(expected, fitted.pixels.shape[:2])
        # A value in the middle of two whole numbers may be rounded to either.
        different = np.abs(rest(fitted.pixels[None]) - expected(image[None])) * 255 * 0.25
        assert different.max() < 1.01 and np.mean(different > 0.01) < 0.05


def test_inputs_of_free_proportions_are_padded_to_few_shapes():
    expected = Preprocessing((0.5,) * 3, (0.25,) * 3, 40, fit='shorter_side')
    fitted = fitting.fit(photograph(50, 90), expected)
    assert fitted.pixels.shape == (64, 96, 3) and fitted.extent == (40, 72)
    rest = fitting.normalisation(expected, fitted.pixels.shape[:2])
    different = np.abs(rest(fitted.pixels[None])[:, :40, :72] - expected(photograph(50, 90)[None])) * 255 * 0.25
    assert different.max() < 1.01 and np.mean(different > 0.01) < 0.05


@pytest.mark.parametrize('stored', [None, (40, 40)])
@pytest.mark.parametrize('size', [(30, 51), (64, 20), (1, 7)])
def test_boxes_and_maps_come_back_to_where_they_were(size, stored):
    height, width = size
    fitted = fitting.fit(photograph(*size), LETTERBOX.replace(stored_size=stored))
    boxes = np.array([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]], np.float32)
    moved = boxes
    for place in fitted.places:
        factors = np.array([place.columns / place.size[1], place.rows / place.size[0]] * 2)
        moved = moved * factors + np.array([place.left, place.top] * 2)
    np.testing.assert_allclose(fitted.boxes_back(moved), boxes, atol=1e-4)
    assert fitted.map_back(np.zeros(LETTERBOX.size, np.float32)).shape == size
    # What lies around the image in the letterbox never shows in it.
    rows, columns = np.meshgrid(*(np.arange(side) for side in LETTERBOX.size), indexing='ij')
    left, top, right, bottom = moved[0]
    outside = (columns + 1 <= left) | (columns >= right) | (rows + 1 <= top) | (rows >= bottom)
    if stored is None:
        assert not fitted.map_back(outside.astype(np.float32)).any()


def test_a_detector_of_torchvisions_input_gets_its_boxes_back():
    fitted = fitting.fit(photograph(30, 51), DetectionInput(64, 100))
    assert fitted.pixels.shape == (64, 128, 3) and fitted.extent == (58, 100)
    np.testing.assert_allclose(fitted.boxes_back(np.array([[0, 0, 100, 58]], np.float32)), [[0, 0, 51, 30]], atol=1e-5)


@pytest.mark.parametrize('stored', [None, (40, 40)])
def test_what_a_squashed_input_shows_comes_back(stored):
    squashed = LETTERBOX.replace(fit='squash', stored_size=stored)
    fitted = fitting.fit(photograph(40, 80), squashed)
    np.testing.assert_allclose(fitted.boxes_back(np.array([[0, 0, 48, 32]], np.float32)), [[0, 0, 80, 40]], atol=1e-4)
    columns = np.broadcast_to(np.arange(48, dtype=np.float32), (32, 48))
    back = fitted.map_back(columns)
    assert back.shape == (40, 80) and (np.diff(back[7]) >= 0).all() and back[7, 0] < 1 and back[7, -1] > 46


@pytest.mark.parametrize('change', [{'fit': 'crop'}, {'fit': 'squash', 'crop': 0.9}])
def test_a_segmenter_that_sees_a_part_of_the_image_is_refused(segmenter, change):
    with pytest.raises(UserError, match='the preprocessing of made cuts off the borders'):
        dataclasses.replace(segmenter, input=LETTERBOX.replace(**change))


# --- What is meant by images. -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(('b.png', 'a.jpg', 'below/c.png', '.hidden/d.png', '.e.png')):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(10 + number, 12)).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def test_directories_and_patterns_stand_for_the_images_in_them(folder):
    def names(images):
        return [str(path.relative_to(folder)) for path in image_sources.expand(images)]

    assert names(str(folder)) == ['a.jpg', 'b.png', 'below/c.png']
    assert names(f'{folder}/*.png') == ['b.png']
    assert names(f'{folder}/**/*.png') == ['b.png', 'below/c.png']
    assert names([folder / 'b.png', f'{folder}/*.jpg']) == ['b.png', 'a.jpg']
    # It may be there later, or a name with brackets.
    assert names(folder / 'none.png') == ['none.png']


def test_transparent_arrays_are_put_on_a_background():
    array = np.zeros((2, 5, 6, 4), np.uint8)
    array[0, ..., 3] = 255
    opaque, clear = (image_sources.pixels(each, ImageReading()) for each in image_sources.expand(array))
    assert (opaque == 0).all() and (clear == 255).all()


def test_arrays_are_one_image_or_several():
    assert [each.shape for each in image_sources.expand(np.zeros((2, 5, 6, 3), np.uint8))] == [(5, 6, 3)] * 2
    assert [each.shape for each in image_sources.expand(np.zeros((5, 6), np.uint8))] == [(5, 6, 1)]
    assert len(list(image_sources.expand([np.zeros((5, 6, 3), np.uint8), b'bytes', io.BytesIO(b'x')]))) == 3


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ('{}/*.gif', "no file matches '.*gif'"),
        ('{}/empty', "no image in the directory '.*empty'"),
        (np.zeros((4, 4, 3)), 'must be uint8 .* not float64'),
        (np.zeros((4, 4, 5), np.uint8), r'not \[4, 4, 5\]$'),
        (np.zeros((3, 4, 5), np.uint8), r'not \[3, 4, 5\]; array.transpose\(1, 2, 0\) has the channels last'),
        ('https://example.org/a.jpg', 'is an address, from which nothing is fetched'),
        (np.zeros((0, 4, 3), np.uint8), r'not \[0, 4, 3\]'),
        (7, 'not int'),
        ('', 'a path is empty'),
    ],
)
def test_what_is_no_image_is_refused(images, message, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=message):
        list(image_sources.expand(images.format(tmp_path) if isinstance(images, str) else images))


# --- Predictions. -----------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_model(classifier):
    images = np.stack([photograph(40, 30, seed) for seed in range(3)])
    results = Predictor(classifier, batch_size=2)(images)
    logits = jax.jit(classifier.model.apply)(classifier.variables, SMALL_IMAGES(images))
    np.testing.assert_allclose([each.probabilities for each in results], jax.nn.softmax(logits), atol=1e-5)
    best = int(results[0].probabilities.argmax())
    assert results[0].most_likely[0] == (NAMES[best], pytest.approx(float(results[0].probabilities[best])))


def test_boxes_lie_in_the_pixels_of_each_image(detector, seeing):
    sizes = [(30, 51), (64, 20), (30, 51), (100, 100), (3, 200)]
    images = [photograph(*size, seed) for seed, size in enumerate(sizes)]
    results = seeing(images)

    @jax.jit
    def detections(variables, images):
        return detector.model.head.detections(detector.model.apply(variables, images), LETTERBOX.size)

    for image, result in zip(images, results, strict=True):
        found = detections(detector.variables, model_input(image))
        place = fitting.fit(image, LETTERBOX)
        boxes = place.boxes_back(np.asarray(found.boxes[0])[np.asarray(found.valid[0])])
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(-1)]
        assert len(boxes) and result.size == image.shape[:2]
        np.testing.assert_allclose(result.boxes, boxes, atol=1e-3 * max(image.shape))
        assert (np.diff(result.scores) <= 0).all()


def test_a_threshold_leaves_out_boxes(detector, seeing):
    everything = seeing(photograph(40, 60))[0]
    middle = float(np.median(everything.scores))
    told = Predictor(detector, score_threshold=middle)(photograph(40, 60))[0]
    assert 0 < len(told.boxes) < len(everything.boxes) and told.scores.min() >= middle


@pytest.mark.slow
def test_a_threshold_may_be_below_the_heads_own(detector):
    model = backbones.create_detector(
        'vit_micro', num_classes=3, head='yolo', neck='yolo_pan', neck_options={'channels': 8, 'strides': (4, 8)}
    )
    variables = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 48, 3), np.float32)))
    untrained = dataclasses.replace(detector, model=model, variables=variables)
    image = photograph(40, 60)
    assert not len(Predictor(untrained)(image)[0].boxes)
    assert len(Predictor(untrained, score_threshold=0)(image)[0].boxes) > 10
    # As it is evaluated.
    assert Predictor(untrained, score_threshold=None).model.model.head == model.head
    evaluated = dataclasses.replace(untrained, evaluation={'score_threshold': 0.001})
    assert Predictor(evaluated, score_threshold=None).model.model.head.score_threshold == 0.001


def test_a_detector_of_torchvisions_input_sees_what_its_parts_see(detector):
    """Images of several sizes, each padded to the right and below, with boxes in its own pixels."""
    model = backbones.create_detector('resnet_micro', num_classes=3, **DETECTOR)
    variables = random_values(model, np.zeros((1, 32, 48, 3), np.float32))
    torchvisions = dataclasses.replace(detector, model=model, variables=variables, input=DetectionInput(40, 60))
    images = [photograph(30, 51), photograph(50, 30, 1), photograph(30, 51, 2)]
    results = Predictor(torchvisions, batch_size=2, score_threshold=0)(images)
    head = model.head.clone(score_threshold=0.0)

    @jax.jit
    def detections(images, extents):
        return head.detections(model.apply(variables, images, extents=extents), images.shape[1:3], extents)

    for image, result in zip(images, results, strict=True):
        batch = torchvisions.input([image])
        found = batch.restore(detections(batch.images, batch.extents))
        boxes = np.asarray(found.boxes[0])[np.asarray(found.valid[0])]
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(-1)]
        assert len(boxes)
        np.testing.assert_allclose(result.boxes, boxes, atol=1e-3 * max(image.shape))
    assert torchvisions.input.of_size(20) == DetectionInput(20, 30)
    assert torchvisions.input.of_size((60, 50)) == DetectionInput(50, 60)


def test_masks_have_the_size_of_each_image(segmenter):
    images, apply = [photograph(30, 51), photograph(64, 20, 1)], jax.jit(segmenter.model.apply)
    for image, result in zip(images, Predictor(segmenter)(images), strict=True):
        logits = apply(segmenter.variables, model_input(image))
        (place,) = fitting.fit(image, LETTERBOX).places
        inside = logits[:, place.top : place.top + place.rows, place.left : place.left + place.columns]
        whole = backbones.layers.resizing.resize(inside, image.shape[:2])[0]
        # Of two logits that are all but equal either may be the larger.
        best, second = np.sort(whole, -1)[..., -1], np.sort(whole, -1)[..., -2]
        assert result.mask.shape == image.shape[:2] and len(np.unique(result.mask)) > 1
        assert (result.mask == whole.argmax(-1))[best - second > 1e-4].all()
        assert sum(share for _, share in result.shares) == pytest.approx(1)


def test_photographs_are_seen_upright(seeing, tmp_path):
    upright = photograph(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # was held turned: viewers turn it clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / 'turned.png', exif=exif)
    Image.fromarray(upright).save(tmp_path / 'upright.png')
    turned, straight = seeing([tmp_path / 'turned.png', tmp_path / 'upright.png'])
    assert turned.size == straight.size == (40, 60)
    np.testing.assert_array_equal(turned.boxes, straight.boxes)
    np.testing.assert_array_equal(turned.plot(), straight.plot())


def test_results_come_in_order_and_an_unreadable_image_is_no_end(classifier, tmp_path):
    images = [photograph(20 + 7 * (number % 2), 30, number) for number in range(9)]
    images[4] = tmp_path / 'none.png'
    predictor = Predictor(classifier, batch_size=2)
    results = list(predictor.stream(images))
    assert isinstance(results[4], UserError) and 'none.png' in str(results[4])
    one_by_one = [predictor(image)[0] for number, image in enumerate(images) if number != 4]
    for result, alone in zip([each for each in results if not isinstance(each, UserError)], one_by_one, strict=True):
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=1e-5)
    with pytest.raises(UserError, match=r'none\.png.*; stream\(images\) gives the results of the others'):
        predictor(images)


def test_there_is_one_program_for_each_shape_of_input(classifier):
    predictor = Predictor(classifier, batch_size=2)
    list(predictor.stream([photograph(20 + number, 30, number) for number in range(7)]))
    assert predictor._program._cache_size() == 1
    free = dataclasses.replace(classifier, input=SMALL_IMAGES.replace(fit='shorter_side'))
    predictor = Predictor(free, batch_size=2)
    assert len(list(predictor.stream([photograph(40, 30 + number, number) for number in range(30)]))) == 30
    assert predictor._program._cache_size() == 3  # portrait, square, landscape


def test_images_wait_for_others_of_their_shape_only_so_long(classifier, monkeypatch):
    free = dataclasses.replace(classifier, input=SMALL_IMAGES.replace(fit='shorter_side'))
    predictor = Predictor(free, batch_size=2)
    taken = []

    def images():
        for number in range(60):
            taken.append(number)
            yield photograph(90 if number == 0 else 20, 20, number)

    results = predictor.stream(images())
    next(results)
    assert len(taken) < 20


def test_what_cannot_be_looked_at_is_refused(classifier, tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    predictor = Predictor(classifier)
    with pytest.raises(UserError, match='is a pipe, not a file'):
        predictor(tmp_path / 'pipe.jpg')
    with pytest.raises(UserError, match='no image in the directory'):
        predictor(tmp_path)
    with pytest.raises(UserError, match='an image of 0x0 pixels'):
        predictor(Image.new('RGB', (0, 0)))
    with pytest.raises(UserError, match='scale must be a positive whole number, not 0'):
        predictor(photograph(8, 8))[0].plot(scale=0)


def test_values_out_of_range_are_refused(classifier):
    with pytest.raises(UserError, match='batch_size must be at least 1, not 0'):
        Predictor(classifier, batch_size=0)
    for threshold in (2, 'high'):
        with pytest.raises(UserError, match=f'score_threshold must lie between 0 and 1, not {threshold!r}'):
            Predictor(classifier, score_threshold=threshold)
    assert Predictor(classifier, np.int64(2), np.float32(0.5)).batch_size == 2  # numbers of numpy are numbers
    with pytest.raises(UserError, match="batch_size must be at least 1, not '8'"):
        Predictor(classifier, batch_size='8')
    with pytest.raises(UserError, match='batch_size must be at least 1, not -1'):
        list(Predictor(classifier).stream(photograph(8, 8), -1))
    for path in ('x', 'x.xyz'):
        with pytest.raises(UserError, match='does not say which format'):
            Predictor(classifier)(photograph(8, 8))[0].save(path)


def test_a_stream_can_be_looked_at_again(classifier):
    stream = io.BytesIO()
    Image.fromarray(photograph(8, 8)).save(stream, format='png')

    class Response:
        """As urlopen gives: it can be read once."""

        read = io.BytesIO(stream.getvalue()).read

    result = Predictor(classifier)(Response())[0]
    np.testing.assert_array_equal(result.image, photograph(8, 8))


# --- Pictures and JSON. -----------------------------------------------------------------------------------------------


def test_picture_and_json_agree(seeing, tmp_path):
    result = seeing(photograph(40, 60))[0]
    value = json.loads(result.to_json())
    assert value['path'] is None and (value['height'], value['width']) == (40, 60)
    assert [each['name'] for each in value['objects']] == [NAMES[index] for index in result.classes]
    np.testing.assert_allclose([each['box'] for each in value['objects']], result.boxes, rtol=1e-6)
    scale = drawing.enlargement((40, 60))
    assert result.plot().size == (60 * scale, 40 * scale) and result.plot(1).size == (60, 40)
    alone = dataclasses.replace(result, boxes=result.boxes[:1], scores=result.scores[:1], classes=result.classes[:1])
    _, top, right, bottom = result.boxes[0] * scale
    pixel = np.asarray(alone.plot())[int((top + bottom) / 2), min(int(right), 60 * scale - 1)]
    assert tuple(pixel) == drawing.colour(result.classes[0])
    with Image.open(result.save(tmp_path / 'a' / 'b.png')) as saved:
        assert saved.size == result.plot().size


def test_a_mask_in_json_is_the_mask(segmenter):
    result = Predictor(segmenter)(photograph(40, 60))[0]
    segments = json.loads(result.to_json())['segments']
    mask = np.full(result.size, 255, np.uint8)
    for each in segments:
        with warnings.catch_warnings(action='ignore', category=DeprecationWarning):
            inside = coco_masks.decode({**each['run_lengths'], 'counts': each['run_lengths']['counts'].encode()})
        mask[inside > 0] = each['class']
    np.testing.assert_array_equal(mask, result.mask)
    picture = np.asarray(result.plot(1))[:40]
    expected = 0.45 * result.image + 0.55 * np.array([drawing.colour(index) for index in range(3)])[result.mask]
    np.testing.assert_allclose(picture, expected, atol=1)


def test_colours_of_classes_differ():
    assert len({drawing.colour(index) for index in range(91)}) == 91


def test_a_result_reads_its_image_again(classifier, tmp_path):
    Image.fromarray(photograph(20, 30)).save(tmp_path / 'a.png')
    result = Predictor(classifier)(tmp_path / 'a.png')[0]
    np.testing.assert_array_equal(result.image, photograph(20, 30))
    assert result.plot().width >= 30 and result.path == str(tmp_path / 'a.png')


# --- Where models come from. ------------------------------------------------------------------------------------------


def test_published_weights_have_the_names_of_their_classes():
    model = trained_model.read('efficientnet_lite0')
    assert model.task == 'classification' and len(model.names) == 1000 and model.names[281] == 'tabby'
    assert class_names.coco(91)[1] == class_names.coco(80)[0] == 'person'
    assert class_names.coco(90)[0] == 'person'
    assert class_names.coco(91)[90] == class_names.coco(80)[79] == 'toothbrush'
    assert len(class_names.voc()) == 21


@pytest.mark.parametrize('task', [pytest.param('detection', marks=pytest.mark.slow), 'segmentation'])
def test_weights_with_a_description_need_no_name(task, detector, segmenter, tmp_path):
    made = {'detection': detector, 'segmentation': segmenter}[task]
    arguments = {
        'detection': DETECTOR,
        'segmentation': {'head': 'linear', 'neck': None},
    }[task]
    description = Description('vit_micro', LETTERBOX, task=task, classes=NAMES, model=arguments)
    backbones.save_weights(tmp_path / 'weights.safetensors', made.variables, description=description)
    predictor = backbones.load(tmp_path / 'weights.safetensors', score_threshold=0)
    again, before = predictor(photograph(40, 60))[0], Predictor(made, score_threshold=0)(photograph(40, 60))[0]
    for field in ('boxes', 'mask'):
        np.testing.assert_array_equal(getattr(again, field), getattr(before, field))
    assert predictor.names == NAMES
    with pytest.raises(UserError, match='was trained with the backbone vit_micro, not resnet50'):
        backbones.load(tmp_path / 'weights.safetensors', 'resnet50')


def test_a_published_detector_is_found_by_the_name_of_its_file(tmp_path):
    with pytest.raises(UserError, match=r"does not say which model .* load\('.*weights.pth', 'resnet50'\)"):
        file = tmp_path / 'weights.pth'
        file.write_bytes(b'weights')
        backbones.load(file)
    assert trained_model._named_by_file('x/fcos_resnet50_fpn_coco-99b0c9b7.pth') == 'fcos_resnet50_fpn'
    assert trained_model._named_by_file('x/retinanet_resnet50_fpn_v2_coco.pth') == 'retinanet_resnet50_fpn_v2'
    assert trained_model._named_by_file('resnet50-0676ba61.pth') == 'resnet50'


def test_every_published_model_has_an_address():
    for name in published_models.TABLE:
        place = published_models.address(name)
        assert f'/models/{name}' in place if not name.startswith('yolo') else place.startswith(f'{name}.pt of https://')


def test_a_name_without_weights_says_what_to_do():
    with pytest.raises(
        UserError,
        match=r"its file \(https://download.*99b0c9b7.pth\) and pass that: load\('FILE', 'fcos_resnet50_fpn'\)",
    ):
        backbones.load('fcos_resnet50_fpn')
    with pytest.raises(UserError, match='unknown model'):
        backbones.load('pip:efficientnet-lite0', 'efficientnet_lite00')
    with pytest.raises(UserError, match="'photos' is neither a file nor a directory here, nor the name of a model"):
        backbones.load('photos')
    with pytest.raises(UserError, match='has 1000 classes, not the 2 that are named'):
        backbones.load('efficientnet_lite0', classes=('a', 'b'))


@pytest.mark.parametrize('number', [np.nan, pytest.param(np.inf, marks=pytest.mark.exhaustive)])
def test_outputs_that_are_not_finite_are_an_error(detector, number):
    head = detector.variables['params']['head']
    damaged = {
        **head,
        'class_logits': {**head['class_logits'], 'bias': np.full_like(head['class_logits']['bias'], number)},
    }
    variables = {**detector.variables, 'params': {**detector.variables['params'], 'head': damaged}}
    seeing_nothing = Predictor(dataclasses.replace(detector, variables=variables), batch_size=2)
    with pytest.raises(UserError, match='an image: outputs of made are not finite; its weights are damaged'):
        seeing_nothing(photograph(40, 40))


def test_outputs_that_are_not_finite_concern_their_own_image():
    outputs = {
        'p3': {'boxes': np.ones((2, 4, 4), np.float32), 'ids': np.ones((2, 4), np.int32)},
        'scores': np.ones((2, 3)),
    }
    outputs['p3']['boxes'][1, 2, 0] = np.nan
    assert predictor._finite(outputs).tolist() == [True, False]


def test_the_background_is_not_tinted():
    picture = Image.fromarray(photograph(8, 8))
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 1
    seen = np.asarray(drawing.with_mask(picture, mask, ('background', 'disc')))[:8]
    np.testing.assert_array_equal(seen[4:], np.asarray(picture)[4:])
    assert (seen[:4] != np.asarray(picture)[:4]).any()
    tinted = np.asarray(drawing.with_mask(picture, mask, ('road', 'disc')))[:8]
    assert (tinted[4:] != np.asarray(picture)[4:]).any()
