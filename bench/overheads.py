"""What a run costs beside its steps: import, start, pictures, checkpoints; and what drawing images costs.

    python bench/overheads.py    about three minutes; prints a table. Nothing else may run meanwhile
"""
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from dcgan.checkpoints import RunFolder, animate, save_checkpoint, setting
from dcgan.datasets.sources import load
from dcgan.engine.devices import tune
from dcgan.engine.processes import engine_for
from dcgan.networks import Generator
from dcgan.recipes import RECIPES
from dcgan.training import Trainer
from dcgan.values import machine

FIRST_STEP = """
import time, psutil
from dcgan.cli import main
from dcgan.training import Trainer
step = Trainer.train_generator
def first(self):
    step(self)
    print("first step after", time.time() - psutil.Process().create_time(), flush=True)
    raise KeyboardInterrupt
Trainer.train_generator = first
main(["train", "digits", "--run", FOLDER, "--verbose", "0"])
"""


def seconds(f, repeats: int = 5) -> float:
    "The median time of a call."
    times = []
    for _ in range(repeats):
        start = perf_counter()
        f()
        times.append(perf_counter() - start)
    return median(times)


def process(code: str) -> str:
    "What a fresh interpreter prints."
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def first_step() -> float:
    "Seconds from the start of `dcgan train digits` to the end of its first step, folder and first picture included."
    with tempfile.TemporaryDirectory() as root:
        return float(process(FIRST_STEP.replace("FOLDER", repr(f"{root}/run"))).split("first step after")[1])


def main() -> None:
    rows = [("import torch", seconds(lambda: process("import torch"))),
            ("import dcgan.training", seconds(lambda: process("import dcgan.training"))),
            ("dcgan --help", seconds(lambda: process("from dcgan.cli import main; main(['--help'])"))),
            ("start of dcgan train digits to the end of its first step", median(first_step() for _ in range(5)))]
    G = Generator.from_pretrained("digits")
    rows.append(("10,000 images from the shipped generator", seconds(lambda: G.sample(10_000))))
    with tempfile.TemporaryDirectory() as root:
        recipe, start = RECIPES["digits"].replace(epochs=12), perf_counter()
        tune()
        folder = RunFolder(Path(root) / "run")
        run = Trainer(recipe, load(recipe.data).images, engine_for(), [folder]).train()
        whole, loop = perf_counter() - start, sum(row["seconds"] for row in run.history.rows)
        every = loop / 2  # two checkpoints in twelve epochs
        state = run.state() | setting(run)
        checkpoint, kept = seconds(lambda: save_checkpoint(state, folder.path)), seconds(lambda: folder.save(run))
        rows += [
            (f"the loop alone, {run.step} steps of it", loop),
            ("the same run as a whole", whole),
            ("its GIFs and last pictures", seconds(lambda: animate(run, folder.path), 3)),
            (
                f"a checkpoint alone: {checkpoint / every:.1%} of the {recipe.save_every} epochs between two",
                checkpoint,
            ),
            (f"a checkpoint with generator, samples, curves: {kept / every:.1%}", kept),
        ]
    print("| what | seconds |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value:.2f} |")
    print(f"\n{date.today()}, {machine()}, torch {torch.__version__}, {run.engine.precision}; medians of five")


if __name__ == "__main__":
    main()
