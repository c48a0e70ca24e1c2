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


def row_of(sheet: np.ndarray,  # a picture of a run: eight images in a row, 2 pixels between them
           classes: int,       # of the generator; 0: none
          ) -> np.ndarray:
    "Its first row; of a generator with classes, the first image of each, side by side."
    pitch = (sheet.shape[1] - 2) // 8
    firsts = [sheet[i * pitch:(i + 1) * pitch, :pitch] for i in range(classes)]
    return np.concatenate(firsts, 1) if classes else sheet[:pitch]


def film(run: Path,        # a finished run, with pictures
         path: Path,       # the PNG to write
         classes: int = 0, # of the generator
         frames: int = 6,
        ) -> None:
    "Some of the fixed z through training, a row for each of some steps, more of them early."
    pictures = sorted((run / "samples").glob("*.png"))
    at = np.unique(np.geomspace(1, len(pictures), frames).round().astype(int) - 1)
    rows = [row_of(np.asarray(Image.open(pictures[i])), classes) for i in at]
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
    film(run, folder / "film.png", G.classes)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(ship(Path(sys.argv[1]), sys.argv[2]))
