"The latent space: planted directions are found and scored, chance is called chance, own samples come back, bad input is one sentence."
import csv
import re
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan.data import to_x
from dcgan.datasets.drawn import FACTORS, faces
from dcgan.evaluation.metrics import nearest
from dcgan.latent import (
    FACE_FACTORS,
    Pool,
    Predictor,
    Skill,
    along,
    arithmetic,
    calculator,
    direction,
    draw,
    exemplars,
    explorer,
    face_predictor,
    factor_scores,
    interval,
    invert,
    jump,
    lerp,
    neighbours,
    player,
    png,
    pool_of,
    scaled,
    score_arithmetic,
    skills,
    slant,
    slerp,
    strides,
    thickness,
    train_predictor,
    triples,
    truncated,
    walk,
)
from dcgan.networks import Generator, latent
from dcgan.plots import grid
from dcgan.shapes import Row
from dcgan.weights import ASSETS

from notebooks import ROOT, refusing

LESSON = ROOT / "nbs/15_latent.ipynb"
QUARTERS = "top left", "top right", "bottom left", "bottom right"


def quarter(q):
    "Where a quarter of an 8×8 image lies."
    mask = torch.zeros(8, 8)
    mask[q // 2 * 4:q // 2 * 4 + 4, q % 2 * 4:q % 2 * 4 + 4] = 1
    return mask.flatten()


@pytest.fixture(scope="module")
def toy():
    "A generator whose first four numbers of z are the brightness of the quarters, and a predictor that reads just that."
    G = Generator([Row("linear", (1, 8, 8), act="tanh")], z_dim=10).eval()
    P = Predictor([Row("linear", 4)], (1, 8, 8), QUARTERS).eval()
    with torch.no_grad():
        for p in (*G.parameters(), *P.parameters()):
            p.zero_()
        for q in range(4):
            G.layers[0].linear.weight[:, q] = quarter(q)
            P.layers[0].linear.weight[q] = quarter(q) / 16
    return G, P


@pytest.fixture(scope="module")
def pool(toy):
    return pool_of(*toy, n=600, seed=3)


def test_the_planted_direction_is_found(toy, pool):
    G, P = toy
    for q, name in enumerate(QUARTERS):
        v = direction(pool.z, pool.readings[name], k=40)
        assert v[q] / v.norm() > .9, "mostly the planted number"
        images = along(G, latent(30, 10, seed=4), v, [-.5, 0, .5])
        low, start, high = (P.read(x)[name] for x in images)
        assert (low < start).all() and (start < high).all()


def test_more_extremes_give_a_purer_direction(pool):
    first = [direction(pool.z, pool.readings["top left"], k) for k in (1, 4, 40)]
    assert first[2][0] / first[2].norm() > first[1][0] / first[1].norm() > .6
    assert first[0].norm() > first[2].norm()


def test_arithmetic_on_planted_factors_is_counted_right(toy, pool):
    score, control = (
        score_arithmetic(
            *toy,
            pool,
            triples(pool, "top left", "top right", k=10, n=100, control=c),
            "top left",
            "top right",
        )
        for c in (False, True)
    )
    assert score.n == 100 and score.before == 0 and score.wanted == score.kept == score.both == 100
    assert control.wanted <= 5 and control.kept == 100
    assert .6 < score.others <= 1 and score.length < 10**.5


def test_a_score_is_what_the_readings_say(toy, pool):
    places = triples(pool, "top left", "top right", k=1, n=50)
    score = score_arithmetic(*toy, pool, places, "top left", "top right")
    z = pool.z[places[0, :, 0]] - pool.z[places[1, :, 0]] + pool.z[places[2, :, 0]]
    assert score.wanted == (z[:, 0] > 0).sum() and score.kept == (z[:, 1] <= 0).sum()
    assert score.both == ((z[:, 0] > 0) & (z[:, 1] <= 0)).sum()
    kept = (z[:, 2:4] > 0) == (pool.z[places[2, :, 0], 2:4] > 0)
    assert abs(score.others - kept.float().mean()) < 1e-6


def test_triples_are_what_they_are_called(pool):
    places = triples(pool, "top left", "bottom left", k=3, n=40)
    a, b = pool.readings["top left"], pool.readings["bottom left"]
    assert places.shape == (3, 40, 3)
    assert (a[places[0]] > .5).all() and (b[places[0]] > .5).all()
    assert (a[places[1]] < -.5).all() and (b[places[1]] > .5).all()
    assert (a[places[2]] < -.5).all() and (b[places[2]] < -.5).all()
    assert all(len(set(means.tolist())) == 3 for means in places.flatten(0, 1)), "no image twice in one mean"
    assert (a[triples(pool, "top left", "bottom left", control=True)[0]] < -.5).all(), "the control's A is like B"
    assert torch.equal(places, triples(pool, "top left", "bottom left", k=3, n=40))


def test_chance_is_called_chance(toy):
    x = toy[0].sample(400)
    truth = {name: v.sign() for name, v in toy[1].read(x).items()}
    coins = {name: torch.randint(2, (400,), generator=torch.Generator().manual_seed(5)) * 2. - 1 for name in truth}
    assert all(s.right == 400 and not s.at_chance for s in skills(toy[1], x, truth))
    assert all(s.at_chance for s in skills(toy[1], x, coins))
    assert Skill("rare", 96, 100, .95).at_chance, "always saying no is right as often"
    assert not Skill("even", 70, 100, .5).at_chance


def test_factors_that_are_missing_are_seen(toy):
    P, real = toy[1], torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(9)) * .1 - .05
    sign = torch.randint(2, (200, 4), generator=torch.Generator().manual_seed(10)) * 2. - 1
    real = real + .8 * sum(sign[:, q, None] * quarter(q) for q in range(4)).view(200, 1, 8, 8)
    same, none = factor_scores(P, real, real), factor_scores(P, real * .1, real)
    assert [s.factor for s in same] == list(QUARTERS)
    assert all(s.decided == s.real == 1 and abs(s.overlap - 1) < 1e-6 for s in same)
    assert all(s.decided == 0 and s.real == 1 and s.overlap == 0 for s in none), "all readings are near 0"
    half = torch.where(sign[:, :1, None, None] > 0, real, torch.zeros(()))  # one value of the first factor is left
    first = factor_scores(P, half, real)[0]
    assert abs(first.decided - first.overlap) < .05 and first.decided == (sign[:, 0] > 0).float().mean()


