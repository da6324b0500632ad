"""What is kept with weights: it comes back from every kind of file, is checked, and older files do without."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open
from safetensors.numpy import load_file

import backbones
from backbones import Description, UserError, lora
from backbones.images import ImageReading
from backbones.preprocessing import SMALL_IMAGES
from backbones.pretrained import compatibility
from backbones.pretrained.description import KEY
from backbones.text.tokenising import Tokenising

OLD = Path(__file__).parents[1] / 'experiments' / 'old_work_directories' / 'train'

DESCRIPTION = Description(
    backbone='vit_micro',
    preprocessing=SMALL_IMAGES.replace(size=16, stored_size=64, fit='squash', reading=ImageReading((0.0, 4095.0))),
    task='classification',
    classes=('a', 'ß', 'c'),
    data={'name': 'folder:photos', 'fingerprint': '0123456789abcdef'},
    head={'module': 'ClassificationHead', 'regime': 'linear'},
)


def variables_of(name: str = 'vit_micro', size: int = 16, **options) -> dict:
    model = backbones.create_classifier(name, 3, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, 3), np.float32))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.random(leaf.shape, np.float32), shapes)


@pytest.fixture
def file(tmp_path) -> Path:
    """Weights for images of 16 pixels, where the backbone's usual ones are for 32."""
    backbones.save_weights(tmp_path / 'kept.safetensors', variables_of(), description=DESCRIPTION)
    return tmp_path / 'kept.safetensors'


def rewritten(file: Path, **changes) -> Path:
    """The same file with another description."""
    changed = dataclasses.replace(DESCRIPTION, **changes)
    backbones.save_weights(file, variables_of(), description=changed)
    return file


def test_it_comes_back_with_the_weights(file):
    variables, report = backbones.load_weights('vit_micro', file, classifier=True)
    assert report.description == DESCRIPTION
    assert report.preprocessing == backbones.preprocess(file) == DESCRIPTION.preprocessing
    assert report.classes == ('a', 'ß', 'c')
    assert report.reshaped == ()  # loaded for the size that it was trained at
    np.testing.assert_array_equal(variables['params']['head']['kernel'], variables_of()['params']['head']['kernel'])


def test_another_size_may_be_asked_for(file):
    _, report = backbones.load_weights('vit_micro', file, image_size=32)
    assert report.reshaped == (('params/backbone/position_embedding', (1, 17, 96), (1, 65, 96)),)


def test_without_one_a_file_holds_arrays_only(tmp_path):
    file = tmp_path / 'plain.safetensors'
    backbones.save_weights(file, variables_of(size=32))
    with safe_open(file, 'numpy') as opened:
        assert opened.metadata() is None
    _, report = backbones.load_weights('vit_micro', file, classifier=True)
    assert (report.description, report.classes, report.preprocessing) == (None, (), SMALL_IMAGES)
    with pytest.raises(UserError, match='does not say what its weights expect; pass the backbone'):
        backbones.preprocess(file)


def test_one_input_channel(file):
    _, report = backbones.load_weights('vit_micro', file, input_channels=1)
    assert report.preprocessing == DESCRIPTION.preprocessing.for_channels(1)


def test_a_file_in_the_layout_of_a_reference_is_what_the_reference_loads(tmp_path):
    plain, described = tmp_path / 'plain.safetensors', tmp_path / 'described.safetensors'
    variables = variables_of()
    backbones.save_weights(plain, variables, 'timm', 'vit_micro')
    backbones.save_weights(described, variables, 'timm', description=DESCRIPTION)
    one, other = load_file(plain), load_file(described)
    assert one.keys() == other.keys()
    assert all((one[key] == other[key]).all() for key in one)
    with safe_open(described, 'numpy') as opened:
        assert opened.metadata()['format'] == 'pt'
    loaded, report = backbones.load_weights('vit_micro', described, classifier=True)
    assert (report.layout, report.description) == ('timm', DESCRIPTION)
    back, expected = flatten_dict(loaded), flatten_dict(variables)
    assert all((back[path] == leaf).all() for path, leaf in expected.items())


# --- Another backbone. ------------------------------------------------------------------------------------------------


def test_another_backbone_is_refused_with_both_names(file):
    message = r"kept\.safetensors does not fit resnet_micro: a run of the backbone 'vit_micro' wrote it, not of 'resnet"
    with pytest.raises(UserError, match=message):
        backbones.load_weights('resnet_micro', file)
    with pytest.raises(UserError, match=message):
        backbones.preprocess(file, 'resnet_micro')
    assert backbones.preprocess(file, 'vit_micro') == DESCRIPTION.preprocessing


