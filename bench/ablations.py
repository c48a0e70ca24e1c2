"""What each guideline is worth: the default recipe with one of them undone at a time, 120,000 images each, digit-FID.

    python bench/ablations.py train [--workers 2] [VARIANT …]    the runs that are missing; a row as each is finished
    python bench/ablations.py table                              what has been measured
    python bench/ablations.py define                             write the definitions alone

Five seeds of each variant, in fp32 on any machine. `train` goes on where it was stopped, and may run several times at once: a
run is claimed by a lock that ends with its process. It writes dcgan/assets/ablations.csv (a row for each run), .json (the
variants' definitions) and .npz (16 samples of each run). A row counts as long as its variant and the judge are what they were:
after a change of the default, delete the old ones.
"""
import argparse
import fcntl
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import cache
from pathlib import Path

import measuring
import numpy as np
import torch

from dcgan.datasets.sources import load
from dcgan.engine.processes import engine_for
from dcgan.evaluation.metrics import digit_fid
from dcgan.plots import write_aside
from dcgan.recipes import RECIPES
from dcgan.training import Trainer
from dcgan.values import machine
from dcgan.weights import ASSETS

from variants import Variant, digest, variants

BASE = RECIPES["digits"]             # what is taken apart
IMAGES = 120_000                     # that each run sees
SEEDS = range(5)                     # of every variant
PRECISION = "fp32"                   # that every machine has
FOLDER = ASSETS                      # where ablations.csv, .json and .npz are
COLUMNS = "variant", "seed", "images", "digit_fid", "cpu_seconds", "precision", "definition", "date", "machine", "torch", "note"


@cache
def all_variants() -> dict[str, Variant]: return variants(BASE)


# Files: each is written aside and moved into place, and changed under a lock

