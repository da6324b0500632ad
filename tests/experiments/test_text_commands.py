"""A run on texts as a user has it: trained, evaluated, asked about texts and explained."""

import json
import re

import jax
import numpy as np
import pytest
from tiny_texts import CLASSES, NAME, make_texts, smaller, tokens_of, write_csv

import backbones
from backbones import UserError
from backbones.explanation import occlusion
from experiments import evaluate, explain, predict, train

CONFIG = """
from experiments.training.config import default_config
def get_config():
    config = default_config()
    config.update({values!r})
    return config
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The work directory of a training of seconds."""
    place = tmp_path_factory.mktemp('texts')
    file = write_csv(place / 'texts.csv', make_texts(60, longest=60))
    values = {
        'dataset': f'csv:{file}', 'backbone': NAME, 'batch_size': 12, 'epochs': 2.0, 'warmup_epochs': 0.0,
        'threads': 1, 'learning_rate': 3e-3, 'text_length': 32,
    }  # fmt: skip
    (place / 'config.py').write_text(CONFIG.format(values=values))
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch)
        train.main(['--config', str(place / 'config.py'), '--workdir', str(place / 'run')])
        yield place / 'run'


@pytest.fixture(scope='module')
def predictor(run):
    return backbones.load(run)


def kept(run) -> dict[str, np.ndarray]:
    """What the training's own evaluation kept of the test split."""
    with np.load(run / 'predictions' / 'test.npz') as arrays:
        return dict(arrays)


def shares(logits):
    return np.asarray(jax.nn.softmax(logits))


def test_the_weights_predict_what_the_evaluation_of_the_training_saw(run, predictor, tmp_path, capsys):
    predict.main(['--workdir', str(run), '--split', 'test', '--json', str(tmp_path / 'a.jsonl')])
    told = [json.loads(line) for line in (tmp_path / 'a.jsonl').read_text().splitlines()]
    saved = kept(run)
    assert [each['id'] for each in told] == saved['ids'].tolist()
    wanted = shares(saved['logits'].astype(np.float32))  # which were kept in 16 bits
    for each, want in zip(told, wanted, strict=True):
        found = {row['name']: row['probability'] for row in each['classes']}
        np.testing.assert_allclose([found[name] for name in CLASSES], want, atol=1e-3)
    out = capsys.readouterr().out
    assert len(re.findall(r'\(truth: \w+\)', out)) == len(told)
    # A file elsewhere, and a checkpoint.
    (tmp_path / 'elsewhere.safetensors').write_bytes((run / 'weights.safetensors').read_bytes())
    texts = [each['text'] for each in told[:8]]
    wanted = [each.probabilities for each in predictor(texts)]
    (checkpoint,) = sorted((run / 'checkpoints').iterdir())[-1:]
    for source in (tmp_path / 'elsewhere.safetensors', checkpoint):
        loaded = backbones.load(source)
        assert loaded.names == CLASSES and loaded.model.input.length == 32
        np.testing.assert_allclose([each.probabilities for each in loaded(texts)], wanted, atol=1e-6)
    evaluate.main(['--workdir', str(run), '--json', str(tmp_path / 'metrics.json')])
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    assert metrics['accuracy'] == json.loads((run / 'result.json').read_text())['test_accuracy']


def test_texts_that_are_cut_are_said(run, predictor, tmp_path, capsys):
    lengths = [len(tokens_of(text)) for text in make_texts(60, longest=60).images.values]
    cut = sum(length > 32 for length in lengths)
    assert 1 < cut < 60
    told = f'{cut} of 60 texts are longer than 32 tokens and are cut off (--config.text_length)'
    assert told in json.loads((run / 'result.json').read_text())['data']['noticed']
    (document,) = (run / 'data').glob('*.json')
    assert told in json.loads(document.read_text())['noticed']
    evaluate.main(['--workdir', str(run), '--split', 'all', '--json', str(tmp_path / 'a.json')])
    said = capsys.readouterr().err
    assert f'{cut} of 60 texts are longer than 32 tokens and are cut off (the model reads no more)' in said
    assert json.loads((tmp_path / 'a.json').read_text())['cut'] == cut
    predict.main(['--workdir', str(run), '--split', 'all'])
    shown = capsys.readouterr()
    assert shown.out.count('  (cut at 32 tokens)  (truth: ') == cut
    assert f'60 texts, of which {cut} are cut at 32 tokens' in shown.err
    assert predictor.length == 32


