"Features of D, the SVM on them, guided gradients, dropped filters: on small networks, and what wrong calls get; the lesson's exercises."
import csv
import json
import re
import shutil
from statistics import mean, pstdev, stdev

import pytest
import torch
from torch import nn

from dcgan.features import (
    SIDE,
    TRAINED,
    changed_cells,
    draw_labelled,
    feature_length,
    features,
    filter_weights,
    hidden,
    images_from,
    linear_svm,
    maps_at,
    object_places,
    pooled,
    refreshed,
    saliency,
    supervised,
    trained_d,
    untrained,
)
from dcgan.networks import Discriminator, generator_for, init_weights, latent
from dcgan.recipes import RECIPES
from dcgan.shapes import Row
from dcgan.weights import ASSETS

from notebooks import LESSONS, refusing

LESSON = next(p for p in LESSONS if p.name == "16_inside.ipynb")
SMALL = {name: RECIPES[name].replace(filters=8) for name in ("digits", "svhn32", "mnist28")}
SMALL["paper"] = RECIPES["celeba64"].replace(filters=4, image_size=32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def D(): return SMALL["digits"].networks()[1].eval()


@pytest.fixture
def G(): return SMALL["paper"].networks()[0].eval()


def noise(n, *shape, seed=0): return torch.rand(n, *shape, generator=generator_for(seed, 9)) * 2 - 1


@pytest.mark.parametrize("name, maps", [("digits", [(8, 4), (16, 4), (32, 1)]), ("svhn32", [(8, 4), (16, 4), (32, 4)]),
                                        ("mnist28", [(2, 4), (4, 4), (8, 1)]), ("paper", [(4, 4), (8, 4), (16, 4)])])
def test_lengths_are_those_of_the_table(name, maps):
    D = SMALL[name].networks()[1]
    expected = sum(c * side**2 for c, side in maps)
    assert feature_length(D) == expected
    assert features(D, noise(3, *D.in_shape)).shape == (3, expected)
    assert features(D, noise(3, *D.in_shape), side=1).shape == (3, sum(c for c, _ in maps)) == (3, feature_length(D, 1))


def test_the_length_of_the_paper():
    "1,792 maps at 4×4 are the 28,672 numbers of section 5.1; these 256 + 512 + 1,024 are as many as its six layers had."
    table = RECIPES["dcgan-2015"].replace(image_size=32, filters=256).d_table
    assert [row.out_shape[0] for row in table[:-1]] == [256, 512, 1024]
    assert sum(16 * row.out_shape[0] for row in table[:-1]) == 28_672


def test_a_feature_is_the_largest_value_of_its_cell():
    maps = noise(2, 3, 8, 8)
    assert torch.equal(pooled(maps, 4).view(2, 3, 4, 4)[:, :, 1, 2], maps[:, :, 2:4, 4:6].flatten(2).amax(2))
    assert torch.equal(pooled(maps, 16), maps.flatten(1)), "maps that are smaller than the grid stay as they are"


def test_features_read_only(D):
    before, x = {k: v.clone() for k, v in D.state_dict().items()}, noise(5, 1, 28, 28)
    alone = features(D.train(), x[:1])
    assert D.training and torch.allclose(features(D, x, batch=2)[:1], alone, atol=1e-6), (
        "no image depends on its neighbours"
    )
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items())


