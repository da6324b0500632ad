"""Files of texts as a user writes them."""

import csv
import gzip
import io
import json
from pathlib import Path

from experiments.data import loading


def some(count: int = 20, labels=('good', 'bad'), about: str = 'film') -> list[dict]:
    return [
        {'text': f'A {about} of number {number} that is {labels[number % len(labels)]}.', 'label': labels[number % 2]}
        for number in range(count)
    ]


def write(file: Path, rows: list[dict]) -> Path:
    """Rows as the suffix of a file says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if '.jsonl' in file.name:
        text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    else:
        stream = io.StringIO(newline='')
        writer = csv.DictWriter(stream, list(rows[0]), delimiter='\t' if '.tsv' in file.name else ',')
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    content = text.encode()
    file.write_bytes(gzip.compress(content) if file.suffix == '.gz' else content)
    return file


def load(path: Path, **values):
    kind = 'jsonl' if 'jsonl' in path.name or next(path.glob('*.jsonl*'), None) else 'csv'
    return loading.load(f'{kind}:{path}', inputs='texts', **values)
