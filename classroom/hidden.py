"""Hidden checks: a student's function is compared with the solution on inputs drawn by a seed.

Only for exercises whose answer is a pure function with one right result. The others (they build, train or take a
network, read files, draw at random, take no argument, or leave room in the result) are graded by the lesson's check.
"""
import hashlib
import inspect
import random
from textwrap import indent

import torch

# Lesson/function → its arguments, as an expression. r is a random.Random; t(*shape) draws normal numbers,
# u(low, high, *shape) uniform ones, b(*shape) bytes; np, torch, zlib and what the exercise imports are there as well.
INPUTS = {
    "00_first_gan/push": "t(r.randint(2, 9)) * 3, r.choice([0., 0.1, 0.8, 1.])",
    "01_game/floor": "r.uniform(0.55, 0.99), r.uniform(0.01, 0.45)",
    "01_game/least_squares": "t(r.randint(2, 9)), t(r.randint(2, 9))",
    "01_game/best_logit": "t(r.randint(2, 9)), r.uniform(-4, 4)",
    "02_pictures/to_image": "b(r.randint(2, 7), r.randint(2, 7), 3)",
    "02_pictures/suspicious": "u(r.choice([-1, -0.5, -0.02, 0]), r.choice([0.02, 0.4, 1]), 2, 1, 9, 9)",
    "02_pictures/corner": "r.randint(0, 30), r.randint(3, 9), r.randint(2, 9), r.randint(0, 4)",
    "03_shapes/receptive_field": "[Row('conv', 1, r.randint(1, 5), r.randint(1, 3)) for _ in range(r.randint(1, 5))]",
    "03_shapes/halving_padding": "r.randint(2, 15)",
    "05_guidelines/normed_std": "r.uniform(0.05, 3), r.choice([1e-5, 0.1, 0.5])",
    "06_data/to_images": "u(-1.3, 1.3, r.randint(2, 5), 3)",
    "06_data/places": "r.randint(500, 900), 4 * r.randint(2, 8), r.randint(0, 9), r.randint(0, 9), r.randint(0, 9), "
                      "r.randint(0, 1), r.choice([2, 4])",
    "08_training/ema_for": "r.randint(1, 60), r.randint(5, 400)",
    "09_recipes/images_seen": "RECIPES['mnist28'].replace(epochs=r.randint(1, 9), batch_size=r.randint(20, 90), "
                              "last_batch=r.choice(['keep', 'drop'])), r.randint(100, 999)",
    "09_recipes/epochs_for": "RECIPES['mnist28'].replace(epochs=r.randint(1, 9), batch_size=2 * r.randint(10, 45), "
                             "last_batch=r.choice(['keep', 'drop'])), 2 * r.randint(50, 999), 2 * r.randint(50, 999)",
    "11_failures/spread": "t(r.randint(5, 9), 1, 3, 4) * u(0, 3, 4), t(8, 1, 3, 4)",
    "11_failures/jumps": "{'loss_g': r.choice([r.uniform(0, 9), float('nan')])}, "
                         "r.choice([{}, {'loss_g': r.uniform(0, 9)}, {'loss_g': r.uniform(0, 9)}]), r.uniform(1, 5)",
    "12_metrics/judge_score": "(t(r.randint(2, 9), r.randint(2, 6)) * 3).softmax(1)",
    "12_metrics/at_infinity": "r.sample(range(1, 50), 4), [r.uniform(1, 9) for _ in range(4)]",
    "12_metrics/better": "[r.uniform(0, 2) for _ in range(2)], [r.uniform(0, 4) for _ in range(3)]",
    "13_ablations/turned_round": "tuple(Row('conv', r.randint(1, 9), 4, 2, 1, norm=n, bias=not n) "
                                 "for n in r.choices([True, False], k=r.randint(3, 6)))",
    "13_ablations/by_luck": "r.choices(range(10), k=r.randint(2, 4)), r.choices(range(10), k=r.randint(2, 4))",
    "14_results/black_share": "u(-1, r.uniform(-0.9, 1), 2, 1, 5, 5)",
    "15_latent/length_of_result": "r.randint(1, 20), r.randint(2, 200)",
    "15_latent/long_mean": "t(r.randint(2, 6), r.randint(2, 6))",
    "15_latent/told_apart": "r.randint(0, 50), r.randint(50, 99), r.randint(0, 50), r.randint(50, 99)",
    "15_latent/best_start": "t(4, 5, r.randint(2, 6)), u(0, 1, 4, 5)",
    "16_inside/length": "r.choices(range(1, 99), k=3), r.choices(range(1, 20), k=3), r.randint(2, 5)",
    "16_inside/verdict": "*(lambda a, s: (a, [x + s + r.gauss(0, 0.02) for x in a]))"
                         "([r.uniform(0.4, 0.9) for _ in range(5)], r.choice([-0.05, 0, 0.05]))",
    "16_inside/guided": "t(4, 5), t(4, 5)",
    "17_labels/with_maps": "t(4, r.randint(1, 3), 3, r.randint(2, 4)), torch.tensor([r.randint(0, 4) for _ in range(4)]), 5",
    "17_labels/pairs": "t(2, 3), t(2), t(2, 3), t(2)",
    "20_values/settled": "{'a': np.int64(r.randint(0, 99)), 'b': torch.tensor(r.randint(0, 99) / 4), "
                         "'c': r.choice(['word', True, torch.ones(2)])}",
    "20_values/gibibytes": "int(2 ** r.uniform(11, 42))",
    "21_drawn/crescent": "-u(0.25, 0.5, 5), u(-0.25, 0.25, 5)",
    "21_drawn/twins": "r.choice(['hat', 'glasses']), r.randint(1, 3), r.randint(0, 99)",
    "22_files/letterboxed": "b(2, r.choice([1, 3]), r.randint(1, 9), r.randint(1, 9))",
    "22_files/suspects": "*(lambda x, k: (x, [[len(p), zlib.crc32(p.numpy()) ^ (r.random() < 0.3)] "
                         "for p in x.split(k)]))(b(9, 1, 2, 2), r.randint(1, 4))",
    "23_weights/renamed": "{r.choice(['main.', 'net.main.', 'layers.']) + str(r.randint(0, 3)): k for k in range(4)}, "
                          "'main.', 'layers.'",
    "24_sources/read_idx": "(lambda a: bytes([0, 0, r.choice([8, 8, 8, 13]), a.ndim]) + b''.join(n.to_bytes(4, 'big') "
                           "for n in a.shape) + a.numpy().tobytes())(b(*(r.randint(1, 5) for _ in range(r.randint(1, 3)))))",
    "26_judge/confusion": "*(lambda k, n: (*(torch.tensor(r.choices(range(k), k=n)) for _ in range(2)), k))"
                          "(r.randint(2, 5), r.randint(1, 20))",
    "26_judge/halves": "torch.tensor(r.choices(range(4), k=r.randint(2, 20)))",
    "26_judge/not_mirrored": "*(lambda x: (x, torch.where(t(6, 1, 1, 1) > 0, x, x.flip(3)) + t(6, 1, 5, 5) / 3))"
                             "(t(6, 1, 5, 5))",
    "27_reports/best_epoch": "[{'epoch': e} | ({'digit_fid': r.uniform(2, 4)} if e % 2 else {}) for e in range(9)], "
                             "r.uniform(0, 1)",
    "28_devices/smallest_scale": "2 ** -r.uniform(1, 45)",
    "28_devices/moved": "r.randint(1, 999), (r.choice([1, 3]), r.randint(1, 64), r.randint(1, 64))",
    "29_processes/weights_of": "[r.randint(1, 9) for _ in range(r.randint(2, 5))]",
    "29_processes/worlds": "r.randint(2, 64)",
    "31_cost/unfrozen": "RECIPES[r.choice(['digits', 'svhn32'])].replace(filters=4 * r.randint(1, 9))",
    "31_cost/sent": "RECIPES[r.choice(['digits', 'celeba64'])].replace(filters=4 * r.randint(1, 9)), r.randint(1, 12)",
    "32_speed/faster": "r.uniform(0, 0.95), r.uniform(0.3, 20)",
    "32_speed/shares": "RECIPES[r.choice(['digits', 'mnist28', 'svhn32'])], *(r.uniform(10, 999) for _ in range(3))",
    "33_cli/sentence": "OSError(r.randint(1, 30), f'reason {r.randint(0, 99)}', r.choice(['a/b', 'c', None]))",
    "34_onnx/to_canvas": "np.random.default_rng(r.randrange(10**6)).uniform(-1, 1, (r.choice([1, 3]), r.randint(1, 4), r.randint(1, 4)))",
    "34_onnx/stored_bytes": "[np.float32([r.choice([r.uniform(-9, 9), r.randint(-9, 9) / 4]) for _ in range(r.randint(1, 3))]) "
                            "for _ in range(r.randint(1, 6))]",
    "34_onnx/box_muller": "np.random.default_rng(r.randrange(10**6)).random(2 * r.randint(1, 9))",
}


