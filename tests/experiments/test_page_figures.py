"""The sections of the page that are made of scores per example and of learning curves."""

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backbones.errors import UserError
from experiments.cli import atomic_files
from experiments.data import examples_by_id, loading, record
from experiments.data.embedded import load_digits
from experiments.data.truth import Boxes
from experiments.results import example_pictures, example_texts, explanations, mistakes, rows, scores
from experiments.results.coco_metrics import evaluate
from experiments.results.detected_boxes import DetectedBoxes
from experiments.results.explanations import ExplainedText, Token
from experiments.results.page import build, content, estimates, excerpts, kept
from experiments.results.page.sections import confusion, curves, detection_curves, learning, reliability
from experiments.results.page.sections import mistakes as mistakes_section
from experiments.results.scores import Predicted
from tests.experiments import synthetic_results
from tests.experiments.made_rows import make_row
from tests.experiments.test_page import Page, check

OLD = Path(__file__).parent / 'old_work_directories'
HOSTILE = '<script>alert(1)</script>&"\'\udcff'


def page_of(*workdirs: Path) -> tuple[content.Report, Page, str]:
    report = content.read(workdirs)
    text = build.html(report)
    return report, check(text), text


@pytest.fixture(scope='module')
def classified(tmp_path_factory) -> Path:
    """Two lines of two seeds each, with scores of the validation split and a record of the data set."""
    path = tmp_path_factory.mktemp('classified')
    dataset = load_digits()
    record.write(path, dataset)
    test, validation = dataset.splits['test'][:60], dataset.splits['validation'][:40]
    made = []
    for backbone in ('one', 'two'):
        for seed in (0, 1):
            generator = np.random.default_rng(seed + 10 * (backbone == 'two'))

            def logits(indices, generator=generator):
                found = 3 * generator.normal(size=(len(indices), 10)).astype(np.float32)
                found[np.arange(len(indices)), dataset.targets[indices]] += 4
                return found

            row = make_row(backbone, seed, data={**make_row().data, 'fingerprint': dataset.fingerprint()})
            held_out = Predicted(
                [dataset.ids[index] for index in validation],
                dataset.targets[validation],
                {'logits': logits(validation)},
            )
            found = logits(test)
            ids = [dataset.ids[index] for index in test]
            scores.write(path / row.predictions, ids, dataset.targets[test], {'logits': found}, validation=held_out)
            made.append(
                make_row(backbone, seed, float((found.argmax(-1) == dataset.targets[test]).mean()), data=row.data)
            )
    rows.write(path, made)
    return path


class TestConfusion:
    def test_counts_are_those_of_scikit_learn_over_all_seeds(self, classified):
        report = content.read([classified])
        for line in report.aggregates:
            found = [scores.read(classified / row.predictions) for _, row in line.members]
            wanted = sum(
                sklearn.metrics.confusion_matrix(each.targets, each.predictions, labels=range(10)) for each in found
            )
            np.testing.assert_array_equal(confusion.matrix(line), wanted)

    def test_the_page_has_them_with_the_names_of_the_classes(self, classified):
        report, page, _ = page_of(classified)
        line = max(report.aggregates, key=lambda line: np.mean(line.scores))
        matrix = confusion.matrix(line)
        assert f'{matrix[3, 3]:,} of {matrix[3].sum():,} 3 as 3' in page.values('title')
        assert [tag for tag, found in page.elements if found.get('class') == 'matrix'] == ['table', 'table']

    @given(arrays.arrays(np.int64, st.integers(2, 5).map(lambda side: (side, side)), elements=st.integers(0, 20)))
    def test_the_most_confused_pairs_lie_off_the_diagonal_in_order(self, matrix):
        pairs = confusion.confused(matrix, 100)
        assert all(true != predicted and matrix[true, predicted] for true, predicted in pairs)
        assert len(pairs) == np.count_nonzero(matrix - np.diag(np.diag(matrix)))
        shares = [matrix[true, predicted] / matrix[true].sum() for true, predicted in pairs]
        assert shares == sorted(shares, reverse=True)

    def test_many_classes_are_a_list(self, tmp_path):
        generator = np.random.default_rng(0)
        targets = generator.integers(0, 50, 300).astype(np.int32)
        logits = generator.normal(size=(300, 50)).astype(np.float32)
        row = make_row()
        scores.write(tmp_path / row.predictions, [f'{index}' for index in range(300)], targets, {'logits': logits})
        rows.write(tmp_path, [row])
        _, page, _ = page_of(tmp_path)
        assert 'Of 50 classes, the pairs that are confused most often.' in page.texts
        assert not any(found.get('class') == 'matrix' for _, found in page.elements)


