"""What a large bank costs: anonymous memory and time per image while training on 200,000 images of 3×64×64, and on 5,000.

    python bench/memory.py [--images 200000] [--steps 1562] [--filters 4] [--threads 1]

Two processes, one for each bank, train the same small network and take turns, 71 steps each, so that whatever else
the machine does counts for both. The banks (2.5 GB for 200,000) are made of noise in a temporary folder and removed.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm

from dcgan.datasets.files import Bank, Job, cached
from dcgan.engine.devices import tune
from dcgan.recipes import RECIPES
from dcgan.training import Trainer
from dcgan.values import machine

SMALL, SHAPE, SLICE = 5_000, (3, 64, 64), 71  # 22 slices see 200,000 images in batches of 128


def anonymous():
    "MiB of memory that belongs to no file: what a process really takes away from others."
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def bank(folder, n):
    "n images of noise, mapped from a file; made if it is not there."
    draw = np.random.default_rng(0).integers
    noise = (draw(0, 256, SHAPE, dtype=np.uint8) for _ in range(n))
    images, _ = cached(Path(folder), f"noise-{n}", n, lambda: Job(f"noise-{n}", n, SHAPE, noise))
    return Bank(images, None, f"noise-{n}")


def work(folder, n, filters, threads):
    "One of the two: for each line that comes in, train for a slice; answer with seconds and MiB."
    tune("cpu", threads)
    recipe = RECIPES["celeba64"].replace(filters=filters, epochs=10**6)
    steps = Trainer(recipe, bank(folder, n).images).steps()
    for _ in sys.stdin:
        start = perf_counter()
        for _ in range(SLICE):
            next(steps)
        print(json.dumps([perf_counter() - start, anonymous()]), flush=True)


def measure(folder, a):
    "Both in turn; (seconds of each slice, MiB after each) for the small bank and for the large one."
    sizes = SMALL, a.images
    for n in sizes:
        subprocess.run([sys.executable, __file__, "--make", str(n), "--folder", folder], check=True)
    command = [sys.executable, __file__, "--folder", folder, "--filters", str(a.filters), "--threads", str(a.threads)]
    both = [
        subprocess.Popen(
            [*command, "--work", str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in sizes
    ]
    said = [], []
    for _ in tqdm(
        range(1 + a.steps // SLICE), unit="slice", disable=None
    ):  # the first, a warm-up, counts for memory only
        for process, answers in zip(both, said):
            print("go", file=process.stdin, flush=True)
            answers.append(json.loads(process.stdout.readline()))
    for process in both:
        process.communicate()
    return [list(zip(*answers)) for answers in said]


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in ("--images", 200_000), ("--steps", 1562), ("--filters", 4), ("--threads", 1):
        flags.add_argument(name, type=int, default=value)
    for name in "--work", "--make":
        flags.add_argument(name, type=int, help=argparse.SUPPRESS)
    flags.add_argument("--folder", help=argparse.SUPPRESS)
    a = flags.parse_args()
    if a.make:
        return bank(a.folder, a.make)
    if a.work:
        return work(a.folder, a.work, a.filters, a.threads)
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory() as folder:
        (small_s, small_mib), (large_s, large_mib) = measure(folder, a)
    per_image = [1e6 * median(s[1:]) / (SLICE * 128) for s in (small_s, large_s)]
    print(
        f"{machine()}; load {os.getloadavg()[0]:.1f}; torch {torch.__version__}; {len(large_s) - 1} slices of {SLICE} steps, batch 128, filters {a.filters}"
    )
    for n, mib, us in (SMALL, small_mib, per_image[0]), (a.images, large_mib, per_image[1]):
        print(f"{n:>8,} images: RssAnon at most {max(mib):,.0f} MiB, {us:,.0f} µs an image (median slice)")
    ratio = median(b / a for a, b in zip(small_s[1:], large_s[1:]))
    print(
        f"difference: {max(large_mib) - max(small_mib):+,.0f} MiB (limit 300), time per image {ratio - 1:+.1%} (median of the pairs; limit 10 %)"
    )


if __name__ == "__main__":
    main()