def test_an_explanation_shows_where_a_text_was_cut(run, tmp_path, capsys):
    text = 'it was a red house in the street beyond the <b>river</b>'
    explain.main(['--workdir', str(run), text, 'it was a red house', '--output', str(tmp_path)])
    shown = capsys.readouterr()
    assert ', cut at 32 tokens  it was a red house in the stre [cut] et beyond the <b>river</b>\n' in shown.out
    assert shown.out.count('cut') == 2
    assert '2 texts, of which 1 is cut at 32 tokens; written' in shown.err
    told = json.loads((tmp_path / 'explanation.json').read_text())['texts']
    assert [each['is_cut'] for each in told] == [True, False]
    page = (tmp_path / 'texts.html').read_text()
    assert page.count(', cut at 32 tokens</small>') == 1
    assert '<small>et beyond the &lt;b&gt;river&lt;/b&gt;</small></p>' in page
    assert 'Grey: what the model does not read.' in page


def test_few_texts_have_tables_with_the_truth(run, capsys):
    predict.main(['--workdir', str(run), '--split', 'test', '--limit', '2'])
    out = capsys.readouterr().out
    assert len(re.findall(r'\d+ tokens(, cut)?  \(truth: (?:blue|green|red)\)', out)) == 2
    assert out.count('probability') == 2


def test_texts_of_every_kind(run, predictor, tmp_path, capsys):
    long, half = 'red ' * 5000, 'half \ud800 a character'
    empty, cut, other, again = predictor(['', long, half, long[:30]])
    assert (empty.tokens, empty.is_cut) == (2, False)
    assert (cut.tokens, cut.is_cut) == (32, True)
    assert (again.tokens, again.is_cut) == (32, False)
    np.testing.assert_allclose(cut.probabilities, again.probabilities, atol=1e-6)
    for each in (empty, cut, other):
        assert each.probabilities.sum() == pytest.approx(1, abs=1e-5) and len(each.most_likely) == 3
        assert json.loads(each.to_json())['text'] == each.text
    predict.main(['--workdir', str(run), '', long, half, '--json', str(tmp_path / 'a.jsonl')])
    out = capsys.readouterr().out
    assert '32 tokens, cut' in out and '  2 tokens\n' in out
    assert [json.loads(line)['text'] for line in (tmp_path / 'a.jsonl').read_text().splitlines()] == ['', long, half]
    results = list(predictor.stream(['red', 3, None, 'blue']))
    assert [str(each) for each in results[1:3]] == ['a text is a string, not int', 'a text is a string, not NoneType']
    np.testing.assert_array_equal(results[3].probabilities, predictor.stream(['blue'], 8).__next__().probabilities)
    assert [each.text for each in predictor.stream('blue')] == ['blue']
    with pytest.raises(UserError, match='batch_size must be at least 1, not 0'):
        next(predictor.stream(['blue'], 0))
    with pytest.raises(UserError, match='a text is a string, not bytes'):
        predictor([b'red'])
    assert predictor([]) == []


def test_lines_of_a_file(run, tmp_path, capsys):
    """With a mark of byte order, ends of lines of Windows and characters that some take for an end of line."""
    lines = ['a red house', '', 'blue\u2028it was\x0cso', '  ', 'green\x85']
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(lines).encode())
    predict.main(['--workdir', str(run), str(tmp_path / 'a.txt'), 'x', '--json', str(tmp_path / 'a.jsonl')])
    told = [json.loads(line)['text'] for line in (tmp_path / 'a.jsonl').read_text().splitlines()]
    assert told == ['a red house', 'blue\u2028it was\x0cso', 'green\x85', 'x']
    assert '4 texts' in capsys.readouterr().err


