"""What a discriminator's features are worth, and what dropping filters does: the measurements of lesson 16.

    python bench/features.py ship RUN NAME          keep the discriminator of a run in the package, in half precision
    python bench/features.py measure [DATA …]       the accuracies that are missing; a row as each is done
                                                    (photographs: --folder PATH; svhn, cifar10: --run RUN)
    python bench/features.py drop [OBJECT …]        the dropping of filters: five times 150 generated faces to fit, 200 to try
    python bench/features.py table                  what has been measured

Everything lies in dcgan/assets/features*: `measure` writes features.csv, `drop` features-drop.csv. Both go on where they were
stopped. `measure` takes the shipped discriminators, or D of the run after --run, which may be one on other images of the same size. The
photographs are in a folder with sub-folders train and test, and in each a folder for each class. With --kinds and --labels several
processes can share the work.
"""
import argparse
import functools
import itertools
import shutil
import statistics
from datetime import date
from pathlib import Path

import torch
from measuring import add, read

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
from dcgan.networks import Discriminator, Generator, generator_for, latent
from dcgan.recipes import from_json
from dcgan.values import machine
from dcgan.weights import ASSETS

FOLDER, ROWS, DROPPED = ASSETS / "features", ASSETS / "features.csv", ASSETS / "features-drop.csv"
COLUMNS = "data", "features", "labels", "draw", "accuracy", "numbers", "date", "machine", "torch"
HELD_OUT = 10_000_000  # where the faces begin that no network saw
DRAWS, TOLERANCE = 5, 1e-2  # the SVM's; liblinear's own, larger than scikit-learn's, as thousands of features take long
SIZES = {"digits": (10, 50, 200, 1000, 4000), "house_numbers": (1000,), "photographs": (1000,),
         "svhn": (1000,), "cifar10": (1000, 4000)}  # labels
OTHER = {"photographs": "house_numbers"}  # whose D is tried on images of another kind, as in the paper
KINDS = "D", "untrained", "pixels", "PCA", "supervised", "other D"


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
    (folder / "README.md").unlink(missing_ok=True)
    for file in "recipe.json", "report.json":
        shutil.copy(run / file, folder / file)
    return folder


# Accuracies

def images_of(data: str, folder: str | None) -> list:
    "Training images and labels, then the same of the test; of these, some 2,000 are used."
    name, size = (f"folder:{folder}", 32) if data == "photographs" else (data, None)
    banks = [load(name, split=split, image_size=size) for split in ("train", "test")]
    return [part for bank in banks for part in (bank.images, bank.labels)]