class TestReliability:
    def test_bins_are_those_of_a_loop(self, classified):
        line = content.read([classified]).aggregates[0]
        before, after, temperatures = reliability.bins(line)
        confidences, right = [], []
        for workdir, row in line.members:
            found = scores.read(workdir / row.predictions)
            exponent = np.exp(found.logits.astype(np.float64))
            confidences += list((exponent / exponent.sum(1, keepdims=True)).max(1))
            right += list(found.correct)
        for place in range(15):
            members = [n for n, each in enumerate(confidences) if place / 15 < each <= (place + 1) / 15]
            assert before.pooled.counts[place] == len(members)
            if members:
                assert before.pooled.accuracy[place] == pytest.approx(np.mean([right[n] for n in members]))
        assert after.pooled.counts.sum() == before.pooled.counts.sum() == 120
        assert len(temperatures) == 2

    def test_the_error_is_that_of_the_table(self, classified):
        report = content.read([classified])
        line = report.aggregates[0]
        before, after, _ = reliability.bins(line)
        assert before.error == pytest.approx(line.metrics['ece'], abs=1e-6)
        assert after.error == pytest.approx(line.metrics['ece_scaled'], abs=1e-6)
        # Errors of seeds that point to different sides cancel in their bins.
        assert before.pooled.error < before.error - 0.001
        captions = ' '.join(check(build.html(report)).texts)
        assert f'ECE {100 * before.error:.1f} %' in captions
        assert '(mean of 2 seeds, whose predictions the bins have together)' in captions

    def test_scores_without_probabilities_have_none(self, tmp_path):
        row = make_row(config={'ridge': {}})
        logits = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
        ids = [f'{index}' for index in range(40)]
        scores.write(tmp_path / row.predictions, ids, np.zeros(40, np.int32), {'logits': logits}, score_kind='values')
        rows.write(tmp_path, [row])
        assert reliability.section(content.read([tmp_path])) is None