def test_untrained_features_are_decided_by_the_seed(D):
    x = noise(4, 1, 28, 28)
    a, b, c = (features(untrained(D, seed), x) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(features(untrained(init_weights(D, seed=5)), x), a), "D's own weights play no part"


def test_refreshed_changes_averages_alone(D):
    x = noise(8, 1, 28, 28) * .5 + .4
    net = refreshed(D, x, batch=4)
    same = {k: torch.equal(v, D.state_dict()[k]) for k, v in net.state_dict().items()}
    assert all(v for k, v in same.items() if "running" not in k and "num_batches" not in k)
    assert not any(v for k, v in same.items() if "running" in k)
    conv = D.layers[1].conv(D.layers[0](x))
    assert torch.allclose(net.layers[1].norm.running_mean, conv.mean((0, 2, 3)), atol=1e-5)
    assert not net.training and torch.equal(features(net, x), features(refreshed(D, x, batch=4), x))


def test_labels_are_drawn_evenly():
    labels = torch.arange(3).repeat_interleave(torch.tensor([5, 9, 20]))
    places = draw_labelled(labels, 15, seed=2)
    assert labels[places].bincount().tolist() == [5, 5, 5] and len(places.unique()) == 15
    assert torch.equal(places, draw_labelled(labels, 15, seed=2)) and not torch.equal(
        places, draw_labelled(labels, 15, seed=3)
    )


@pytest.mark.parametrize(
    "n, words",
    [
        (18, "class 0 has 5 labels, 6 of each class are asked for"),
        (10, "a multiple of 3"),
        (0, "n is 0"),
        (2.5, "n is 2.5"),
    ],
)
def test_too_few_labels(n, words):
    labels = torch.arange(3).repeat_interleave(torch.tensor([5, 9, 20]))
    with pytest.raises(ValueError, match=words):
        draw_labelled(labels, n)


def blobs(each, classes=3, d=6):
    labels = torch.arange(classes).repeat_interleave(each)
    return torch.randn(each * classes, d, generator=generator_for(1, 9)) + 6 * nn.functional.one_hot(labels, d), labels


@pytest.mark.parametrize("each", [1, 5, 30])
def test_the_svm_separates_what_can_be_separated(each):
    f, y = blobs(each)
    far, truth = blobs(20)
    assert linear_svm(f, y).score(far.numpy(), truth.numpy()) > (.7 if each == 1 else .9)
    assert (linear_svm(f, y, 3).predict(far.numpy()) == linear_svm(f, y, 3).predict(far.numpy())).all()


@pytest.mark.parametrize(
    "x, labels",
    [
        (torch.zeros(4, 1, 28, 28), torch.tensor([0, 1, 0])),
        (torch.zeros(2, 1, 28, 28), torch.tensor([0., 1.])),
        (torch.zeros(2, 1, 28, 28), torch.tensor([-1, 1])),
    ],
)
def test_supervised_says_what_it_needs(D, x, labels):
    with pytest.raises(ValueError, match=f"each of {len(x)} images needs a class, a whole number from 0"):
        supervised(D, x, labels)


@pytest.mark.parametrize("labels", [torch.zeros(4, dtype=torch.long), torch.tensor([0, 1])])
def test_the_svm_says_what_it_needs(labels):
    with pytest.raises(ValueError, match=f"4 features have {len(labels)} labels"):
        linear_svm(torch.randn(4, 2), labels)


def test_supervised_learns_and_leaves_d_alone(D):
    before, state = {k: v.clone() for k, v in D.state_dict().items()}, torch.random.get_rng_state()
    labels = torch.arange(20) % 2
    x = noise(20, 1, 28, 28) * .2
    x[labels == 1, :, :14] += .7
    net = supervised(D, x, labels, steps=30)
    with torch.no_grad():
        assert (net(x).argmax(1) == labels).float().mean() > .8
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items()) and torch.equal(
        state, torch.random.get_rng_state()
    )
    shapes = [p.shape for p in D.layers[:-1].parameters()]
    assert [p.shape for p in net.parameters()][:-2] == shapes, "the hidden layers are D's"


def test_saliency_where_it_can_be_worked_out():
    "One convolution that copies a pixel: the gradient is 1 at the largest pixel, if that is positive."
    rows = [Row("conv", 1, 1, 1, 0, False, "leaky_relu", False), Row("linear", 1)]
    D = Discriminator(rows, (1, 3, 3)).eval()
    nn.init.ones_(D.layers[0].conv.weight)
    x = torch.tensor([[-.5, .2, .1], [.9, 0, 0], [0, 0, 0]]).view(1, 1, 3, 3)
    expected = torch.zeros(3, 3)
    expected[1, 0] = 1
    assert torch.equal(saliency(D, x, 1, torch.tensor([0]))[0, 0], expected)
    assert not saliency(D, -x.abs() - 0.01, 1, torch.tensor([0])).any(), (
        "nothing passes where the activation's input is negative"
    )


def test_saliency_lets_nothing_negative_through():
    "Two layers: of the second filter's inputs, those with a negative weight have a negative gradient, which stops."
    rows = [
        Row("conv", 2, 1, 1, 0, False, "relu", False),
        Row("conv", 1, 1, 1, 0, False, "relu", False),
        Row("linear", 1),
    ]
    D = Discriminator(rows, (1, 2, 2)).eval()
    with torch.no_grad():
        D.layers[0].conv.weight.copy_(torch.tensor([1., 2.]).view(2, 1, 1, 1))
        D.layers[1].conv.weight.copy_(torch.tensor([3., -1.]).view(1, 2, 1, 1))
    x = torch.full((1, 1, 2, 2), .5)
    x[..., 0, 0] = .8
    assert saliency(D, x, 2, torch.tensor([0])).flatten().tolist() == [3.0, 0.0, 0.0, 0.0], (
        "a plain gradient would be 3 - 2"
    )


