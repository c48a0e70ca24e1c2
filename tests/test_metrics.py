"Metrics against known values, what bad input gets, and that measuring changes nothing else."
import math
import sys

import pytest
import torch

from dcgan.data import to_x
from dcgan.datasets.sources import load
from dcgan.evaluation.metrics import (
    Copies,
    Look,
    bootstrap,
    by_class,
    copies,
    density_coverage,
    digit_fid,
    digit_judge,
    diversity,
    enough,
    fakes_inside,
    fitted,
    frechet,
    inception_fid,
    inside,
    judge_report,
    judges_eye,
    kernel_distance,
    look,
    modes,
    nearest,
    nearest_moved,
    precision_recall,
    share_interval,
)
from dcgan.networks import Generator, generator_for
from dcgan.recipes import RECIPES


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def looks():
    "Of the training digits and of those held out."
    judge = digit_judge()
    return [look(judge, to_x(load("digits", split=split).images)) for split in ("train", "test")]


def cloud(n, d=4, at=0., scale=1., seed=0):
    return torch.randn(n, d, generator=generator_for(seed, 9)) * scale + at


def test_frechet_against_its_formula():
    "For clouds with diagonal covariances the square root is that of each variance."
    a, b = cloud(5000, 3), cloud(5000, 3, at=torch.tensor([1., 0., 2.]), scale=torch.tensor([1., 2., 3.]), seed=1)
    from scipy.linalg import sqrtm
    ca, cb = (f.double().T.cov() for f in (a, b))
    root = torch.from_numpy(sqrtm((ca @ cb).numpy()).real)
    expected = (a.double().mean(0) - b.double().mean(0)).square().sum() + (ca + cb - 2 * root).trace()
    assert abs(frechet(a, b) - expected.item()) < 1e-6
    assert abs(frechet(a, b) - (1 + 4 + 0 + 1 + 4)) < .5
    assert abs(frechet(a, a)) < 1e-9 and abs(frechet(a, b) - frechet(b, a)) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 4])
def test_too_few_for_a_covariance(n):
    for pair in (cloud(n), cloud(50)), (cloud(50), cloud(n)):
        with pytest.raises(
            ValueError,
            match=f"^{n} samples are too few for the covariance of 4 features; at least 5 are needed",
        ):
            frechet(*pair)
    assert enough(cloud(5)).dtype == torch.float64


def test_floor_as_reported(looks):
    train, real = looks
    report = judge_report()
    assert abs(frechet(train.features, real.features) - report["floor"]) < .01
    assert .7 < report["crossfit_floor"] / report["half_seen_floor"] < 1.4


def test_kernel_distance_is_unbiased_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    same = [kernel_distance(cloud(300), cloud(300, seed=s)).value for s in range(1, 6)]
    assert torch.equal(before, torch.get_rng_state())
    far = kernel_distance(cloud(300), cloud(300, at=1., seed=1)).value
    assert abs(sum(same)) / 5 < .05 * far and far > .1
    a, b = cloud(60), cloud(60, seed=2)
    assert kernel_distance(a, b, seed=1) == kernel_distance(a, b, seed=1)
    c = cloud(700)
    assert kernel_distance(c, b, size=20, seed=1) != kernel_distance(c, b, size=20, seed=2)


@pytest.mark.parametrize("at", [0., .5])
def test_the_interval_of_a_kernel_distance_holds(at):
    "Of a hundred pairs of clouds; the truth is the mean of all estimates, which are unbiased."
    pairs = [(cloud(100, seed=2 * s), cloud(100, at=at, seed=2 * s + 1)) for s in range(100)]
    found = [kernel_distance(*pair, subsets=30) for pair in pairs]
    truth = sum(d.value for d in found) / len(found)
    held = sum(low <= truth <= high for low, high in (d.interval() for d in found))
    assert held >= 90
    spread = torch.tensor([d.value for d in found]).std().item()
    assert .7 < sum(d.error for d in found) / len(found) / spread < 2.2, "near it, or on the safe side"


def test_a_subset_is_never_the_whole():
    "Else all subsets would be the same, and the error 0."
    assert kernel_distance(cloud(40), cloud(40, seed=1)).error > 0
    with pytest.raises(ValueError, match="^3 samples are too few for a kernel distance; at least 4"):
        kernel_distance(cloud(3), cloud(40))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("at, scale", [(0., 1.), (.7, .6), (0., 2.)])
