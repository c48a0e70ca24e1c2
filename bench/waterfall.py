"""What each habit of the copied loop costs: the loop with its habits changed one after the other. Lesson 32 shows what comes.

    python bench/waterfall.py            all networks, some minutes of one thread; rewrites dcgan/assets/waterfall.csv
    python bench/waterfall.py --table    print what has been measured

All loops of a network live in one process of one thread and take turns; counted are seconds of the processor, so other processes
disturb less than they would a clock. The trainer's own loop, as `dcgan train` runs it, comes last.
"""
import argparse
import os
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from datetime import date
from functools import partial
from statistics import median
from time import process_time

import torch
from measuring import command, read, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import DataLoader

from dcgan.data import Batches
from dcgan.datasets.sources import load
from dcgan.engine.cost import Pictures, cost, textbook_macs
from dcgan.engine.devices import has_bf16
from dcgan.engine.speed import ours
from dcgan.networks import latent
from dcgan.recipes import RECIPES, Recipe
from dcgan.steps import Engine, frozen
from dcgan.training import Trainer
from dcgan.values import known, machine
from dcgan.weights import ASSETS

ROWS = ASSETS / "waterfall.csv"  # lesson 32 reads it
NETS = {  # name of a column: its recipe, on digits that are not turned
    "mnist28": RECIPES["mnist28"].replace(rotate=0., last_batch="drop"),
    "digits": RECIPES["digits"],
    "64×64": RECIPES["mnist64-paper"].replace(filters=32, last_batch="drop"),
}
IMAGES = 1024
CHANGES = {
    "memory": "images in memory",
    "logits": "loss on logits",
    "quiet": "no .item(), no line",
    "adam": "fused Adam",
    "frozen": "D frozen in G's step",
    "layout": "channels last",
    "bias": "bias added afterwards",
    "bf16": "bf16",
    "fresh": "new fakes for G's step",
}  # of the textbook's habits, in the order in which they are changed: what it is called


def cross_entropy(logits: Tensor,  # (b,)
                  target: float,   # for all of them
                  on_logits: bool, # or on their sigmoid
                 ) -> Tensor:      # scalar
    "D's loss on one half, in fp32: as the textbook computes it, or on logits."
    logits = logits.float()
    target = torch.full_like(logits, target)
    if on_logits:
        return F.binary_cross_entropy_with_logits(logits, target)
    return F.binary_cross_entropy(logits.sigmoid(), target)


class Switched:
    """The textbook's loop on a CPU, without workers, some of its habits changed.
    It neither turns nor shifts images, and keeps no average."""
    def __init__(self,
                 recipe: Recipe,             # what it trains
                 images: Tensor,             # uint8 (n, c, h, w)
                 changed: Collection[str],   # some of CHANGES
                 file=None):                 # where the line of each step is printed; None: standard output
        self.recipe, self.file, self.step = recipe, file, 0
        self.changed = {known("change", name, CHANGES) for name in changed}
        self.images = images
        self.engine = Engine("cpu", "bf16" if "bf16" in self.changed else "fp32")
        self.G, self.D = recipe.networks()
        if "bias" not in self.changed:
            for layer in self.G.modules():
                if isinstance(layer, nn.ConvTranspose2d):
                    layer.forward = partial(nn.ConvTranspose2d.forward, layer)  # PyTorch's own
        if "layout" in self.changed:
            self.G, self.D = (self.engine.place(net) for net in (self.G, self.D))
        betas, fused = (recipe.beta1, recipe.beta2), "adam" in self.changed
        self.opt_g = Adam(self.G.parameters(), recipe.lr_g, betas, fused=fused)
        self.opt_d = Adam(self.D.parameters(), recipe.lr_d, betas, fused=fused)

    def batches(self) -> Iterator[Tensor]:
        "Images in [-1, 1], epoch after epoch."
        r = self.recipe
        if "memory" in self.changed:
            cut, loader = Batches(self.images, r.batch_size, r.seed, r.last_batch), None
        else:
            drop = r.last_batch == "drop"
            loader = DataLoader(Pictures(self.images), r.batch_size, shuffle=True, drop_last=drop)
        epoch = 0
        while True:
            yield from cut.epoch(epoch) if loader is None else loader
            epoch += 1

    def fakes(self,
              draw: int,  # 0: for D's step; 1: for G's
              n: int,     # how many
             ) -> Tensor:
        "G's images of this step."
        r = self.recipe
        return self.G(latent(n, r.z_dim, r.z_law, r.seed, 2 * self.step + 1 + draw))

    def __iter__(self) -> Iterator[int]:
        "The loop, without end; after each step, the number of real images that it saw."
        for x in self.batches():
            if "layout" in self.changed:
                x = x.to(memory_format=torch.channels_last)
            self.losses = *self.d_step(x), self.g_step(len(x))
            if "quiet" not in self.changed:
                print(self.step, *(f"{loss.item():.4f}" for loss in self.losses), file=self.file)
            self.step += 1
            yield len(x)

    def d_step(self,
               x: Tensor,  # real images
              ) -> tuple[Tensor, Tensor]:  # the two halves of D's loss
        "D's step, a backward pass for each half."
        r, on_logits, fresh = self.recipe, "logits" in self.changed, "fresh" in self.changed
        self.opt_d.zero_grad()
        with self.engine.autocast():
            real = self.D(x)
        on_real = cross_entropy(real, r.real_label, on_logits)
        on_real.backward()
        with self.engine.autocast():
            with torch.no_grad() if fresh else nullcontext():
                self.fake = self.fakes(0, len(x))
            fake = self.D(self.fake.detach())
        on_fake = cross_entropy(fake, r.fake_label, on_logits)
        on_fake.backward()
        if "quiet" not in self.changed:
            _ = [out.sigmoid().mean().item() for out in (real, fake)]
        self.opt_d.step()
        return on_real.detach(), on_fake.detach()

    def g_step(self,
               n: int,  # images of the batch
              ) -> Tensor:
        "G's step."
        self.opt_g.zero_grad()
        with frozen(self.D) if "frozen" in self.changed else nullcontext():
            with self.engine.autocast():
                fake = self.D(self.fakes(1, n) if "fresh" in self.changed else self.fake)
            loss = cross_entropy(fake, 1., "logits" in self.changed)
            loss.backward()
        if "quiet" not in self.changed:
            _ = fake.sigmoid().mean().item()
        self.opt_g.step()
        return loss.detach()


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