class TestMistakes:
    def test_of_classes_the_most_confident_first(self):
        targets, predictions = np.array([0, 1, 2, 0]), np.array([0, 2, 1, 1])
        found = mistakes.of_classes(targets, predictions, np.array([0.99, 0.5, 0.9, 0.7]), most=2)
        assert found == [mistakes.WrongClass(2, 0.9), mistakes.WrongClass(3, 0.7)]

    boxes = arrays.arrays(np.float32, (3, 4), elements=st.integers(0, 12).map(float)).map(
        lambda found: np.concatenate([found[:, :2], found[:, :2] + found[:, 2:] + 1], 1)
    )

    @settings(max_examples=25, deadline=None)
    @given(
        boxes,
        boxes,
        st.lists(st.integers(0, 1), min_size=6, max_size=6),
        st.permutations([0.9, 0.6, 0.3]),
        st.lists(st.booleans(), min_size=3, max_size=3),
    )
    # The detection lies inside a crowd that is much larger.
    @example(
        np.tile(np.float32([0, 0, 12, 12]), (3, 1)),
        np.tile(np.float32([1, 1, 3, 3]), (3, 1)),
        [0] * 6,
        [0.9, 0.6, 0.3],
        [True] * 3,
    )
    def test_boxes_are_wrong_where_coco_finds_false_positives(self, truth, found, classes, confidences, crowded):
        labels = np.array(classes[:3], np.int32)[None]
        none, crowd = np.zeros((1, 3), bool), np.array(crowded)[None]
        area, sizes = np.full((1, 3), 9.0, np.float32), np.array([[40, 40]])
        objects = Boxes(truth[None], np.array(classes[3:], np.int32)[None], crowd, none, area, sizes)
        detections = DetectedBoxes(found[None], np.array(confidences, np.float32)[None], labels, ~none)
        arrays_kept = {
            'boxes': found[None], 'scores': detections.scores, 'labels': labels, 'found': detections.valid,
            'truth_boxes': truth[None], 'truth_classes': objects.classes, 'truth_crowd': crowd, 'truth_difficult': none,
        }  # fmt: skip
        wrong = mistakes.of_boxes(arrays_kept, most=5)
        false = []
        for number, each in enumerate(evaluate(objects, detections, ('a', 'b')).matches):
            own = sorted((score for score, label in zip(confidences, classes[:3], strict=True) if label == number))[
                ::-1
            ]
            false += [own[place] for place in np.flatnonzero(each.false[0])]  # at the first threshold, 0.5
        wanted = [np.float32(max(false))] if false else []
        assert [detections.scores[0, each.detection] for each in wrong] == wanted

    def test_of_masks_the_lowest_overlap_first(self):
        perfect, bad, empty = np.diag([5, 5]), np.array([[5, 0], [5, 0]]), np.zeros((2, 2), int)
        found = mistakes.of_masks(np.stack([perfect, bad, empty]), most=5)
        assert found == [(1, 0.25)]

    def test_pictures_are_shown_and_kept(self, classified):
        _, page, _ = page_of(classified)
        images = [found['src'] for tag, found in page.elements if tag == 'img']
        assert len(images) == mistakes_section.MOST
        (file,) = (classified / example_pictures.DIRECTORY).iterdir()
        pictures = json.loads(file.read_text())['pictures']
        assert len(pictures) == mistakes_section.MOST
        # The pixels are those of the data set.
        dataset = load_digits()
        name = next(iter(pictures))
        report = content.read([classified])
        (picture,) = example_pictures.read(classified, report.rows[0][1], [name]).values()
        np.testing.assert_array_equal(picture.pixels()[..., 0], dataset.images[dataset.ids.index(name), ..., 0])

    def test_pictures_that_are_kept_are_shown_without_their_data(self, classified, tmp_path, monkeypatch):
        copied = shutil.copytree(classified, tmp_path / 'copy')
        _, row = content.read([copied]).rows[0]
        one, other = load_digits().ids[:2]
        found = example_pictures.read(copied, row, [one])

        def gone(*arguments):
            raise UserError('gone')

        monkeypatch.setattr(examples_by_id, 'read', gone)
        assert example_pictures.read(copied, row, [other, one]) == found
        with pytest.raises(UserError, match='gone'):
            example_pictures.read(copied, row, [other])

    def test_without_scores_none_is_the_most_wrong(self, classified, tmp_path):
        copied = shutil.copytree(classified, tmp_path / 'copy')
        for row in rows.read(copied):
            scores.write_compact(copied / row.predictions, scores.read(copied / row.predictions))
        _, page, _ = page_of(copied)
        assert not any(tag == 'img' for tag, _ in page.elements)
        assert any('no scores are kept' in text for text in page.texts)

    def test_data_that_are_gone_are_said(self, tmp_path):
        synthetic_results.work_directory(tmp_path, datasets=[('folder:/nowhere', 0.5)], fractions=(1.0,), seeds=(0,))
        _, page, _ = page_of(tmp_path)
        assert any(text.startswith('There are no pictures: ') for text in page.texts)
        assert any("there is no folder '/nowhere'" in text for text in page.texts)


