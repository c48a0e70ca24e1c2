"Lessons 22 and 24: their exercises refuse plausible wrong answers."
import zlib

import torch
from torch.nn import functional as F

from dcgan.datasets.files import Bank
from dcgan.datasets.sources import fitted

from notebooks import ROOT, checks, refusing

LESSONS = [ROOT / "nbs/under_the_hood" / name for name in ("22_files.ipynb", "24_sources.ipynb")]


def padded(images, left, top, value=0):
    h, w = images.shape[2:]
    s = max(h, w)
    return F.pad(images, (left(s - w), s - w - left(s - w), top(s - h), s - h - top(s - h)), value=value)


def chosen(labels, per_class, generator, draw=lambda n, generator: torch.randperm(n, generator=generator)):
    out = torch.zeros(len(labels), dtype=torch.bool)
    for k in labels.unique():
        places = (labels == k).nonzero()[:, 0]
        out[places[draw(len(places), generator)[:per_class]]] = True
    return out


def boards(want, size=lambda k: 2**(k + 1), both=True, seeded=True, bank=fitted):
    generator = torch.Generator().manual_seed(want.seed if seeded else 0)
    labels = torch.randint(4, (want.images or 100,), generator=generator)
    field = torch.arange(32)[None] // size(labels)[:, None]
    images = (field[:, :, None] + (field[:, None, :] if both else 0)) % 2 * 255
    return bank(images[:, None].to(torch.uint8).expand(-1, 1, 32, 32), labels, want)


def header(data, order="big", start=lambda d: 4 + 4*d, first=4):
    end = 4 + 4*data[3]
    shape = [int.from_bytes(data[i:i + 4], order) for i in range(first, end, 4)]
    return torch.frombuffer(bytearray(data[start(data[3]):]), dtype=torch.uint8).view(shape)


def suspects(images, chunks, place=lambda k, start, kept: range(start, start + kept)):
    start = 0
    for k, (kept, crc) in enumerate(chunks):
        if zlib.crc32(images[start:start + kept].numpy()) != crc:
            return place(k, start, kept)
        start += kept
    return range(0)


WRONG = {
    "letterboxed": {
        "in a corner": lambda images: padded(images, lambda rest: 0, lambda rest: 0),
        "the odd rest above": lambda images: padded(
            images, lambda rest: -(-rest // 2), lambda rest: -(-rest // 2)
        ),
        "scaled": lambda images: F.interpolate(images, size=[max(images.shape[2:])] * 2),
        "on white": lambda images: padded(images, lambda rest: rest // 2, lambda rest: rest // 2, value=255),
        "floats": lambda images: padded(images, lambda rest: rest // 2, lambda rest: rest // 2).float(),
    },
    "suspects": {
        "nothing is": lambda images, chunks: range(0),
        "the chunk's number": lambda images, chunks: suspects(
            images, chunks, lambda k, start, kept: range(k, k + 1)
        ),
        "all from there on": lambda images, chunks: suspects(
            images, chunks, lambda k, start, kept: range(start, len(images))
        ),
        "chunks of the same size": lambda images, chunks: suspects(
            images, chunks, lambda k, start, kept: range(k * 4, k * 4 + 4)
        ),
    },
    "held_out": {
        "the first": lambda labels, n, seed=0: chosen(
            labels, n, None, draw=lambda n, generator: torch.arange(n)
        ),
        "any of all": lambda labels, n, seed=0: chosen(
            torch.zeros_like(labels), 4 * n, torch.Generator().manual_seed(seed)
        ),
        "always the same": lambda labels, n, seed=0: chosen(labels, n, torch.Generator().manual_seed(0)),
        "never the same": lambda labels, n, seed=0: chosen(labels, n, None),
        "the global generator": lambda labels, n, seed=0: chosen(labels, n, torch.manual_seed(seed)),
    },
    "checkers": {
        "stripes": lambda want: boards(want, both=False),
        "fields of k + 1": lambda want: boards(want, size=lambda k: k + 1),
        "without the seed": lambda want: boards(want, seeded=False),
        "not fitted": lambda want: boards(
            want, bank=lambda images, labels, want: Bank(images, labels, want.name)
        ),
    },
    "read_idx": {
        "least byte first": lambda data: header(data, order="little"),
        "a header of 16 bytes": lambda data: header(data, start=lambda d: 16),
        "no look at the type": header,
        "one number too early": lambda data: header(data, first=0),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(
    WRONG, *LESSONS, also=(IndexError, RuntimeError, ValueError)
)


def test_the_helpers_of_the_wrong_answers_are_right():
    "So that each is refused for what its name says."
    checks(*LESSONS)["letterboxed"](lambda images: padded(images, lambda rest: rest//2, lambda rest: rest//2))
    checks(*LESSONS)["suspects"](suspects)
    checks(*LESSONS)["held_out"](lambda labels, n, seed=0: chosen(labels, n, torch.Generator().manual_seed(seed)))
    checks(*LESSONS)["checkers"](boards)
