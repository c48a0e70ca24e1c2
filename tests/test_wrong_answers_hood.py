"Plausible wrong answers to the exercises of lessons 20, 21, 25, 28, 29 and 33 are refused, each with the message it needs."
import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dcgan.audit import watch
from dcgan.datasets.drawn import face_factors, faces_from
from dcgan.recipes import from_json
from dcgan.values import plain

from notebooks import LESSONS, checks, refusing

LESSON = [path for path in LESSONS if path.name[:2] in ("20", "21", "25", "28", "29", "33")]


def settled(values, way=plain, refused=lambda value: getattr(value, "ndim", 0),
            words=lambda name: f"{name}: one number, or a word"):
    found = {name: way(value) for name, value in values.items()}
    for name, value in found.items():
        if refused(value):
            raise ValueError(words(name))
    return found


def sized(n, power=1024, units=("GiB", "MiB", "kiB"), above=lambda n, least: n >= least, small=0):
    if above(n, power**3):
        return f"{n / power**3:.1f} {units[0]}"
    if above(n, power**2):
        return f"{n / power**2:.1f} {units[1]}"
    return f"{n / power:.{small}f} {units[2]}"


def moon(x, y, put=lambda disc, bite: torch.maximum(disc, -bite), bite=(.3, .5)):
    return put(torch.sqrt(x**2 + y**2) - .6, torch.sqrt((x - bite[0])**2 + y**2) - bite[1])


def points(n, seed=0, start=0, key=lambda seed, i: [seed, i], reach=lambda u: u**.5, first=lambda start: start):
    out = np.empty((n, 2))
    for row, i in zip(out, range(first(start), first(start) + n)):
        radius, turn = np.random.Generator(np.random.Philox(key=key(seed, i))).random(2)
        row[:] = reach(radius) * np.cos(2 * np.pi * turn), reach(radius) * np.sin(2 * np.pi * turn)
    return torch.from_numpy(out)


def rejected(n, seed=0, start=0):
    generator, found = np.random.default_rng(seed), []
    while len(found) < start + n:
        tried = generator.uniform(-1, 1, (2, start + n)).T  # all x, then all y
        found += [p for p in tried if p @ p <= 1]
    return torch.from_numpy(np.array(found[start:start + n]))


def from_the_global_one(n, seed=0, start=0):
    np.random.seed(seed)
    u = np.random.random((start + n, 2))[start:]
    return torch.from_numpy(np.sqrt(u[:, :1]) * np.stack([np.cos(2 * np.pi * u[:, 1]), np.sin(2 * np.pi * u[:, 1])], 1))


def pair(name, n, seed=0, people=face_factors, others=None):
    first = people(n, seed)
    second = first if others is None else others(n, seed + 1)
    return faces_from(first | {name: [False] * n}), faces_from(second | {name: [True] * n})


def mended(net, deep=True, old=(nn.LeakyReLU,), new=nn.ReLU):
    for name, child in net.named_children():
        if isinstance(child, old):
            setattr(net, name, new())
        elif deep:
            mended(child, deep, old, new)
    return net


def random_modules(net, shape):
    return any(isinstance(m, (nn.Dropout, nn.Dropout2d)) for m in net.modules())


def differs(net, shape, seen=lambda ops: ops, x=torch.ones, batch=16):
    ops = [op.y.float() for op in seen(watch(net, x(batch, *shape))[1]) if len(op.y) == batch]
    return not all(torch.allclose(y, y[:1].expand_as(y), atol=1e-5) for y in ops)


def in_eval(net, shape):
    x = torch.ones(16, *shape)
    with torch.no_grad():
        return not torch.equal(net.eval()(x), net.eval()(x))


def scale(g, factor=2, enough=lambda s, g: torch.tensor(s * g).half() > 0, start=1):
    s = start
    while not enough(s, g):
        s *= factor
    return s


