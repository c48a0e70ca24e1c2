"""How often the doctor is right: planted failures and healthy runs, each over several seeds.

    python bench/doctor.py                   the runs that are missing; a row as each is finished
    python bench/doctor.py planted|recipes   half of them, so that two processes can share the work
    python bench/doctor.py table             what has been measured

Every planted failure of lesson 11 and the healthy patient run with seeds 10 to 19, as do the first 150 steps of the
default recipe, at full size. The reference recipes run small, for 200 steps with seeds 10 and 11: the data of
`sized_for("cpu")`, 2,000 images of at most 32 pixels, 8 filters, batches of 32. One thread. The thresholds of
`dcgan.doctor` were chosen on seeds 100 to 107, and seeds 0 to 3 were seen on the way. Rows go to
dcgan/assets/doctor.csv: what the doctor said first, and since which step; "" where it said nothing. After a change of a
rule, delete the file and measure again.
"""
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import date
from io import StringIO

import torch
from measuring import add, read
from torch import nn
from torch.nn import functional as F

from dcgan.data import digits
from dcgan.datasets.sources import load
from dcgan.doctor import Doctor
from dcgan.losses import g_loss
from dcgan.networks import Discriminator, Generator, init_weights, latent
from dcgan.recipes import RECIPES
from dcgan.shapes import Row
from dcgan.training import Settings, Trainer
from dcgan.values import machine
from dcgan.weights import ASSETS

PATH = ASSETS / "doctor.csv"
EXTREMES = {"least_variety": (min, "variety", 1), "widest_gap": (max, "gap", 1), "longest_step": (max, "moved", 1),
            "widest_drift": (max, "drift", 50)}  # column: least or most of which number, from which step on
COLUMNS = "case", "seed", "expected", "named", "since", "steps", *EXTREMES, "torch", "machine", "date"
SEEDS, FEW = range(10, 20), range(10, 12)


# The patient of lesson 11

@dataclass(frozen=True)
class Patient(Settings):
    "A small pair of networks, for digits of 14×14."
    g_norm: bool = True  # BatchNorm in G

    def networks(self):
        up = [Row("conv_t", 64, 3, 1, 0, self.g_norm, "relu", False),
              Row("conv_t", 32, 3, 2, 0, self.g_norm, "relu", False), Row("conv_t", 1, 4, 2, 1, act="tanh")]
        down = [Row("conv", 16, 4, 2, 1, act="leaky_relu"), Row("conv", 32, 3, 2, 0, True, "leaky_relu", False),
                Row("conv", 1, 3)]
        G, D = Generator(up, z_dim=16), Discriminator(down, (1, 14, 14))
        return init_weights(G, seed=self.seed), init_weights(D, seed=self.seed, part=1)


HEALTHY = Patient(batch_size=32, epochs=4, lr_g=2e-3, lr_d=2e-3, beta2=0.99, log_every=10)
SICK = replace(HEALTHY, epochs=3)


def small_digits():
    return F.avg_pool2d(digits()[0][::2].float(), 2).round().to(torch.uint8)


class OneLabel(Trainer):
    "D's step with the label 1 for real images and fakes."
    def train_discriminator(self, x):
        with torch.no_grad():
            fake = self.G(self.noise(0))
        real, fake = self.D(x), self.D(fake)
        loss = g_loss(real) + g_loss(fake)
        self.opt_d.zero_grad()
        loss.backward()
        self.opt_d.step()
        self.d_stats = loss.detach(), real.detach().sigmoid().mean(), fake.detach().sigmoid().mean()


class Rescaled(Trainer):
    "Real images in [0, high] instead of [-1, 1]."
    high = 1

    def train_discriminator(self, x):
        super().train_discriminator((x + 1) / 2 * self.high)


class Bytes(Rescaled):
    "Real images in [0, 255]."
    high = 255


class Broken(Trainer):
    "A pixel of one batch is nan."
    def train_discriminator(self, x):
        if self.step == 30:
            x[0, 0, 0, 0] = float("nan")
        super().train_discriminator(x)


class Forgetful:
    "Draws a picture in eval mode and leaves G in it."
    def begin(self, trainer):
        self.picture = trainer.G.eval()(latent(16, 16)).detach()


class Slow:
    "BatchNorm's running averages follow a hundred times slower."
    def begin(self, trainer):
        for m in trainer.G.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.momentum = 0.001


