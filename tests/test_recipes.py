"Recipes: what each field takes and refuses, JSON and the command line there and back, and the networks they make."
import json
from dataclasses import FrozenInstanceError, fields
from functools import partial

import pytest
import torch
from torch import nn

from dcgan.audit import audit
from dcgan.catalogue import ABOUT
from dcgan.cli import parse
from dcgan.datasets.sources import load
from dcgan.networks import Generator, latent
from dcgan.recipes import CPU, LIMITS, NETS, RECIPES, Recipe, command, differences, from_json, to_json

EDGES = {  # field: values just inside, values just outside
    "image_size": ((28,), (27, 29, 8, 0, -28, 28.0, "28", None, True)),
    "channels": ((1, 3), (0, 2, 4, -1, 1.0, None, "1", True)),
    "filters": ((4, 5), (3, 0, -4, 4.0, None)),
    "z_dim": ((1, 2), (0, -1, 1.5, None)),
    "slope": ((0., 0.999), (-1e-9, 1., 2., float("nan"), None, "0.2")),
    "init_std": ((1e-6, 9.9, None), (0., -0.02, 10., float("nan"), "0.02")),
    "images": ((2, 3, None), (1, 0, -5, 2.5)),
    "batch_size": ((2, 3), (1, 0, -1, 64.0, None, True)),
    "rotate": ((0., 180.), (-1e-9, 180.1, float("nan"), None)),
    "shift": ((0, 7), (8, -1, 1.5, None)),
    "epochs": ((1, 2), (0, -1, 1.5, None)),
    "lr_g": ((1e-12, 1.), (0., -1e-4, 1.0001, float("inf"), float("nan"), None)),
    "lr_d": ((1e-12, 1.), (0., -1e-4, 1.0001, float("inf"), float("nan"), None)),
    "beta1": ((0., 0.999), (-1e-9, 1., float("nan"))),
    "beta2": ((0., 0.999), (-1e-9, 1., float("nan"))),
    "real_label": ((0.501, 1.), (0.5, 1.001, float("nan"))),
    "fake_label": ((0., 0.499), (-1e-9, 0.5, float("nan"))),
    "ema": ((1e-6, 0.9999, None), (0., 1., float("nan"), "0.9")),
    "seed": ((0, 2**32 - 1), (-1, 0.5, None, 2**32)),
    "log_every": ((1, 2), (0, -1, 1.5)),
    "sample_every": ((1, 2), (0, -1, 1.5)),
    "save_every": ((1, 2), (0, -1, 1.5)),
    "classes": ((0, 1, 10), (-1, 1.5, None, True)),
    "r1": ((0., 1, 50.), (-1e-6, float("nan"), float("inf"), None, "1")),
}
CHOICES = {
    "net": "didgits",
    "z_law": "norml",
    "last_batch": "keeps",
    "decay": "cosin",
    "d_reduction": "men",
    "g_fakes": "frsh",
}  # field: a near miss


def refused(words, call, *args, **kwargs):
    with pytest.raises(ValueError) as e:
        call(*args, **kwargs)
    said = str(e.value)
    assert "\n" not in said and all(str(w) in said for w in words), said


def test_every_limit_has_its_edges_here():
    assert set(LIMITS) == set(EDGES)
    assert set(LIMITS) | set(CHOICES) | {"bias", "d_norm", "data", "name"} == {f.name for f in fields(Recipe)}


@pytest.mark.parametrize("field", EDGES)
def test_limits_take_their_edges_and_refuse_what_lies_beyond(field):
    inside, outside = EDGES[field]
    for value in inside:
        assert getattr(Recipe().replace(**{field: value}), field) == value
    for value in outside:
        refused([field, value], Recipe, **{field: value})


@pytest.mark.parametrize("field, near", CHOICES.items())
def test_choices_name_the_nearest(field, near):
    refused([field, repr(near), "did you mean"], Recipe, **{field: near})
    refused([field, "xyz", "there are"], Recipe, **{field: "xyz"})


@pytest.mark.parametrize(
    "net, fits, no_fit",
    [
        ("digits", [28], [8, 16, 27, 32, 64]),
        ("mnist28", [28], [32]),
        ("paper", [8, 16, 32, 64, 128], [9, 28, 48, 63, 65, 96]),
        ("svhn32", [8, 32, 64], [28, 33]),
        ("dcgan-2015", [8, 16, 64, 128], [9, 28, 96]),
        ("svhn32-code", [32], [30]),
    ],
)
def test_sizes_that_a_net_makes(net, fits, no_fit):
    for size in fits:
        r = Recipe(net=net, image_size=size, filters=4)
        assert r.g_table.out_shape == r.x_shape == r.d_table.in_shape == (1, size, size)
        assert r.d_table.out_shape in ((1,), (1, 1, 1))
    for size in no_fit:
        refused(["image_size", size], Recipe, net=net, image_size=size)


