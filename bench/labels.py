"""How often the shipped conditional generator draws the digit that it was asked for: what lesson 17 reads.

    python bench/labels.py    1,000 samples of each class, read by the digit classifier; dcgan/assets/labels.csv, a row a class
"""
from datetime import date

import torch
from measuring import write

from dcgan.data import digits, to_x
from dcgan.evaluation.judge import digit_judge
from dcgan.networks import Generator
from dcgan.values import machine
from dcgan.weights import ASSETS

ROWS = ASSETS / "labels.csv"
NAME, N, SEED = "digits-conditional", 1000, 0  # whose samples, how many of each class, of which z


@torch.no_grad()
def read(judge: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    "The digit that the classifier reads in each image."
    return torch.cat([judge(part).argmax(1) for part in x.split(500)])


def measured() -> list[dict]:
    "A row for each class: how often its samples, and real held-out digits, are read as it."
    G, judge, (held_out, labels) = Generator.from_pretrained(NAME), digit_judge(), digits("test")
    real = read(judge, to_x(held_out))
    said = {"generator": NAME, "seed": SEED, "machine": machine(), "torch": torch.__version__, "date": str(date.today()),
            "command": "python bench/labels.py"}
    rows = []
    for asked in range(G.classes):
        found = read(judge, G.sample(N, SEED, labels=asked)).bincount(minlength=G.classes)
        rows.append({"asked": asked, "samples": N, **{f"read_{k}": int(n) for k, n in enumerate(found)},
                     "real": int((labels == asked).sum()), "real_read": int((real[labels == asked] == asked).sum())} | said)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = measured()
    write(ROWS, rows)
    right = sum(row[f"read_{row['asked']}"] for row in rows)
    print(f"{right:,} of {sum(row['samples'] for row in rows):,} are read as asked")
