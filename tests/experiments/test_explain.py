"""experiments.explain: models side by side, pictures, numbers, and what the page embeds."""

import base64
import dataclasses
import json

import jax
import numpy as np
import pytest
from dense_files import write_image
from PIL import Image
from tiny import make_dataset
from tiny_classifier import write_classifier

import backbones
from backbones import UserError
from backbones.prediction import trained_model
from experiments import explain, report, train
from experiments.data import loading
from experiments.explanation import (
    contact_sheet,
    explained_models,
    explaining,
    explanation_files,
    pictures,
    training_images,
)
from experiments.explanation.contact_sheet import Cell, Heading
from experiments.explanation.explained_models import ExplainedModel, Named
from experiments.explanation.explaining import Column, Explained
from experiments.explanation.pictures import Explanation, Shown
from experiments.explanation.training_images import Neighbour
from experiments.features.store import Store
from experiments.results import explanations
from experiments.results.page import markup
from experiments.results.page.content import Report
from experiments.results.page.sections import explained_images

# A classifier, where its pictures go, and images.
WEIGHTS = ('--workdir', '{weights}', '--output', '{output}')
SHOWN = (*WEIGHTS, '{photographs}')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    for number in range(3):
        write_image(folder / f'{number}.png', (30, 48))
    return folder


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a.png'], '^name the models: --workdir DIR'),
        (['--model', 'vit_micro', 'a.png'], '^published weights have no work directory: .*--output DIR'),
        (['--model', 'vit_mico', '--output', 'x', 'a.png'], 'the nearest names are vit_micro'),
        (['--workdir', 'x', 'a.png'], "there are no weights at 'x'"),
        (['--workdir', 'x', '--method', 'gradcma', 'a.png'], "unknown method 'gradcma'; did you mean 'gradcam'"),
        (['--workdir', 'x', '--dataset', 'digits', 'a.png'], 'say how many with --nearest'),
        (['--workdir', 'x', '--nearest', '2', '--dataset', 'digit', 'a.png'], "did you mean 'digits'"),
        (['--workdir', '{weights}', 'a.png'], 'is no work directory: name a directory for the pictures'),
        (['--workdir', 'x', 'a.png', '--output', '{weights}'], 'is a file; name a directory'),
        (['--workdir', 'x', '{photographs}', '--output', '{photographs}'], 'holds images that are explained'),
        (['--workdir', 'x', '{photographs}/*.gif'], 'no file matches'),
        ([*SHOWN, '--method', 'rollout'], 'attention rollout is not'),
        ([*SHOWN, '--stage', 'stag4'], "stage 'stag4'; .* 'stage4'"),
        ([*SHOWN, '--class', 'dgo'], "class 'dgo'; did you mean 'dog'"),
        ([*SHOWN, '--method', 'pca', '--class', 'dog'], '--class belongs'),
        ([*SHOWN, '--nearest', '2'], 'no work directory'),
        ([*WEIGHTS, '{photographs}/none.png'], 'none of the 1 images can be explained'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, message, weights, photographs, tmp_path):
    given = {'weights': weights, 'photographs': photographs, 'output': tmp_path / 'output'}
    with pytest.raises(UserError, match=message):
        explain.main([each.format(**given) for each in arguments])
    assert not (tmp_path / 'output').exists()


def test_models_are_columns_in_the_order_given(capsys):
    parser = explain._parser()
    options = parser.parse_args(['--model', 'a', '--workdir', 'x', '--model', 'b', '--weights', 'w', 'i.png'])
    assert [(each.model, str(each.workdir), each.weights) for each in options.named] == [
        ('a', 'None', ''), ('', 'x', ''), ('b', 'None', 'w')
    ]  # fmt: skip
    assert parser.parse_args(['--model', 'c', 'i.png']).named == [Named(model='c')]  # nothing is left of the first
    with pytest.raises(SystemExit):
        parser.parse_args(['--workdir', 'x', '--weights', 'w', 'i.png'])
    assert '--weights w must follow the --model that they are of' in capsys.readouterr().err