def texts_directory(place: Path) -> tuple[Path, list[str]]:
    """A work directory of a head that takes half of its test texts for another class, and those texts."""
    place.mkdir()
    texts = [HOSTILE.replace('\udcff', f' number {index}') for index in range(20)]
    texts += [f'first line {index}\nsecond line ' + 'word & so on ' * 60 for index in range(20)]
    with (place / 'notes.csv').open('w', newline='') as stream:
        csv.writer(stream).writerows(
            [('text', 'label'), *((text, 'ab'[index % 2]) for index, text in enumerate(texts))]
        )
    name, workdir = f'csv:{place / "notes.csv"}', place / 'run'
    dataset = loading.load(name, inputs='texts')
    record.write(workdir, dataset)
    row = make_row(data={**make_row().data, 'inputs': 'texts', 'fingerprint': dataset.fingerprint()})
    row = dataclasses.replace(row, cell=dataclasses.replace(row.cell, dataset=name))
    logits = np.zeros((len(texts), 2), np.float32)
    logits[:, 1] = np.arange(len(texts)) - 19.5
    scores.write(workdir / row.predictions, dataset.ids, dataset.targets, {'logits': logits})
    rows.write(workdir, [row])
    return workdir, texts


class TestMistakenTexts:
    def test_they_are_shown_and_kept(self, tmp_path):
        workdir, texts = texts_directory(tmp_path / 'data')
        _, page, text = page_of(workdir)
        assert text.count('<figure class="card text">') == mistakes_section.MOST
        assert '<script>alert' not in text
        (file,) = (workdir / example_texts.DIRECTORY).iterdir()
        kept_texts = json.loads(file.read_text())['texts']
        assert len(kept_texts) == mistakes_section.MOST
        assert {*kept_texts.values()} < {*texts}
        short, long = kept_texts['notes.csv:3'], texts[38]
        assert short in page.texts
        assert 'notes.csv:3' in page.texts
        # Of a long one the beginning is seen, and the rest on demand; together they are the text.
        places = [index for index, each in enumerate(page.texts) if each.endswith('more characters')]
        assert any(f'{page.texts[at - 1]} {page.texts[at + 1]}' == long.strip() for at in places)
        assert all(250 < len(page.texts[at - 1]) <= excerpts.SHORT for at in places)
        # They are kept: the page is the same without the file that they are of.
        (tmp_path / 'data' / 'notes.csv').unlink()
        assert build.html(content.read([workdir])).count('<figure class="card text">') == mistakes_section.MOST
        # So they are where others are asked for too, and nothing of them is lost.
        before = file.read_bytes()
        (row,) = rows.read(workdir)
        assert example_texts.read(workdir, row, ['notes.csv:3', 'notes.csv:99']) == {'notes.csv:3': short}
        assert file.read_bytes() == before

    def test_a_text_that_is_another_now_is_not_shown(self, tmp_path):
        workdir, _ = texts_directory(tmp_path / 'data')
        file = tmp_path / 'data' / 'notes.csv'
        header, *lines = file.read_text().split('\r\n' if '\r\n' in file.read_text() else '\n')
        file.write_text('\n'.join([header, 'a new first line,a', *lines]))
        _, page, text = page_of(workdir)
        assert '<figure class="card text">' not in text
        assert any('have changed since they were read' in each for each in page.texts)

    def test_files_that_are_gone_are_said(self, tmp_path):
        workdir, _ = texts_directory(tmp_path / 'data')
        (tmp_path / 'data' / 'notes.csv').unlink()
        _, page, _ = page_of(workdir)
        assert any(each.startswith('There are no texts: there is no file or folder') for each in page.texts)


def explain(workdir: Path, *texts: ExplainedText, method: str = 'occlusion') -> Path:
    """Texts as ``experiments.explain`` leaves them."""
    file = workdir / explanations.DIRECTORY / method / explanations.NUMBERS
    value = {'method': method, 'texts': [*map(explanations.as_json, texts)], 'command': 'python -m experiments.explain'}
    atomic_files.write_json(file, value)
    return file


def explained(text: str, *tokens: tuple[int, int, float]) -> ExplainedText:
    return ExplainedText(text, tuple(Token('t', *token) for token in tokens), HOSTILE, 0.75)


