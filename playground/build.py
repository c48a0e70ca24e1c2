"""Write the playground into a folder: page, exported generators with their directions, stills, onnxruntime-web.

    python playground/build.py FOLDER

`make playground` installs onnxruntime-web first. A generator is exported again only when its weights or this code changed.
"""
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dcgan.data import to_x
from dcgan.datasets.sources import load
from dcgan.doctor import apart
from dcgan.engine import onnx
from dcgan.evaluation.reports import trained
from dcgan.latent import direction, face_predictor, pool_of, slant, thickness
from dcgan.networks import Generator, latent
from dcgan.plots import save_grid, write_aside
from dcgan.weights import find_model, shipped

HERE = Path(__file__).resolve().parent
PAGE = "index.html", "playground.css", "main.js", "engine.js", "worker.js", "latent.js", "noise.js"
ORT = HERE / "node_modules/onnxruntime-web/dist"
ENGINE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SHEET = 24   # images of a still, and of the sheet whose variety the page measures
FRESH = 200  # vectors on which a direction is tried


class Way(NamedTuple):
    "A slider: a direction in latent space, and the words at its ends."
    label: str
    low: str
    high: str
    v: Tensor                         # (z_dim,)
    read: Callable[[Tensor], Tensor]  # images: the reading that should rise along v


def images(G: Generator, z: Tensor) -> Tensor:
    "Of latent vectors; where the generator takes classes, all of them in turn."
    classes = G.table.in_shape[0] - G.z_dim
    told = torch.eye(classes)[torch.arange(len(z)) % classes] if classes else z[:, :0]
    return torch.cat([G.layers(part) for part in torch.cat([z, told], 1).split(250)])


# What the sliders of a generator are: functions that take it and give its Ways.

def strokes(G: Generator) -> list[Way]:
    "Thickness and slant of digits, as lesson 15 finds them."
    z = latent(2000, G.z_dim, G.z_law, seed=3)
    x = images(G, z)
    words = ("Thickness", "thinner", "thicker", thickness), ("Slant", "to the left", "to the right", slant)
    return [Way(label, low, high, direction(z, read(x), k=100), read) for label, low, high, read in words]


def factors(G: Generator) -> list[Way]:
    "Factors of drawn faces, read by lesson 15's predictor."
    predictor = face_predictor()
    pool = pool_of(G, predictor, 300, seed=1)
    words = {"smile": ("Smile", "serious", "smiling"), "turn": ("Turn", "to the left", "to the right"), "hat": ("Hat", "without", "with"),
             "hair_length": ("Hair", "shorter", "longer"), "skin": ("Skin", "lighter", "darker"),
             "glasses": ("Glasses", "without", "with")}
    return [Way(*said, direction(pool.z, pool.readings[name], k=20), lambda x, name=name: predictor.read(x)[name])
            for name, said in words.items()]


def colours(G: Generator) -> list[Way]:
    "Brightness, and red against blue: means over the pixels."
    z = latent(2000, G.z_dim, G.z_law, seed=3)
    x = images(G, z)
    words = (("Brightness", "darker", "brighter", lambda x: x.mean((1, 2, 3))),
             ("Colour", "bluer", "redder", lambda x: x[:, 0].mean((1, 2)) - x[:, 2].mean((1, 2))))
    return [Way(label, low, high, direction(z, read(x), k=100), read) for label, low, high, read in words]


class Shown(NamedTuple):
    "A generator of the page."
    name: str              # as Generator.from_pretrained takes it
    title: str             # of its button
    about: str             # a sentence
    ways: Callable         # its sliders
    ways_about: str        # a sentence on where they are from


