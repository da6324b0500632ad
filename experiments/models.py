"""List, filter and describe the backbones: python -m experiments.models [NAME …]

    python -m experiments.models                                   all of them
    python -m experiments.models --family vit --max_params 30e6    those within limits
    python -m experiments.models 'resnet*' --sort gflops
    python -m experiments.models resnet50                          everything about one
    python -m experiments.models --published                       detectors and segmenters whose weights are read

Beside each source of weights is its licence, as its publisher states it; in the list it is that of the first one.
Parameters exclude the classifier. GFLOPs are for one input, an image whose sides or a text whose length are given, and
count a multiply-add as two; many papers count it as one.
"""

from experiments.cli import command_line

SORTS = ('name', 'params', 'gflops')


def main(argv: list[str] | None) -> None:
    """Print a table, or a description of each backbone if all names are given in full."""
    parser = command_line.parser(__doc__, config=False, workdir=False)
    parser.add_argument('names', nargs='*', metavar='NAME', help='a name, or a pattern with * and ?')
    parser.add_argument('--family', choices=('cnn', 'vit', 'text'))
    parser.add_argument('--max_params', type=float, metavar='COUNT', help='largest number of parameters, such as 5e6')
    parser.add_argument('--max_gflops', type=float, metavar='GFLOPS', help='largest number of GFLOPs')
    parser.add_argument('--sort', choices=SORTS, default='name')
    parser.add_argument('--published', action='store_true', help='list published detectors and segmenters')
    options = parser.parse_args(argv)
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import models

    models.run(options)


if __name__ == '__main__':
    command_line.run(main)