class TestExplainedTexts:
    def test_parts_are_the_text(self):
        text = explained('so good, yes', (0, 0, 9.0), (0, 2, -0.5), (3, 7, 2.0), (3, 7, 1.0), (7, 8, 0.0))
        assert text.parts() == [('so', -0.25), (' ', None), ('good', 1.0), (',', 0.0), (' yes', None)]
        assert explained('').parts() == []

    def test_where_a_text_was_cut(self):
        whole = explained('so good, yes', (0, 2, 1.0), (3, 7, 1.0))
        parts = [('so', 1.0), (' ', None), ('good', 1.0)]
        # Earlier versions did not say it, but a word without a token was not read.
        for text in (whole, dataclasses.replace(whole, is_cut=True)):
            assert text.read_and_beyond() == (parts, ', yes')
        assert (whole.cut_in_words(), text.cut_in_words()) == ('', ', cut at 2 tokens')
        end = explained('so good!', (0, 2, 1.0), (3, 7, 1.0))
        assert end.read_and_beyond() == ([*parts, ('!', None)], '')
        assert dataclasses.replace(end, is_cut=True).read_and_beyond() == (parts, '!')

    def test_they_are_shown(self, classified, tmp_path):
        place = shutil.copytree(classified, tmp_path / 'run')
        explain(place, explained(f'bad {HOSTILE} good', (0, 3, -1.0), (4, 12, 2.0)), explained('unread ' * 100))
        _, page, text = page_of(place)
        assert '<script>alert' not in text
        marked = [found for tag, found in page.elements if tag == 'span' and found.get('class') in ('for', 'against')]
        assert [(each['class'], each['style']) for each in marked] == [('against', '--s:0.500'), ('for', '--s:1.000')]
        assert {'bad', '<script>'} < {*page.texts}
        assert 'cut at' not in text
        # What comes after the last token was not read, and is cut where it is long.
        assert any(each.endswith('…') and each.startswith('unread unread') for each in page.texts)
        assert 'python -m experiments.explain' in page.texts
        explain(place, dataclasses.replace(explained('bad news', (0, 3, 1.0)), is_cut=True))
        _, page, _ = page_of(place)
        assert any(each.endswith('75.0\u00a0%, cut at 1 tokens') for each in page.texts)
        assert ' news' in page.texts

    @pytest.mark.parametrize(
        'change',
        [
            lambda text: text[:-5],
            lambda text: text.replace('"stop": 3', '"stop": 300'),
            lambda text: text.replace('"value": 1.0', '"value": NaN'),
            lambda text: text.replace('"texts"', '"images"'),
            lambda text: text.replace('"start": 0', '"start": "0"'),
            lambda text: text.replace('"stop": 3', '"stop": 2.5'),
            lambda text: text.replace('"start": 0', '"start": false'),
            lambda text: text.replace('"value": 1.0', f'"value": 1{"0" * 400}'),
        ],
    )
    def test_a_damaged_file_is_left_out(self, classified, tmp_path, change):
        place = shutil.copytree(classified, tmp_path / 'run')
        file = explain(place, explained('bad', (0, 3, 1.0)))
        before = file.read_text()
        assert len(explanations.read_texts(place)) == 1
        file.write_text(change(before))
        assert file.read_text() != before
        assert explanations.read_texts(place) == []
        page_of(place)