def test_neighbours_are_counted_as_their_authors_do(k, at, scale):
    prdc = pytest.importorskip("prdc", reason="pip install prdc to compare with it")
    real, fake = cloud(200, 6), cloud(170, 6, at=at, scale=scale, seed=1)
    theirs = prdc.compute_prdc(real.numpy(), fake.numpy(), k)
    ours = *precision_recall(real, fake, k), *density_coverage(real, fake, k)
    assert ours == pytest.approx([theirs[name] for name in ("precision", "recall", "density", "coverage")], abs=1e-6)


def test_density_and_coverage_by_hand():
    real = torch.tensor([[0.], [1.], [2.], [10.], [11.], [12.]])
    assert density_coverage(real, torch.tensor([[1.], [100.]]), k=1) == (1.5, .5), "1 lies in three balls, 100 in none"
    assert density_coverage(real, real + 100, k=1) == (0, 0)
    assert density_coverage(real, real[:3], k=1)[1] == .5
    with pytest.raises(ValueError, match="5 samples are too few for their 5-th neighbours; at least 6"):
        density_coverage(real[:5], real)


def test_an_outlier_moves_precision_more_than_density():
    real, fake = cloud(300, 6), cloud(300, 6, at=4., scale=.5, seed=1)
    soiled = torch.cat([real, torch.full((1, 6), 4.)])
    precision = [precision_recall(r, fake)[0] for r in (real, soiled)]
    density = [density_coverage(r, fake)[0] for r in (real, soiled)]
    assert precision[0] < .1 and precision[1] > .9
    assert density[1] - density[0] < .3


def test_by_class():
    found = torch.tensor([True, False, True, True])
    assert by_class(found, torch.tensor([0, 0, 2, 2]), 4).tolist()[::2] == [.5, 1]
    assert by_class(found, torch.tensor([0, 0, 2, 2]), 4)[[1, 3]].isnan().all()
    for labels in torch.zeros(3, dtype=torch.long), torch.zeros(4), [0, 0, 0, 0]:
        with pytest.raises(ValueError, match="whole numbers"):
            by_class(found, labels, 4)


def test_a_class_left_out_has_no_coverage(looks):
    "And few images of a class cover little of it, although their recall is high: lonely images have large balls."
    (train, real), labels, asked = looks, load("digits").labels, load("digits", split="test").labels
    chosen = (labels != 7) & (labels != 5) & (torch.arange(4000) % 3 == 0)
    chosen[(labels == 5).nonzero().flatten()[:5]] = True
    covers = by_class(fakes_inside(real.features, train.features[chosen]) > 0, asked, 10)
    assert covers[7] < .2 and covers[5] < .4 and covers[[0, 1, 2, 3, 4, 6, 8, 9]].min() > .8
    assert by_class(inside(real.features, train.features[chosen]), asked, 10)[5] > .6


def test_modes_by_hand():
    probs = torch.tensor([[.95, .05, 0.], [.6, .4, 0.], [.1, .9, 0.], [0., 1., 0.]])
    seen = modes(probs)
    assert seen.shares.tolist() == [.5, .5, 0] and abs(seen.covered - 2) < 1e-5 and seen.confident == .75
    assert modes(probs, confident=.97).confident == .25
    one = modes(probs[:1])
    assert one.covered == 1 and one.shares.sum() == 1
    uneven = modes(torch.eye(2)[[0, 0, 0, 1]])
    assert abs(uneven.covered - math.exp(-.75 * math.log(.75) - .25 * math.log(.25))) < 1e-5


def test_diversity_by_hand():
    def seen(values, classes):
        return Look(torch.tensor(values)[:, None], torch.eye(3)[classes])
    real = seen([0., 2., 0., 4., 7., 9.], [0, 0, 1, 1, 2, 2])
    fake = seen([5., 6., 3., 3., 1.], [0, 0, 1, 1, 2])
    ratio = diversity(fake, real)
    assert ratio[:2].tolist() == [.5, 0.] and ratio[2].isnan(), "half as far apart; the same twice; a single one"
    assert diversity(real, real).tolist() == [1, 1, 1]


@pytest.mark.parametrize("n", [1, 7, 600])
def test_nearest_is_the_nearest(n):
    a, b = cloud(n), cloud(40, seed=1)
    distance, place = nearest(a, b)
    every = (a[:, None].double() - b.double()).norm(dim=2)
    assert torch.equal(place, every.argmin(1)) and torch.allclose(distance.double(), every.min(1).values, atol=1e-3)


