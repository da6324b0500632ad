# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a folder of images to a table
#
# The only thing to prepare is a folder with one folder per class. Here it is made of handwritten digits, as untidy as folders are: images of several sizes, grey and in colour, in several formats, and a file that is damaged.

# %%
# %matplotlib inline
import shutil
import sys
from pathlib import Path

import numpy as np
from IPython.display import Markdown
from PIL import Image
from sklearn.datasets import load_digits

directory = Path('../runs/notebooks/your_images')
shutil.rmtree(directory, ignore_errors=True)
folder, workdir = directory / 'digits', directory / 'run'
generator = np.random.default_rng(0)
digits = load_digits()
for number in range(800):
    image = Image.fromarray((digits.images[number] * 255 / 16).astype(np.uint8))
    side = int(generator.integers(24, 64))
    image = image.resize((side, side + int(generator.integers(0, 8))), Image.Resampling.BICUBIC)
    if number % 3 == 0:
        image = image.convert('RGB')
    file = folder / str(digits.target[number]) / f'{number:03}.{("png", "jpg")[number % 2]}'
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
(folder / '1' / 'damaged.jpg').write_bytes(b'\xff\xd8\xff\xe0 cut off')
print(
    f'{len(list(folder.rglob("*.*")))} files in the folders {", ".join(path.name for path in sorted(folder.iterdir()))}'
)

# %% [markdown]
# ## What is read
#
# Every command says first what it found, what it left out and why.

# %%
from experiments.data import account, loading

dataset = loading.load(f'folder:{folder}')
account.show(dataset)

# %% [markdown]
# ## Which frozen backbone suits them?
#
# One command: each backbone runs once over the images, nothing of it is trained, and nearest neighbours among its features name the test images. (`regimes=linear` fits a linear head, and `finetune` trains all of it.)

# %%
import subprocess

config = (
    f'../configs/ablations/cnn_vs_vit.py:dataset=folder:{folder},backbones=resnet_micro,vit_micro,pixels,regimes=knn'
)
command = [sys.executable, '-m', 'experiments.ablate', '--workdir', str(workdir), '--config', config]
print(' '.join(['python', *command[1:]]))
finished = subprocess.run([*command, '--config.fractions=(0.2, 1.0)'], check=True, capture_output=True)

# %%
from experiments.results import aggregates, tables

entries = aggregates.load(workdir)
name = aggregates.datasets(entries)[0]
Markdown(tables.markdown(tables.view(entries, name)))

# %% [markdown]
# With so few test images small differences are chance, and the intervals say so.
#
# The work directory also holds a page with everything to look at, `report.html`, which needs no server and no network.

# %%
print('\n'.join(sorted(path.name for path in workdir.iterdir())))
