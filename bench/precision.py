"""Does speed cost quality? The default recipe in fp32 and in bf16: digit-FID.

    python bench/precision.py train    the runs that are missing, five seeds of each way, 120,000 images; a row as each is finished
    python bench/precision.py table    what has been measured

Rows: bench/precision.csv. A run takes one thread. The ways are as in the ablations (bench/ablations.py), which see as many images.
"""
import statistics
import sys
from datetime import date
from pathlib import Path

import ablations
import torch
from measuring import add, read

from dcgan.evaluation.metrics import digit_fid
from dcgan.steps import Engine
from dcgan.training import Trainer
from dcgan.values import machine

ROWS = Path(__file__).resolve().parent / "precision.csv"
WAYS = (
    "fp32",
    "bf16",
)  # the rows of 2026-11-25 in bf16, whose convolutions were matrix products, are called "bf16, products"
SEEDS = range(5)


def measure(way: str, seed: int) -> dict:
    "One run as a row."
    t = Trainer(ablations.BASE.replace(seed=seed), ablations.bank().images, Engine("cpu", way))
    ablations.train(t)
    return {
        "way": way,
        "seed": seed,
        "images": t.images_seen,
        "digit_fid": round(digit_fid(t.best_G), 3),
        "date": date.today(),
        "machine": machine(),
        "torch": torch.__version__,
    }


def train() -> None:
    "What is missing, seed by seed."
    torch.set_num_threads(1)
    done = {(row["way"], int(row["seed"])) for row in read(ROWS)}
    for way, seed in ((way, seed) for seed in SEEDS for way in WAYS if (way, seed) not in done):
        row = measure(way, seed)
        add(ROWS, row)
        print(f"{way}, seed {seed}: {row['digit_fid']}", flush=True)


def table() -> None:
    "Each way's digit-FID by seed, mean and standard deviation."
    print(
        "| way | "
        + " | ".join(f"seed {seed}" for seed in SEEDS)
        + " | mean | sd |\n|---|"
        + "---|" * (len(SEEDS) + 2)
    )
    rows = {(row["way"], int(row["seed"])): float(row["digit_fid"]) for row in read(ROWS)}
    for way in dict.fromkeys([*WAYS, *(way for way, _ in rows)]):
        values = [rows[way, seed] for seed in SEEDS if (way, seed) in rows]
        cells = [f"{rows[way, seed]:.2f}" if (way, seed) in rows else "–" for seed in SEEDS]
        cells += (
            [f"{statistics.mean(values):.2f}", f"{statistics.stdev(values):.2f}"]
            if len(values) > 1
            else ["–", "–"]
        )
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    jobs = {"train": train, "table": table}
    if len(sys.argv) != 2 or sys.argv[1] not in jobs:
        sys.exit(__doc__)
    try:
        jobs[sys.argv[1]]()
    except KeyboardInterrupt:
        sys.exit("Stopped; typed again, it goes on.")