def test_recipes_are_frozen_and_compare_by_value():
    r = Recipe()
    with pytest.raises(FrozenInstanceError):
        r.epochs = 3
    assert r == Recipe() and hash(r) == hash(Recipe()) and r != r.replace(seed=1)
    assert all(isinstance(getattr(r, f.name), (int, float, str, bool, type(None))) for f in fields(r)), "scalars only"


def test_replace_checks_names_and_values():
    refused(["'epoch'", "'epochs'"], Recipe().replace, epoch=3)
    refused(["lr_g", "-1"], Recipe().replace, lr_g=-1)


@pytest.mark.parametrize(
    "recipe",
    [*RECIPES.values(), Recipe(net="svhn32", image_size=32, channels=3, ema=None, init_std=None, bias=False)],
    ids=lambda r: r.name,
)
def test_json_there_and_back(recipe):
    text = to_json(recipe)
    assert from_json(text) == recipe
    tables = json.loads(text)
    assert tables["g_layers"] == json.loads(json.dumps(recipe.g_layers)) and len(tables["d_layers"]) == len(
        recipe.d_layers
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ["recipe.json"]),
        ("{", ["recipe.json"]),
        ("[1]", ["recipe.json"]),
        ("3", ["recipe.json"]),
        ('{"epoch": 3}', ["'epoch'", "'epochs'"]),
        ('{"epochs": 0}', ["epochs", "0"]),
        ('{"epochs": "3"}', ["epochs", "'3'"]),
        ('{"bias": 1}', ["bias"]),
        ('{"net": "papr"}', ["'papr'", "'paper'"]),
        ('{"net": ["paper"]}', ["net"]),
    ],
)
def test_foreign_json_is_refused(text, words):
    refused(words, from_json, text)


def test_differences_name_fields_and_values():
    assert differences(Recipe(), Recipe()) == []
    assert differences(Recipe(), Recipe(seed=3, ema=0.9)) == ["ema: None → 0.9", "seed: 0 → 3"]


CHANGES = [
    {},
    {"epochs": 7},
    {"lr_g": 1e-5, "lr_d": 0.00031},
    {"bias": False},
    {"d_norm": False, "r1": 2.5},
    {"ema": None},
    {"ema": 0.5, "images": 300},
    {"init_std": None, "seed": 2**31},
    {"net": "paper", "image_size": 32, "channels": 3, "data": "folder:my photos/x"},
    {
        "rotate": 0.5,
        "decay": "linear",
        "z_law": "uniform",
        "last_batch": "keep",
        "d_reduction": "mean",
        "shift": 1,
    },
]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: "+".join(c) or "as it is")
def test_the_command_gives_the_recipe_again(name, changes):
    import shlex
    recipe = RECIPES[name].replace(**changes)
    dcgan, train, word, *flags = shlex.split(command(recipe))
    assert (dcgan, train, word) == ("dcgan", "train", name)
    typed, fields = parse(["train", name, *flags]).keywords["recipe"]
    assert typed == name and RECIPES[name].replace(**fields) == recipe
    assert changes or not flags


def test_named_recipes_are_described_and_fit_a_cpu(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path))
    assert set(ABOUT) == set(RECIPES) and set(CPU) <= set(RECIPES)
    for name, r in RECIPES.items():
        assert r.name == name and "\n" not in ABOUT[name]
        small = r.sized_for("cpu")
        said = capsys.readouterr().out
        assert small == r.replace(**CPU.get(name, {})) and all(k in said for k in CPU.get(name, {}))
        assert r.sized_for("cuda") == r and not capsys.readouterr().out
        if r.data != "digits":
            assert small.data in ("digits", "house_numbers", "faces") and f"data {r.data} → {small.data}" in said
        if r.data != "digits":
            assert small.images <= 10_000 and small.epochs <= 20 and small.net == r.net and small.x_shape == r.x_shape
    assert len(NETS) >= 5


MNIST = [
    f"MNIST/raw/{part}-ubyte.gz"
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]


