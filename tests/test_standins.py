"The drawn stand-ins: the same images always, labels and factors that match what is seen, clear refusals."
import numpy as np
import pytest
import torch

from dcgan.datasets.drawn import FACTORS, GROUNDS, face_factors, faces, faces_from, house_numbers

MAKERS = house_numbers, faces


def moved(a, b):
    "Where two batches differ visibly, (n, h, w)."
    return (a.int() - b.int()).abs().amax(1) > 4


def people(n=16, seed=3, **changes):
    return face_factors(n, seed) | changes


@pytest.fixture(scope="module")
def numbers():
    return house_numbers(600, seed=2)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 65])
def test_shapes_and_types(n):
    images, labels = house_numbers(n)
    assert images.shape == (n, 3, 32, 32) and images.dtype == torch.uint8
    assert labels.shape == (n,) and labels.dtype == torch.int64
    images, factors = faces(n)
    assert images.shape == (n, 3, 64, 64) and images.dtype == torch.uint8
    assert list(factors) == list(FACTORS) and {len(v) for v in factors.values()} == {n}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", [1, 7, 8, 64, 65])
def test_the_first_are_the_first(make, n):
    many, known = make(130, seed=4)
    few, _ = make(n, seed=4)
    assert torch.equal(few, many[:n])
    later, facts = make(n, seed=4, start=60)
    assert torch.equal(later, many[60:60 + n])
    if isinstance(facts, dict):
        assert all((facts[k] == known[k][60:60 + n]).all() for k in facts)
    else:
        assert torch.equal(facts, known[60:60 + n])


@pytest.mark.parametrize("make", MAKERS)
def test_another_seed_is_another_set(make):
    images, _ = make(8, seed=0)
    assert not moved(images, make(8, seed=0)[0]).any()
    assert moved(images, make(8, seed=1)[0]).any(dim=(1, 2)).all()
    assert len({image.numpy().tobytes() for image in images}) == 8


