"""Train the digits' judge anew, and the one of the cross-fitting on half of the digits; write the first one's weights and a report on both.

make judge    about two minutes; rewrites dcgan/assets/judges/digits
"""
import json
from datetime import date
from pathlib import Path

import torch

from dcgan.data import to_x
from dcgan.datasets.sources import load
from dcgan.evaluation.judge import Judge, accuracy, train_judge
from dcgan.evaluation.metrics import frechet, look
from dcgan.values import machine
from dcgan.weights import ASSETS


def distance(judge: Judge, images: torch.Tensor, held_out: torch.Tensor) -> float:
    "Fréchet distance of two sets of images in the judge's features."
    return frechet(*(look(judge, to_x(part)).features for part in (images, held_out)))


def remake(folder: Path, epochs: int = 30) -> dict:
    "The report; the judge is kept in the folder."
    bank, test = load("digits"), load("digits", split="test")
    places = torch.arange(4000).view(10, 400)
    seen, unseen = places[:, :200].flatten(), places[:, 200:].flatten()
    judge = train_judge(bank.images, bank.labels, epochs)
    half = train_judge(bank.images[seen], bank.labels[seen], epochs)
    report = {
        "command": "make judge",
        "date": str(date.today()),
        "machine": machine(),
        "torch": torch.__version__,
        "seed": 0,
        "epochs": epochs,
        "accuracy": accuracy(judge, test.images, test.labels)[0],
        "half_accuracy": accuracy(half, test.images, test.labels)[0],
        "floor": distance(judge, bank.images, test.images),
        "half_seen_floor": distance(half, bank.images[seen], test.images),
        "crossfit_floor": distance(half, bank.images[unseen], test.images),
    }
    report = {name: round(value, 4) if isinstance(value, float) else value for name, value in report.items()}
    judge.save_pretrained(folder)
    (folder / "README.md").unlink()  # the hub's, empty
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


if __name__ == "__main__":
    for name, value in remake(ASSETS / "judges/digits").items():
        print(f"{name}: {value}")