def test_dropping_none_and_all(G):
    z = latent(3, G.z_dim)
    maps = maps_at(G, z, 2)
    with torch.no_grad():
        assert torch.allclose(images_from(G, maps, 2), G(z), atol=1e-6), "no filter dropped: the images themselves"
    empty = images_from(G, maps, 2, range(maps.shape[1]))
    assert torch.allclose(empty, empty[:1].expand_as(empty)), "all dropped: nothing of z is left"
    assert torch.allclose(empty, images_from(G, torch.zeros_like(maps), 2))
    some = images_from(G, maps, 2, [0, 3])
    by_hand = maps.clone()
    by_hand[:, [0, 3]] = 0
    assert torch.allclose(some, images_from(G, by_hand, 2)) and not torch.allclose(some, images_from(G, maps, 2))


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda D, G: maps_at(G, latent(2, G.z_dim), 9),
            r"no hidden layer 9 with maps; there are: 1 \(16, 4, 4\), 2 \(8, 8, 8\), 3 \(4, 16, 16\)",
        ),
        (lambda D, G: maps_at(G, latent(2, G.z_dim), 4), "there are: 1"),
        (lambda D, G: images_from(G, torch.zeros(1, 8, 8, 8), True), "no hidden layer True"),
        (
            lambda D, G: saliency(D, noise(1, 1, 28, 28), 4, torch.tensor([0])),
            r"there are: 1 \(8, 13, 13\), 2 \(16, 5, 5\), 3 \(32, 1, 1\)",
        ),
        (lambda D, G: saliency(D, noise(1, 1, 28, 28), 3, torch.tensor([32])), "1 numbers from 0 to 31"),
        (lambda D, G: saliency(D, noise(1, 1, 28, 28), 3, torch.tensor([0, 1])), "1 numbers from 0 to 31"),
        (lambda D, G: images_from(G, torch.zeros(1, 8, 8, 8), 2, [8]), "There is no filter 8; there are 8"),
        (lambda D, G: hidden(nn.Linear(2, 1)), "net is Linear; it must be a Discriminator or a Generator"),
        (lambda D, G: features(D, noise(2, 1, 32, 32)), r"this network takes \(batch, 1, 28, 28\)"),
        (lambda D, G: features(D, noise(2, 1, 28, 28) * 3), r"images must lie in \[-1, 1\]"),
        (lambda D, G: features(D, noise(2, 1, 28, 28), side=0), "side is 0"),
        (
            lambda D, G: filter_weights(torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3)),
            "9 places are given, all with the object",
        ),
        (
            lambda D, G: changed_cells(noise(1, 3, 8, 8), noise(1, 3, 8, 8), 4),
            "both must be uint8 images of one shape",
        ),
    ],
)
def test_wrong_calls_are_one_sentence(D, G, call, words):
    with pytest.raises(ValueError, match=words):
        call(D, G)


def test_filter_weights_find_the_filter_that_knows():
    there = torch.zeros(2, 6, 6, dtype=torch.long)
    there[:, 1:3, 2:5] = 1
    there[:, 5] = -1
    maps = noise(2, 4, 6, 6).abs()
    maps[:, 2] += 3 * there.clamp(min=0)
    maps[:, 1] += 3 * (there == 0)
    maps[:, 3, 5] = 100  # at places of which nobody says anything
    w = filter_weights(maps, there)
    assert w.argmax() == 2 and w.argmin() == 1 and w[2] > 0 > w[1]


def test_places_of_an_object():
    cells = torch.tensor([[True, False]])
    places = object_places(torch.tensor([True, False]), cells)
    assert places.tolist() == [[[1, 0]], [[0, -1]]]


def test_changed_cells():
    a = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    b = a.clone()
    b[:, 1, 2:4, 4:6] = 200
    b[0, :, 7, 7] = 200  # in one of four pairs, one pixel of four
    cells = changed_cells(a, b, 4)
    assert cells.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("name", TRAINED)
def test_shipped_discriminators(name):
    D, folder = trained_d(name), ASSETS / "features" / name
    assert not D.training and D.table.out_shape in ((1, 1, 1), (1,))
    assert (folder / "recipe.json").is_file(), "it says which run it is of"
    assert json.loads((folder / "report.json").read_text())["command"].startswith("dcgan train")
    assert (folder / "model.safetensors").stat().st_size < 1_500_000
    a, b = (features(net, noise(2, *D.in_shape)) for net in (D, untrained(D)))
    assert a.isfinite().all() and not torch.allclose(a, b, atol=.1)