def test_a_stage_is_of_methods_that_have_one(photographs, tmp_path):
    command = ['--model', 'vit_micro', '--stage', 'stage2', '--output', str(tmp_path), str(photographs)]
    with pytest.raises(UserError, match='--stage belongs to --method gradcam and pca'):
        explain.main(command)


def model_of(classes=('cat', 'Dog', 'newt'), name='net'):
    return ExplainedModel(name, 'somewhere', backbones.create_classifier('resnet_micro', 3), {}, None, classes)


def test_classes_have_names_and_numbers():
    model = model_of()
    assert [model.class_index(text) for text in ('cat', 'dog', 'DOG', '2')] == [0, 1, 1, 2]
    with pytest.raises(UserError, match=r"unknown class 'newts'; did you mean 'newt'\? \(--class, of net, somewhere\)"):
        model.class_index('newts')
    assert model_of(('3', '1')).class_index('1') == 1  # a name comes before a number


def test_an_ablation_stands_for_its_pretrained_backbones(tmp_path, capsys):
    config = {
        'backbones': ['resnet_micro', 'vit_micro@random', 'pixels'],
        'datasets': ['digits', 'mnist5k'],
        'fit': 'squash',
    }
    (tmp_path / 'config.json').write_text(json.dumps(config))
    (model,) = explained_models.read(Named(workdir=tmp_path), 24)
    assert model.name == 'resnet_micro' and not explained_models.has_head(model) and model.classes == ()
    assert model.input.fit == 'squash' and model.input.size == (24, 24)
    assert '1 pretrained backbones are explained alone' in ' '.join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match='2 data sets; choose one with --dataset'):
        model.dataset(None)
    # Keys that are axes.
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'image_size': [16, 32]}))
    with pytest.raises(UserError, match=r'has 2 values of image_size \(16, 32\), .*; choose one with --image_size'):
        explained_models.read(Named(workdir=tmp_path))
    (model,) = explained_models.read(Named(workdir=tmp_path), 32)
    assert model.input.size == (32, 32)
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'image_size': [16], 'fit': ['squash']}))
    (model,) = explained_models.read(Named(workdir=tmp_path))
    assert (model.input.size, model.input.fit) == ((16, 16), 'squash')
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'backbones': ['pixels']}))
    with pytest.raises(UserError, match='no backbone with pretrained weights: pixels'):
        explained_models.read(Named(workdir=tmp_path))


def explanation(method='gradcam', index=None, neighbours=None, dataset=None, window=(0, 0, 40, 80)):
    values = np.zeros((2, 4) if method != 'pca' else (2, 4, 3), np.float32)
    values[1, 3] = 1
    column = Column(model_of(), method, 'stage4', index)
    return Explanation(column, Explained(values, window, np.array([0.2, 0.5, 0.3]), np.ones(4)), neighbours, dataset)


def test_numbers_say_what_was_predicted_and_what_is_shown():
    value = pictures.as_json(explanation(index=2))
    assert value['predicted'] == 'Dog' and value['class'] == 'newt' and value['class_probability'] == 0.3
    assert pictures.in_words(explanation(index=2)) == 'net (Grad-CAM · stage4): Dog 50.0%, shown for newt 30.0%'
    assert pictures.in_words(explanation()) == 'net (Grad-CAM · stage4): Dog 50.0%'
    assert 'class' not in pictures.as_json(explanation('pca'))


def test_a_row_shows_the_image_and_every_model(tmp_path):
    image = np.full((40, 80, 3), 120, np.uint8)
    shown = Shown.of('a/b.png', image)
    cells = pictures.row(shown, [explanation(), explanation('pca')], 160)
    assert [cell.picture.size for cell in cells] == [(160, 80)] * 3  # proportions are kept
    assert cells[0].lines[0] == ('b.png', '') and cells[1].lines == [('Dog', '50.0%')]
    heat = np.asarray(cells[1].picture, np.float32).sum(-1)
    row, column = np.argwhere(heat == heat.max()).mean(0)
    assert row > 60 and column > 140  # the cell at the lower right of the map
    assert pictures.notes([shown], [[explanation()]])[0].startswith('Grad-CAM: evidence') and pictures.has_scale(
        [explanation()]
    )
    assert 'Pale' not in pictures.notes([shown], [[explanation()]])[0]
    assert 'Pale' in pictures.notes([shown], [[explanation(window=(0, 20, 40, 60))]])[0]
    assert not pictures.has_scale([explanation('pca')])