def test_copies_are_found_and_others_are_not():
    train, held_out = cloud(2000, 8), cloud(500, 8, seed=1)
    fresh, stolen = cloud(500, 8, seed=2), train[300:800]
    assert copies(stolen, train, held_out).share() == 1
    assert torch.equal(copies(stolen, train, held_out).place, torch.arange(300, 800))
    assert copies(fresh, train, held_out).share() < .04
    tenth = torch.cat([stolen[:50], fresh[:450]])
    assert .1 <= copies(tenth, train, held_out).share() < .14
    assert .05 < copies(fresh, train, held_out).share(.1) < .16, "about the level, where nothing was copied"


@pytest.mark.parametrize("hits, n, low, high", [(0, 10, 0, .3085), (10, 10, .6915, 1), (10, 1000, .0048, .0183)])
def test_shares_have_intervals(hits, n, low, high):
    assert share_interval(hits, n) == pytest.approx((low, high), abs=1e-4)


def test_found_means_more_than_chance():
    "Of 1,000 images, 27 below the threshold are not enough, 28 are; no share is found among those held out."
    usual = torch.arange(1000.)
    def near(k):
        return Copies(torch.cat([torch.zeros(k), torch.full((1000 - k,), 500.)]), torch.zeros(1000), usual)
    assert not near(27).found() and near(28).found() and near(28).share() == .028
    assert not Copies(usual, torch.zeros(1000), usual).found()
    fresh = [copies(cloud(500, 8, seed=s), cloud(2000, 8), cloud(500, 8, seed=1)) for s in range(2, 22)]
    assert sum(c.found() for c in fresh) <= 1


def digits_moved(by):
    "400 training digits, moved; and what they are searched among."
    x = to_x(load("digits").images)
    return torch.nn.functional.pad(x[::10], (2, 2, 2, 2), value=-1)[:, :, 2 + by:30 + by, 2 - by:30 - by], x


@pytest.mark.parametrize("by", [-2, -1, 0, 1, 2])
def test_moved_copies_are_found_where_pixels_fail(by):
    moved, x = digits_moved(by)
    held_out = to_x(load("digits", split="test").images[::4])
    with_moves = copies(moved, x, held_out, nearest_moved)
    assert with_moves.share() > .9 and with_moves.found()
    assert (with_moves.place == torch.arange(0, 4000, 10)).float().mean() > .9
    noise = .3 * torch.randn(moved.shape, generator=generator_for(0, 9))
    assert copies((moved + noise).clamp(-1, 1), x, held_out, nearest_moved).share() > .8
    plain = copies(moved.flatten(1), x.flatten(1), held_out.flatten(1))
    assert plain.found() == (by == 0)


def test_no_copies_where_there_are_none():
    "A half of the held-out digits against the other."
    x, held_out = to_x(load("digits").images), to_x(load("digits", split="test").images)
    found = copies(held_out[::2], x, held_out[1::2], nearest_moved)
    assert not found.found() and found.share() < .05


def test_moves_want_images_of_one_size():
    x = torch.rand(3, 1, 12, 12)
    for a, b, shift in (x, torch.zeros(2, 1, 13, 13), 2), (x, x, 3), (x[0], x, 1), (x, x[:1], 1):
        with pytest.raises(ValueError, match="can't be compared|float tensor"):
            nearest_moved(a, b, shift)
    relative, place = nearest_moved(x, x, 0, candidates=2)
    assert relative.max() < .01 and place.tolist() == [0, 1, 2]


def test_the_eye_follows_its_controls():
    pytest.importorskip("ipywidgets")
    moved, x = digits_moved(1)
    box = judges_eye(digit_judge(), moved[:3], x[::5], to_x(load("digits", split="test").images[::10]))
    image, space = box.children[0].children
    text, picture = box.children[1:]
    def shown():
        return text.value, bytes(picture.value)
    seen = {shown()}
    assert image.max == 2 and shown()[1].startswith(b"\x89PNG") and "held-out images" in text.value
    for value in space.options[1:]:
        space.value = value
        seen.add(shown())
    assert "look closely" in text.value, "a moved copy, by pixels with moves"
    image.value = 1
    assert shown() not in seen and len(seen) == 3


def test_the_eye_wants_images_of_its_judge():
    pytest.importorskip("ipywidgets")
    x = torch.zeros(2, 1, 64, 64)
    with pytest.raises(ValueError, match="this judge takes 28×28"):
        judges_eye(digit_judge(), x, x, x)