def test_a_predictor_learns_and_does_not_learn_coins():
    x = torch.rand(512, 1, 16, 16, generator=torch.Generator().manual_seed(6)) * .5 - .25
    level = torch.rand(512, generator=torch.Generator().manual_seed(7)) * 2 - 1
    x = (x + .7 * level[:, None, None, None]).clamp(-1, 1)
    coins = torch.randint(2, (512,), generator=torch.Generator().manual_seed(8)) * 2. - 1
    before = torch.get_rng_state()
    P = train_predictor(x[:384], {"bright": level[:384], "coin": coins[:384]}, epochs=6, width=4)
    bright, coin = skills(P, x[384:], {"bright": level[384:], "coin": coins[384:]})
    assert bright.right > 115 and not bright.at_chance and coin.at_chance
    again = train_predictor(x[:384], {"bright": level[:384], "coin": coins[:384]}, epochs=6, width=4)
    assert all(torch.equal(a, b) for a, b in zip(P.parameters(), again.parameters()))
    assert torch.equal(before, torch.get_rng_state()), "no number is taken from the global generator"


def test_slerp_keeps_to_the_arc():
    a, b = (torch.nn.functional.normalize(latent(50, 20, seed=s), dim=1) for s in (1, 2))
    for t in (0, .2, .5, 1):
        p = slerp(a, b, t)
        assert torch.allclose(p.norm(dim=1), torch.ones(50), atol=1e-5)
        whole, part = ((u * v).sum(1).clamp(-1, 1).acos() for u, v in ((a, b), (a, p)))
        assert torch.allclose(part, t * whole, atol=2e-3), "the angle grows evenly"
        assert torch.allclose(p, slerp(b, a, 1 - t), atol=1e-5)
    assert torch.allclose(slerp(a, b, 0.), a, atol=1e-6) and torch.allclose(slerp(a, b, 1.), b, atol=1e-6)
    assert torch.allclose(slerp(torch.tensor([1., 0]), torch.tensor([0., 1]), .5), torch.full((2,), .5**.5))
    assert torch.allclose(slerp(a, a, .3), a, atol=1e-6), "no arc at all"
    near = a + 1e-6 * b
    assert torch.allclose(slerp(a, near, .5), lerp(a, near, .5), atol=1e-6)
    assert slerp(a.half(), b.half(), .5).dtype == torch.half


