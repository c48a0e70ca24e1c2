"""Digit-FID by minutes on two cores: the references' way against the default's.

    python bench/quality.py speed    images/s of each contender, in turn; nothing else may run meanwhile
    python bench/quality.py train    the runs that are missing, one after the other; appends a row as each is measured
    python bench/quality.py table    the table of what has been measured

A run is counted in images, and so is the same on a busy machine; `speed` says how many images a minute holds. A recipe whose
rates decay is trained anew for each budget; one without is measured on its way. No contender rotates its images.
"""
import os
import statistics
import sys
from collections.abc import Iterator
from datetime import date
from time import perf_counter
from typing import NamedTuple

from measuring import add, read

from dcgan.weights import ASSETS

SPEED, ROWS = ASSETS / "quality-speed.csv", ASSETS / "quality.csv"  # lesson 14 reads them
BUDGETS = (0.5, 1, 2, 3, 5), (10,)  # minutes: with three seeds, and with one
SEEDS = range(3)


class Contender(NamedTuple):
    recipe: object          # a Recipe
    precision: str = "auto"
    textbook: bool = False  # timed as the textbook loop; trained by ours in fp32, which takes the same steps


def contenders() -> dict[str, Contender]:
    "Name → what runs: reference 1 as its scripts run it, reference 2's net at 32×32, the best first try, the default."
    from dcgan.recipes import NETS, RECIPES, digits_d

    NETS["first try"] = (
        NETS["mnist28"][0],
        lambda size, channels, filters, bias: digits_d(size, channels, filters // 4, bias),
    )
    r1 = RECIPES["mnist28"].replace(data="digits", rotate=0.)
    return {"textbook R1": Contender(r1, "fp32", True),
            "R2's net at 32": Contender(RECIPES["mnist64"].replace(data="digits", image_size=32)),
            "first try": Contender(r1.replace(net="first try", batch_size=64, lr_g=1e-3, lr_d=1e-3, ema=0.995)),
            "digits": Contender(RECIPES["digits"])}


def steps(contender: Contender) -> Iterator[int]:
    "Train without end; after each step, the number of images that it saw."
    from dcgan.datasets.sources import load
    from dcgan.engine.cost import textbook
    from dcgan.engine.devices import tune
    from dcgan.engine.processes import engine_for
    from dcgan.training import Trainer
    r = contender.recipe
    images = load(r.data, image_size=r.image_size, channels=r.channels, images=r.images).images
    if contender.textbook:
        with open(os.devnull, "w") as nowhere:
            yield from textbook(r, images, 1000, file=nowhere)
    tune()
    t = Trainer(r.replace(epochs=1000), images, engine_for("auto", contender.precision))
    for _ in t.steps():
        yield t.n


def rate(run: Iterator[int], seconds: float) -> float:
    "Images a second over the next so many seconds."
    start, seen = perf_counter(), 0
    while perf_counter() - start < seconds:
        seen += next(run)
    return seen / (perf_counter() - start)


def speed(rounds: int = 6, seconds: float = 4) -> None:
    "All contenders in turn, several times; the median of each."
    from dcgan.values import machine
    runs = {name: steps(c) for name, c in contenders().items()}
    for run in runs.values():
        rate(run, 2)  # the first steps warm up
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(rate(run, seconds))
    SPEED.unlink(missing_ok=True)
    for name, rates in found.items():
        add(SPEED, {"contender": name, "images_per_s": round(statistics.median(rates)), "least": round(min(rates)),
                       "most": round(max(rates)), "date": date.today(), "machine": f'"{machine()}"'})
    print(SPEED.read_text())


def wanted() -> Iterator[tuple[str, int, list[int]]]:
    "Contender, seed, and the minutes of one run: all budgets on its way, or one where the rates decay to its end."
    done = {(row["contender"], int(row["seed"]), float(row["minutes"])) for row in read(ROWS)}
    for minutes, seeds in zip(BUDGETS, (SEEDS, SEEDS[:1])):
        for seed in seeds:
            for name, c in contenders().items():
                left = [m for m in minutes if (name, seed, m) not in done]
                yield from (
                    ((name, seed, [m]) for m in left)
                    if c.recipe.decay != "none"
                    else [(name, seed, left)]
                    if left
                    else ()
                )


def train_one(name: str, seed: int, minutes: list[int]) -> None:
    "One run; a row for each of `minutes` when its images have been seen."
    from dcgan.datasets.sources import load
    from dcgan.engine.devices import tune
    from dcgan.engine.processes import engine_for
    from dcgan.evaluation.metrics import digit_fid
    from dcgan.training import Trainer
    tune()
    c = contenders()[name]
    bank = load(c.recipe.data, image_size=c.recipe.image_size, channels=c.recipe.channels)
    per_minute = 60 * next(int(row["images_per_s"]) for row in read(SPEED) if row["contender"] == name)
    due = {max(1, round(m * per_minute / len(bank.images))): m for m in minutes}  # epoch: minutes

    def measure(t):
        if minute := due.get(t.step // len(t.batches)):
            value = digit_fid(t.best_G, resize=c.recipe.image_size != 28)
            add(
                ROWS,
                {
                    "contender": name,
                    "seed": seed,
                    "minutes": minute,
                    "images": t.images_seen,
                    "digit_fid": round(value, 3),
                    "date": date.today(),
                },
            )
            print(f"{name}, seed {seed}: {value:.2f} after {minute} min, {t.images_seen:,} images", flush=True)

    Trainer(
        c.recipe.replace(seed=seed, epochs=max(due)), bank.images, engine_for("auto", c.precision), [measure]
    ).train()


def train(only: str = "") -> None:
    "What is missing; with a contender's name, of it alone."
    for job in list(wanted()):
        if not only or job[0] == only:
            train_one(*job)


def table() -> None:
    "Mean digit-FID by minutes, ± the standard deviation over seeds."
    rows = read(ROWS)
    minutes = sum(BUDGETS, ())
    print("| contender | " + " | ".join(f"{m} min" for m in minutes) + " |\n|---|" + "---|" * len(minutes))
    for name in contenders():
        cells = []
        for m in minutes:
            values = [float(r["digit_fid"]) for r in rows if r["contender"] == name and float(r["minutes"]) == m]
            spread = f" ± {statistics.stdev(values):.2f} ({len(values)} seeds)" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "–")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    jobs = {"speed": speed, "train": train, "table": table}
    if len(sys.argv) < 2 or sys.argv[1] not in jobs:
        sys.exit(__doc__)
    jobs[sys.argv[1]](*sys.argv[2:])
