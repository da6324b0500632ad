"""Steps of fine-tuning a network in torch, as often as a parent asks.

Started by ``client.Peer``: the first line of JSON has ``model``, ``batch``, ``size`` and ``classes``; each further line
is answered by the seconds of a step and the bytes by which the process has grown at most.
"""

import json
import sys
import time
from pathlib import Path

import timm
import torch

# Our name → timm's.
MODELS = {
    'resnet50': 'resnet50',
    'vit_small_patch16': 'vit_small_patch16_224',
    'convnext_tiny': 'convnext_tiny',
    'efficientnet_lite0': 'tf_efficientnet_lite0',
}


def _resident(which: str) -> int:
    """``VmRSS``: bytes of this process in memory now; ``VmHWM``: the most since the last ``_forget``."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


def _forget() -> None:
    """Let the largest resident size begin at the present one."""
    Path('/proc/self/clear_refs').write_text('5')


def main() -> None:
    """Answer line by line."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what packages print is no answer
    asked = json.loads(sys.stdin.readline())
    _forget()
    before = _resident('VmRSS')
    model = timm.create_model(MODELS[asked['model']], num_classes=asked['classes'])
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(asked['batch'], 3, asked['size'], asked['size'])
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(asked['classes'], (asked['batch'],))
    for _ in sys.stdin:
        begin = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        seconds = time.perf_counter() - begin
        print(json.dumps((seconds, _resident('VmHWM') - before)), file=answers, flush=True)


if __name__ == '__main__':
    main()
