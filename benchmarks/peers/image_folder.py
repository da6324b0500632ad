"""One pass over a folder of images with torchvision's ImageFolder and torch's DataLoader, as often as a parent asks.

Started by ``client.Peer``: the first line of JSON has ``folder``, ``size``, ``batch`` and ``workers``; each further
line is answered by the seconds of a pass.
"""

import json
import sys
import time

import torch
import torchvision.transforms as transforms
from torchvision.datasets import ImageFolder


def main() -> None:
    """Answer line by line."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what packages print is no answer
    asked = json.loads(sys.stdin.readline())
    transform = transforms.Compose([
        transforms.Resize(asked['size'], transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(asked['size']),
        transforms.PILToTensor(),
    ])  # fmt: skip
    folder = ImageFolder(asked['folder'], transform)
    loader = torch.utils.data.DataLoader(
        folder, asked['batch'], num_workers=asked['workers'], prefetch_factor=4, persistent_workers=True
    )
    for _ in sys.stdin:
        begin = time.perf_counter()
        seen = sum(len(images) for images, _ in loader)
        assert seen == len(folder)
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


if __name__ == '__main__':
    main()