class TestPrecisionAndRecall:
    @pytest.fixture
    def detected(self, tmp_path) -> tuple[Path, dict]:
        """Objects and detections near them, of images of 100 pixels; the row has COCO's own metrics."""
        generator = np.random.default_rng(0)
        images, objects, extra = 30, 4, 3
        corners = generator.uniform(0, 60, (images, objects, 2)).astype(np.float32)
        truth = np.concatenate([corners, corners + generator.uniform(10, 40, (images, objects, 2))], -1)
        classes = generator.integers(0, 3, (images, objects)).astype(np.int32)
        none = np.zeros(classes.shape, bool)
        targets = Boxes(truth.astype(np.float32), classes, none, none, np.full(classes.shape, 500.0, np.float32),
                        np.full((images, 2), 100))  # fmt: skip
        noise = generator.uniform(0, 60, (images, extra, 2))
        found = np.concatenate(
            [truth + generator.normal(size=truth.shape) * 3, np.tile(noise, 2) + np.array([0, 0, 30, 30])], 1
        )
        labels = np.concatenate([classes, generator.integers(0, 3, (images, extra))], 1).astype(np.int32)
        predictions = {
            'boxes': found.astype(np.float32), 'scores': generator.uniform(size=labels.shape).astype(np.float32),
            'labels': labels, 'found': np.ones(labels.shape, bool),
        }  # fmt: skip
        metrics = evaluate(targets, DetectedBoxes(*predictions.values()), ('0', '1', '2')).metrics
        known = {name: value for name, value in metrics.items() if value is not None}
        row = make_row(task='detection', primary='AP', test=known, validation={'AP': known['AP']})
        ids = [f'{index}' for index in range(images)]
        scores.write(tmp_path / row.predictions, ids, targets, predictions, np.full(scores.SAMPLES, known['AP']))
        rows.write(tmp_path, [row])
        return tmp_path, known

    def test_the_area_under_a_curve_is_cocos_ap50(self, detected):
        path, known = detected
        (line,) = content.read([path]).aggregates
        (arrays_kept,) = kept.arrays(line, detection_curves._ARRAYS)
        names, precision = detection_curves.curves(line, arrays_kept)
        assert {name: pytest.approx(area) for name, area in zip(names, precision.mean(0), strict=True)} == {
            name: known[f'AP50/{name}'] for name in '012'
        }

    def test_the_page_has_curves_and_says_that_the_data_are_gone(self, detected):
        path, known = detected
        _, page, _ = page_of(path)
        assert f'AP50 {100 * known["AP50"]:.1f} %' in page.texts
        # The ids are none of 'digits'.
        assert "There are no pictures: the images of 'digits' cannot be read here: 'digits' has no example" in ' '.join(
            page.texts
        )

    def test_too_many_detections_are_left_out(self, detected, monkeypatch):
        monkeypatch.setattr(detection_curves, '_MOST_DETECTIONS', 100)
        _, page, _ = page_of(detected[0])
        assert any('detections are too many to match them again' in text for text in page.texts)


def test_scores_of_corrupted_images(tmp_path):
    ids = [f'{index}' for index in range(40)]
    made = []
    for backbone, worst in (('one', 0.2), ('two', 0.4)):
        corrupted = {
            name: {f'{severity}': {'accuracy': 0.8 - (0.8 - worst) * severity / 5 - less} for severity in range(1, 6)}
            for name, less in (('gaussian_noise', 0.0), ('fog', 0.1))
        }
        row = make_row(backbone, score=0.8, robustness=corrupted)
        scores.write(tmp_path / row.predictions, ids, np.zeros(40, np.int32), {'logits': np.eye(3)[[0] * 32 + [1] * 8]})
        made.append(row)
    rows.write(tmp_path, made)
    _, page, text = page_of(tmp_path)
    # The mean of both corruptions.
    assert 'one\nseverity 5: 15.0 %' in text
    assert 'two\nseverity 0: 80.0 %' in text
    assert 'gaussian noise' in page.texts
    # Fog at severity 5 leaves 0.1 of 0.8, and the colour is full where nothing is left.
    assert '--s:0.35' in page.values('style')