def test_walks_and_strides():
    points = latent(4, 12)
    way = walk(points, 5)
    assert way.shape == (16, 12) and torch.allclose(way[::5], points, atol=1e-6)
    assert torch.allclose(walk(points, 2, lerp)[1], points[:2].mean(0))
    x = torch.tensor([-1., -1, 1, 1]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    assert strides(x).tolist() == [0, 2, 0] and jump(x) == pytest.approx(3)
    assert jump(torch.linspace(-1, 1, 9).view(9, 1, 1, 1).expand(9, 1, 8, 8)) == pytest.approx(1, abs=1e-4)


def test_arithmetic_and_neighbours():
    a, b, c = latent(3, 5), latent(3, 5, seed=1), latent(2, 5, seed=2)
    assert torch.allclose(arithmetic(a, b, c), a.mean(0) - b.mean(0) + c.mean(0))
    stacked = arithmetic(*(torch.stack([v, 2 * v]) for v in (a, b, c)))
    assert torch.allclose(stacked[1], 2 * stacked[0])
    around = neighbours(a[0], 200)
    away = around[1:] - a[0]
    assert (
        torch.equal(around[0], a[0])
        and away.abs().max() <= 0.2501
        and away.abs().max() > 0.24
        and abs(away.mean()) < 0.02
    )
    assert not torch.equal(neighbours(a[0], seed=1), neighbours(a[0], seed=2))


def pixels(data):
    "What a PNG file shows."
    return np.asarray(Image.open(BytesIO(data)))


def test_sheets_are_enlarged_and_numbered():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(9)) * 2 - 1
    plain = pixels(png(x, 2))
    assert (plain[::8, ::8] == grid(x, 2)).all() and plain.shape == tuple(8 * n for n in grid(x, 2).shape[:2]) + (3,)
    differs = (plain != pixels(png(x, 2, numbered=True))).any(2)
    side = 8 * 10
    assert differs[:side, :side].any() and differs[:side, side:].any() and differs[side:, :side].any()
    assert not differs[side:, side + 16:].any(), "there is no fourth image, so no fourth number"


def test_the_explorer_follows_its_sliders(toy):
    G, _ = toy
    v = torch.nn.functional.one_hot(torch.tensor(2), 10).float()
    picture, slider, other = explorer(G, {"lower left": v, "nothing": 0 * v}, seed=4).children
    before, z = picture.value, latent(1, 10, seed=4)
    assert before == png(draw(G, z))
    slider.value = 1.
    assert picture.value == png(draw(G, z + v)) != before
    slider.value, other.value = 0., 1.
    assert picture.value == before


def test_the_calculator_adds_what_is_chosen(toy):
    G, _ = toy
    z = latent(5, 10, seed=5)
    choice, lists, text, picture = calculator(G, z, columns=3).children
    a, b, c = lists.children
    assert choice.value == png(draw(G, z), 3, numbered=True)
    a.value, b.value, c.value = (0, 3), (1,), (2, 4)
    means = z[[0, 3]].mean(0), z[1], z[[2, 4]].mean(0)
    assert picture.value == png(draw(G, torch.stack([*means, means[0] - means[1] + means[2]])), 4)
    assert text.value == "means of A, B and C; A − B + C"
    b.value = ()
    assert picture.value == b"" and text.value == "Choose one image or more for each of A, B and C."
    b.value = (1,)
    assert picture.value


def test_the_player_shows_each_step(toy):
    G, _ = toy
    points = latent(3, 10, seed=6)
    picture, controls = player(G, points, steps=4).children
    play, slider = controls.children
    x = draw(G, walk(points, 4))
    assert slider.max == play.max == 8 and picture.value == png(x[:1])
    slider.value = 5
    assert picture.value == png(x[5:6]) and play.value == 5
    play.value = 8
    assert picture.value == png(x[8:]) and slider.value == 8