def test_large_images_are_kept_small():
    shown = Shown.of('a.png', np.zeros((1000, 4000, 3), np.uint8))
    assert shown.size == (4000, 1000) and shown.picture.size == (1024, 256)
    cells = pictures.row(shown, [explanation(window=(0, 1000, 1000, 2000))], 400)
    drawn = np.asarray(cells[1].picture)
    assert cells[1].picture.size == (400, 100)
    assert (drawn[:, :100] > 150).all() and (drawn[:, 200:] > 150).all()  # outside, pale
    assert (drawn[:, 100:150] < 10).all() and (drawn[90:, 190:200].sum(-1) > 300).all()


def test_neighbours_are_a_column():
    dataset = dataclasses.replace(make_dataset(channels=3), classes=('4', '7', '8', '9'))
    neighbours = [Neighbour(index, dataset.ids[index], target, 0.9) for index, target in ((0, '4'), (1, '7'), (2, '4'))]
    each = explanation(neighbours=neighbours, dataset=dataset)
    cells = pictures.row(Shown.of('a.png', np.zeros((40, 80, 3), np.uint8)), [each], 160)
    assert [heading.title for heading in pictures.headings([each])] == ['input', 'net', 'nearest training images']
    assert cells[2].lines[0] == ('2 class 4, 1 class 7', '') and cells[2].picture.width == 160
    assert pictures.as_json(each)['nearest'][1] == {'id': dataset.ids[1], 'class': '7', 'similarity': 0.9}


def test_a_sheet_has_room_for_everything():
    small, tall = Image.new('RGB', (100, 60), 'red'), Image.new('RGB', (100, 135), 'blue')
    rows = [[Cell(small, [('one', '')]), Cell(small)], [Cell(tall), Cell(tall, [('a' * 90, '12.3%'), ('more', '')])]]
    page = np.asarray(contact_sheet.sheet([Heading('input'), Heading('net', ('method',))], rows, 100, ['note'], True))
    red, blue = (np.argwhere((page == colour).all(-1)) for colour in ((255, 0, 0), (0, 0, 255)))
    assert len(red) == 2 * 6000 and len(blue) == 2 * 13500  # nothing lies on a picture
    assert red[:, 0].max() < blue[:, 0].min() < page.shape[0] - 135
    assert page.shape[1] == 2 * 100 + 3 * 5


def test_tall_images_stay_within_their_cell():
    assert contact_sheet.in_cell(Image.new('RGB', (10, 1000)), 100).size == (1, 135)
    assert contact_sheet.in_cell(Image.new('RGB', (32, 32)), 96).size == (96, 96)
    assert contact_sheet.mosaic([Image.new('RGB', (8, 8))] * 5, 90).size == (90, 59)


def test_the_same_options_replace_their_picture(tmp_path):
    about = {'title': 'one', 'caption': '', 'header': ['image', 'net'], 'rows': [['a.png', 'cat']], 'command': 'c'}
    first = explanation_files.write_for_page(tmp_path, 'usual', Image.new('RGB', (40, 30)), about)
    explanation_files.write_for_page(tmp_path, 'pca-stage2', Image.new('RGB', (20, 30)), {**about, 'title': 'two'})
    explanation_files.write_for_page(tmp_path, 'usual', Image.new('RGB', (50, 30)), {**about, 'title': 'three'})
    found = explanations.read(tmp_path)
    assert [(each.title, each.size) for each in found] == [('three', (50, 30)), ('two', (20, 30))]
    assert found[0].rows == (('a.png', 'cat'),)
    with Image.open(first) as picture:
        assert picture.size == (50, 30)
    first.unlink()
    assert [each.title for each in explanations.read(tmp_path)] == ['two']
    file = tmp_path / explanations.DIRECTORY / explanations.FILE
    for text in ('{', '[]', json.dumps({'version': 99, 'explanations': [{'picture': 'x'}]})):
        file.write_text(text)
        assert explanations.read(tmp_path) == []