def tools(key):
    "What draws the inputs: r, t, u, b; the same for the same key."
    r = random.Random(key)
    g = torch.Generator().manual_seed(r.getrandbits(32))

    def u(low, high, *shape):
        return torch.rand(shape, generator=g) * (high - low) + low

    def b(*shape):
        return torch.randint(256, shape, generator=g, dtype=torch.uint8)

    return r, lambda *shape: torch.randn(shape, generator=g), u, b


def same(a, b):
    "Whether an answer's result is the solution's, but for rounding and the kind of sequence."
    if isinstance(b, (list, tuple, range)):
        return isinstance(a, (list, tuple, range)) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in b)
    if a is None or isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b) and a == b
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def outcome(f, args):
    "What f gives, or that it refused its input."
    try:
        return f(*args)
    except ValueError:
        return "a ValueError"


def compare(answer, solution, draw):
    "Raise AssertionError at the first of sixteen draws where the two differ."
    for i in range(16):
        expected, got = outcome(solution, draw(i)), outcome(answer, draw(i))
        if not same(got, expected):
            raise AssertionError(f"with the input {draw(i)} the result is {got}, expected is {expected}")


def hidden_cell(lesson, exercise, seed):
    "Source of a cell whose hidden part compares the answer with the solution, None where there is no hidden check."
    key = f"{lesson}/{exercise.name}"
    if key not in INPUTS:
        return None
    helpers = "\n\n".join(inspect.getsource(f).rstrip() for f in (tools, same, outcome, compare))
    stream = hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()[:16]  # so that a cell doesn't give the seed away
    body = f"""\
import random
import zlib

import numpy as np
import torch
{exercise.imports}

{helpers}

def draw(i):
    r, t, u, b = tools(f"{stream}/{{i}}")
    return ({INPUTS[key]},)

{exercise.solution.rstrip()}

compare(answer, {exercise.name}, draw)
"""
    return (
        f"# Your teacher tries `{exercise.name}` with more inputs here.\n"
        f"### BEGIN HIDDEN TESTS\n"
        f"def hidden_{exercise.name}(answer):\n"
        f"{indent(body, '    ')}\n"
        f"hidden_{exercise.name}({exercise.name})\n"
        f"### END HIDDEN TESTS"
    )