def test_a_memorising_generator_is_caught(toy):
    "It shows the nearest of thirty training images: no distance to them, and jumps along a walk."
    G, _ = toy
    train = G.sample(30, seed=7).flatten(1)
    walks = [draw(G, walk(ends, 40)) for ends in latent(20, 10, seed=8).view(10, 2, 10)]
    copied = [train[nearest(x.flatten(1), train)[1]].view_as(x) for x in walks]
    assert all(nearest(x.flatten(1), train)[0].max() < .01 for x in copied)
    assert all(nearest(x.flatten(1), train)[0].median() > 1 for x in walks)
    assert all(jump(copy) > 2 * jump(x) for copy, x in zip(copied, walks))


def test_own_samples_come_back(toy):
    G, _ = toy
    x = G.sample(5, seed=9)
    found = invert(G, x)
    assert (found.error < 1e-3).all() and found.error.median() < 1e-6
    assert torch.allclose(found.x, x, atol=.1)
    assert all(p.requires_grad and p.grad is None for p in G.parameters())
    other = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    assert invert(G, other).error > .05, "this generator draws no ramp"


def test_the_shipped_digits_know_their_own():
    G = Generator.from_pretrained("digits")
    found = invert(G, G.sample(3, seed=5), steps=150)
    assert found.error.max() < .03
    assert torch.allclose((found.x - G.sample(3, seed=5)).square().flatten(1).mean(1), found.error, atol=1e-4)