def test_loading_is_strict(tmp_path):
    with pytest.raises(ValueError, match="no shipped discriminator 'digit'; did you mean 'digits'"):
        trained_d("digit")
    with pytest.raises(FileNotFoundError, match="holds no discriminator 'digits'; install the package again"):
        trained_d("digits", tmp_path)
    folder = tmp_path / "digits"
    shutil.copytree(ASSETS / "features/digits", folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("64", "48", 1))
    with pytest.raises(ValueError, match="of another shape"):
        trained_d("digits", tmp_path)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        trained_d("digits", tmp_path)


def test_new_assets_are_small():
    paths = [*(ASSETS / "features").rglob("*"), *ASSETS.glob("features*.csv")]
    assert sum(p.stat().st_size for p in paths if p.is_file()) < 3_000_000
    assert SIDE == 4


def test_each_measured_cell_has_five_draws():
    rows = list(csv.DictReader((ASSETS / "features.csv").read_text().splitlines()))
    found = {}
    for r in rows:
        found.setdefault((r["data"], r["features"], r["labels"]), []).append(int(r["draw"]))
    assert found.pop(("digits", "D", "4000")) == [0], "all digits take part: there is nothing to draw"
    rest = [key for key in found if key[0] == "digits" and key[2] == "4000"]
    assert sorted(key[1] for key in rest) == ["PCA", "pixels", "supervised", "untrained"]
    assert all(found.pop(key) == [0] for key in rest)
    assert found and all(sorted(draws) == list(range(5)) for draws in found.values())
    sizes = {"digits": {10, 50, 200, 1000}, "house_numbers": {1000}, "photographs": {1000}}
    kinds = {"D", "untrained", "pixels", "PCA", "supervised"}
    for data, labels in sizes.items():
        more = {"other D"} if data == "photographs" else set()
        assert {(kind, int(n)) for d, kind, n in found if d == data} == {(k, n) for k in kinds | more for n in labels}
    assert all(
        0 < float(r["accuracy"]) <= 1 and r["machine"] and re.match(r"\d{4}-\d\d-\d\d$", r["date"])
        for r in rows
    )


def in_place(before, grad):
    grad[before <= 0] = 0
    return grad.clamp_(min=0)


def by_interval(a, b, factor=2.776, root=True, spread=stdev):
    d = [x - y for x, y in zip(a, b)]
    half = factor * spread(d) / (len(d)**.5 if root else 1)
    return "a" if mean(d) > half else "b" if mean(d) < -half else "can't say"


def unpaired(a, b):
    half = 2.776 * (stdev(a)**2 / 5 + stdev(b)**2 / 5)**.5
    return "a" if mean(a) - mean(b) > half else "b" if mean(b) - mean(a) > half else "can't say"


WRONG = {
    "length": {
        "small maps blown up": lambda widths, sides, side=4: sum(widths) * side**2,
        "no square": lambda widths, sides, side=4: sum(c * min(side, s) for c, s in zip(widths, sides)),
        "not pooled": lambda widths, sides, side=4: sum(c * s**2 for c, s in zip(widths, sides)),
        "the grid always 4": lambda widths, sides, side=4: sum(c * min(4, s)**2 for c, s in zip(widths, sides)),
        "the last layer alone": lambda widths, sides, side=4: widths[-1] * min(side, sides[-1])**2,
    },
    "verdict": {
        "the larger mean": lambda a, b: "a" if mean(a) > mean(b) else "b" if mean(b) > mean(a) else "can't say",
        "not paired": unpaired,
        "no root of n": lambda a, b: by_interval(a, b, root=False),
        "n in the standard deviation": lambda a, b: by_interval(a, b, spread=pstdev),
        "the normal distribution's 1.96": lambda a, b: by_interval(a, b, 1.96),
        "no interval of the mean, one standard error": lambda a, b: by_interval(a, b, 1.),
        "the other way round": lambda a, b: by_interval(b, a),
        "ranges that don't overlap": lambda a, b: "a" if min(a) > max(b) else "b" if min(b) > max(a) else "can't say",
    },
    "guided": {
        "plain backpropagation": lambda before, grad: grad * (before > 0),
        "deconvolution": lambda before, grad: grad.clamp(min=0),
        "zero counted as positive": lambda before, grad: grad.clamp(min=0) * (before >= 0),
        "magnitudes": lambda before, grad: grad.abs() * (before > 0),
        "in place": in_place,
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(WRONG, LESSON)
