"""What a discriminator's features are worth, and what dropping filters does: the measurements of lesson 16.

    python bench/features.py ship RUN NAME          keep the discriminator of a run in the package, in half precision
    python bench/features.py measure [DATA …]       the accuracies that are missing; a row as each is done
    python bench/features.py drop [OBJECT …]        the dropping of filters: five times 150 generated faces to fit, 200 to try
    python bench/features.py table                  what has been measured

Everything lies in dcgan/assets/features*: `measure` writes features.csv, `drop` features-drop.csv. Both go on where they were
stopped. `measure` takes the shipped discriminators; with --kinds and --labels several processes can share the work.
"""
import argparse
import csv
import itertools
import shutil
import statistics
import tempfile
from datetime import date
from pathlib import Path

import torch
from filelock import FileLock

from dcgan.checkpoints import find_checkpoint
from dcgan.data import to_x
from dcgan.datasets.drawn import face_factors, faces_from
from dcgan.datasets.sources import load
from dcgan.features import (
    changed_cells,
    draw_labelled,
    features,
    filter_weights,
    images_from,
    linear_svm,
    maps_at,
    object_places,
    refreshed,
    supervised,
    trained_d,
    untrained,
)
from dcgan.latent import Predictor, face_predictor
from dcgan.networks import ASSETS, Discriminator, Generator, generator_for, latent
from dcgan.plots import write_aside
from dcgan.recipes import from_json
from dcgan.values import machine

FOLDER, ROWS, DROPPED = ASSETS / "features", ASSETS / "features.csv", ASSETS / "features-drop.csv"
COLUMNS = "data", "features", "labels", "draw", "accuracy", "numbers", "date", "machine", "torch"
HELD_OUT = 10_000_000  # where the faces begin that no network saw
DRAWS = 5
SIZES = {"digits": (10, 50, 200, 1000)}  # labels
KINDS = "D", "untrained", "pixels", "PCA", "supervised"


# Discriminators

def discriminator(run: Path) -> Discriminator:
    "D of a run's newest checkpoint."
    D = from_json((run / "recipe.json").read_bytes()).networks()[1]
    D.load_state_dict(find_checkpoint(run)[0]["D"])
    return D.eval()


def ship(run: Path, name: str) -> Path:
    "Weights in half precision, recipe and report."
    folder = FOLDER / name
    discriminator(run).half().save_pretrained(folder)
    (folder / "README.md").unlink()
    for file in "recipe.json", "report.json":
        shutil.copy(run / file, folder / file)
    return folder


# Accuracies

