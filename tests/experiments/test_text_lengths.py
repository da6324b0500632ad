"""What an account says of the lengths of texts: what is cut off, and what makes a training slow."""

import dataclasses

import pytest
from tiny_texts import NAME, make_texts

import backbones
from backbones.text.tokenising import Tokenising
from experiments.data import account, model_input, nouns, text_account, text_lengths, texts
from experiments.data.model_input import Reader
from experiments.data.texts import Texts

SLOW = 'few texts make every batch of a training {} tokens long, and it slow: --config.text_length={} would cut {}'


def tokenising(length: int = 0) -> Tokenising:
    return backbones.preprocess(NAME).replace(length=length or None)


def of_tokens(*lengths: int) -> Texts:
    """Texts of so many tokens each; two of them are the tokenizer's own."""
    return Texts(['x' * (length - 2) for length in lengths])


def notes(found: Texts, length: int = 0, trains: bool = True) -> list[str]:
    return text_lengths.notes(found, tokenising(length), trains, backbones.create(NAME).longest())


class TestCut:
    def test_how_many_and_the_option(self):
        found = of_tokens(8, 9, 10, 16)
        assert notes(found, 9) == ['2 of 4 texts are longer than 9 tokens and are cut off (--config.text_length)']
        assert notes(found, 10) == ['1 of 4 texts is longer than 10 tokens and is cut off (--config.text_length)']
        assert notes(found, 16) == []

    def test_no_option_helps_beyond_what_the_backbone_takes(self):
        (cut, _) = notes(of_tokens(*[10] * 30, 14_000))
        assert cut == '1 of 31 texts is longer than 256 tokens and is cut off (the backbone takes no more)'


class TestSlow:
    def test_the_shortest_length_that_cuts_few(self):
        assert notes(of_tokens(*[16] * 37, 17, 200, 256)) == [f'{SLOW.format(256, 32, 2)} of 40 texts']
        assert notes(of_tokens(*[16] * 38, 17, 256)) == [f'{SLOW.format(256, 16, 2)} of 40 texts']

    def test_where_nothing_is_gained(self):
        assert notes(of_tokens(*[16] * 38, 17, 256), trains=False) == []
        assert notes(of_tokens(*[40] * 36, 100, 100, 256, 256)) == [f'{SLOW.format(256, 128, 2)} of 40 texts']
        assert notes(of_tokens(*[20] * 36, *[256] * 4)) == []
        assert notes(of_tokens(*[16] * 39, 17)) == [f'{SLOW.format(32, 16, 1)} of 40 texts']
        assert notes(of_tokens(*[16] * 39, 31), 31) == []  # 16 is more than half of it


def test_the_line_of_the_input_has_the_length_of_batches():
    found = of_tokens(8, 20)
    training = text_lengths.in_words(found, tokenising(), trains=True)
    assert training == 'at most 256 tokens of each text; every batch of a training is padded to 32'
    assert text_lengths.in_words(found, tokenising(12), trains=False).endswith('; batches are padded to 12 or fewer')


class TestSeveralReaders:
    @pytest.fixture
    def dataset(self):
        made = make_texts(40, longest=30)
        return dataclasses.replace(made, account=text_account.account(made.images.values, noticed=('before',)))

    def readers(self, *lengths: int) -> list[Reader]:
        return [Reader(NAME, tokenising(length), False, f'{NAME} {place}') for place, length in enumerate(lengths)]

    def test_what_all_say_is_said_once(self, dataset):
        noted, lines = model_input.read_by(dataset, self.readers(10, 10))
        assert [line.partition(':')[0] for line in lines] == [f'{NAME} 0', f'{NAME} 1']
        assert noted.account.noticed[0] == 'before'
        (note,) = noted.account.noticed[1:]
        assert note.endswith('are longer than 10 tokens and are cut off (--config.text_length)')
        assert note in account.as_json(noted)['noticed']
        assert noted.fingerprint() == dataset.fingerprint()

    def test_what_one_says_has_its_name(self, dataset):
        noted, _ = model_input.read_by(dataset, self.readers(10, 200))
        (note,) = noted.account.noticed[1:]
        assert note.startswith(f'{NAME} 0: ')


def test_tokens_are_made_once(monkeypatch):
    calls = []
    made = Tokenising.encode_and_tell
    monkeypatch.setattr(Tokenising, 'encode_and_tell', lambda self, *values: calls.append(1) or made(self, *values))
    dataset = make_texts(20)
    model_input.read_by(dataset, [Reader(NAME, tokenising(), True)])
    one, other = texts.encoded(dataset, tokenising()), texts.encoded(dataset, tokenising())
    assert len(calls) == 1
    assert one.images is other.images
    assert texts.encoded(dataset, tokenising(9)).images.shape == (20, 9)


def test_lengths_in_words():
    found = [nouns.of_lengths(each) for each in ([], [64, 64], [64, 16, 32])]
    assert found == ['', ' of 64 tokens', ' of 16 to 64 tokens']
