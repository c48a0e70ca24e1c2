"Metrics against known values, what bad input gets, and that measuring changes nothing else."
import math
import sys

import pytest
import torch

from dcgan.data import to_x
from dcgan.datasets.sources import load
from dcgan.evaluation.metrics import (
    Look,
    bootstrap,
    copies,
    coverage,
    digit_fid,
    digit_judge,
    diversity,
    enough,
    fitted,
    frechet,
    inception_fid,
    judge_report,
    kernel_distance,
    look,
    nearest,
    precision_recall,
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
    same = [kernel_distance(cloud(300), cloud(300, seed=s)) for s in range(1, 6)]
    assert torch.equal(before, torch.get_rng_state())
    far = kernel_distance(cloud(300), cloud(300, at=1., seed=1))
    assert abs(sum(same)) / 5 < .05 * far and far > .1
    a, b = cloud(60), cloud(60, seed=2)
    assert kernel_distance(a, b, seed=1) == kernel_distance(a, b, seed=1)
    c = cloud(700)
    assert kernel_distance(c, b, size=20, seed=1) != kernel_distance(c, b, size=20, seed=2)


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.], [1.], [2.], [3.], [10.], [11.], [12.], [13.]])
    fake = torch.tensor([[.1], [1.1], [2.1], [3.1], [30.], [31.], [32.], [33.]])
    assert precision_recall(real, fake, k=1) == (.5, .5)
    assert precision_recall(real, real[:4], k=1) == (1., .5), "all real, but only half of what there is"
    assert precision_recall(real, fake + 100, k=1) == (0., 0.)
    assert precision_recall(real, fake[:1].repeat(8, 1), k=1) == (1., 0.), "one image again and again covers nothing"
    with pytest.raises(ValueError, match="3 samples are too few for their 3-th neighbours; at least 4"):
        precision_recall(real, fake[:3])


def test_coverage_by_hand():
    probs = torch.tensor([[.95, .05, 0.], [.6, .4, 0.], [.1, .9, 0.], [0., 1., 0.]])
    seen = coverage(probs)
    assert seen.shares.tolist() == [.5, .5, 0] and abs(seen.classes - 2) < 1e-5 and seen.sure == .75
    assert coverage(probs, sure=.97).sure == .25
    one = coverage(probs[:1])
    assert one.classes == 1 and one.shares.sum() == 1
    uneven = coverage(torch.eye(2)[[0, 0, 0, 1]])
    assert abs(uneven.classes - math.exp(-.75 * math.log(.75) - .25 * math.log(.25))) < 1e-5


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
