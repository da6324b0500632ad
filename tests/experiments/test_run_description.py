"""What a run keeps with its weights is what whoever loads them gets, and makes the same numbers of the same files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backbones
from backbones import UserError
from backbones.preprocessing import FITS, SMALL_IMAGES, Preprocessing
from experiments import train
from experiments.data import loading
from experiments.data.model_input import input_preprocessing
from experiments.data.options import ReadingOptions
from experiments.results import scores
from experiments.tasks import Classification
from experiments.training.config import default_config
from experiments.training.run_description import describe

ROOT = Path(__file__).parents[2]
CLASSES = ('blue sky', 'coat', 'ärmel')


def write_photos(folder: Path, per_class: int = 12) -> None:
    """Photos of different sizes and proportions, with an orientation tag on some; a class is a hue."""
    random = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            height, width = random.integers(20, 70, 2)
            pixels = random.integers(0, 120, (height, width, 3), np.uint8)
            pixels[..., label] += 100
            exif = Image.Exif()
            exif[0x0112] = (1, 6, 3)[index % 3]
            Image.fromarray(pixels).save(folder / name / f'{index}.png', exif=exif)


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """A directory with ``photos`` and the finished run ``runs/photos``."""
    place = tmp_path_factory.mktemp('place')
    write_photos(place / 'photos')
    train.main(
        [
            '--config', f'{ROOT}/configs/transfer.py:backbone=resnet_micro,dataset=digits', '--workdir',
            str(place / 'runs/photos'), f'--config.dataset=folder:{place / "photos"}', '--config.stored_size=24',
            '--config.image_size=16', '--config.epochs=2.0', '--config.batch_size=8', '--config.learning_rate=0.01',
            '--config.warmup_epochs=0.0',
        ]
    )  # fmt: skip
    return place


@pytest.fixture
def run(place, tmp_path) -> Path:
    """A copy of the run that a test may write to."""
    shutil.copytree(place / 'runs/photos', tmp_path / 'run')
    return tmp_path / 'run'


EXPECTED = Preprocessing((0.5,) * 3, (0.25,) * 3, 16, stored_size=24)


def test_the_documented_way_gives_the_predictions_of_the_run(place, monkeypatch):
    """The files as they were given: neither their sizes nor their orientations are those of the stored images."""
    monkeypatch.chdir(place)
    section = (ROOT / 'docs/training.md').read_text().partition('## Using a trained model')[2]
    snippet = re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]
    assert snippet.split('\n\n')[1].count('\n') == 2  # load, prepare, apply
    kept = scores.read(place / 'runs/photos/predictions/test.npz')
    files = [place / 'photos' / name for name in kept.ids]
    assert len({backbones.images.inspect(file).size for file in files}) > 3
    values = {'backbones': backbones, 'files': files}
    exec(snippet.replace("['one.jpg', 'two.png']", 'files').replace('print(', 'named = ('), values)
    logits = np.asarray(values['logits'])
    np.testing.assert_array_equal(logits.argmax(-1), kept.predictions)
    assert values['named'] == [CLASSES[index] for index in kept.predictions]
    np.testing.assert_allclose(logits, kept.logits, rtol=2**-10, atol=1e-4)  # they are kept in half precision
    assert np.ptp(logits, axis=0).min() > 0.01


@pytest.mark.parametrize('fit', FITS)
def test_files_become_what_the_data_set_stored(place, fit):
    dataset = loading.load(f'folder:{place / "photos"}', None, ReadingOptions(stored_size=24, fit=fit))
    stored = input_preprocessing('resnet_micro', '', 16, fit)
    model = backbones.create_classifier('resnet_micro', 3)
    kept = describe(default_config(), dataset, model, Classification(10, stored)).preprocessing
    assert kept == EXPECTED.replace(fit=fit)
    chosen = np.arange(0, 36, 5)
    files = [place / 'photos' / dataset.ids[index] for index in chosen]
    inputs = kept.files(files)
    np.testing.assert_array_equal(inputs, stored(dataset.images[chosen]))
    for file, expected in zip(files[:2], inputs, strict=False):
        np.testing.assert_array_equal(kept(kept.read(file))[0], expected)


def test_images_that_keep_their_size_are_not_brought_to_another(tmp_path):
    write_photos(tmp_path / 'same')
    for index, file in enumerate((tmp_path / 'same').rglob('*.png')):
        Image.new('RGB', (20, 30), (index, 0, 0)).save(file)
    dataset = loading.load(f'folder:{tmp_path / "same"}', None, ReadingOptions(stored_size=64))
    model = backbones.create_classifier('resnet_micro', 3)
    assert describe(default_config(), dataset, model, Classification(10, SMALL_IMAGES)).preprocessing == SMALL_IMAGES


def sources(run: Path) -> dict[str, Path]:
    """Every form in which a run may be given."""
    elsewhere = run.parent / 'copied.safetensors'
    shutil.copy(run / 'weights.safetensors', elsewhere)
    unfinished = run.parent / 'unfinished'
    shutil.copytree(run, unfinished)
    for name in ('weights.safetensors', 'description.json', 'config.json'):
        (unfinished / name).unlink()
    newest = max((run / 'checkpoints').iterdir(), key=lambda path: int(path.name))
    shutil.copytree(newest, run.parent / 'checkpoint')
    return {
        'work directory': run,
        'its file': run / 'weights.safetensors',
        'its file elsewhere': elsewhere,
        'unfinished': unfinished,
        'checkpoint': newest,
        'arrays of a checkpoint': newest / 'default',
        'checkpoint elsewhere': run.parent / 'checkpoint',
    }


def test_every_form_of_a_run_says_the_same(run):
    loaded = {}
    for form, source in sources(run).items():
        loaded[form], report = backbones.load_weights('resnet_micro', source, classifier=True)
        assert report.preprocessing == EXPECTED, form
        assert report.classes == CLASSES, form
        assert backbones.preprocess(source) == backbones.preprocess(str(source)) == EXPECTED, form
        described = report.description
        assert (described.backbone, described.task, described.options) == ('resnet_micro', 'classification', {})
        assert described.data['name'].startswith('folder:')
        assert described.data['fingerprint'] == json.loads((run / 'result.json').read_text())['data']['fingerprint']
        assert described.head == {
            'module': 'ClassificationHead', 'regime': 'linear', 'weights': 'bundled:resnet_micro', 'lora_alpha': 0.0,
            'fraction': 1.0, 'seed': 0,
        }  # fmt: skip
    kernel = loaded['work directory']['params']['head']['kernel']
    for form, variables in loaded.items():
        np.testing.assert_array_equal(variables['params']['head']['kernel'], kernel, err_msg=form)


def test_a_run_of_another_backbone_is_refused(run):
    message = r"run does not fit vit_micro: a run of the backbone 'resnet_micro' wrote it, not of 'vit_micro'; load_"
    with pytest.raises(UserError, match=message):
        backbones.load_weights('vit_micro', run)
    with pytest.raises(UserError, match=message):
        backbones.preprocess(run, 'vit_micro')
    with pytest.raises(UserError, match=message):
        input_preprocessing('vit_micro', str(run), 16)


def test_a_run_that_begins_from_a_run_takes_its_constants(run):
    description = json.loads((run / 'description.json').read_text())
    (run / 'weights.safetensors').unlink()
    for file in (run / 'checkpoints').iterdir():
        shutil.rmtree(file)
    variables, _ = backbones.load_weights('resnet_micro', 'bundled:resnet_micro')
    description['preprocessing'] |= {'mean': [0.1, 0.2, 0.3], 'interpolation': 'bicubic'}
    first = backbones.Description.from_json(description, 'a test')
    backbones.save_weights(run / 'weights.safetensors', variables, description=first)
    own = input_preprocessing('resnet_micro', str(run), 0, 'squash')
    assert own == Preprocessing((0.1, 0.2, 0.3), (0.25,) * 3, 16, 1.0, 'bicubic', 'squash')
    assert input_preprocessing('resnet_micro', str(run), 20) == own.replace(size=20, fit='crop')


def test_the_programs_of_a_run_see_stored_images():
    """What is kept is for files; what is compiled is as it was."""
    assert input_preprocessing('resnet_micro', '', 16) == EXPECTED.for_stored_images()