def test_bootstrap_spreads_like_new_samples():
    "Its deviation is that of samples really drawn anew, within a factor; the same seed gives the same again."
    a, b = cloud(400), cloud(400, at=.5, seed=1)
    def shift_of_mean(a, b):
        return (a.mean(0) - b.mean(0)).square().sum().item()

    anew = torch.tensor(
        [shift_of_mean(cloud(400, seed=s), cloud(400, at=0.5, seed=s + 100)) for s in range(2, 42)]
    ).std()
    values = bootstrap(shift_of_mean, a, b, times=40)
    assert values.shape == (40,) and .6 < values.std() / anew < 1.7
    assert torch.equal(values, bootstrap(shift_of_mean, a, b, times=40)) and not torch.equal(
        values, bootstrap(shift_of_mean, a, b, times=40, seed=1)
    )


def test_look_says_what_is_wrong():
    judge = digit_judge()
    for x, words in (
        (torch.full((2, 1, 28, 28), 1.5), "must lie in \\[-1, 1\\], got 1.5"),
        (torch.full((2, 1, 28, 28), torch.nan), "nan"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "uint8"),
        (torch.zeros(2, 1, 64, 64), "64×64"),
        (torch.zeros(2, 3, 28, 28), "3 channels"),
        (torch.zeros(0, 1, 28, 28), "n >= 1"),
    ):
        with pytest.raises(ValueError, match=words):
            look(judge, x)


@pytest.mark.parametrize("n", [1, 7, 251])
def test_look_does_not_depend_on_the_batch(n):
    judge, x = digit_judge(), to_x(load("digits").images[:n])
    whole = look(judge, x)
    assert whole.features.shape == (n, 64) and not whole.features.requires_grad
    assert torch.allclose(whole.probs.sum(1), torch.ones(n), atol=1e-5)
    assert torch.allclose(whole.features, look(judge, x, batch=3).features, atol=1e-4)


def test_fitted_resizes_and_recolours():
    x = torch.zeros(2, 3, 64, 64)
    x[:, 0] = 1.
    grey = fitted(x, (1, 28, 28))
    assert grey.shape == (2, 1, 28, 28) and torch.allclose(grey, torch.tensor(.299), atol=1e-4)
    assert fitted(torch.ones(2, 1, 28, 28), (3, 32, 32)).shape == (2, 3, 32, 32)
    same = torch.rand(2, 1, 28, 28)
    assert torch.equal(fitted(same, (1, 28, 28)), same)


class Canned(torch.nn.Module):
    "A generator that draws what it is given."
    def __init__(self, x):
        super().__init__()
        self.x = x
    def sample(self, n, seed=0):
        return self.x[torch.randperm(len(self.x), generator=generator_for(seed, 9))[:n]]


def test_digit_fid_sees_what_is_known(looks):
    x = to_x(load("digits").images)
    real = digit_fid(Canned(x), n=1000)
    assert real < 1 and digit_fid(Canned(x), n=1000) == real != digit_fid(Canned(x), n=1000, seed=1)
    assert abs(digit_fid(Canned(x), n=4000) - judge_report()["floor"]) < .01
    noise = torch.randn(x[::4].shape, generator=generator_for(0, 9))
    noisy = [digit_fid(Canned((x[::4] + s * noise).clamp(-1, 1)), n=1000) for s in (0., .1, .2, .4)]
    assert noisy == sorted(noisy) and noisy[3] > 10 * noisy[0]
    without = [digit_fid(Canned(x[400 * k:]), n=1000) for k in (0, 1, 3, 6)]
    assert without == sorted(without) and without[-1] > 10 * without[0]


def test_digit_fid_resizes_only_when_asked():
    G = RECIPES["svhn32"].replace(filters=4, z_dim=4).networks()[0]
    with pytest.raises(ValueError, match="32×32 with 3 channels"):
        digit_fid(G, n=100)
    assert digit_fid(G, n=100, resize=True) > 10
    big = torch.nn.functional.interpolate(to_x(load("digits").images[::4]), size=64, mode="bilinear").repeat(1, 3, 1, 1)
    assert digit_fid(Canned(big), n=1000, resize=True) < 5
    with pytest.raises(ValueError, match="64 samples are too few"):
        digit_fid(Canned(big), n=64, resize=True)


def test_digit_fid_leaves_generator_and_random_numbers_alone():
    G = Generator(RECIPES["digits"].replace(filters=4).g_layers, 24).train()
    state, before = {k: v.clone() for k, v in G.state_dict().items()}, torch.get_rng_state()
    digit_fid(G, n=100)
    assert G.training and all(torch.equal(v, state[k]) for k, v in G.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())


def test_inception_fid_is_one_sentence_where_it_can_not_be(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(FileNotFoundError, match="the package torch-fidelity and the file weights-inception") as e:
        inception_fid(torch.zeros(10, 1, 28, 28), torch.zeros(10, 1, 28, 28))
    assert "\n" not in str(e.value)