@pytest.mark.parametrize("make", MAKERS)
def test_global_generators_are_left_alone(make):
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    make(3)
    assert torch.equal(state, torch.get_rng_state()) and (other == np.random.get_state()[1]).all()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "bad, name",
    [
        ({"n": 0}, "n"),
        ({"n": -3}, "n"),
        ({"n": 2.5}, "n"),
        ({"n": True}, "n"),
        ({"n": "8"}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"start": -1}, "start"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_bad_numbers_are_refused(make, bad, name):
    with pytest.raises(ValueError, match=f"^{name} is .*whole number") as e:
        make(**{"n": 2} | bad)
    assert repr(bad[name]) in str(e.value)


def test_big_seeds_and_numpy_integers_are_taken():
    assert faces(np.int64(2), seed=2**63 - 1)[0].shape[0] == 2


# house numbers

def test_labels_are_balanced(numbers):
    counts = torch.bincount(house_numbers(2000, seed=1)[1], minlength=10)
    assert len(counts) == 10 and counts.min() > 150 and counts.max() < 250


def test_labels_name_the_centre_digit(numbers):
    "Where the number is much lighter or darker than its ground, the digit drawn in the centre is the one that the label says."
    from dcgan.datasets.drawn import _number, _pen_strokes, _pick, _place, _plan
    p = _plan(64, seed=2)
    strokes = _pen_strokes("train")
    cover = _place(_pick(strokes, p, "digit"), p)
    images, labels = numbers
    assert torch.equal(labels[:64], p.digit.flatten().long())
    grey = images[:64].float().mean(1)
    inside = (grey*cover).sum((1, 2))/cover.sum((1, 2))
    free = 1 - _number(p, strokes)[0]
    outside = (grey*free).sum((1, 2))/free.sum((1, 2))
    assert ((inside - outside).abs() > 10).float().mean() > .9
    for label in range(10):  # and what `_pick` draws is of that class
        chosen = _pick(strokes, p, "digit")[labels[:64] == label]
        assert all((strokes[label] == c).all(dim=(1, 2)).any() for c in chosen)


def test_other_digits_are_for_the_test():
    from dcgan.datasets.drawn import _pen_strokes
    train, test = _pen_strokes("train"), _pen_strokes("test")
    assert train.shape == (10, 400, 28, 28) and test.shape == (10, 100, 28, 28)
    assert not {d.numpy().tobytes() for d in train.flatten(0, 1)} & {d.numpy().tobytes() for d in test.flatten(0, 1)}
    (a, labels), (b, same) = house_numbers(32), house_numbers(32, split="test")
    assert torch.equal(labels, same) and moved(a, b).any(dim=(1, 2)).all()
    with pytest.raises(ValueError, match='split is \'valid\'; give "train" or "test"'):
        house_numbers(2, split="valid")


def test_numbers_come_light_on_dark_in_colour_and_varied(numbers):
    x = numbers[0].float()/255
    assert .25 < x.mean() < .7 and (x.amax(1) - x.amin(1)).mean() > .05
    level, contrast = x.mean((1, 2, 3)), x.mean(1).std((1, 2))
    assert level.std() > .1 and contrast.min() < .07 and contrast.max() > .2


# faces

def test_factors_keep_their_ranges_and_are_independent():
    f = face_factors(4000)
    for name, factor in FACTORS.items():
        v = f[name]
        if factor.names == ("no", "yes"):
            assert v.dtype == bool and .35 < v.mean() < .45
        elif factor.names:
            assert (
                v.dtype == np.int64
                and (np.bincount(v) > 0.8 * 4000 / len(factor.names)).all()
                and v.max() == len(factor.names) - 1
            )
        else:
            width = factor.high - factor.low
            assert v.dtype == np.float32 and factor.low <= v.min() < factor.low + .01*width
            assert factor.high - .01*width < v.max() <= factor.high + 1e-6
    related = np.corrcoef(np.stack(list(f.values())).astype(float)) - np.eye(len(f))
    assert abs(related).max() < .07


def test_faces_are_drawn_from_their_factors():
    images, factors = faces(40, seed=6)
    assert torch.equal(faces_from(factors), images)
    assert torch.equal(faces_from({k: torch.as_tensor(v) for k, v in factors.items()}), images)
    assert torch.equal(faces_from({k: v[5:6] for k, v in factors.items()}), images[5:6])


def test_what_is_not_given_is_usual():
    plain = faces_from({})
    assert plain.shape == (1, 3, 64, 64)
    assert torch.equal(plain, faces_from({name: f.usual for name, f in FACTORS.items()}))
    row = faces_from({"smile": np.linspace(-1, 1, 5), "hat": True})
    assert row.shape[0] == 5 and torch.equal(row[2:3], faces_from({"smile": 0, "hat": True}))


@pytest.mark.parametrize("name, rows, columns", [("hat", (0, 30), (0, 64)), ("glasses", (22, 44), (6, 58))])
def test_a_yes_or_no_moves_its_own_pixels(name, rows, columns):
    n = 16
    where = moved(faces_from(people(n, **{name: [False]*n})), faces_from(people(n, **{name: [True]*n})))
    assert (where.float().mean((1, 2)) > .03).all()
    elsewhere = where.clone()
    elsewhere[:, rows[0]:rows[1], columns[0]:columns[1]] = False
    assert not elsewhere.any()


def test_a_smile_moves_the_mouth_only():
    n = 16
    sad, glad = (faces_from(people(n, smile=[s]*n)) for s in (-1., 1.))
    where = moved(sad, glad)
    assert (where.sum((1, 2)) > 30).all()
    assert (
        not where[:, :36].any()
        and not where[:, 58:].any()
        and not where[:, :, :12].any()
        and not where[:, :, 52:].any()
    )
    small = moved(sad, faces_from(people(n, smile=[-.6]*n))).sum((1, 2)).float().mean()
    assert 0 < small < where.sum((1, 2)).float().mean()  # a little more smile moves less


def test_the_background_is_recovered():
    images, factors = faces(60, seed=8)
    corner = torch.cat([images[:, :, 30:40, :4], images[:, :, 30:40, -4:]], dim=-1).float().mean((2, 3))
    nearest = torch.cdist(corner, torch.tensor(list(GROUNDS.values())).float()).argmin(1)
    assert (nearest.numpy() == factors["background"]).all()


def test_skin_darkens_hair_grows_and_the_head_turns():
    tones = faces_from({"skin": np.linspace(0, 1, 6)}).float()[:, :, 30:50, 26:38].mean((1, 2, 3))
    assert (tones.diff() < -5).all()
    short = faces_from({"hair_length": 0})
    area = [moved(short, faces_from({"hair_length": v})).sum().item() for v in (.2, .4, .6, .8, 1)]
    assert area == sorted(area) and area[-1] > 2*area[0] > 0
    eyes = faces_from({"turn": np.linspace(-1, 1, 5), "smile": 0}).float().mean(1)[:, 31:36, 14:50]
    white = (eyes > 235).float().sum(1)
    centre = (white*torch.arange(14., 50)).sum(1)/white.sum(1)
    assert (centre.diff() > .5).all() and centre[-1] - centre[0] > 4


def test_hair_colours_are_told_apart():
    tops = faces_from({"hair_colour": range(5)}).float()[:, :, 14:18, 28:36].mean((2, 3))
    assert (torch.cdist(tops, tops) + 999*torch.eye(5)).min() > 30


@pytest.mark.parametrize("factors, sentence", [
    ({"beard": 1}, "'beard' is no factor of a face; there are skin, hair_colour"),
    ({"smile": 1.2}, r"smile is \[1.2\]; give numbers from -1 to 1"),
    ({"smile": float("nan")}, "smile is .*give numbers"),
    ({"background": 6}, "background is .*give whole numbers from 0 to 5"),
    ({"hair_colour": [0, .5]}, "hair_colour is .*give whole numbers"),
    ({"hat": 2}, "hat is .*from 0"),
    ({"smile": [0, 1], "turn": [0, .1, .2]}, "smile has 2 values, another factor 3"),
    ({"smile": []}, "smile has 0 values"),
    ({"hair_colour": "red"}, "red"),
])
def test_what_cannot_be_drawn_is_refused(factors, sentence):
    with pytest.raises(ValueError, match=sentence):
        faces_from(factors)
