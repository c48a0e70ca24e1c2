"""The latent space of the shipped faces, scored: what lesson 15 reads.

    python bench/latent.py predictor     train the predictor of factors on drawn faces
    python bench/latent.py factors       how clearly and how often generated faces show each factor
    python bench/latent.py arithmetic    A - B + C over 200 triples, for means of 1, 3 and 10
    python bench/latent.py directions    vectors from means of extremes, for each factor
    python bench/latent.py truncation    what truncating z does to digits: six limits, five seeds
    python bench/latent.py               all five, some minutes of one thread

Files: predictors/faces, latent-factors.csv, latent-arithmetic.csv, latent-directions.csv, latent-truncation.csv in dcgan/assets. Each command writes
its own anew.
"""
import json
import sys
from datetime import date

import torch
from measuring import write

from dcgan.data import digits, to_x
from dcgan.datasets.drawn import FACTORS, faces
from dcgan.evaluation.judge import digit_judge
from dcgan.evaluation.metrics import density_coverage, frechet, look, precision_recall
from dcgan.latent import (
    FACE_FACTORS,
    along,
    direction,
    draw,
    face_predictor,
    factor_scores,
    pool_of,
    scaled,
    score_arithmetic,
    skills,
    train_predictor,
    triples,
    truncated,
)
from dcgan.networks import Generator, latent
from dcgan.values import machine
from dcgan.weights import ASSETS

TRAIN, TEST, HELD_OUT = 6000, 2000, 10_000_000  # drawn faces; the test faces start at a number of their own
POOL, SEED = 4000, 11                           # generated faces from which exemplars are chosen; seed of their z
# What A has and B and C lack, and what A and B have and C lacks:
PAIRS = [("hat", "hair_length"), ("hat", "skin"), ("hair_length", "hat"), ("hair_length", "skin"), ("skin", "hat"),
         ("skin", "hair_length"), ("glasses", "hat"), ("glasses", "skin"), ("turn", "hat"), ("turn", "skin"),
         ("smile", "hair_length"), ("smile", "hat")]
# Name, exemplars in a mean, whether it is the control, length of the result:
WAYS = [("1", 1, False, None), ("3", 3, False, None), ("10", 10, False, None),
        ("1, rescaled", 1, False, 10.), ("10, rescaled", 10, False, 10.), ("3, control", 3, True, None)]
CLEAR = .3               # how far from 0 the exemplars' readings are
VECTORS, FACES = 10, 20  # directions for each factor and k; faces that each is tried on

LIMITS, SEEDS = (4., 2., 1.5, 1., .7, .4), 5   # of truncation


def stamp(command: str) -> dict:
    "Where a number is from."
    where = {"date": date.today(), "machine": machine(), "torch": torch.__version__, "seed": 0}
    return where | {"command": f"python bench/latent.py {command}"}


def known(n: int, start: int) -> tuple[torch.Tensor, dict]:
    "Drawn faces as images in [-1, 1], and their factors on the scale of predictors."
    images, factors = faces(n, start=start)
    return to_x(images), {name: scaled(factors[name], FACTORS[name].low, FACTORS[name].high) for name in FACE_FACTORS}


def predictor() -> None:
    "Train it, save it in half precision, and write what it gets right on held-out faces, as saved."
    folder = ASSETS / "predictors/faces"
    train_predictor(*known(TRAIN, 0)).half().save_pretrained(folder)
    (folder / "README.md").unlink()  # the hub's card
    found = [skill._asdict() | {"guess": round(skill.guess, 4), "at_chance": skill.at_chance}
             for skill in skills(face_predictor(), *known(TEST, HELD_OUT))]
    report = stamp("predictor") | {"date": str(date.today()), "images": TRAIN, "skills": found}
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for row in found:
        print(row, flush=True)


def factors() -> None:
    "Generated faces against drawn ones that the predictor was not trained on."
    made = Generator.from_pretrained("faces").sample(POOL, SEED)
    real, _ = known(POOL, HELD_OUT)
    rows = []
    for name, *shares in factor_scores(face_predictor(), made, real):
        found = dict(zip(("decided", "real", "overlap"), (round(share, 4) for share in shares)))
        rows.append({"factor": name} | found | {"n": POOL} | stamp("factors"))
    for row in rows:
        print(*list(row.values())[:4], flush=True)
    write(ASSETS / "latent-factors.csv", rows)


def arithmetic() -> None:
    "Every pair of factors in every way; all exemplars are chosen first, so that a lack of them shows at once."
    G, reader, rows = Generator.from_pretrained("faces"), face_predictor(), []
    pool = pool_of(G, reader, POOL, SEED)
    for name, seen in pool.readings.items():
        print(f"{name}: above {CLEAR} in {(seen > CLEAR).sum()}, below -{CLEAR} in {(seen < -CLEAR).sum()} of {POOL}")
    chosen = {(pair, way): triples(pool, *pair, k, control=control, clear=CLEAR)
              for pair in PAIRS for way, k, control, _ in WAYS}
    for (factor, given), (way, k, control, length) in ((pair, way) for pair in PAIRS for way in WAYS):
        score = score_arithmetic(G, reader, pool, chosen[(factor, given), way], factor, given, length)
        short = {"others": round(score.others, 4), "length": round(score.length, 3), "pool": POOL}
        rows.append({"factor": factor, "given": given, "way": way} | score._asdict() | short | stamp("arithmetic"))
        print(*list(rows[-1].values())[:10], flush=True)
    write(ASSETS / "latent-arithmetic.csv", rows)


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
                rose = int((high[factor] > low[factor]).sum())
                means = [round(reading[factor].mean().item(), 4) for reading in (low, start, high)]
                row = {"factor": factor, "k": k, "vector": i, "n": FACES, "rose": rose}
                row |= dict(zip(("low", "start", "high"), means)) | {"others": round(sum(same) / len(same), 4)}
                rows.append(row | {"length": round(v.norm().item(), 3)} | stamp("directions"))
            print(factor, k, sum(row["rose"] for row in rows[-VECTORS:]), "of", VECTORS * FACES, flush=True)
    write(ASSETS / "latent-directions.csv", rows)


def truncation() -> None:
    "1,000 digits for each limit and seed against the 1,000 held-out ones, by the features of the digit classifier."
    G, judge, rows = Generator.from_pretrained("digits"), digit_judge(), []
    real = look(judge, to_x(digits("test")[0])).features
    for limit in LIMITS:
        for seed in range(SEEDS):
            fake = look(judge, draw(G, truncated(1000, G.z_dim, limit, seed))).features
            names = "precision", "recall", "density", "coverage", "fid"
            found = *precision_recall(real, fake), *density_coverage(real, fake), float(frechet(fake, real))
            row = {"limit": limit, "n": 1000} | {name: round(v, 4) for name, v in zip(names, found)}
            rows.append(row | stamp("truncation") | {"seed": seed})
            print(*rows[-1].values(), flush=True)
    write(ASSETS / "latent-truncation.csv", rows)


if __name__ == "__main__":
    jobs = {job.__name__: job for job in (predictor, factors, arithmetic, directions, truncation)}
    if len(sys.argv) > 2 or len(sys.argv) == 2 and sys.argv[1] not in jobs:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for job in [jobs[sys.argv[1]]] if len(sys.argv) == 2 else jobs.values():
        job()