@pytest.mark.parametrize(
    "name, files",
    [
        ("mnist28", MNIST),
        ("mnist64", MNIST),
        ("svhn32", ["SVHN/train_32x32.mat"]),
        ("celeba64", ["celeba/list_eval_partition.txt", "celeba/img_align_celeba.zip"]),
    ],
)
def test_on_a_cpu_real_data_are_kept_where_they_are(tmp_path, monkeypatch, capsys, name, files):
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "other"))
    r = RECIPES[name]
    for file in files:
        (tmp_path / "d" / file).parent.mkdir(parents=True, exist_ok=True)
        assert r.sized_for("cpu", data_dir=str(tmp_path / "d")).data == CPU[name]["data"], (
            f"without {file} it is not there"
        )
        (tmp_path / "d" / file).touch()
    capsys.readouterr()
    assert r.sized_for("cpu", data_dir=str(tmp_path / "d")) == r.replace(**CPU[name] | {"data": r.data})
    assert "data " not in capsys.readouterr().out
    assert r.replace(data="cifar10").sized_for("cpu", data_dir=str(tmp_path / "d")).data == CPU[name]["data"]
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "d"))
    assert r.sized_for("cpu").data == r.data and CPU[name]["data"] != r.data, "and CPU itself is as it was"
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("DCGAN_DATA", "~/d")
    assert r.sized_for("cpu").data == r.data
    with pytest.raises(ValueError, match="~nobody_here is no home folder"):
        r.sized_for("cpu", data_dir="~nobody_here/x")


@pytest.mark.parametrize("name", ["mnist28", "celeba64", "svhn32"])
def test_a_gpu_without_the_data_gets_the_sentence(tmp_path, monkeypatch, name):
    from torchvision.datasets import utils
    def no_network(*_, **__): raise OSError("no network in tests")
    monkeypatch.setattr(utils, "_get_redirect_url", no_network)
    r = RECIPES[name].sized_for("cuda")
    with pytest.raises(
        FileNotFoundError,
        match=f"^{r.data} is not in .*: put .* there, or use the offline stand-in {CPU[name]['data']}$",
    ):
        load(r.data, image_size=r.image_size, channels=r.channels, data_dir=str(tmp_path))


def test_reference_1_is_as_described():
    r = RECIPES["mnist28"]
    assert (r.z_dim, r.batch_size, r.epochs, r.rotate, r.d_reduction, r.ema) == (64, 128, 20, 20., "mean", None)
    assert (r.lr_g, r.lr_d, r.beta1, r.beta2, r.slope) == (2e-4, 2e-4, 0.5, 0.99, 0.2)
    assert (r.g_table.params, r.d_table.params) == (747_841, 64_545)
    assert [s.out_shape[-1] for s in r.g_table] == [3, 6, 13, 28] and [s.out_shape[-1] for s in r.d_table][
        :3
    ] == [13, 5, 1]


def test_digits_keeps_the_guidelines():
    r = RECIPES["digits"]
    assert [row.norm for row in r.g_layers] == [True] * (len(r.g_layers) - 1) + [False]
    assert [row.norm for row in r.d_layers] == [False] + [True] * (len(r.d_layers) - 2) + [False]
    assert {row.act for row in r.g_layers[:-1]} == {"relu"} and r.g_layers[-1].act == "tanh"
    assert {row.act for row in r.d_layers[:-1]} == {"leaky_relu"} and all(row.kind != "pool" for row in r.d_layers)


def test_networks_are_fresh_and_on_the_cpu():
    r = RECIPES["digits"].replace(filters=4)
    (G, D), (again, _) = r.networks(), r.networks()
    assert G is not again and all(p.device.type == "cpu" for net in (G, D) for p in net.parameters())
    with torch.no_grad():
        G.layers[0].conv.weight.zero_()
    assert again.layers[0].conv.weight.abs().sum() > 0