@contextmanager
def lock(name: str, wait: bool = True) -> Iterator[bool]:
    "Hold the lock `name` of this folder; yields False if another process has it and `wait` is False. It ends with the process."
    root = Path(tempfile.gettempdir()) / f"dcgan-ablations-{os.getuid()}-{digest(str(FOLDER.resolve()).encode())}"
    root.mkdir(exist_ok=True)
    with open(root / name, "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def read() -> list[dict]:
    "All rows, as text."
    return measuring.read(FOLDER / "ablations.csv")


def write(rows: list[dict]) -> None:
    measuring.write(FOLDER / "ablations.csv", rows, COLUMNS)


def read_samples() -> dict[str, np.ndarray]:
    "“variant, seed” → uint8 (16, 28, 28)."
    path = FOLDER / "ablations.npz"
    if not path.exists():
        return {}
    with np.load(path) as f:
        return dict(f)


def define() -> None:
    "The definitions as a file: the default's fields and tables, and what each variant has otherwise."
    default, *_ = (v.definition(IMAGES) for v in all_variants().values())
    lines = []
    for name, v in all_variants().items():
        own = v.definition(IMAGES)
        if name != "default":
            own["fields"] = {k: x for k, x in own["fields"].items() if x != default["fields"].get(k, ...)}
            own = {k: x for k, x in own.items() if k == "fields" or x != default[k]}
        about = {"definition": v.key(IMAGES), "says": v.says, "breaks": v.breaks}
        lines.append(json.dumps(name, ensure_ascii=False) + ": " + json.dumps(about | own, ensure_ascii=False))
    with write_aside(FOLDER / "ablations.json") as aside:
        aside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


# What has been measured, and what is missing

def current(rows: list[dict]) -> dict[str, dict[int, float]]:
    "Variant → seed → digit-FID, of the rows in fp32 whose variant is still defined as it was."
    keys = {name: v.key(IMAGES) for name, v in all_variants().items()}
    found = {name: {} for name in keys}
    for row in rows:
        if keys.get(row["variant"]) == row["definition"] and row["precision"] == PRECISION:
            found[row["variant"]][int(row["seed"])] = float(row["digit_fid"])
    return found


def wanted(found: dict[str, dict[int, float]]) -> list[tuple[str, int]]:
    "The runs that are missing, in order: one seed of all variants, the next seed, …"
    return [(name, seed) for seed in SEEDS for name in found if seed not in found[name]]


def finish(row: dict, images: np.ndarray) -> None:
    "Add a run. Samples go first, then the row that makes them count."
    with lock("files"):
        samples = read_samples() | {f"{row['variant']}, {row['seed']}": images}
        with write_aside(FOLDER / "ablations.npz") as aside, open(aside, "wb") as f:
            np.savez_compressed(f, **samples)
        write([*read(), row])


# A run

@cache
def bank(): return load(BASE.data, image_size=BASE.image_size, channels=BASE.channels, images=BASE.images)


def train(t: Trainer) -> None:
    "IMAGES images, with which the rates' schedule ends. FloatingPointError where a loss, a weight or an image is no number."
    t.total = IMAGES // t.recipe.batch_size
    for _ in t.steps():
        pass
    t.check()


def measure(name: str, seed: int) -> tuple[dict, np.ndarray]:
    "One run as a row, and 16 of its images. A run that fails is a row too: nan, and a note that says why."
    variant, start, value, note = all_variants()[name], time.process_time(), math.nan, ""
    t = variant.trainer(variant.recipe.replace(seed=seed), bank().images, engine_for(precision=PRECISION))
    try:
        train(t)
    except FloatingPointError as e:
        note = str(e).split(";")[0]
    seconds, x = time.process_time() - start, t.best_G.sample(16, seed=0)[:, 0].cpu()
    if not note and x.isfinite().all():
        value = digit_fid(t.best_G)
    if not math.isfinite(value):
        note = note or "the images hold what is no number"
    where = torch.cuda.get_device_name() if t.engine.device.type == "cuda" else machine()
    values = (
        name,
        seed,
        t.images_seen,
        f"{value:.3f}",
        round(seconds),
        t.engine.precision,
        variant.key(IMAGES),
        date.today(),
        where,
        torch.__version__,
        note,
    )
    row = dict(zip(COLUMNS, values, strict=True))
    return row, ((x.nan_to_num(-1, 1, -1) + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def work(names: Iterable[str] = ()) -> None:
    "All runs that are missing (of these variants), but for those that other processes are at."
    torch.set_num_threads(1)
    def missing(): return [job for job in wanted(current(read())) if not names or job[0] in names]
    while jobs := missing():
        for name, seed in jobs:
            with lock(f"{name}, {seed}", wait=False) as mine:
                if not mine or (name, seed) not in missing():
                    continue
                row, images = measure(name, seed)
                finish(row, images)
                print(f"{name}, seed {seed}: {row['digit_fid']} {row['note']}".strip(), flush=True)
                break
        else:
            time.sleep(1)  # others are at the rest; one of them may be stopped


def in_parallel(names: list[str], workers: int) -> int:
    "Several processes of one thread each; they share the work by its locks."
    command = [sys.executable, __file__, "train", *names]
    processes = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) for _ in range(workers)]
    return max(abs(p.wait()) for p in processes)


def table() -> None:
    "Each variant's digit-FID over its seeds: mean, standard deviation, least, most."
    rows = read()
    found = current(rows)
    print("| variant | seeds | mean | sd | least | most | no number |\n|---|---|---|---|---|---|---|")
    for name, values in found.items():
        v = [x for x in values.values() if math.isfinite(x)]
        cells = (
            [
                f"{statistics.mean(v):.2f}",
                f"{statistics.stdev(v):.2f}" if len(v) > 1 else "–",
                f"{min(v):.2f}",
                f"{max(v):.2f}",
            ]
            if v
            else ["–"] * 4
        )
        print(f"| {name} | {len(values)} | " + " | ".join(cells) + f" | {len(values) - len(v) or ''} |")
    old = len(rows) - sum(map(len, found.values()))
    print(
        f"\n{len(wanted(found))} runs are missing"
        + f"; {old} rows are of other definitions or not in fp32, and count for nothing." * bool(old)
    )


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("job", choices=("train", "table", "define"))
    flags.add_argument("variants", nargs="*", help="train these alone")
    flags.add_argument("--workers", type=int, default=1, help="processes at once")
    a = flags.parse_args()
    if unknown := set(a.variants) - set(all_variants()):
        flags.error(f"there is no variant {', '.join(unknown)}; there are: {', '.join(all_variants())}")
    if a.job == "table":
        return table()
    with lock("files"):
        define()
    if a.job == "define":
        return
    try:
        sys.exit(in_parallel(a.variants, a.workers) if a.workers > 1 else work(a.variants))
    except KeyboardInterrupt:
        sys.exit("Stopped; typed again, it goes on.")


if __name__ == "__main__":
    main()