def test_a_backbone_of_the_same_shapes_that_is_another_function_is_refused(file):
    """CLIP's ViT and a plain one differ in an activation, which no shape tells."""
    rewritten(file, backbone='vit_micro', options={'activation': 'quick_gelu'})
    message = r"the run that wrote it has activation 'quick_gelu' where ours is 'gelu' \(pass activation='quick_gelu'\)"
    with pytest.raises(UserError, match=message):
        backbones.load_weights('vit_micro', file)
    backbones.load_weights('vit_micro', file, activation='quick_gelu')
    backbones.load_weights('vit_micro', file, activation='gelu')  # what is passed is not questioned


def test_options_of_a_training_make_no_other_function():
    """Stochastic depth changes no output in inference, and does not keep two names of one function apart."""
    options = {'stochastic_depth': 0.1, 'dtype': 'bfloat16'}
    model = backbones.create('vit_base_patch16')
    kept = Description('deit_base_patch16', SMALL_IMAGES, options=options)
    assert compatibility.of_another_backbone(kept, 'vit_base_patch16', model) is None
    assert compatibility.kept_differences(kept, model) == []
    other = dataclasses.replace(kept, options={**options, 'activation': 'quick_gelu'})
    assert compatibility.of_another_backbone(other, 'vit_base_patch16', model) is not None
    assert len(compatibility.kept_differences(other, model)) == 1
    text = Description('text_micro', Tokenising(16), options={'hidden_dropout': 0.0})
    assert compatibility.kept_differences(text, backbones.create('text_micro')) == []


def test_how_a_function_is_computed_is_no_difference(file):
    rewritten(file, options={'dtype': 'bfloat16'})
    _, report = backbones.load_weights('vit_micro', file)
    assert report.description.options == {'dtype': 'bfloat16'}
    assert backbones.create('vit_micro', **report.description.options) is not None


def test_not_strict_it_is_a_warning(file):
    rewritten(file, backbone='resnet_micro')
    with pytest.warns(UserWarning, match="a run of the backbone 'resnet_micro' wrote it, not of 'vit_micro'"):
        variables, _ = backbones.load_weights('vit_micro', file, strict=False)
    assert variables


@pytest.mark.parametrize(
    ('kept', 'asked', 'same'),
    [
        ('vit_base_patch16', 'deit_base_patch16', True),
        ('vit_base_patch16', 'vit_small_patch16', False),
        ('dinov2_small', 'dinov2_small_reg', False),
        ('yolo11n', 'yolo26n', False),
        ('a_name_of_a_later_version', 'resnet18', False),
    ],
)
def test_two_names_of_one_function(kept, asked, same):
    description = Description(kept, SMALL_IMAGES)
    found = compatibility.of_another_backbone(description, asked, backbones.create(asked))
    assert (found is None) == same
    assert same or (repr(kept) in found and repr(asked) in found)


# --- Damage, and other versions. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'version': 2}, r'was written by a newer version \(description 2; this one reads up to 1\): update this'),
        ({'preprocessing': None}, r'the description in .*kept\.safetensors is damaged \(TypeError'),
        ({'preprocessing': {}}, r'is damaged \(KeyError'),
        ({'preprocessing': {**SMALL_IMAGES.as_json(), 'fit': 'no fit'}}, r'is damaged \(UserError: unknown way to fit'),
        ({'options': 3}, 'is damaged'),
    ],
)
def test_a_description_that_cannot_be_read(file, change, message):
    from safetensors.numpy import save_file

    save_file(load_file(file), file, metadata={KEY: json.dumps({**DESCRIPTION.as_json(), **change})})
    for use in (lambda: backbones.load_weights('vit_micro', file), lambda: backbones.preprocess(file)):
        with pytest.raises(UserError, match=message):
            use()


def test_the_content_tells_what_a_file_is(file, tmp_path):
    """Not the suffix."""
    assert backbones.preprocess(file.rename(tmp_path / 'kept.bin')) == DESCRIPTION.preprocessing
    arrays = {'/'.join(path): leaf for path, leaf in flatten_dict(variables_of(size=32)).items()}
    with (tmp_path / 'arrays.safetensors').open('wb') as stream:
        np.savez(stream, **arrays)
    _, report = backbones.load_weights('vit_micro', tmp_path / 'arrays.safetensors')
    assert report.description is None
    assert backbones.preprocess(tmp_path / 'arrays.safetensors', 'vit_micro') == SMALL_IMAGES


