"""Draw every corruption of a photograph at severities 1, 3 and 5, in one picture.

    python benchmarks/draw_corruptions.py chelsea.png docs/corruptions.png

The photograph is brought to 224 pixels first, as for ImageNet-C. ``chelsea.png`` (CC0) is part of scikit-image.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from experiments.data.corruptions import ALL, Corruption, seeds_of

SEVERITIES = (1, 3, 5)
SIDE, TILE, GAP, MARGIN, TITLE, COLUMNS = 224, 92, 2, 14, 20, 3
# Few colours keep the file small.
COLOURS = 96
CAPTION = """A photograph, and what each corruption makes of it
at severities 1, 3 and 5. The last four are not part of
the benchmark."""


def main(photograph: str, output: str) -> None:
    """Draw the picture."""
    pixels = np.asarray(ImageOps.fit(Image.open(photograph).convert('RGB'), (SIDE, SIDE), Image.Resampling.BICUBIC))
    seeds = seeds_of([Path(photograph).name])
    width, height = len(SEVERITIES) * (TILE + GAP) - GAP + MARGIN, TITLE + TILE + MARGIN // 2
    rows = -(-len(ALL) // COLUMNS)
    sheet = Image.new('RGB', (MARGIN + COLUMNS * width, MARGIN + TILE + MARGIN // 2 + rows * height), 'white')
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)

    def paste(shown: np.ndarray, left: int, top: int) -> None:
        sheet.paste(Image.fromarray(shown).resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))

    paste(pixels, MARGIN, MARGIN)
    draw.text((2 * MARGIN + TILE, MARGIN + 8), CAPTION, 'black', font, spacing=6)
    for number, name in enumerate(ALL):
        left, top = MARGIN + number % COLUMNS * width, MARGIN + TILE + MARGIN // 2 + number // COLUMNS * height
        draw.text((left, top + 2), name.replace('_', ' '), 'black', font)
        for place, severity in enumerate(SEVERITIES):
            corrupted = np.asarray(Corruption(name, severity)(pixels[None], seeds))[0]
            paste(corrupted, left + place * (TILE + GAP), top + TITLE)
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(output, optimize=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
