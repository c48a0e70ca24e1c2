"Plausible wrong answers to the exercises of lessons 01, 10 and 13 are refused by their checks."
import csv
import math
from copy import deepcopy
from itertools import combinations

import torch

from dcgan.checkpoints import read_checkpoint

from notebooks import LESSONS, checks, refusing

LESSON = [path for path in LESSONS if path.stem in ("01_game", "10_checkpoints", "13_ablations")]


def entropy(y):
    return -sum(v * math.log(v) for v in (y, 1 - y) if v > 0)


def halves(real, fake, d=lambda r, f: (r + f) / 2, g=lambda f: f / 2):
    return d((real - 1).square().mean(), fake.square().mean()), g((fake - 1).square().mean())


def whole(folder, names=("checkpoint.pt", "checkpoint-previous.pt")):
    def fits(name):
        try:
            return bool(read_checkpoint(folder / name))
        except ValueError:
            return False
    return [name for name in names if fits(name)]


def values(path, name, empty=lambda: None, kind=float):
    with open(path, newline="") as file:
        return [kind(row[name]) if row[name] else empty() for row in csv.DictReader(file)]


def written(parts, path, aside=None):
    with open(aside or path, "w") as file:
        file.writelines(parts)
    if aside:
        aside.replace(path)


def swallowed(parts, path):
    try:
        text = "".join(parts)
    except KeyboardInterrupt:
        return
    path.write_text(text)


def turned(rows, norm=lambda edge: edge, bias=lambda row, edge: row.bias or row.norm and not edge):
    edges = 0, len(rows) - 1
    return tuple(row._replace(norm=norm(i in edges), bias=bool(bias(row, i in edges))) for i, row in enumerate(rows))


def luck(a, b, gap=lambda x, y: abs(sum(x) / len(x) - sum(y) / len(y)), least=1e-9):
    both, hits = [*a, *b], []
    for chosen in combinations(range(len(both)), len(a)):
        rest = [i for i in range(len(both)) if i not in chosen]
        hits.append(gap([both[i] for i in chosen], [both[i] for i in rest]) >= gap(a, b) - least)
    return sum(hits) / len(hits)


def times(last, factor=2., names=("weight", "bias"), copy=deepcopy):
    new = copy(last)
    with torch.no_grad():
        for name in names:
            getattr(new, name).mul_(factor)
    return new


WRONG = {
    "turned_round": [lambda rows: turned(rows, bias=lambda row, edge: True), lambda rows: turned(rows, norm=lambda edge: not edge),
                     lambda rows: turned(rows, norm=lambda edge: True), lambda rows: turned(rows, bias=lambda row, edge: row.bias),
                     lambda rows: turned(rows, bias=lambda row, edge: not edge), lambda rows: turned(rows)[:-1]],
    "by_luck": [lambda a, b: luck(a, b, gap=lambda x, y: sum(x) / len(x) - sum(y) / len(y)), lambda a, b: luck(a, b, least=-1e-9),
                lambda a, b: luck(a, b, gap=lambda x, y: abs(max(x) - max(y))), lambda a, b: 1 - luck(a, b),
                lambda a, b: luck(a, b, gap=lambda x, y: abs(sum(x) - sum(y)))],
    "for_a_sigmoid": [lambda last: times(last, names=["weight"]), lambda last: times(last, .5), lambda last: times(last, 1.),
                      lambda last: times(last, copy=lambda same: same)],
    "floor": [lambda real, fake: 0., lambda real, fake: -math.log(real) - math.log(1 - fake),
              lambda real, fake: entropy(real), lambda real, fake: (entropy(real) + entropy(fake)) / 2,
              lambda real, fake: (entropy(real) + entropy(fake)) / math.log(2)],
    "least_squares": [lambda r, f: halves(r, f, d=lambda a, b: a + b), lambda r, f: halves(r, f, g=lambda a: a),
                      lambda r, f: halves(r, f.detach()), lambda r, f: halves(f, r),
                      lambda r, f: (halves(r, f)[0], f.square().mean() / 2)],
    "best_logit": [lambda x, m: m * x - m * m / 2, lambda x, m: -m * x, lambda x, m: torch.sigmoid(m * m / 2 - m * x),
                   lambda x, m: torch.log(torch.exp(-x**2 / 2) / torch.exp(-(x - m)**2 / 2))],
    "readable": [lambda folder: [p.name for p in sorted(folder.iterdir())], lambda folder: whole(folder)[:1],
                 lambda folder: whole(folder)[::-1], lambda folder: whole(folder, ["checkpoint.pt"]),
                 lambda folder: [n for n in ("checkpoint.pt", "checkpoint-previous.pt") if (folder / n).exists()]],
    "column": [lambda path, name: values(path, name, empty=lambda: 0.), lambda path, name: values(path, name, kind=str),
               lambda path, name: values(path, name, empty=lambda: float("nan")),
               lambda path, name: [v for v in values(path, name) if v is not None]],
    "keep_note": [written, swallowed, lambda parts, path: written(parts, path, path.with_suffix(".new")),
                  lambda parts, path: path.write_text("".join([*parts][:1])),
                  lambda parts, path: path.exists() or path.write_text("".join(parts))],
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(
    {name: dict(enumerate(answers)) for name, answers in WRONG.items()}, *LESSON, also=(ArithmeticError, RuntimeError)
)


def test_right_answers_built_from_the_same_parts_pass():
    found = checks(*LESSON)
    found["floor"](lambda real, fake: entropy(real) + entropy(fake))
    found["least_squares"](halves)
    found["turned_round"](turned)
    found["by_luck"](luck)
    found["for_a_sigmoid"](times)
    found["best_logit"](lambda x, m: m * m / 2 - m * x)
    found["readable"](whole)
    found["column"](values)
    found["keep_note"](lambda parts, path: path.write_text("".join(parts)))
