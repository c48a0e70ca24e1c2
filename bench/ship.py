"""Keep a finished run in the package: weights in half precision, and what lesson 14 shows of how they came about.

    python bench/ship.py RUN NAME    writes dcgan/assets/NAME; Generator.from_pretrained("NAME") then finds it
"""
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dcgan.checkpoints import save_generator
from dcgan.networks import Generator
from dcgan.plots import write_aside
from dcgan.weights import ASSETS

LIMIT = 8_000_000  # bytes of weights


def film(run: Path,      # a finished run, with pictures
         path: Path,     # the PNG to write
         frames: int = 6,
        ) -> None:
    "Eight of the fixed z through training, a row for each of some steps, more of them early."
    pictures = sorted((run / "samples").glob("*.png"))
    at = np.unique(np.geomspace(1, len(pictures), frames).round().astype(int) - 1)
    sheets = [np.asarray(Image.open(pictures[i])) for i in at]
    height = (sheets[0].shape[0] - 2) // 8
    rows = [sheet[:height] for sheet in sheets]  # the sheet's first row of images
    with write_aside(path) as aside:
        Image.fromarray(np.concatenate(rows)).save(aside, format="PNG", optimize=True)
    path.with_suffix(".txt").write_text("\n".join(str(int(pictures[i].stem.split("-")[1])) for i in at) + "\n")


def ship(run: Path, name: str) -> Path:
    "The folder in the package. ValueError if the weights would be larger than LIMIT."
    folder, G = ASSETS / name, Generator.from_pretrained(run).half()
    if (size := 2 * sum(t.numel() for t in G.state_dict().values())) > LIMIT:
        raise ValueError(f"{run} has weights of {size:,} bytes in half precision; at most {LIMIT:,} are shipped.")
    folder.mkdir(exist_ok=True)
    save_generator(G, folder)
    (folder / "README.md").unlink()  # the hub's card
    for file in "recipe.json", "history.csv", "report.json":
        shutil.copy(run / file, folder / file)
    if not G.classes:  # else the sheet's first row is one class
        film(run, folder / "film.png")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(ship(Path(sys.argv[1]), sys.argv[2]))