def test_names_of_sets_are_names_of_files():
    assert explanation_files.key(None, None, None) == 'usual'
    assert explanation_files.key('gradcam', 'stage2', 'a/b c') == 'gradcam-stage2-a_b_c'


def test_pictures_of_the_page_are_small():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8))
    assert len(explanation_files._compressed(noise)) < 1.5 * explanation_files.PAGE_BYTES


def test_the_page_embeds_each_picture_once(tmp_path, monkeypatch):
    about = {'title': '<one>', 'caption': 'x', 'header': ['image', 'net'], 'rows': [['<a>.png', 'cat']], 'command': 'c'}
    for workdir in (tmp_path / 'a', tmp_path / 'b'):
        explanation_files.write_for_page(workdir, 'usual', Image.new('RGB', (40, 30)), about)
    explanation_files.write_for_page(tmp_path / 'b', 'pca', Image.new('RGB', (90, 30), 'red'), about)
    page = explained_images.section(Report((tmp_path / 'a', tmp_path / 'b'), (), ()))
    assert isinstance(page, markup.Markup) and page.count('<img') == 2 and '<one>' not in page and '<a>' not in page
    picture = base64.b64encode((tmp_path / 'a' / 'explanations' / 'usual.jpg').read_bytes()).decode()
    assert page.count(picture) == 1
    monkeypatch.setattr(explained_images, '_BUDGET', len(picture))
    assert 'more in the work directories' in explained_images.section(Report((tmp_path / 'a', tmp_path / 'b'), (), ()))
    assert explained_images.section(Report((tmp_path,), (), ())) is None


@pytest.mark.exhaustive
def test_a_run_is_explained_beside_a_published_model(tmp_path, photographs, capsys):
    run = tmp_path / 'run'
    values = {'epochs': 1.0, 'batch_size': 32, 'fraction': 0.1, 'threads': 1}
    config = 'configs/transfer.py:backbone=resnet_micro,dataset=digits,regime=linear'
    train.main(['--config', config, '--workdir', str(run), *(f'--config.{key}={each}' for key, each in values.items())])
    (tmp_path / 'in').mkdir()
    for file in photographs.iterdir():
        (tmp_path / 'in' / file.name).write_bytes(file.read_bytes())
    (tmp_path / 'in' / 'damaged.jpg').write_bytes((tmp_path / 'in' / '1.png').read_bytes()[:100])
    capsys.readouterr()
    command = ['--workdir', str(run), '--model', 'vit_micro', '--nearest', '3', '--dataset', 'digits']
    explain.main([*command, str(tmp_path / 'in')])
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 3 and 'damaged.jpg' in told.err
    directory = run / 'explanations' / 'usual'
    assert {file.name for file in directory.iterdir()} == {'0.png', '1.png', '2.png', 'sheet.png', 'explanation.json'}
    value = json.loads((directory / 'explanation.json').read_text())
    assert [[each['method'] for each in image['models']] for image in value['images']] == [['gradcam', 'rollout']] * 3

    # The same image predicted, and its neighbours found, by other means.
    predictor = backbones.load(run)
    dataset = loading.load('digits')
    model = trained_model.read(str(run))
    features = {
        'params': model.variables['params']['backbone'],
        'batch_stats': model.variables['batch_stats']['backbone'],
    }

    @jax.jit
    def pooled(pixels):
        return model.model.backbone.apply(features, pixels, train=False).pooled

    candidates = np.asarray(pooled(model.input(dataset.images[dataset.splits['train']])))
    for image in value['images']:
        (prediction,) = predictor(image['image'])
        found = image['models'][0]
        assert (found['predicted'], pytest.approx(found['probability'], abs=1e-5)) == prediction.most_likely[0]
        query = np.asarray(pooled(model.input(np.asarray(Image.open(image['image']).convert('RGB'))[None])))[0]
        similarity = candidates @ query / np.linalg.norm(candidates, axis=1) / np.linalg.norm(query)
        best = np.sort(similarity)[::-1][:3]
        # Resized on the host and on the device, a few pixels differ by one grey level.
        np.testing.assert_allclose([each['similarity'] for each in found['nearest']], best, atol=1e-3)
        nearest = dataset.splits['train'][similarity.argmax()]
        assert found['nearest'][0]['class'] == dataset.classes[dataset.targets[nearest]]

    explain.main(['--workdir', str(run), '--method', 'pca', '--stage', 'stage2', str(tmp_path / 'in' / '0.png')])
    assert (run / 'explanations' / 'pca-stage2' / 'sheet.png').is_file()
    assert [each.title for each in explanations.read(run)] == [
        'resnet_micro: PCA of features · stage2',
        'resnet_micro: Grad-CAM · stage4, vit_micro: attention rollout',
    ]
    report.main(['--workdir', str(run)])
    page = (run / 'report.html').read_text()
    assert page.count('data:image/jpeg;base64') == 2 and 'Looking into the backbones' in page