OF_STROKES = "Each leads from the 100 of 2,000 images with the least thickness or slant to the 100 with the most (lesson 15)."
SHOWN = [  # a generator more is a line more; those that do not ship with the package are left out
    Shown("digits", "Digits", "28×28 pixels, trained on 4,000 real digits.", strokes, OF_STROKES),
    Shown("faces", "Faces", "64×64 pixels, trained on 20,000 drawn faces.", factors,
          "Each leads from the 20 of 300 faces that show the least of it to the 20 that show the most (lesson 15). "
          "Other things change as well."),
    Shown("house_numbers", "House numbers", "32×32 pixels, trained on 20,000 drawn house numbers; z is uniform.", colours,
          "Each leads from the 100 darkest or bluest of 2,000 images to the 100 brightest or reddest (as in lesson 15)."),
    Shown("mnist28", "Digits, wider network", "28×28 pixels, the first reference system, on real digits.", strokes, OF_STROKES),
    Shown("digits-conditional", "Digits by class", "28×28 pixels, trained on 4,000 real digits and their classes.", strokes, OF_STROKES),
    Shown("mnist64", "Digits, 64×64", "64×64 pixels, the paper's table of layers at half its width.", strokes, OF_STROKES),
]


def signature(name: str) -> str:
    "Changes with the weights, with this file and with what exports."
    files = Path(find_model(name)) / "model.safetensors", Path(__file__), Path(onnx.__file__)
    return hashlib.sha256(b"".join(p.read_bytes() for p in files) + torch.__version__.encode()).hexdigest()


@torch.no_grad()
def described(shown: Shown, G: Generator) -> dict:
    "What the page knows of a generator beside its weights."
    recipe = trained(shown.name)[1]
    real = to_x(load(recipe.data, image_size=recipe.image_size, channels=recipe.channels, images=SHEET).images)
    z = latent(FRESH, G.z_dim, G.z_law, seed=4)
    ways = []
    for way in shown.ways(G):
        rose = int((way.read(images(G, z + way.v)) > way.read(images(G, z - way.v))).sum())
        numbers = [float(f"{value:.7g}") for value in way.v.tolist()]
        ways.append({"label": way.label, "low": way.low, "high": way.high, "v": numbers, "rose": rose, "of": FRESH})
    return {"name": shown.name, "title": shown.title, "about": shown.about, "z_dim": G.z_dim, "z_law": G.z_law,
            "classes": G.table.in_shape[0] - G.z_dim,
            "shape": list(G.table.out_shape), "apart": apart(real), "directions": ways, "directions_about": shown.ways_about}


def write_generator(shown: Shown, folder: Path) -> dict:
    "Export one generator, unless that was done before; its entry in the page's list."
    note = folder / f"{shown.name}.json"
    before = json.loads(note.read_text()) if note.exists() else {}
    if before.get("signature") == signature(shown.name) and (folder / f"{shown.name}.onnx").exists():
        return before
    print(f"exporting {shown.name}", flush=True)
    G = Generator.from_pretrained(shown.name)
    path = onnx.write_onnx(G, folder / f"{shown.name}.onnx")
    save_grid(G.sample(SHEET), folder / f"{shown.name}.png", columns=8)
    entry = described(shown, G) | {"bytes": path.stat().st_size, "signature": signature(shown.name)}
    with write_aside(note) as aside:
        aside.write_text(json.dumps(entry))
    return entry


def main(folder: Path) -> None:
    "Everything that the page needs."
    missing = [name for name in ENGINE if not (ORT / name).exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} of onnxruntime-web is not in playground/node_modules: type make playground.")
    torch.set_num_threads(1)
    (folder / "generators").mkdir(parents=True, exist_ok=True)
    (folder / "ort").mkdir(exist_ok=True)
    for name in PAGE:
        shutil.copy(HERE / name, folder)
    for name in ENGINE:
        shutil.copy(ORT / name, folder / "ort")
    entries = [write_generator(shown, folder / "generators") for shown in SHOWN if shown.name in shipped()]
    (folder / "generators/generators.json").write_text(json.dumps([{k: v for k, v in e.items() if k != "signature"} for e in entries]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