def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def write(path: Path, rows: list[dict]) -> None:
    with write_aside(path) as aside, open(aside, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add(path: Path, rows: list[dict]) -> None:
    "Several processes may add at once."
    with FileLock(Path(tempfile.gettempdir()) / f"{path.name}.lock"):
        write(path, [*read(path), *rows])


def images_of(data: str) -> list:
    "Training images and labels, then the same of the test."
    banks = [load(data, split=split) for split in ("train", "test")]
    return [part for bank in banks for part in (bank.images, bank.labels)]


def spaces(data: str, D: Discriminator, x: torch.Tensor, t: torch.Tensor, wanted: set) -> dict:
    "For each kind of features, those of the training images x and of the test images t. None of them has seen a label."
    found = {"pixels": (x.flatten(1) / x.std(), t.flatten(1) / x.std())} if "pixels" in wanted else {}
    if "PCA" in wanted:
        from sklearn.decomposition import PCA
        pca = PCA(100, svd_solver="randomized", random_state=0).fit(x.flatten(1).numpy())
        found["PCA"] = tuple(torch.from_numpy(pca.transform(part.flatten(1).numpy())) / x.std() for part in (x, t))
    for kind, net in ("D", D), ("untrained", untrained(D)):
        if kind in wanted:
            net = refreshed(net, x)
            found[kind] = features(net, x), features(net, t)
    return found


def measure(data: str, kinds: list, sizes: list | None = None) -> None:
    "The rows of a data set that are missing, of these kinds of features and numbers of labels."
    D = trained_d(data)
    have = {(r["data"], r["features"], int(r["labels"]), int(r["draw"])) for r in read(ROWS)}
    jobs = [(kind, n, draw) for n in SIZES[data] for kind in kinds for draw in range(DRAWS)
            if (data, kind, n, draw) not in have and (not sizes or n in sizes)]
    if not jobs:
        return
    images, labels, test, truth = images_of(data)
    x, t = to_x(images), to_x(test)
    known = spaces(data, D, x, t, {kind for kind, *_ in jobs})
    for kind, n, draw in jobs:
        chosen = draw_labelled(labels, n, draw)
        if kind == "supervised":
            net = supervised(D, x[chosen], labels[chosen], draw)
            with torch.no_grad():
                right = (torch.cat([net(part) for part in t.split(500)]).argmax(1) == truth).float().mean().item()
            numbers = 0
        else:
            f, g = known[kind]
            svm = linear_svm(f[chosen], labels[chosen], draw, scale=kind in ("D", "untrained"))
            right, numbers = svm.score(g.numpy(), truth.numpy()), f.shape[1]
        row = dict(
            zip(
                COLUMNS,
                (data, kind, n, draw, f"{right:.4f}", numbers, date.today(), machine(), torch.__version__),
            )
        )
        add(ROWS, [row])
        print(f"{data}, {n} labels, {kind}, draw {draw}: {right:.1%}", flush=True)


# Dropping filters

OBJECTS, LAYERS, SHARES = ("hat", "glasses"), (3, 2), (.05, .1, .2, .5)  # layer 3: the second-highest hidden one of G


def shown(predictor: Predictor, x: torch.Tensor) -> dict:
    "For each factor, whether the predictor sees it in each image."
    return {name: reading > 0 for name, reading in predictor.read(x).items()}


@torch.no_grad()
def dropping(thing: str, layer: int, draw: int, cells: torch.Tensor, G: Generator, predictor: Predictor) -> list[dict]:
    "A regression on 150 faces, tried on 200 others; and as many random filters dropped."
    fit, tried = (
        maps_at(G, latent(n, G.z_dim, G.z_law, seed=2 * draw + part), layer)
        for part, n in enumerate((150, 200))
    )
    weights = filter_weights(fit, object_places(shown(predictor, images_from(G, fit, layer))[thing], cells))
    ranked, n = weights.argsort(descending=True).tolist(), len(weights)
    mixed = torch.randperm(n, generator=generator_for(draw, 8)).tolist()
    counts = {share: round(share * n) for share in SHARES} | {"positive": int((weights > 0).sum())}
    before = shown(predictor, images_from(G, tried, layer))
    had, rows = before[thing], []
    for share, count in counts.items():
        for kind, order in ("weights", ranked), ("random", mixed):
            after = shown(predictor, images_from(G, tried, layer, order[:count]))
            same = torch.stack([after[name][had] == before[name][had] for name in before if name != thing])
            rows.append({
                "object": thing, "layer": layer, "filters": kind, "share": share, "dropped": count, "draw": draw,
                "faces": int(had.sum()), "gone": f"{1 - after[thing][had].float().mean().item():.4f}",
                "others_same": f"{same.float().mean().item():.4f}", "date": date.today(), "machine": machine(),
                "torch": torch.__version__,
            })
    return rows


def drop(things: tuple = OBJECTS) -> None:
    "Five draws of each object at each layer."
    G, predictor, factors = Generator.from_pretrained("faces"), face_predictor(), face_factors(100, start=HELD_OUT)
    for thing, layer, draw in itertools.product(things, LAYERS, range(DRAWS)):
        if any((r["object"], int(r["layer"]), int(r["draw"])) == (thing, layer, draw) for r in read(DROPPED)):
            continue
        pair = (faces_from({**factors, thing: [value] * 100}) for value in (1, 0))
        cells = changed_cells(*pair, G.table[layer - 1].out_shape[1])
        add(DROPPED, dropping(thing, layer, draw, cells, G, predictor))
        print(f"{thing}, layer {layer}, draw {draw} done", flush=True)


def table() -> None:
    "Mean, least and most of the draws."
    found = {}
    for r in read(ROWS):
        found.setdefault((r["data"], int(r["labels"]), r["features"]), []).append(float(r["accuracy"]))
    for (data, n, kind), v in found.items():
        print(f"{data:14} {n:>5} {kind:12} {statistics.mean(v):.1%}  {min(v):.1%} to {max(v):.1%}  ({len(v)})")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("job", choices=("ship", "measure", "drop", "table"))
    flags.add_argument("words", nargs="*")
    flags.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="these features alone")
    flags.add_argument("--labels", nargs="+", type=int, help="these numbers of labels alone")
    a = flags.parse_args()
    torch.set_num_threads(1)
    if a.job == "ship":
        if len(a.words) != 2:
            flags.error("ship needs RUN and NAME")
        print(ship(Path(a.words[0]), a.words[1]))
    elif a.job == "measure":
        if unknown := set(a.words) - set(SIZES):
            flags.error(f"there is no setting {unknown.pop()}; there are: {', '.join(SIZES)}")
        for data in a.words or SIZES:
            measure(data, a.kinds, a.labels)
    elif a.job == "drop":
        if unknown := set(a.words) - set(OBJECTS):
            flags.error(f"there is no object {unknown.pop()}; there are: {', '.join(OBJECTS)}")
        drop(tuple(a.words) or OBJECTS)
    elif a.job == "table":
        table()


if __name__ == "__main__":
    main()