PLANTED = {  # case: (what the doctor should name, settings, trainer, callbacks)
    "healthy patient": ("", HEALTHY, Trainer, ()),
    "D learns a hundred times faster": ("D wins", replace(SICK, lr_g=1e-4, lr_d=1e-2), Trainer, ()),
    "D is not trained": ("D stands still", replace(SICK, lr_d=0.), Trainer, ()),
    "D learns two hundred times slower": ("D is fooled", replace(SICK, lr_d=1e-5), Trainer, ()),
    "G is not trained": ("G stands still", replace(SICK, lr_g=0.), Trainer, ()),
    "one label for both": ("same answer", SICK, OneLabel, ()),
    "images in [0, 1]": ("range", SICK, Rescaled, ()),
    "images in [0, 255]": ("range", SICK, Bytes, ()),
    "rates fifty times as high": ("rates", replace(SICK, lr_g=0.1, lr_d=0.1), Trainer, ()),
    "G left in eval mode": ("eval mode", SICK, Trainer, (Forgetful,)),
    "no BatchNorm in G": ("collapse", replace(SICK, g_norm=False), Trainer, ()),
    "BatchNorm's momentum 0.001": ("drift", SICK, Trainer, (Slow,)),
    "a pixel that is nan": ("not finite", replace(SICK, epochs=1), Broken, ()),
}


class Named(Exception):
    "The doctor has spoken: the rest of the run is of no interest."


def stop(sentence: str) -> None:
    raise Named(sentence)


def planted(case: str, seed: int, images: torch.Tensor) -> tuple[Trainer, Doctor]:
    "A run of the patient with its failure, until the doctor says something."
    _, settings, kind, callbacks = PLANTED[case]
    doctor = Doctor(say=stop)
    trainer = kind(replace(settings, seed=seed), images, callbacks=[*(make() for make in callbacks), doctor])
    try:
        trainer.train()
    except (FloatingPointError, Named):
        pass
    return trainer, doctor


def recipe_run(name: str, seed: int, steps: int) -> tuple[Trainer, Doctor]:
    "The first steps of a recipe: the default as it is, another one small."
    recipe = RECIPES[name].replace(seed=seed)
    if name != "digits":
        with redirect_stdout(StringIO()):
            recipe = recipe.sized_for("cpu")
        small = {"image_size": min(recipe.image_size, 32), "filters": 8, "images": 2000, "batch_size": 32}
        recipe = recipe.replace(**small)
    data = load(recipe.data, image_size=recipe.image_size, channels=recipe.channels, images=recipe.images)
    doctor = Doctor(say=lambda sentence: None)
    trainer = Trainer(recipe, data.images, labels=data.labels if recipe.classes else None)
    doctor.begin(trainer)
    for step in trainer.steps():
        doctor.after_step(trainer)
        if step == steps:
            break
    doctor.close(trainer)
    return trainer, doctor


# The table

def extremes(checks: list[dict]) -> dict[str, float]:
    "How near a run came to the thresholds."
    whole = [c | {"gap": c["d_x"] - c["d_gz_before"], "moved": max(c["moved_g"], c["moved_d"])}
             for c in checks if "variety" in c]
    found = {}
    for column, (pick, key, start) in EXTREMES.items():
        values = [c[key] for c in whole if c["step"] >= start]
        found[column] = round(pick(values), 3) if values else ""
    return found


def append(case: str, seed: int, expected: str, trainer: Trainer, doctor: Doctor) -> None:
    "A row for a run that is finished."
    first = doctor.found[0] if doctor.found else None
    row = extremes(doctor.checks) | {
        "case": case, "seed": seed, "expected": expected, "named": first.name if first else "",
        "since": first.since if first else "", "steps": trainer.step, "torch": torch.__version__.split("+")[0],
        "machine": machine(), "date": date.today(),
    }
    add(PATH, {column: row[column] for column in COLUMNS})


def measure(part: str = "") -> None:
    "The runs that are missing: a seed of every case, then the next."
    done = {(row["case"], int(row["seed"])) for row in read(PATH)}
    images = small_digits()
    for seed in SEEDS if part != "recipes" else ():
        for case, (expected, *_) in PLANTED.items():
            if (case, seed) not in done:
                append(case, seed, expected, *planted(case, seed, images))
    for seed in SEEDS if part != "planted" else ():
        for name in RECIPES if seed in FEW else ["digits"]:
            if (name, seed) not in done:
                append(name, seed, "", *recipe_run(name, seed, 150 if name == "digits" else 200))


def table() -> None:
    "For each case, what was named how often, and since which step."
    rows = read(PATH)
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        right = sum(row["named"] == row["expected"] for row in mine)
        named = Counter(row["named"] or "nothing" for row in mine)
        since = sorted(int(row["since"]) for row in mine if row["since"])
        when = f", since step {since[0]} to {since[-1]}" if since else ""
        print(f"{case:34} right {right} of {len(mine)}: {dict(named)}{when}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, = sys.argv[1:] or [""]
    if what not in ("", "planted", "recipes", "table"):
        sys.exit(f"bench/doctor.py knows planted, recipes and table, not {what}.")
    table() if what == "table" else measure(what)
