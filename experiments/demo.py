"""See a detector and a segmenter at work: images that neither was trained on, with the truth beside what they see.

    python -m experiments.demo

Their weights come with this repository (backbones/pretrained/weights/README.md). Nothing is trained or downloaded. The
images are generated, and others appear with another --seed.
"""

from pathlib import Path

from backbones.errors import UserError
from experiments.cli import command_line

# The data set that the models were trained on has seed 0.
SEED = 1
IMAGES = 6


def main(argv: list[str] | None) -> None:
    """Predict and draw."""
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    arguments.add_argument('--images', type=command_line.positive, default=IMAGES, metavar='N', help=f'{IMAGES}')
    arguments.add_argument(
        '--seed', type=int, default=SEED, help=f'of the images ({SEED}); 0 is that of the images of the training'
    )
    arguments.add_argument(
        '--save',
        type=command_line.path,
        default=Path('runs/demo.png'),
        metavar='FILE',
        help='the picture (runs/demo.png)',
    )
    options = arguments.parse_args(argv)
    if not 0 <= options.seed < 2**32:
        raise UserError(f'--seed must be from 0 to {2**32 - 1}, not {options.seed}')
    if options.save.suffix != '.png':
        raise UserError(f'--save {options.save} must end in .png')
    # Imports JAX, which neither help nor a wrong option waits for.
    from experiments.commands import demo

    demo.run(options)


if __name__ == '__main__':
    command_line.run(main)
