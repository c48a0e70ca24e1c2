"Lessons 12, 14, 26 and 27: their exercises refuse plausible wrong answers."
import torch
from torch.nn import functional as F

from notebooks import ROOT, checks, refusing

LESSONS = [
    ROOT / "nbs" / name
    for name in ("12_metrics.ipynb", "14_results.ipynb", "under_the_hood/26_judge.ipynb", "under_the_hood/27_reports.ipynb")
]


def score(probs, mean=lambda p: p.mean(0), log=torch.log, of=torch.exp):
    return of((probs * (log(probs.clamp_min(1e-12)) - log(mean(probs).clamp_min(1e-12)))).sum(1).mean()).item()


def line(sizes, distances, at=lambda n: 1 / n, x=0.):
    A = torch.stack([torch.ones(len(sizes)), at(torch.tensor(sizes, dtype=torch.float))], 1).double()
    a, b = torch.linalg.lstsq(A, torch.tensor(distances).double()[:, None]).solution[:, 0].tolist()
    return a + b * x


def by_two(sizes, distances):
    (n, m), (a, b) = sizes[-2:], distances[-2:]
    return (b * m - a * n) / (m - n)


def half(labels, cut=lambda n: n // 2, every=1, tail=False):
    first = torch.zeros(len(labels), dtype=torch.bool)
    for k in labels.unique():
        places = (labels == k).nonzero()[:, 0]
        first[places[-cut(len(places)):] if tail else places[:cut(len(places)) * every:every]] = True
    return first.nonzero()[:, 0], (~first).nonzero()[:, 0]


def measured(rows):
    return [row for row in rows if "digit_fid" in row]


def spread(run, n=64, seed=1, G=lambda run: run.best_G, of=torch.mean):
    return {"varied": of(torch.pdist(G(run).sample(n, seed=seed).flatten(1))).item()}


def resized(x, side, mode="bilinear", antialias=True):
    return F.interpolate(x, size=(side, side), mode=mode, antialias=antialias and mode == "bilinear").clamp(-1, 1)


def table(said, labels, k):
    return (labels * k + said).bincount(minlength=k * k).view(k, k)


WRONG = {
    "judge_score": {
        "base 2": lambda probs: score(probs, log=torch.log2),
        "no exp": lambda probs: score(probs, of=lambda kl: kl),
        "against the even distribution": lambda probs: score(probs, mean=lambda p: torch.full_like(p[0], 1 / p.shape[1])),
        "the effective number of classes": lambda probs: torch.special.entr(probs.mean(0)).sum().exp().item(),
        "0 log 0 is nan": lambda probs: (probs * (probs / probs.mean(0)).log()).sum(1).mean().exp().item(),
    },
    "at_infinity": {
        "the value of most images": lambda sizes, distances: distances[-1],
        "the mean": lambda sizes, distances: sum(distances) / len(distances),
        "a line in n": lambda sizes, distances: line(sizes, distances, at=lambda n: n),
        "a line in the root of 1/n": lambda sizes, distances: line(sizes, distances, at=lambda n: n**-.5),
        "the two last points only": by_two,
        "read at 1/n = 1": lambda sizes, distances: line(sizes, distances, x=1.),
    },
    "better": {
        "by the means": lambda a, b: "A" if sum(a) / len(a) < sum(b) / len(b) else "B",
        "by the best": lambda a, b: "A" if min(a) < min(b) else "B",
        "touching allowed": lambda a, b: "A" if max(a) <= min(b) else "B" if max(b) <= min(a) else "can't say",
        "larger is better": lambda a, b: "B" if max(a) < min(b) else "A" if max(b) < min(a) else "can't say",
    },
    "black_share": {
        "of black itself": lambda x: (x == -1).float().mean().item() if len(x) < 3 else 0.,
        "in bytes": lambda x: (x < 25).float().mean().item(),
        "the others": lambda x: (x >= -.9).float().mean().item(),
        "per cent": lambda x: 100 * (x < -.9).float().mean().item(),
        "of one image": lambda x: (x < -.9).float().sum().item() / x[0].numel(),
        "of the first image alone": lambda x: (x[0] < -.9).float().mean().item(),
        "all that is dark": lambda x: (x < 0).float().mean().item(),
    },
    "paper_command": {
        "another recipe": lambda: "dcgan train mnist64 --epochs 10 --run runs/paper",
        "epochs left out": lambda: "dcgan train celeba64 --run runs/paper",
        "no folder": lambda: "dcgan train celeba64 --epochs 10",
        "more than was asked": lambda: "dcgan train celeba64 --epochs 10 --run runs/paper --filters 64",
        "another verb": lambda: "dcgan sample celeba64 --epochs 10 --run runs/paper",
    },
    "there_and_back": {
        "only there": lambda x, side: resized(x, side),
        "not antialiased": lambda x, side: resized(resized(x, side, antialias=False), x.shape[2]),
        "nearest": lambda x, side: resized(resized(x, side, mode="nearest"), x.shape[2], mode="nearest"),
        "nothing": lambda x, side: x,
        "cut out": lambda x, side: F.pad(x[:, :, :side, :side], (0, max(0, 28 - side)) * 2),
    },
    "confusion": {
        "rows and columns exchanged": lambda said, labels, k: table(labels, said, k),
        "only classes that occur": lambda said, labels, k: table(said, labels, int(labels.max()) + 1),
        "shares": lambda said, labels, k: table(said, labels, k) / len(said),
        "only the right ones": lambda said, labels, k: table(said, labels, k).diagonal().diag(),
    },
    "halves": {
        "rounded up": lambda labels: half(labels, lambda n: -(-n // 2)),
        "every second": lambda labels: half(labels, every=2),
        "the last half first": lambda labels: half(labels, tail=True),
        "all images cut, not each class": lambda labels: torch.arange(len(labels)).tensor_split(2),
    },
    "not_mirrored": {
        "upside down": lambda x, y: (x - y).square().sum((1, 2, 3)) < (x.flip(2) - y).square().sum((1, 2, 3)),
        "the other way": lambda x, y: (x - y).square().sum((1, 2, 3)) > (x.flip(3) - y).square().sum((1, 2, 3)),
        "one answer for all": lambda x, y: (x - y).square().sum() < (x.flip(3) - y).square().sum(),
        "equality": lambda x, y: (x == y).flatten(1).all(1),
    },
    "best_epoch": {
        "the smallest": lambda rows, spread: min(measured(rows), key=lambda row: row["digit_fid"])["epoch"],
        "the place among the measured": lambda rows, spread: [row["digit_fid"] for row in measured(rows)].index(
            min(row["digit_fid"] for row in measured(rows))),
        "the last within": lambda rows, spread: [row["epoch"] for row in measured(rows) if row["digit_fid"] <= min(
            row["digit_fid"] for row in measured(rows)) + spread][-1],
        "the first measured": lambda rows, spread: measured(rows)[0]["epoch"],
    },
    "varied": {
        "another seed": lambda run: spread(run, seed=0),
        "other samples": lambda run: spread(run, n=32),
        "the sum": lambda run: spread(run, of=torch.sum),
        "a tensor": lambda run: {"varied": torch.pdist(run.best_G.sample(64, seed=1).flatten(1)).mean()},
        "another name": lambda run: {"diversity": spread(run)["varied"]},
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(
    WRONG, *LESSONS, also=(AttributeError, IndexError, RuntimeError, ValueError)
)


def test_the_helpers_of_the_wrong_answers_are_right():
    "So that each is refused for what its name says."
    check = checks(*LESSONS)
    check["judge_score"](score)
    check["at_infinity"](line)
    check["confusion"](table)
    check["halves"](half)
    check["varied"](spread)
    check["there_and_back"](lambda x, side: resized(resized(x, side), x.shape[2]))


def test_a_command_may_join_flag_and_value():
    checks(*LESSONS)["paper_command"](lambda: "dcgan train celeba64 --run=runs/paper --epochs=10")
