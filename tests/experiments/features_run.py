"""A frozen pass in one of several processes, as JSON on standard output; run by test_features.py.

    python features_run.py SETTINGS

SETTINGS is a JSON object: ``directory`` of all processes, their ``count``, ``number`` of this one, and ``port``.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

SHARD_EXAMPLES = 32


def main(directory: str, port: int, count: int, number: int) -> dict:
    """The features twice, the second time from the store; and with fewer bad files allowed than there are."""
    if count > 1:
        jax.distributed.initialize(f'localhost:{port}', count, number)
    from test_features import RESNET, config_of, lazy
    from tiny import make_dataset

    from experiments.features import extractor
    from experiments.features.store import Store

    extractor._SHARD_EXAMPLES = SHARD_EXAMPLES
    dataset, config, place = lazy(make_dataset('digits'), bad=[5, 93]), config_of(batch_size=16), Path(directory)
    done: list[int] = []
    for _ in range(2):
        extract = extractor.Extractor(config, Store(place / 'store'), place / 'work')
        extracted, _ = extract(RESNET, dataset, done.append)
    if number == 0:
        np.save(place / 'values.npy', extracted.values)
    result = {
        'devices': jax.device_count(),
        'expected_devices': count * jax.local_device_count(),
        'sha256': hashlib.sha256(extracted.values.tobytes()).hexdigest(),
        'unreadable': sorted(extracted.unreadable),
        'done': sum(done),
    }
    config.bad_files_limit = 1
    extract._store = Store(place / 'another')
    try:
        extract(RESNET, dataset, done.append)
    except ValueError as error:
        result['error'] = str(error)
    return result


if __name__ == '__main__':
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    print(json.dumps(main(**json.loads(sys.argv[1]))))
