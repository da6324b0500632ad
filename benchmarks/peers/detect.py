"""Detections of one of torchvision's detectors on the same images, as often as a parent asks.

Started by ``client.Peer``: the first line of JSON has ``model`` and ``directory``, where ``images.npy`` lies and the
weights are written to; each further line is answered by the seconds of a call and the number of boxes.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision


def main() -> None:
    """Answer line by line."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what packages print is no answer
    asked = json.loads(sys.stdin.readline())
    directory = Path(asked['directory'])
    torch.manual_seed(0)
    model = getattr(torchvision.models.detection, asked['model'])(weights=None, weights_backbone=None).eval()
    for name, values in model.named_parameters():
        # Else every score is 0.01, as training wants it in the beginning, or all classes score alike.
        if 'cls_logits' in name or 'cls_score' in name or 'objectness' in name:
            with torch.no_grad():
                values.normal_(0, 1 if values.ndim == 1 else 0.1)
    torch.save(model.state_dict(), directory / f'{asked["model"]}.pth')
    arrays = np.load(directory / 'images.npy')
    images = [torch.from_numpy(each).permute(2, 0, 1).float() / 255 for each in arrays]
    with torch.inference_mode():
        for _ in sys.stdin:
            begin = time.perf_counter()
            found = model(images)
            seconds = time.perf_counter() - begin
            print(json.dumps((seconds, sum(len(each['scores']) for each in found))), file=answers, flush=True)


if __name__ == '__main__':
    main()