def test_a_truncated_file_is_one_line(file):
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match=r'kept\.safetensors is truncated, damaged or not a \.safetensors file'):
        backbones.preprocess(file)


@pytest.fixture
def older(tmp_path) -> Path:
    """A work directory of an earlier version, whose weights were not committed."""
    shutil.copytree(OLD, tmp_path / 'old')
    backbones.save_weights(tmp_path / 'old/weights.safetensors', variables_of('resnet_micro'))
    return tmp_path / 'old'


def test_of_a_run_of_an_earlier_version_what_its_config_implies(older):
    expected = SMALL_IMAGES.replace(size=16, crop=1.0)
    for source in (older, older / 'weights.safetensors'):
        _, report = backbones.load_weights('resnet_micro', source, classifier=True)
        assert report.preprocessing == backbones.preprocess(source) == expected
        assert report.classes == ()
    with pytest.raises(UserError, match="a run of the backbone 'resnet_micro' wrote it, not of 'vit_micro'"):
        backbones.load_weights('vit_micro', older)


def test_an_earlier_run_on_a_fit_of_its_own(older):
    config = json.loads((older / 'config.json').read_text())
    (older / 'config.json').write_text(json.dumps({**config, 'fit': 'letterbox', 'image_size': 0}))
    assert backbones.preprocess(older) == SMALL_IMAGES.replace(fit='letterbox')


def test_an_earlier_run_whose_own_weights_are_gone(older):
    config = json.loads((older / 'config.json').read_text())
    (older / 'config.json').write_text(json.dumps({**config, 'weights': 'runs/gone'}))
    with pytest.warns(UserWarning, match=r"what it began from is not there \(there are no weights at 'runs/gone'"):
        assert backbones.preprocess(older) == SMALL_IMAGES.replace(size=16)


@pytest.mark.parametrize('weights', ['', 'random'])
def test_an_earlier_run_from_random_weights(older, weights):
    """Nothing is missed, so there is no warning, which would be an error here."""
    config = json.loads((older / 'config.json').read_text())
    (older / 'config.json').write_text(json.dumps({**config, 'weights': weights}))
    assert backbones.preprocess(older) == SMALL_IMAGES.replace(size=16, crop=1.0)


def test_nothing_is_known_of_a_copy_of_an_earlier_run(older, tmp_path):
    shutil.copy(older / 'weights.safetensors', tmp_path / 'copy.safetensors')
    _, report = backbones.load_weights('resnet_micro', tmp_path / 'copy.safetensors')
    assert (report.description, report.preprocessing) == (None, SMALL_IMAGES)


def test_the_config_of_a_hub_is_no_config_of_a_run(older):
    (older / 'config.json').write_text(json.dumps({'backbone': 'resnet_micro', 'architectures': ['X']}))
    _, report = backbones.load_weights('resnet_micro', older)
    assert (report.description, report.preprocessing) == (None, SMALL_IMAGES)


# --- Checkpoints. -----------------------------------------------------------------------------------------------------


def test_adapters_of_a_checkpoint_that_left_its_run_have_their_scale(tmp_path):
    """Without a description, the config of the run must be there (``test_weight_sources``)."""
    import optax

    from experiments.training.checkpoints import Checkpoints
    from experiments.training.state import create_state

    small = {'depth': 4, 'channels': 24}
    params = variables_of(size=16, **small)['params']
    params = lora.add(params, ('backbone/stage2/block1/mlp/dense1',), 2, jax.random.key(2))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.5), params)
    mask = unflatten_dict({path: path[-1] in lora.LEAVES for path in flatten_dict(params)})
    kept = dataclasses.replace(DESCRIPTION, options=small, head={'lora_alpha': 6.0})
    with Checkpoints(tmp_path / 'run/checkpoints', weights_description=kept) as checkpoints:
        checkpoints.save(7, create_state({'params': params}, mask, optax.sgd(0.1), jax.random.key(1), False), {})
    shutil.copytree(tmp_path / 'run/checkpoints/7', tmp_path / 'alone')
    loaded, report = backbones.load_weights('vit_micro', tmp_path / 'alone', classifier=True, **small)
    assert report.description == kept
    found, expected = flatten_dict(loaded['params']), flatten_dict(lora.merge(params, 3.0))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf)