def test_strokes_are_measured():
    bars = -torch.ones(2, 1, 28, 28)
    bars[0, :, 2:26, 12:14], bars[1, :, 2:26, 11:17] = 1, 1
    thin, thick = thickness(bars).tolist()
    assert 1.6 < thin < 2.1 and 4.5 < thick < 6.1
    leaning = -torch.ones(1, 1, 28, 28)
    for row in range(28):
        leaning[0, 0, row, 6 + (27 - row) // 2:9 + (27 - row) // 2] = 1
    assert slant(leaning).item() == pytest.approx(0.5, abs=0.03) and slant(
        leaning.flip(3)
    ).item() == pytest.approx(-0.5, abs=0.03)
    assert abs(slant(bars)).max() < 1e-5
    assert thickness(-torch.ones(1, 1, 28, 28)).isnan() and slant(-torch.ones(1, 1, 28, 28)).isnan()


def test_truncated_numbers_stay_inside():
    z = truncated(500, 20, .5)
    assert (
        z.abs().max() <= 0.5
        and torch.equal(z, truncated(500, 20, 0.5))
        and not torch.equal(z, truncated(500, 20, 0.5, seed=1))
    )
    assert abs(truncated(2000, 20, 4.).std() - 1) < .02


def test_intervals_are_wilsons():
    low, high = interval(8, 10)
    assert low == pytest.approx(.4902, abs=1e-3) and high == pytest.approx(.9433, abs=1e-3)
    assert interval(0, 200)[0] == 0 and interval(0, 200)[1] > .01


def test_the_shipped_predictor_reads_faces():
    images, factors = faces(200, start=10_000_000)
    truth = {name: scaled(factors[name], FACTORS[name].low, FACTORS[name].high) for name in FACE_FACTORS}
    found = skills(face_predictor(), to_x(images), truth)
    assert [s.factor for s in found] == list(FACE_FACTORS)
    assert all(s.right > 175 and not s.at_chance for s in found)
    assert sum(p.stat().st_size for p in (ASSETS / "predictors/faces").iterdir()) < 300_000


def test_the_stored_truncations_are_whole():
    rows = list(csv.DictReader((ASSETS / "latent-truncation.csv").read_text().splitlines()))
    assert len({r["limit"] for r in rows}) >= 5 and len(rows) == 5 * len({r["limit"] for r in rows})
    assert all(0 <= float(r[c]) <= 1 for r in rows for c in ("precision", "recall", "coverage"))
    assert all(r["date"] and r["machine"] and r["command"] for r in rows)


def test_the_stored_scores_are_whole():
    rows = list(csv.DictReader((ASSETS / "latent-arithmetic.csv").read_text().splitlines()))
    pairs, ways = ({what(r) for r in rows} for what in (lambda r: (r["factor"], r["given"]), lambda r: r["way"]))
    assert len(rows) == len(pairs) * len(ways) == 72 and {r["n"] for r in rows} == {"200"}
    assert all(int(r["both"]) <= min(int(r["wanted"]), int(r["kept"])) for r in rows)
    moved = list(csv.DictReader((ASSETS / "latent-directions.csv").read_text().splitlines()))
    assert {r["factor"] for r in moved} == set(FACE_FACTORS) and len(moved) == 6 * 2 * 10
    scores = list(csv.DictReader((ASSETS / "latent-factors.csv").read_text().splitlines()))
    assert [r["factor"] for r in scores] == list(FACE_FACTORS)
    assert all(0 <= float(r[share]) <= 1 for r in scores for share in ("decided", "real", "overlap"))
    assert all(r["date"] and r["machine"] and r["command"] for r in rows + moved + scores)


Z, X = torch.zeros(4, 10), torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda G, P, pool: slerp(Z + 1, torch.ones(4, 9), 0.5), "a has vectors of 10 numbers, b of 9"),
        (lambda G, P, pool: slerp(Z + 1, -Z - 1, 0.5), "no single arc"),
        (lambda G, P, pool: slerp(Z, Z, 0.5), "no single arc"),
        (lambda G, P, pool: slerp(Z + 1, Z + 1, 1.5), "from 0, which is a, to 1"),
        (lambda G, P, pool: lerp([1], Z, 0.5), "must be a float tensor"),
        (lambda G, P, pool: lerp(Z * float("nan"), Z, 0.5), "finite"),
        (lambda G, P, pool: walk(Z[:1]), "two points or more"),
        (lambda G, P, pool: strides(X[:1]), "no walk"),
        (lambda G, P, pool: jump(X), "are the same"),
        (lambda G, P, pool: arithmetic(Z, Z, torch.zeros(4, 9)), "a has vectors of 10 numbers, c of 9"),
        (lambda G, P, pool: arithmetic(Z, Z[:2], Z), "must have as many"),
        (lambda G, P, pool: arithmetic(Z[0], Z[0], Z[0]), "exemplars"),
        (lambda G, P, pool: neighbours(Z[0], reach=0), "a number above 0"),
        (
            lambda G, P, pool: exemplars(pool, {"moustache": True}),
            "There is no factor 'moustache' here; there are top left",
        ),
        (
            lambda G, P, pool: exemplars(pool, {"top left": True}, clear=9),
            "None of the 600 images shows top left",
        ),
        (lambda G, P, pool: triples(pool, "top left", "top left"), "two different"),
        (lambda G, P, pool: triples(pool, "top left", "top right", k=500), "draw a larger pool"),
        (
            lambda G, P, pool: score_arithmetic(G, P, pool, torch.zeros(3, 1, 1).long(), "hat", "top left"),
            "There is no factor 'hat'",
        ),
        (
            lambda G, P, pool: score_arithmetic(G, G, pool, torch.zeros(3, 1, 1).long(), "hat", "top left"),
            "must be a Predictor",
        ),
        (
            lambda G, P, pool: P.read(torch.zeros(2, 3, 64, 64)),
            "The images are 64×64 with 3 channels, this predictor takes 8×8 with 1",
        ),
        (lambda G, P, pool: P.read(X + 7), r"lie in \[-1, 1\]"),
        (
            lambda G, P, pool: Predictor([Row("linear", 3)], (1, 8, 8), QUARTERS),
            "for 4 factors it must end in as many numbers",
        ),
        (lambda G, P, pool: skills(P, X, {"hat": torch.zeros(2)}), "There is no factor 'hat'"),
        (lambda G, P, pool: skills(P, X, {"top left": torch.zeros(3)}), "2 numbers from -1 to 1"),
        (lambda G, P, pool: factor_scores(G, X, X), "must be a Predictor"),
        (lambda G, P, pool: factor_scores(face_predictor(), X, X), "The images are 8×8 with 1 channel"),
        (lambda G, P, pool: factor_scores(P, X, X, bins=0), "bins is 0"),
        (lambda G, P, pool: train_predictor(X, {"hat": torch.tensor([0.0, 3.0])}), "from -1 to 1"),
        (lambda G, P, pool: train_predictor(X, {"hat": torch.zeros(2)}), "at least a batch"),
        (lambda G, P, pool: interval(3, 2), "from 3"),
        (lambda G, P, pool: direction(Z, torch.zeros(3)), "one finite number for each"),
        (lambda G, P, pool: direction(Z, torch.zeros(4), k=3), "no two sides of 3"),
        (lambda G, P, pool: along(G, Z, Z), "(z_dim,)"),
        (lambda G, P, pool: thickness(torch.zeros(1, 3, 8, 8)), "3 channels"),
        (lambda G, P, pool: invert(G, torch.zeros(1, 1, 28, 28)), "give images of its shape"),
        (lambda G, P, pool: truncated(2, 3, 0), "above 0"),
        (lambda G, P, pool: explorer(G, {"turn": torch.zeros(9)}), "z has vectors of 10 numbers, turn of 9"),
        (lambda G, P, pool: explorer(G, {}), "one or more"),
        (lambda G, P, pool: calculator(G, Z[:2]), "three or more vectors"),
        (lambda G, P, pool: player(G, Z[:1]), "two points or more"),
        (
            lambda G, P, pool: pool_of(G, face_predictor(), 2),
            "The images are 8×8 with 1 channel, this predictor takes 64×64 with 3",
        ),
        (lambda G, P, pool: scaled(Z, 1, 1), "below high"),
    ],
)
def test_bad_input_is_one_sentence(call, words, toy, pool):
    with pytest.raises(ValueError, match=words if "\\" in words else re.escape(words)) as e:
        call(*toy, pool)
    assert "\n" not in str(e.value)


