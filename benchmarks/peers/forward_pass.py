"""Forward passes of the same networks in torch, torch.compile and ONNX Runtime, one at a time, as a parent asks.

Started by ``client.ForwardPasses`` with the Python of the peers' environment. Reads lines of JSON: first what to
prepare (``model``, ``batch``, ``size``), answered by the kinds that could be prepared; then a kind for each pass,
answered by its seconds.
"""

import io
import json
import sys
import time
import warnings

import numpy as np
import onnxruntime
import torch

KINDS = ('torch', 'torch.compile', 'onnxruntime')
# Our name → the package that has the network, and its name there.
MODELS = {
    'resnet50': ('timm', 'resnet50'),
    'vgg16': ('torchvision', 'vgg16'),
    'googlenet': ('torchvision', 'googlenet'),
    'efficientnet_lite0': ('timm', 'tf_efficientnet_lite0'),
    'efficientnet_b0': ('timm', 'efficientnet_b0'),
    'mobilenet_v3_large': ('torchvision', 'mobilenet_v3_large'),
    'convnext_tiny': ('timm', 'convnext_tiny'),
    'cspdarknet53': ('timm', 'cspdarknet53'),
    'vit_tiny_patch16': ('timm', 'vit_tiny_patch16_224'),
    'vit_small_patch16': ('timm', 'vit_small_patch16_224'),
    'vit_base_patch16': ('timm', 'vit_base_patch16_224'),
    'dinov2_small': ('timm', 'vit_small_patch14_dinov2'),
    'swin_tiny': ('timm', 'swin_tiny_patch4_window7_224'),
    'yolo26n': ('ultralytics', 'yolo26n.yaml'),
}


class Backbone(torch.nn.Module):
    """The layers of a YOLO before its neck."""

    def __init__(self, layers: torch.nn.Sequential):
        super().__init__()
        self.layers = layers

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The last map, averaged."""
        return self.layers(images).mean((2, 3))


def model_of(name: str, size: int) -> torch.nn.Module:
    """The network without a classifier, with random weights."""
    package, theirs = MODELS[name]
    if package == 'timm':
        import timm

        options = {'img_size': size} if 'dinov2' in theirs else {}
        return timm.create_model(theirs, num_classes=0, **options).eval()
    if package == 'ultralytics':
        from ultralytics import YOLO

        network = YOLO(theirs).model.fuse()
        return Backbone(network.model[: len(network.yaml['backbone'])]).eval()
    import torchvision

    options = {'init_weights': False, 'aux_logits': False} if theirs == 'googlenet' else {}
    model = getattr(torchvision.models, theirs)(**options)
    last = 'fc' if theirs == 'googlenet' else 'classifier'
    if theirs == 'googlenet':
        model.fc = torch.nn.Identity()
    else:  # as far as the features that our registry pools
        setattr(model, last, getattr(model, last)[:-1])
    return model.eval()


def prepare(model: str, batch: int, size: int) -> dict:
    """A function without arguments for each kind that could be prepared."""
    network = model_of(model, size)
    images = torch.randn(batch, 3, size, size)
    last = network.to(memory_format=torch.channels_last)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    passes = {'torch': lambda: last(channels_last)}
    compiled = torch.compile(last)
    passes['torch.compile'] = lambda: compiled(channels_last)
    file = io.BytesIO()
    torch.onnx.export(network, (images,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=['CPUExecutionProvider'])
    taken, array = session.get_inputs()[0].name, images.numpy()
    passes['onnxruntime'] = lambda: session.run(None, {taken: array})
    ready = {}
    for kind, run in passes.items():
        try:
            run()
        except Exception as error:  # a compiler that is missing is said, and the others are measured
            print(f'{model} in {kind}: {error}', file=sys.stderr)
        else:
            ready[kind] = run
    return ready


def main() -> None:
    """Answer line by line."""
    warnings.simplefilter('ignore')
    answers = sys.stdout
    sys.stdout = sys.stderr  # what packages print is no answer
    np.random.default_rng(0)
    passes: dict = {}
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            if 'model' in asked:
                passes = prepare(**asked)
                answer: object = list(passes)
            else:
                begin = time.perf_counter()
                passes[asked['kind']]()
                answer = time.perf_counter() - begin
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main()