class TestLearningCurves:
    @pytest.fixture
    def trained(self, tmp_path) -> list[Path]:
        found = []
        for name, best in (('first', False), ('second', True)):
            row = make_row(config={'keep_best': best, 'learning_rate': 0.1}, selected={})
            ids = [f'{index}' for index in range(40)]
            logits = np.eye(3, dtype=np.float32)[np.zeros(40, int)]
            scores.write(tmp_path / name / row.predictions, ids, np.zeros(40, np.int32), {'logits': logits})
            rows.write(tmp_path / name, [row])
            lines = [
                {'step': step, 'epoch': float(step), 'phase': 'all', 'loss': 10.0**-step, 'validation_accuracy': score}
                for step, score in ((1, 0.5), (2, 0.75), (3, 0.7))
            ]
            atomic_files.write_jsonl(tmp_path / name / 'metrics.jsonl', lines)
            found.append(tmp_path / name)
        return found

    def test_values_and_which_epoch_was_kept(self, trained):
        _, _, text = page_of(*trained)
        titles = re.findall('epoch ([0-9.]+): ([0-9.e-]+)(?: %)?(, kept)?<', text)
        assert sorted({(epoch, value) for epoch, value, _ in titles if float(value) > 1}) == [
            ('1', '50.0'), ('2', '75.0'), ('3', '70.0'),
        ]  # fmt: skip
        # The last one of the first training, the best one of the second; in both panels.
        assert sorted(epoch for epoch, _, kept in titles if kept) == ['2', '2', '3', '3']
        # A loss over two powers of ten.
        assert 'training loss (logarithmic)' in text

    def test_a_cut_file_and_none_at_all(self, trained):
        file = trained[0] / 'metrics.jsonl'
        file.write_text(file.read_text()[:-20])
        assert learning.section(content.read(trained)) is not None
        for path in trained:
            (path / 'metrics.jsonl').unlink()
        assert learning.section(content.read(trained)) is None


def test_work_directories_of_an_earlier_version(tmp_path):
    for name in ('ablation', 'train'):
        shutil.copytree(OLD / name, tmp_path / name)
    _, page, _ = page_of(tmp_path / 'ablation', tmp_path / 'train')
    assert 'confusion' in page.values('id')


def test_hostile_names_and_missing_files(tmp_path):
    path = synthetic_results.work_directory(
        tmp_path / 'x', datasets=[(HOSTILE, 0.5)], backbones=[(HOSTILE, 1, 1.0, 0.5)], fractions=(1.0,), seeds=(0,)
    )
    report, page, _ = page_of(path)
    assert [tag for tag, _ in page.elements].count('script') == 1
    for _, row in report.rows:
        (path / row.predictions).unlink()
    # What was read before is shown; the rest has no score to show.
    check(build.html(report))


def test_baselines_are_in_the_panels_of_each_setting():
    """Those without the setting have no panel of their own, and 32 comes before 64."""
    curve = {name: [name] for name in ('a', 'b', 'c', 'd')}
    groups = {'ridge · image_size 64': ['a'], 'ridge · image_size 32': ['b'], 'ridge': ['c'], 'knn': ['d']}
    found = curves._with_baselines({title: [curve[name] for name in names] for title, names in groups.items()})
    assert list(found) == ['knn', 'ridge · image_size 32', 'ridge · image_size 64']
    assert found['ridge · image_size 32'] == [['b'], ['c']]
    assert found['knn'] == [['d']]


def test_the_summary_counts_the_data_set_and_not_the_shots(tmp_path):
    file = record.file_of(tmp_path, 'pets')
    assert record.training_examples(tmp_path, 'pets') is None
    file.parent.mkdir(parents=True)
    file.write_text('{"examples": {"train": [21, 21, 21]}}')
    assert record.training_examples(tmp_path, 'pets') == 63


def test_a_size_of_zero_is_the_default():
    assert estimates.value_in_words('image_size', 0) == 'default'
    assert estimates.with_key('image_size', '64') == 'image_size 64'
    assert estimates.with_key('tap', 'pooled') == 'pooled'


def test_every_backbone_has_a_name_in_the_plot_of_costs(tmp_path):
    place = synthetic_results.work_directory(
        tmp_path, synthetic_results.DATASETS[:1], synthetic_results.BACKBONES[:5], ('linear',), (1.0,), (0,), 40
    )
    _, _, text = page_of(place)
    figure = text[text.index('id="cost"') : text.index('<details', text.index('id="cost"'))]
    named = set(re.findall('class="name">([^<]*)<', figure))
    assert named == {name for name, *_ in synthetic_results.BACKBONES[:5]}
