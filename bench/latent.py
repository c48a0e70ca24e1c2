"""The latent space of the shipped faces, scored: what lesson 15 reads.

    python bench/latent.py predictor     train the predictor of factors on drawn faces: two minutes of one thread
    python bench/latent.py arithmetic    A - B + C over 200 triples, for means of 1, 3 and 10: some minutes
    python bench/latent.py directions    vectors from means of extremes, for each factor: some minutes
    python bench/latent.py               all three

Files: dcgan/assets/predictors/faces, latent-arithmetic.csv and latent-directions.csv beside it. Each command writes its file anew.
"""
import csv
import json
import sys
from datetime import date

import torch
from dcgan.data import to_x
from dcgan.datasets.drawn import FACTORS, faces
from dcgan.latent import (
    FACE_FACTORS, along, direction, face_predictor, pool_of, scaled, score_arithmetic, skills, train_predictor, triples,
)
from dcgan.networks import ASSETS, Generator, latent
from dcgan.plots import write_aside
from dcgan.values import machine

TRAIN, TEST, HELD_OUT = 6000, 2000, 10_000_000  # drawn faces; the test faces start at a number of their own
POOL, SEED = 4000, 11                           # generated faces from which exemplars are chosen; seed of their z
PAIRS = [("hat", "hair_length"), ("hat", "skin"), ("hair_length", "hat"), ("hair_length", "skin"), ("skin", "hat"), ("skin", "hair_length"),
         ("glasses", "hat"), ("glasses", "skin"), ("turn", "hat"), ("turn", "skin")]  # what is moved, what A and B share and C lacks
SIZES = 1, 3, 10     # exemplars in a mean
VECTORS, FACES = 10, 20  # directions for each factor and k; faces that each is tried on


def stamp(command: str) -> dict:
    "Where a number is from."
    return {"date": date.today(), "machine": machine(), "torch": torch.__version__, "seed": 0, "command": f"python bench/latent.py {command}"}


def known(n: int, start: int) -> tuple[torch.Tensor, dict]:
    "Drawn faces as images in [-1, 1], and their factors on the scale of predictors."
    images, factors = faces(n, start=start)
    return to_x(images), {name: scaled(factors[name], FACTORS[name].low, FACTORS[name].high) for name in FACE_FACTORS}


def save(name: str, rows: list[dict]) -> None:
    "The rows as a csv among the assets."
    with write_aside(ASSETS / name) as aside, open(aside, "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def predictor() -> None:
    "Train it, save it in half precision, and write what it gets right on held-out faces, as saved."
    folder = ASSETS / "predictors/faces"
    train_predictor(*known(TRAIN, 0)).half().save_pretrained(folder)
    (folder / "README.md").unlink()  # the hub's card
    found = [skill._asdict() | {"guess": round(skill.guess, 4), "at_chance": skill.at_chance} for skill in skills(face_predictor(), *known(TEST, HELD_OUT))]
    report = stamp("predictor") | {"date": str(date.today()), "images": TRAIN, "skills": found}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for row in found: print(row, flush=True)


def arithmetic() -> None:
    "Every pair of factors and size of the mean; for means of three also the control."
    G, reader, rows = Generator.from_pretrained("faces"), face_predictor(), []
    pool = pool_of(G, reader, POOL, SEED)
    for name, seen in pool.readings.items():
        print(f"{name}: clearly there in {(seen > .5).sum()}, clearly not in {(seen < -.5).sum()} of {POOL}")
    for factor, given in PAIRS:
        for k, control in [*((k, False) for k in SIZES), (3, True)]:
            places = triples(pool, factor, given, k, control=control)
            score = score_arithmetic(G, reader, pool, places, factor, given)
            short = {"others": round(score.others, 4), "length": round(score.length, 3), "pool": POOL}
            row = {"factor": factor, "given": given, "k": k, "control": int(control)} | score._asdict() | short
            rows.append(row | stamp("arithmetic"))
            print(rows[-1], flush=True)
    save("latent-arithmetic.csv", rows)


def directions() -> None:
    "Each vector comes from a pool of its own, and is tried on faces of its own."
    G, reader, rows = Generator.from_pretrained("faces"), face_predictor(), []
    pool = pool_of(G, reader, POOL, SEED)
    parts = torch.arange(POOL).view(VECTORS, -1)
    for factor in FACE_FACTORS:
        for k in 4, 40:
            for i, part in enumerate(parts):
                v = direction(pool.z[part], pool.readings[factor][part], k)
                begin = latent(FACES, G.z_dim, G.z_law, SEED + 1, i)
                low, start, high = (reader.read(x) for x in along(G, begin, v, (-.5, 0., .5)))
                others = [name for name in FACE_FACTORS if name != factor]
                same = [((low[name] > 0) == (high[name] > 0)).float().mean().item() for name in others]
                rows.append({"factor": factor, "k": k, "vector": i, "n": FACES, "rose": int((high[factor] > low[factor]).sum()),
                             "low": round(low[factor].mean().item(), 4), "start": round(start[factor].mean().item(), 4),
                             "high": round(high[factor].mean().item(), 4), "others": round(sum(same) / len(same), 4),
                             "length": round(v.norm().item(), 3)} | stamp("directions"))
            print(factor, k, sum(row["rose"] for row in rows[-VECTORS:]), "of", VECTORS * FACES, flush=True)
    save("latent-directions.csv", rows)


if __name__ == "__main__":
    jobs = {"predictor": predictor, "arithmetic": arithmetic, "directions": directions}
    if len(sys.argv) > 2 or len(sys.argv) == 2 and sys.argv[1] not in jobs: sys.exit(__doc__)
    torch.set_num_threads(1)
    for job in [jobs[sys.argv[1]]] if len(sys.argv) == 2 else jobs.values(): job()