def supervised_steps(n: int) -> int:
    "For n labels: as often through each of 4,000 as through each of 1,000."
    return max(300, 300 * n // 1000)


def draws(data: str, n: int) -> int:
    "How many; one where all labels there are take part."
    return 1 if (data, n) == ("digits", 4000) else DRAWS


def spaces(networks: dict, x: torch.Tensor, wanted: set) -> dict:
    "For each kind of features, how an image gets them; made with the training images x, and without a label."
    found, scale = {}, x.std()
    if "pixels" in wanted:
        found["pixels"] = lambda part: part.flatten(1) / scale
    if "PCA" in wanted:
        from sklearn.decomposition import PCA
        pca = PCA(100, svd_solver="randomized", random_state=0).fit(some(x, 4000).flatten(1).numpy())
        found["PCA"] = lambda part: torch.from_numpy(pca.transform(part.flatten(1).numpy())) / scale
    for kind in networks.keys() & wanted:
        found[kind] = functools.partial(features, refreshed(networks[kind], some(x, 10_000)))
    return found


def in_span(f: torch.Tensor, g: torch.Tensor, scale: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of labelled images and of test images, centred, perhaps scaled, and, where there are fewer images than features, in
    an orthonormal basis of what the labelled ones span. A linear SVM comes out the same there, several times faster."""
    mean, std = f.mean(0), f.std(0).clamp(min=1e-6) if scale else 1
    f, g = (f - mean) / std, (g - mean) / std
    if len(f) >= f.shape[1]:
        return f, g
    basis = torch.linalg.qr(f.T).Q
    return f @ basis, g @ basis


def some(x: torch.Tensor, n: int) -> torch.Tensor:
    "All images, or n of them, mixed."
    return x if len(x) <= n else x[torch.randperm(len(x), generator=generator_for(0, 5))[:n]]


def measure(data: str, kinds: list, sizes: list | None, folder: str | None, run: Path | None) -> None:
    "The rows of a data set that are missing, of these kinds of features and numbers of labels."
    D = discriminator(run) if run else trained_d(data)
    networks = {"D": D, "untrained": untrained(D)}
    if data in OTHER and "other D" in kinds:
        networks["other D"] = trained_d(OTHER[data])
    have = {(r["data"], r["features"], int(r["labels"]), int(r["draw"])) for r in read(ROWS)}
    jobs = [(kind, n, draw) for n in SIZES[data] for kind in kinds for draw in range(draws(data, n))
            if (data, kind, n, draw) not in have and (not sizes or n in sizes) and (kind != "other D" or kind in networks)]
    if not jobs:
        return
    images, labels, test, truth = images_of(data, folder)
    x, every = to_x(images), len(test) // 2000 or 1
    t, truth = to_x(test[::every]), truth[::every]
    known, C = spaces(networks, x, {kind for kind, *_ in jobs}), {}
    tested = {kind: make(t) for kind, make in known.items()}
    for kind, n, draw in jobs:
        chosen = draw_labelled(labels, n, draw)
        if kind == "supervised":
            net = supervised(D, x[chosen], labels[chosen], draw, supervised_steps(n))
            with torch.no_grad():
                right = (torch.cat([net(part) for part in t.split(500)]).argmax(1) == truth).float().mean().item()
            numbers = 0
        else:
            f, g = in_span(known[kind](x[chosen]), tested[kind], scale=kind in networks)
            svm = linear_svm(f, labels[chosen], draw, False, C.get((kind, n)), TOLERANCE)
            if data != "digits":  # large features: C is chosen on the first draw's labels and stays
                C.setdefault((kind, n), svm.best_params_["linearsvc__C"] if hasattr(svm, "best_params_") else None)
            right, numbers = svm.score(g.numpy(), truth.numpy()), tested[kind].shape[1]
        row = dict(
            zip(
                COLUMNS,
                (data, kind, n, draw, f"{right:.4f}", numbers, date.today(), machine(), torch.__version__),
            )
        )
        add(ROWS, row)
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
        add(DROPPED, *dropping(thing, layer, draw, cells, G, predictor))
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
    flags.add_argument("--folder", help="the photographs, in train/CLASS and test/CLASS")
    flags.add_argument("--run", type=Path, help="measure D of this run instead of the shipped one")
    a = flags.parse_args()
    torch.set_num_threads(1)
    if a.job == "ship":
        if len(a.words) != 2:
            flags.error("ship needs RUN and NAME")
        print(ship(Path(a.words[0]), a.words[1]))
    elif a.job == "measure":
        if unknown := set(a.words) - set(SIZES):
            flags.error(f"there is no setting {unknown.pop()}; there are: {', '.join(SIZES)}")
        for data in a.words or ["digits", "house_numbers"]:
            if data == "photographs" and not a.folder:
                flags.error("photographs are in a folder of yours: give --folder PATH, with train/CLASS and test/CLASS in it")
            if data in ("svhn", "cifar10") and not a.run:
                flags.error(f"no discriminator ships for {data}: train one (dcgan train svhn32 --data {data}) and give --run")
            measure(data, a.kinds, a.labels, a.folder, a.run)
    elif a.job == "drop":
        if unknown := set(a.words) - set(OBJECTS):
            flags.error(f"there is no object {unknown.pop()}; there are: {', '.join(OBJECTS)}")
        drop(tuple(a.words) or OBJECTS)
    elif a.job == "table":
        table()


if __name__ == "__main__":
    main()