@pytest.mark.slow
def test_a_training_image_is_not_its_own_neighbour(tmp_path, weights):
    for label in ('cat', 'dog', 'newt'):
        for number in range(4):
            write_image(tmp_path / 'data' / label / f'{number}.png', (20 + number, 20))
    dataset = loading.load(f'folder:{tmp_path / "data"}')
    (model,) = explained_models.read(Named(workdir=weights))
    model = dataclasses.replace(model, dataset=lambda _: dataset)
    column = explaining.column(model, 'net', None, None, None)
    index = int(dataset.splits['train'][0])
    explainer, store = explaining.Explainer(column), Store(tmp_path / 'store')
    query = explainer(np.asarray(Image.open(dataset.files[index]).convert('RGB')), 'x').pooled[None]
    (found,) = training_images.neighbours(explainer, dataset, [dataset.files[index]], query, 2, store)
    assert len(found) == 2 and index not in {each.index for each in found}
    ((first, *_),) = training_images.neighbours(explainer, dataset, ['elsewhere.png'], query, 2, store)
    assert first.index == index and first.similarity == pytest.approx(1, abs=1e-4)


def test_features_of_training_images_are_computed_once(tmp_path, weights, monkeypatch, capsys):
    for label in ('cat', 'dog', 'newt'):
        for number in range(4):
            write_image(tmp_path / 'data' / label / f'{number}.png', (20 + 4 * number, 20))
    dataset = loading.load(f'folder:{tmp_path / "data"}')
    (model,) = explained_models.read(Named(workdir=weights))
    damaged = dataset.files[int(dataset.splits['train'][1])]
    damaged.write_bytes(damaged.read_bytes()[:60])
    calls = []

    def neighbours(model, store='store'):
        explainer = explaining.Explainer(explaining.column(model, 'net', None, None, None))
        pooled = explainer.pooled
        monkeypatch.setattr(explainer, 'pooled', lambda pixels: calls.append(len(pixels)) or pooled(pixels))
        query = np.ones((1, pooled(np.zeros((1, 32, 32, 3), np.uint8)).shape[1]), np.float32)
        return training_images.neighbours(explainer, dataset, ['x'], query, 2, Store(tmp_path / store))

    first = neighbours(model)
    assert sum(calls) > 0
    calls.clear()
    assert neighbours(model) == first == neighbours(model, 'store')
    assert calls == []
    assert capsys.readouterr().err.count('1 training images of') == 3
    other = dataclasses.replace(model, variables=jax.tree.map(lambda leaf: 2 * leaf, model.variables))
    neighbours(other)
    assert sum(calls) > 0