def worlds(size, least=2, divides=lambda size, p: size % p == 0):
    return [p for p in range(1, size // least + 1) if divides(size, p)]


def finished(argv, reached=lambda last, epochs: last + 1 == epochs, codes=(1, 0), row=-1):
    run = Path(argv[0])
    with open(run / "history.csv", newline="") as file:
        last = int(list(csv.DictReader(file))[row]["epoch"])
    return codes[reached(last, from_json((run / "recipe.json").read_text()).epochs)]


def sentence(e, there=lambda e: e.filename and e.strerror, words=lambda e: f"{e.filename}: {e.strerror}."):
    return words(e) if there(e) else str(e)


WRONG = {
    "settled": {
        "as they are": ("should be Python's own", lambda values: settled(values, way=lambda value: value)),
        "all numbers floats": ("should be Python's own", lambda values: settled(
            values, way=lambda value: value if isinstance(value, str) or getattr(value, "ndim", 0) else float(value))),
        "all words": ("stay what they are", lambda values: settled(values, way=str)),
        "nothing refused": ("two numbers are not one", lambda values: settled(values, refused=lambda value: False)),
        "without the key": ("should name the key", lambda values: settled(values, words=lambda name: "no plain value")),
        "the first key": ("should name the key", lambda values: settled(values, words=lambda name: next(iter(values)))),
    },
    "gibibytes": {
        "powers of 1000": ("1024³ bytes are 1.0 GiB", lambda n: sized(n, 1000)),
        "the disk's units": ("1024³ bytes are 1.0 GiB", lambda n: sized(n, units=("GB", "MB", "kB"))),
        "above, not from": ("1024³ bytes are 1.0 GiB", lambda n: sized(n, above=lambda n, least: n > least)),
        "GiB from half of one": ("below 1024³ the unit is MiB", lambda n: sized(n, above=lambda n, least: 2 * n >= least)),
        "MiB above, not from": ("1024² bytes are 1.0 MiB", lambda n: sized(n, above=lambda n, least: n > least - (least > 1024**2))),
        "decimals everywhere": ("kiB with none", lambda n: sized(n, small=1)),
    },
    "crescent": {
        "both discs": ("inside at", lambda x, y: moon(x, y, put=torch.minimum)),
        "what they share": ("inside at", lambda x, y: moon(x, y, put=torch.maximum)),
        "inside out": ("inside at", lambda x, y: -moon(x, y)),
        "the whole disc": ("inside at", lambda x, y: moon(x, y, put=lambda disc, bite: disc)),
        "the difference of both": ("on the edge", lambda x, y: moon(x, y, put=lambda disc, bite: disc - bite)),
        "the bite's radius as its place": ("on the edge", lambda x, y: moon(x, y, bite=(.5, .3))),
    },
    "disc_points": {
        "one generator, and rejection": ("first ten of 2,000", rejected),
        "the start ignored": ("begin with point 7", lambda *a, **k: points(*a, **k, first=lambda start: 0)),
        "the seed ignored": ("another seed", lambda *a, **k: points(*a, **k, key=lambda seed, i: [0, i])),
        "seed + i": ("no key", lambda *a, **k: points(*a, **k, key=lambda seed, i: [seed + i, 0])),
        "the global generator": ("global generators untouched", from_the_global_one),
        "uniform in the radius": ("uniform in area", lambda *a, **k: points(*a, **k, reach=lambda u: u)),
    },
    "twins": {
        "exchanged": ("unchanged in the second", lambda name, n, seed=0: pair(name, n, seed)[::-1]),
        "other people": ("unchanged in the second", lambda name, n, seed=0: pair(name, n)),
        "two sets of people": ("unchanged in the second", lambda name, n, seed=0: pair(name, n, seed, others=face_factors)),
        "always a hat": ("glasses", lambda name, n, seed=0: pair("hat", n, seed)),
        "as drawn": ("show in every pair", lambda name, n, seed=0: (faces_from(face_factors(n, seed)),) * 2),
        "floats": ("unchanged", lambda name, n, seed=0: tuple(x / 255 for x in pair(name, n, seed))),
    },
    "mend": {
        "the outer ones": ("not every layer inside", lambda net: mended(net, deep=False)),
        "taken out": ("not every layer inside", lambda net: mended(net, new=nn.Identity)),
        "every activation": ("tanh is no LeakyReLU", lambda net: mended(net, old=(nn.LeakyReLU, nn.Tanh))),
        "another network": ("return the same network", lambda net: mended(nn.Sequential(*net))),
        "nothing returned": ("return the same network", lambda net: mended(net) and None),
        "nothing done": ("not every layer inside", lambda net: net),
    },
    "is_random": {
        "a look at the modules": ("dropout of a function", random_modules),
        "in eval mode": ("dropout of a module", in_eval),
        "different images": ("nothing random here", lambda net, shape: differs(net, shape, x=torch.rand)),
        "the first operation": ("dropout of a module", lambda net, shape: differs(net, shape, seen=lambda ops: ops[:1])),
        "a batch of one": ("dropout of a module", lambda net, shape: differs(net, shape, batch=1)),
        "always": ("nothing random here", lambda net, shape: True),
    },
    "smallest_scale": {
        "GradScaler's first": ("needs no scale", lambda g: 2**16),
        "until it is above 6e-8": ("half of s", lambda g: scale(g, enough=lambda s, g: s * g > 6e-8)),
        "until it is normal": ("half of s", lambda g: scale(g, enough=lambda s, g: s * g > 6.2e-5)),
        "in tens": ("half of s", lambda g: scale(g, 10)),
        "one power too few": ("must be positive", lambda g: max(1, scale(g) // 2)),
        "from 2": ("needs no scale", lambda g: scale(g, start=2)),
    },
    "moved": {
        "bits": ("one byte or four", lambda n, shape: (8 * n * np.prod(shape), 32 * n * np.prod(shape))),
        "one image": ("one byte or four", lambda n, shape: (np.prod(shape), 4 * np.prod(shape))),
        "one channel": ("one byte or four", lambda n, shape: (n * np.prod(shape[1:]), 4 * n * np.prod(shape[1:]))),
        "halves": ("one byte or four", lambda n, shape: (n * np.prod(shape), 2 * n * np.prod(shape))),
        "exchanged": ("one byte or four", lambda n, shape: (4 * n * np.prod(shape), n * np.prod(shape))),
    },
    "weights_of": {
        "all alike": ("three images count", lambda sizes: [1 / len(sizes)] * len(sizes)),
        "the sizes": ("equal weights", lambda sizes: sizes),
        "the other way round": ("three images count", lambda sizes: [(sum(sizes) - n) / sum(sizes) for n in sizes]),
        "of the mean size": ("equal weights", lambda sizes: [n * len(sizes) / sum(sizes) for n in sizes]),
        "of the largest": ("equal weights", lambda sizes: [n / max(sizes) for n in sizes]),
    },
    "worlds": {
        "one image each": ("one image each", lambda size: worlds(size, least=1)),
        "uneven parts": ("one image each", lambda size: worlds(size, divides=lambda size, p: True)),
        "powers of two": ("three parts of three", lambda size: [p for p in (1, 2, 4, 8) if 2 * p <= size]),
        "not one": ("one image each", lambda size: worlds(size)[1:]),
        "at least three images": ("one image each", lambda size: worlds(size, least=3)),
    },
    "finished": {
        "counted from 1": ("the third epoch is done", lambda argv: finished(argv, reached=lambda last, epochs: last == epochs)),
        "true and false": ("two of three", lambda argv: finished(argv, codes=(0, 1))),
        "the first row": ("two of three", lambda argv: finished(argv, codes=(0, 0))),
        "one epoch early": ("two of three", lambda argv: finished(argv, reached=lambda last, epochs: last + 2 >= epochs)),
        "never": ("the third epoch is done", lambda argv: 1),
    },
    "sentence": {
        "str alone": ("name and reason", lambda e: str(e)),
        "None in it": ("stay as they are", lambda e: sentence(e, there=lambda e: True)),
        "no full stop": ("name and reason", lambda e: sentence(e, words=lambda e: f"{e.filename}: {e.strerror}")),
        "the reason first": ("name and reason", lambda e: sentence(e, words=lambda e: f"{e.strerror}: {e.filename}.")),
        "the reason alone": ("name and reason", lambda e: f"{e.strerror}." if e.strerror else str(e)),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(WRONG, *LESSON, also=(ValueError,))


def test_the_helpers_of_the_wrong_answers_are_right():
    "So that each is refused for what its name says."
    helpers = {"settled": settled, "gibibytes": sized, "crescent": moon, "disc_points": points, "twins": pair, "mend": mended,
               "is_random": differs, "smallest_scale": scale, "worlds": worlds, "finished": finished, "sentence": sentence}
    for name, helper in helpers.items():
        checks(*LESSON)[name](helper)
