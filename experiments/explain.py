"""Look into backbones: what each attends to in images, CNN and ViT side by side.

    python -m experiments.explain --workdir runs/x IMAGE …                       a run of experiments.train
    python -m experiments.explain --workdir runs/cnn --workdir runs/vit IMAGE …  two runs in one picture
    python -m experiments.explain --model NAME --output DIR IMAGE …              published weights

An IMAGE is a file, a directory, or a pattern in quotes such as 'photos/**/*.jpg'. Every model has the method of its
family, which the picture names: attention rollout where all tokens attend to each other (ViT, DeiT, DINOv2, DINOv3,
CLIP, SigLIP), else Grad-CAM; --method pca colours the features of a stage, of every backbone alike. Of an ablation, its
pretrained backbones are shown without heads; of segmenters and detectors, the features of their backbones.

Of a model that reads texts, each argument is a text, or a file .txt with a text on every line: its tokens are coloured
by what the decision loses without each (occlusion), here and in texts.html.

Writes a picture of each image, sheet.png with all of them, and explanation.json with the numbers; in a work directory
also what its report embeds.
"""

import argparse
import sys

from backbones.errors import UserError, unknown
from backbones.explanation.labels import LABELS
from experiments.cli import command_line
from experiments.data import loading
from experiments.explanation.naming import Named
from experiments.prediction import model_options

_METHODS = ', '.join(f'{name} ({label})' for name, label in LABELS.items())


def main(argv: list[str] | None) -> None:
    """Explain images."""
    options = _parser().parse_args(argv)
    _check(options)
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import explain

    explain.run(options, sys.argv[1:] if argv is None else argv)


class _Model(argparse.Action):
    """``--workdir``, ``--model`` and ``--weights``, in the order in which they are given."""

    def __call__(self, parser, namespace, values, option_string=None):
        named: list[Named] = list(namespace.named or [])
        if self.dest == 'workdir':
            named.append(Named(workdir=values))
        elif self.dest == 'model':
            named.append(Named(model=values))
        elif not named or not named[-1].model or named[-1].weights:
            parser.error(f'--weights {values} must follow the --model that they are of')
        else:
            named[-1] = Named(model=named[-1].model, weights=values)
        namespace.named = named


def _parser() -> argparse.ArgumentParser:
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    arguments.set_defaults(named=[])
    arguments.add_argument('images', nargs='+', metavar='IMAGE', help='files, directories, patterns; or texts')
    model = arguments.add_argument_group('the models, each a column (repeatable)')
    model.add_argument(
        '--workdir', action=_Model, type=command_line.path, help='a run of experiments.train, or an ablation'
    )
    model.add_argument('--model', action=_Model, metavar='NAME', help='a backbone, or a published model')
    model.add_argument('--weights', action=_Model, metavar='SOURCE', help='of the --model before it (the usual ones)')
    model.add_argument(
        '--image_size', type=model_options.image_size, metavar='PIXELS',
        help='side of the input, or HEIGHTxWIDTH (as trained)',
    )  # fmt: skip
    how = arguments.add_argument_group('the explanation')
    how.add_argument('--method', metavar='METHOD', help=f"{_METHODS}; by default each family's own")
    how.add_argument('--stage', metavar='STAGE', help='such as stage3 (the deepest that the method can be of)')
    how.add_argument('--class', dest='target', metavar='CLASS', help='what Grad-CAM is of (the predicted class)')
    how.add_argument(
        '--nearest',
        type=command_line.positive,
        metavar='COUNT',
        help='also show so many of the nearest training images',
    )
    how.add_argument('--dataset', metavar='NAME', help="whose training images those are (default: the run's own)")
    command_line.add_data_directory(how)
    command_line.add_cache_directory(how, 'feature store, for those of training images')
    result = arguments.add_argument_group('results')
    result.add_argument('--limit', type=command_line.positive, metavar='IMAGES', help='at most so many images')
    result.add_argument(
        '--output', type=command_line.path, metavar='DIR',
        help='directory for the pictures (default: explanations/ of the first work directory)',
    )  # fmt: skip
    return arguments


def _check(options: argparse.Namespace) -> None:
    if not options.named:
        raise UserError('name the models: --workdir DIR for a run, --model NAME for published weights, or several')
    if options.method is not None and options.method not in LABELS:
        raise unknown('method', options.method, LABELS)
    if options.dataset is not None:
        if not options.nearest:
            raise UserError('--dataset says where the nearest training images are from: say how many with --nearest')
        loading.check_name(options.dataset)


if __name__ == '__main__':
    command_line.run(main)
