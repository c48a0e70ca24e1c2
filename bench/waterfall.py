"""What each habit of the copied loop costs: `Switched` of lesson 32, its habits changed one after the other.

    python bench/waterfall.py            all networks, some minutes of one thread; rewrites dcgan/assets/waterfall.csv
    python bench/waterfall.py --table    print what has been measured

All loops of a network live in one process of one thread and take turns; counted are seconds of the processor, so other processes
disturb less than they would a clock. The trainer's own loop, as `dcgan train` runs it, comes last.
"""
import argparse
import os
from collections.abc import Iterator
from datetime import date
from statistics import median
from time import process_time

import torch
from measuring import command, read, write

from dcgan.datasets.sources import load
from dcgan.engine.cost import cost, textbook_macs
from dcgan.engine.devices import has_bf16
from dcgan.engine.speed import CHANGES, Switched, ours
from dcgan.recipes import RECIPES, Recipe
from dcgan.steps import Engine
from dcgan.training import Trainer
from dcgan.values import machine
from dcgan.weights import ASSETS

ROWS = ASSETS / "waterfall.csv"  # lesson 32 reads it
NETS = {  # name of a column: its recipe, on digits that are not turned
    "mnist28": RECIPES["mnist28"].replace(rotate=0., last_batch="drop"),
    "digits": RECIPES["digits"],
    "64×64": RECIPES["mnist64-paper"].replace(filters=32, last_batch="drop"),
}
IMAGES = 1024


def loops(recipe: Recipe, nowhere) -> dict[str, Iterator[int]]:
    "Each loop by the change that it was the first to have."
    images = load("digits", image_size=recipe.image_size, images=IMAGES).images
    bf16 = has_bf16(torch.device("cpu"))
    found, changed = {"copied": iter(Switched(recipe, images, [], nowhere))}, []
    for change in CHANGES:
        if change != "bf16" or bf16:
            changed.append(change)
            found[change] = iter(Switched(recipe, images, changed, nowhere))
    engine = Engine("cpu", "bf16" if bf16 else "fp32")
    return found | {"trainer": ours(Trainer(recipe.replace(data="digits", epochs=10**6), images, engine))}


def turn(run: Iterator[int], seconds: float) -> float:
    "Images for each second of the processor, one step at least."
    start, seen = process_time(), 0
    while not seen or process_time() - start < seconds:
        seen += next(run)
    return seen / (process_time() - start)


def measured(net: str, given: argparse.Namespace) -> list[dict]:
    "A network's rows."
    recipe = NETS[net]
    with open(os.devnull, "w") as nowhere:
        running = loops(recipe, nowhere)
        for run in running.values():
            next(run)  # the first step warms up
        rounds = [{name: turn(run, given.seconds) for name, run in running.items()} for _ in range(given.rounds)]
    labels = {"copied": "the copied loop"} | CHANGES | {"trainer": "our trainer's loop"}
    rows = []
    for name in running:
        ratios = [one[name] / one["copied"] for one in rounds]
        macs = sum(cost(recipe)[:2]) if name in ("fresh", "trainer") else textbook_macs(recipe)
        macs -= recipe.d_table.macs if name in ("frozen", "layout", "bias", "bf16") else 0
        rows.append({"net": net, "change": name, "label": labels[name], "seconds_per_1000": round(1000 / median(r[name] for r in rounds), 4),
                     "times": round(median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3), "macs": macs,
                     "batch": recipe.batch_size, "rounds": given.rounds, "cpu_seconds": given.seconds, "seed": recipe.seed,
                     "capability": torch.backends.cpu.get_cpu_capability(), "machine": machine(), "torch": torch.__version__,
                     "date": str(date.today()), "command": f"python bench/waterfall.py --rounds {given.rounds} --seconds {given.seconds:g}"})
    return rows


def table() -> str:
    "All rows."
    if not ROWS.exists():
        return f"Nothing has been measured yet: {ROWS.name} is not there."
    lines = ["| net | after | seconds for 1,000 images | times as fast (least to most) |", "|---|---|---|---|"]
    for row in read(ROWS):
        lines.append(f"| {row['net']} | {row['label']} | {row['seconds_per_1000']} | {row['times']} ({row['least']} to {row['most']}) |")
        where = f"{row['machine']}, {row['capability']}, torch {row['torch']}, {row['date']}"
    return "\n".join([*lines, "", where])


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print what has been measured")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--seconds", type=float, default=1., help="of a turn; a step at least")
    given = parser.parse_args(words)
    if given.rounds < 1 or not 0 < given.seconds < 1e6:
        raise ValueError(f"--rounds is {given.rounds} and --seconds {given.seconds}; at least 1 and above 0 are needed.")
    if not given.table:
        torch.set_num_threads(1)
        write(ROWS, [row for net in NETS for row in measured(net, given)])
    print(table())


if __name__ == "__main__":
    command(main)