def test_a_generator_in_train_mode_is_not_inverted(toy):
    G = toy[0].train()
    try:
        with pytest.raises(ValueError, match="G.eval"):
            invert(G, X)
    finally:
        G.eval()


def test_a_pool_names_its_parts(pool):
    assert isinstance(pool, Pool) and pool.z.shape == (600, 10) and set(pool.readings) == set(QUARTERS)


def unit(z):
    return torch.nn.functional.normalize(z, dim=-1)


def apart_by_share(hits, n, hits_base, n_base):
    return abs(hits / n - hits_base / n_base) > .2


def apart_upwards(hits, n, hits_base, n_base):
    return interval(hits, n)[0] > interval(hits_base, n_base)[1]


def apart_from_a_point(hits, n, hits_base, n_base):
    low, high = interval(hits, n)
    return not low <= hits_base / n_base <= high


WRONG = {
    "length_of_result": {
        "of one mean": lambda k, d: (d / k) ** .5,
        "lengths added up": lambda k, d: 3 * (d / k) ** .5,
        "divided by k": lambda k, d: (3 * d) ** .5 / k,
        "two means": lambda k, d: (2 * d / k) ** .5,
        "always the usual length": lambda k, d: d ** .5,
        "squared": lambda k, d: 3 * d / k,
    },
    "long_mean": {
        "plain mean": lambda z: z.mean(0),
        "root of z_dim": lambda z: z.mean(0) / z.mean(0).norm() * z.shape[1] ** .5,
        "length 1": lambda z: z.mean(0) / z.mean(0).norm(),
        "directions first": lambda z: unit(unit(z).mean(0)) * z.norm(dim=1).mean(),
        "the longest": lambda z: z.mean(0) / z.mean(0).norm() * z.norm(dim=1).max(),
        "a row too many": lambda z: z.mean(0, keepdim=True) / z.mean(0).norm() * z.norm(dim=1).mean(),
    },
    "told_apart": {
        "by shares": apart_by_share,
        "only upwards": apart_upwards,
        "the control as if it were exact": apart_from_a_point,
        "whatever differs": lambda hits, n, base, m: hits / n != base / m,
        "never": lambda *counts: False,
    },
    "best_start": {
        "as it was": lambda z, error: (z.flatten(0, 1)[error.argmin()].expand(len(z), -1), error.min().expand(len(z))),
        "the first start": lambda z, error: (z[:, 0], error.amin(1)),
        "the worst": lambda z, error: (z[torch.arange(len(z)), error.argmax(1)], error.amin(1)),
        "the best start on average": lambda z, error: (z[:, error.mean(0).argmin()], error[:, error.mean(0).argmin()]),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(WRONG, LESSON)