def the_authors_own(f=128, bn_first=None):
    "Newmu/dcgan_code, faces/train_uncond_dcgan.py, written out: G and D with f base filters; 5×5 kernels, stride 2, padding 2, no biases."
    def up(i, o, *more): return [nn.ConvTranspose2d(i, o, 5, 2, padding=2, output_padding=1, bias=False), *more]
    def down(i, o, *more): return [nn.Conv2d(i, o, 5, 2, padding=2, bias=False), *more, nn.LeakyReLU(0.2)]

    G = nn.Sequential(
        nn.Linear(100, 8 * f * 4 * 4, bias=False),
        *(bn_first or [nn.Unflatten(1, (8 * f, 4, 4)), nn.BatchNorm2d(8 * f)]),
        nn.ReLU(),
        *up(8 * f, 4 * f, nn.BatchNorm2d(4 * f), nn.ReLU()),
        *up(4 * f, 2 * f, nn.BatchNorm2d(2 * f), nn.ReLU()),
        *up(2 * f, f, nn.BatchNorm2d(f), nn.ReLU()),
        *up(f, 3, nn.Tanh()),
    )
    D = nn.Sequential(*down(3, f), *down(f, 2*f, nn.BatchNorm2d(2*f)), *down(2*f, 4*f, nn.BatchNorm2d(4*f)),
                      *down(4*f, 8*f, nn.BatchNorm2d(8*f)), nn.Flatten(), nn.Linear(8*f*4*4, 1, bias=False))
    return G, D


def numbers(net): return sum(p.numel() for p in net.parameters())


def test_the_authors_own_network_is_counted():
    r = RECIPES["dcgan-2015"]
    assert (r.data, r.x_shape, r.z_dim, r.z_law, r.bias, r.filters) == (
        "celeba",
        (3, 64, 64),
        100,
        "uniform",
        False,
        128,
    )
    assert (r.batch_size, r.lr_g, r.lr_d, r.beta1, r.beta2, r.epochs, r.init_std, r.slope, r.ema) == (
        128,
        2e-4,
        2e-4,
        0.5,
        0.999,
        25,
        0.02,
        0.2,
        None,
    )
    with torch.device("meta"):
        G, D = the_authors_own()
        theirs, _ = the_authors_own(bn_first=[nn.BatchNorm1d(16384), nn.Unflatten(1, (1024, 4, 4))])
    assert (numbers(G), numbers(D)) == (r.g_table.params, r.d_table.params) == (18_855_040, 17_232_768)
    assert numbers(theirs) - numbers(G) == 30_720, "what lesson 09 says of their first BatchNorm"
    assert [s.out_shape[-1] for s in r.g_table] == [4, 8, 16, 32, 64] and [
        s.out_shape[-1] for s in r.d_table
    ] == [32, 16, 8, 4, 1]
    assert {
        (row.kernel, row.stride, row.padding) for row in (*r.g_layers, *r.d_layers) if row.kind != "linear"
    } == {(5, 2, 2)}


def test_the_authors_own_network_computes_the_same(tmp_path):
    r, written = RECIPES["dcgan-2015"].replace(filters=6, init_std=0.1), the_authors_own(6)
    for ours, theirs, x in zip(r.networks(), written, (torch.randn(5, 100), torch.randn(5, 3, 64, 64))):
        values = list(ours.state_dict().values())
        assert [v.shape for v in values] == [v.shape for v in theirs.state_dict().values()]
        theirs.load_state_dict(dict(zip(theirs.state_dict(), (v.clone() for v in values))))
        for mode in (True, False):
            a, b = ours.train(mode)(x), theirs.train(mode)(x)
            torch.testing.assert_close(a, b if b.ndim == 4 else b.flatten())
            assert a.std() > 0 and a.shape == ((5, 3, 64, 64) if b.ndim == 4 else (5,))
    G = r.networks()[0].eval()
    G.save_pretrained(tmp_path / "g")
    again = Generator.from_pretrained(tmp_path / "g")
    assert [row.extra for row in again.config["layers"]] == [0, 1, 1, 1, 1] and torch.equal(
        again.sample(2), G.sample(2)
    )


def test_the_4x4_ports_draw_normal_noise():
    for name in ("mnist64", "mnist64-paper", "celeba64"):
        assert RECIPES[name].z_law == "normal" and {row.kernel for row in RECIPES[name].g_layers} == {4}


@pytest.mark.parametrize("name", RECIPES)
def test_which_recipes_break_a_guideline(name):
    "As lesson 09 says; with fewer filters, since width breaks no rule."
    r = RECIPES[name].replace(filters=min(RECIPES[name].filters, 32))
    broken = {(f.rule, f.where.split()[0]) for f in audit(r.networks(), ((r.z_dim,), r.x_shape)).broken}
    own_weights = {("initial weights", "G"), ("initial weights", "D")}
    assert broken == {
        "mnist28": {("batchnorm but at the edges", "D")},
        "mnist28-trainer": {
            ("strides not pooling", "G"),
            ("strides not pooling", "D"),
            ("batchnorm but at the edges", "D"),
            *own_weights,
        },
        "svhn32": {("activation inside", "G")},
        "svhn32-code": {("batchnorm but at the edges", "G"), ("activation inside", "G"), *own_weights},
    }.get(name, set())