def test_a_file_with_spaces_in_its_name_and_a_text_that_ends_like_one(run, tmp_path, capsys):
    (tmp_path / 'my texts.txt').write_text('a red house\n')
    texts = ['it is in the house.txt', f'{"so " * 200}.txt']
    file = tmp_path / 'a.jsonl'
    predict.main(['--workdir', str(run), str(tmp_path / 'my texts.txt'), *texts, '--json', str(file)])
    assert [json.loads(line)['text'] for line in file.read_text().splitlines()] == ['a red house', *texts]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['red', '--save', '{place}'], '--save writes pictures, and the model reads texts; --json FILE.jsonl keeps'),
        (['red', '--image_size', '32'], 'image_size is 32, but the backbone reads texts, .*; leave it out'),
        (['red', '--json', '{place}/a.json'], 'the layout of COCO has no texts: write them to --json FILE.jsonl'),
        (['{place}/none.txt'], r"^there is no file '.*/none\.txt'; what ends in \.txt names a file with a text on "),
        (['{place}/latin.txt'], r'latin\.txt cannot be read as lines of text in UTF-8'),
        (['{place}/blank.txt'], 'there is no text to classify'),
        (['{place}/rows.csv'], r'rows\.csv is a file; texts are read from a \.txt file with a text on every line'),
    ],
)
def test_a_mistake_is_one_line(arguments, message, run, tmp_path):
    (tmp_path / 'latin.txt').write_bytes('naïve'.encode('latin-1'))
    (tmp_path / 'blank.txt').write_text('\n \n')
    (tmp_path / 'rows.csv').write_text('text,label\na red house,red\n')
    with pytest.raises(UserError, match=message):
        predict.main(['--workdir', str(run), *(each.format(place=tmp_path) for each in arguments)])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['red', '--method', 'pca'], '--method is of images; tokens of texts have one method, occlusion'),
        (['red', '--stage', 'stage3'], '--stage is of images'),
        (['red', '--nearest', '3'], '--nearest is of images'),
        (['red', '--class', 'rde'], "unknown class 'rde'; did you mean 'red'"),
        (['{place}/blank.txt'], 'there is no text to explain'),
    ],
)
def test_an_explanation_that_cannot_be(arguments, message, run, tmp_path):
    (tmp_path / 'blank.txt').write_text('\n \n')
    (tmp_path / 'rows.csv').write_text('text,label\na red house,red\n')
    with pytest.raises(UserError, match=message):
        explain.main(['--workdir', str(run), *(each.format(place=tmp_path) for each in arguments)])
    assert not (run / 'explanations').exists()


def test_what_decides_is_what_is_lost_without_a_token(run, predictor, tmp_path, capsys):
    """Against the whole model with that token masked, one text at a time; more tokens than are computed at once."""
    text = 'so <b>naïve</b> it was a red house, green'
    assert len(tokens_of(text, 32)) == 32
    explain.main(['--workdir', str(run), text, '', '\ud800', '--class', 'green', '--output', str(tmp_path)])
    told = json.loads((tmp_path / 'explanation.json').read_text())['texts']
    assert [each['text'] for each in told] == [text, '', '\ud800']
    variables, model = predictor.model.variables, predictor.model.model

    def score(tokens, mask) -> np.ndarray:
        backbone, head = ({'params': variables['params'][name]} for name in ('backbone', 'head'))
        features = model.backbone.apply(backbone, tokens, mask=mask)
        return np.asarray(jax.nn.log_softmax(model.head.apply(head, features)))[0]

    for each in told[:2]:
        tokens = tokens_of(each['text'], 32)[None]
        assert len(each['tokens']) == tokens.shape[1] and each['class'] == 'green'
        whole = score(tokens, np.ones(tokens.shape, bool))[1]
        assert each['probability'] == pytest.approx(np.exp(whole), abs=1e-5)
        # What the tokenizer adds is never left out: this encoder might pool the first of them.
        assert each['tokens'][0]['value'] == each['tokens'][-1]['value'] == 0
        for place in range(1, tokens.shape[1] - 1, 10):
            mask = np.arange(tokens.shape[1])[None] != place
            assert each['tokens'][place]['value'] == pytest.approx(whole - score(tokens, mask)[1], abs=1e-5)
    # A file elsewhere is known as one that reads texts.
    (tmp_path / 'elsewhere.safetensors').write_bytes((run / 'weights.safetensors').read_bytes())
    explain.main(['--workdir', str(tmp_path / 'elsewhere.safetensors'), text, '--output', str(tmp_path / 'again')])
    again = json.loads((tmp_path / 'again' / 'explanation.json').read_text())['texts']
    assert [each['token'] for each in again[0]['tokens']] == [each['token'] for each in told[0]['tokens']]
    page = (tmp_path / 'texts.html').read_bytes().decode()
    assert '<b>' not in page and 'green' in page
    assert 'green' in capsys.readouterr().out


def test_padding_and_the_class_of_an_attribution(predictor):
    tokens = predictor.model.input.encode(['red house', 'a red house that was so blue'])
    pieces = predictor.model.input.pieces('red house')
    assert tokens.shape == (2, 32)
    values, chosen = occlusion.attributions(predictor.model.model, predictor.model.variables, tokens[0], pieces)
    (result,) = predictor('red house')
    assert predictor.names[chosen] == result.most_likely[0][0]
    first, last = values[0], values[len('red house') + 1 :]
    assert first == 0 and not last.any() and values.any()