def twin_r3():
    "R3's networks, written out from what its repository has; without D's sigmoid, since ours gives the logit."
    up = partial(nn.Upsample, scale_factor=2)
    G = nn.Sequential(
        nn.Unflatten(1, (15, 3, 3)),
        nn.ConvTranspose2d(15, 20, 3),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        up(),
        nn.ConvTranspose2d(20, 25, 3),
        nn.BatchNorm2d(25),
        nn.ReLU(),
        up(),
        nn.ConvTranspose2d(25, 20, 3),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        nn.ConvTranspose2d(20, 1, 3),
        nn.Tanh(),
    )
    D = nn.Sequential(nn.Conv2d(1, 10, 3), nn.BatchNorm2d(10), nn.LeakyReLU(0.2),
                      nn.Conv2d(10, 15, 3), nn.BatchNorm2d(15), nn.LeakyReLU(0.2), nn.MaxPool2d(2),
                      nn.Conv2d(15, 20, 3), nn.BatchNorm2d(20), nn.LeakyReLU(0.2), nn.MaxPool2d(2),
                      nn.Conv2d(20, 10, 3), nn.BatchNorm2d(10), nn.LeakyReLU(0.2), nn.Conv2d(10, 1, 3))
    return G, D


def twin_r5(project_norm):
    "R5's networks: as its text has them, or, without `project_norm`, as its code has them."
    projected = [nn.BatchNorm2d(128), nn.LeakyReLU(0.2)] if project_norm else []
    convs = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1, bias=False)
    G = nn.Sequential(
        nn.Linear(100, 2048),
        nn.Unflatten(1, (128, 4, 4)),
        *projected,
        convs(128, 64),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        convs(64, 32),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        convs(32, 3),
        nn.Tanh(),
    )
    down = partial(nn.Conv2d, kernel_size=4, stride=2, padding=1, bias=False)
    D = nn.Sequential(down(3, 32), nn.LeakyReLU(0.2), down(32, 64), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
                      down(64, 128), nn.BatchNorm2d(128), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2048, 1))
    return G, D


@pytest.mark.parametrize("name, twins", [("mnist28-trainer", twin_r3), ("svhn32", partial(twin_r5, True)),
                                         ("svhn32-code", partial(twin_r5, False))])
def test_the_networks_of_r3_and_r5_are_their_repositories(name, twins):
    "Ours with its own weights, and the same network written out with the same weights, in both modes."
    r = RECIPES[name]
    given = (latent(5, r.z_dim, r.z_law), torch.rand(5, *r.x_shape) * 2 - 1)
    for ours, theirs, x in zip(r.networks(), twins(), given):
        values = [v for k, v in ours.state_dict().items()]
        theirs.load_state_dict(dict(zip(theirs.state_dict(), (v.clone() for v in values), strict=True)))
        for mode in True, False:
            a, b = ours.train(mode)(x), theirs.train(mode)(x)
            torch.testing.assert_close(a, b if b.shape[1:] == r.x_shape else b.flatten())
            assert a.std() > 0


def test_r3_s_settings():
    r = RECIPES["mnist28-trainer"]
    assert (r.batch_size, r.beta1, r.beta2, r.z_law, r.init_std, r.rotate, r.d_reduction) == (
        16,
        0.9,
        0.999,
        "uniform",
        None,
        0,
        "mean",
    )
    assert (r.epochs, r.save_every, r.lr_g, r.lr_d) == (200, 10, 2e-4, 2e-4)
    with pytest.raises(ValueError, match=r"Layer 1 \(reshape\): 64 numbers can't be seen as maps of 3 × 3"):
        r.replace(z_dim=64)


@pytest.mark.parametrize("name", RECIPES)
def test_without_norm_d_has_biases_in_its_place_and_g_stays(name):
    r = RECIPES[name]
    bare = r.replace(d_norm=False)
    assert bare.g_layers == r.g_layers and any(row.norm for row in r.d_layers)
    for row, old in zip(bare.d_layers, r.d_layers, strict=True):
        assert row == (old._replace(norm=False, bias=True) if old.norm else old)
    _, D = bare.networks()
    assert not [m for m in D.modules() if isinstance(m, torch.nn.BatchNorm2d)]
