"Networks built from tables: counts, shapes, initial weights, sampling, and saving without pickle."
import numpy as np
import pytest
import torch
from torch import nn

from dcgan.networks import (
    Discriminator,
    Generator,
    activation,
    blocks,
    generator_for,
    init_weights,
    latent,
    layer,
)
from dcgan.recipes import NETS, RECIPES, Recipe
from dcgan.shapes import Row

COUNTS = [  # REFERENCES section 1: net, size, channels, filters, z_dim, bias, parameters of G and of D
    ("mnist28", 28, 1, 64, 64, True, 747_841, 64_545),
    ("paper", 64, 1, 128, 100, False, 12_654_336, 11_032_064),
    ("paper", 64, 3, 128, 100, False, 12_658_432, 11_036_160),
    ("dcgan-2015", 64, 3, 128, 100, False, 18_855_040, 17_232_768),
    ("svhn32", 32, 3, 32, 100, False, 372_672, 167_809),
    ("svhn32", 32, 3, 128, 100, False, 3_456_768, 2_637_313),
    ("svhn32-code", 32, 3, 32, 100, False, 372_416, 167_809),
    ("svhn32-code", 32, 3, 128, 100, False, 3_455_744, 2_637_313),
]
SIZES = [(net, 28) for net in ("mnist28", "digits")] + [
    (net, s) for net in ("dcgan-2015", "paper", "svhn32", "svhn32-code") for s in (8, 16, 32, 64, 128)
]


def pair(net, size, channels=1, filters=4, z_dim=5, **fields):
    r = Recipe(net=net, image_size=size, channels=channels, filters=filters, z_dim=z_dim, **fields)
    return Generator(r.g_layers, z_dim, r.z_law), Discriminator(r.d_layers, r.x_shape)


@pytest.fixture
def G():
    return RECIPES["digits"].replace(filters=4, z_dim=5, init_std=0.1).networks()[0]


@pytest.mark.parametrize("net, size, channels, filters, z_dim, bias, g_count, d_count", COUNTS)
def test_parameter_counts_of_the_references(net, size, channels, filters, z_dim, bias, g_count, d_count):
    with torch.device("meta"):
        G, D = pair(net, size, channels, filters, z_dim, bias=bias)
    assert [sum(p.numel() for p in N.parameters()) for N in (G, D)] == [g_count, d_count]
    assert [N.table.params for N in (G, D)] == [g_count, d_count]


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("net, size", SIZES)
def test_every_net_in_every_size(net, size, channels, bias):
    G, D = pair(net, size, channels, filters=8 if size < 128 else 4, bias=bias)
    assert [sum(p.numel() for p in N.parameters()) for N in (G, D)] == [G.table.params, D.table.params]
    for b in (1, 2, 5):
        for N in (G, D):
            N.train(b > 1)  # on a 1×1 map BatchNorm can't train on one image
        x = G(torch.randn(b, 5))
        assert x.shape == (b, channels, size, size) and x.dtype == torch.float32
        assert x.min() >= -1 and x.max() <= 1
        assert D(x).shape == (b,) and D(x).isfinite().all()


def test_no_two_nets_are_forgotten():
    assert {net for net, _ in SIZES} == set(NETS) - {"mnist28-trainer"}  # its z is a multiple of 9: tests/test_recipes.py


def test_the_table_is_the_network():
    G, D = pair("svhn32", 32, 3)
    for N, z in (G, torch.randn(2, 5)), (D, torch.randn(2, 3, 32, 32)):
        for row, block in zip(N.table, N.layers, strict=True):
            z = block(z)
            assert tuple(z.shape[1:]) == row.out_shape
            assert sum(p.numel() for p in block.parameters()) == row.params
            kinds = {type(m).__name__ for m in block.modules()}
            assert ("BatchNorm2d" in kinds or "BatchNorm1d" in kinds) == row.norm
            assert ("LeakyReLU" in kinds) == (row.act == "leaky_relu")


def test_slope_and_other_rows():
    layers = [
        Row("conv", 4, 3, 2, 1, act="leaky_relu"),
        Row("pool", 0, 2, 2),
        Row("linear", 6, norm=True, act="sigmoid"),
        Row("linear", 1),
    ]
    D = Discriminator(layers, (1, 8, 8), slope=0.3)
    assert D.layers[0].act.negative_slope == 0.3
    assert isinstance(D.layers[1].pool, nn.MaxPool2d) and isinstance(D.layers[2].norm, nn.BatchNorm1d)
    assert D(torch.randn(3, 1, 8, 8)).shape == (3,)


@pytest.mark.parametrize("call, words", [
    (lambda G, D: G(torch.randn(2, 6)), ["(2, 6)", "(batch, 5)"]),
    (lambda G, D: G(torch.randn(2, 5, 1, 1)), ["(2, 5, 1, 1)", "(batch, 5)"]),
    (lambda G, D: D(torch.randn(2, 3, 28, 28)), ["(2, 3, 28, 28)", "1, 28, 28"]),
    (lambda G, D: D(torch.randn(2, 1, 32, 32)), ["(2, 1, 32, 32)", "1, 28, 28"]),
    (lambda G, D: Discriminator([Row("conv", 4, 3)], (1, 8, 8)), ["(4, 6, 6)", "one number"]),
    (lambda G, D: Discriminator([Row("conv", 1, 9)], (1, 8, 8)), ["Layer 1"]),
    (lambda G, D: Generator([["conv_t"]], 4), ["Row 1"]),
    (lambda G, D: G.sample(0), ["n is 0", "from 1"]),
    (lambda G, D: latent(2, 5, "cauchy"), ["'cauchy'", "normal", "uniform"]),
])
def test_wrong_input_is_one_sentence(call, words):
    with pytest.raises(ValueError) as e:
        call(*pair("digits", 28))
    assert "\n" not in str(e.value) and all(w in str(e.value) for w in words), e.value


# Initial weights

def weights(net, kind):
    return torch.cat([m.weight.detach().flatten() for m in net.modules() if isinstance(m, kind)])


@pytest.mark.parametrize("std", (0.02, 0.1))
def test_initial_weights_are_as_the_paper_has_them(std):
    G, D = RECIPES["digits"].replace(init_std=std).networks()
    for net in G, D:
        w, norm = weights(net, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)), weights(net, nn.BatchNorm2d)
        assert abs(w.mean()) < 4 * std / len(w)**.5 and w.std() == pytest.approx(std, rel=0.02)
        assert abs(norm.mean() - 1) < 4 * std / len(norm)**.5 and norm.std() == pytest.approx(std, rel=0.35)
        assert all((m.bias == 0).all() for m in net.modules() if getattr(m, "bias", None) is not None)
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                assert (m.running_mean == 0).all() and (m.running_var == 1).all()


def test_initial_weights_are_decided_by_the_seed():
    r = RECIPES["digits"].replace(filters=4)
    first, again, other = (r.replace(seed=s).networks() for s in (3, 3, 4))
    for a, b, c in zip(first, again, other):
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert all(
            not torch.equal(p, q)
            for (n, p), q in zip(a.named_parameters(), c.parameters())
            if n.endswith("weight")
        )
    G, D = first
    same = min(len(G.layers[0].conv.weight.flatten()), len(D.layers[1].conv.weight.flatten()))
    assert not torch.equal(G.layers[0].conv.weight.flatten()[:same], D.layers[1].conv.weight.flatten()[:same])


def test_without_std_pytorch_s_own_weights_stay():
    G = init_weights(pair("digits", 28, filters=16)[0], std=None, seed=1)
    assert (weights(G, nn.BatchNorm2d) == 1).all()
    conv = G.layers[1].conv
    assert conv.weight.abs().max() <= 1 / conv.weight[0].numel()**.5 + 1e-6  # uniform in ±1/sqrt(fan in)
    assert conv.bias.abs().max() > 0


# Noise and samples

@pytest.mark.parametrize("z_law", ("normal", "uniform"))
def test_noise_is_a_function_of_seed_and_step(z_law):
    z = latent(50, 20, z_law, seed=1, step=2)
    assert torch.equal(z, latent(50, 20, z_law, seed=1, step=2)) and z.dtype == torch.float32
    for other in latent(50, 20, z_law, 2, 2), latent(50, 20, z_law, 1, 3), latent(50, 20, z_law, 2, 1):
        assert (z != other).float().mean() > 0.99
    assert abs(z.mean()) < 0.1
    if z_law == "normal":
        assert z.std() == pytest.approx(1, abs=0.1) and z.abs().max() > 2
    else:
        assert z.std() == pytest.approx(3**-.5, abs=0.05) and z.abs().max() <= 1


@pytest.mark.parametrize("training", (True, False))
def test_sample_uses_running_averages_and_leaves_no_trace(G, training):
    G.train(training)
    G(latent(8, 5)) if training else None
    before, rng = {k: v.clone() for k, v in G.state_dict().items()}, torch.get_rng_state()
    x = G.sample(7, seed=3)
    assert x.shape == (7, 1, 28, 28) and x.min() >= -1 and x.max() <= 1 and not x.requires_grad
    assert G.training is training and all(m.training is training for m in G.modules())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in G.state_dict().items())
    assert torch.allclose(x[:1], G.eval()(latent(7, 5, seed=3))[:1], atol=1e-6), "an image depends on its neighbours"
    assert torch.allclose(x, G.sample(7, seed=3, batch=2), atol=1e-6)
    assert (x - G.sample(7, seed=4)).abs().mean() > 0.1 * x.std()


def test_weights_noise_and_samples_leave_the_global_generators_alone(G):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    init_weights(G), init_weights(G, None), G.sample(2), latent(3, 4)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


# Saving and loading

@pytest.mark.parametrize("net, size, channels", [("digits", 28, 1), ("svhn32", 16, 3), ("paper", 16, 3)])
def test_saved_and_loaded_it_is_the_same(tmp_path, net, size, channels):
    G, D = pair(net, size, channels, z_law="uniform")
    init_weights(G, 0.1), init_weights(D, 0.1)
    for _ in range(3):
        D(G(latent(4, 5)))  # running averages off their start
    G.save_pretrained(tmp_path / "run/generator")
    D.save_pretrained(tmp_path / "D")
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.p*"))
    for what in tmp_path / "run", str(tmp_path / "run"), tmp_path / "run/generator":
        again = Generator.from_pretrained(what)
        assert again.table == G.table and again.z_law == "uniform" and again.z_dim == 5
        assert torch.equal(again.sample(5, seed=2), G.sample(5, seed=2))
        assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), G.state_dict().values(), strict=True))
    again, x = Discriminator.from_pretrained(tmp_path / "D").eval(), G.sample(5)
    assert again.table == D.table and torch.equal(again(x), D.eval()(x))


@pytest.mark.parametrize("law", ("normal", "uniform"))
@pytest.mark.parametrize("z_dim", (1, 5, 16, 24, 100))
def test_a_latent_vector_does_not_depend_on_how_many_there_are(law, z_dim):
    many = latent(70, z_dim, law, seed=3, step=2)
    for n in (1, 2, 3, 8, 15, 16, 17, 64, 69):
        assert torch.equal(latent(n, z_dim, law, seed=3, step=2), many[:n]), n
        assert torch.equal(latent(1, z_dim, law, seed=3, step=2, first=n)[0], many[n]), n
    assert torch.equal(latent(7, z_dim, law, 3, 2, first=20), many[20:27])
    assert len(set(many.flatten().tolist())) > 0.99 * many.numel(), "no block is drawn twice"


@pytest.mark.parametrize("law", ("normal", "uniform"))
def test_whole_blocks_keep_the_numbers_that_they_always_had(law):
    for n, z_dim in (64, 24), (128, 100), (4, 4), (16, 1):
        g = generator_for(5, 7, 1)
        z = torch.empty(n, z_dim)
        z = z.normal_(generator=g) if law == "normal" else z.uniform_(-1, 1, generator=g)
        assert torch.equal(latent(n, z_dim, law, seed=5, step=7), z)


def test_an_image_does_not_depend_on_how_many_there_are(G):
    many = G.sample(40, seed=3)
    for n in (1, 2, 7, 39):
        assert (G.sample(n, seed=3) - many[:n]).abs().max() < 1e-5
        assert (G.sample(1, seed=3, first=n) - many[n]).abs().max() < 1e-5
    assert (G.sample(30, seed=3, first=10, batch=7) - many[10:]).abs().max() < 1e-5
    assert (many[0] - many[1]).abs().max() > 1e-3


WRONG = (None, "3", -1, 1.5, float("nan"), True, np.float64(2), [3], torch.ones(3, 3))


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(
    "name, call",
    [
        ("n", lambda G, v: G.sample(v)),
        ("seed", lambda G, v: G.sample(2, v)),
        ("batch", lambda G, v: G.sample(2, batch=v)),
        ("first", lambda G, v: G.sample(2, first=v)),
        ("n", lambda G, v: latent(v, 5)),
        ("z_dim", lambda G, v: latent(2, v)),
        ("first", lambda G, v: latent(2, 5, first=v)),
        ("z_dim", lambda G, v: Generator([["conv_t", 1, 4]], v)),
    ],
    ids=range(8),
)
def test_whole_numbers_are_checked(G, name, call, value):
    with pytest.raises(ValueError, match=f"^{name} is") as e:
        call(G, value)
    assert "\n" not in str(e.value) and len(str(e.value)) < 200
    for fine in np.int64(2), np.uint8(2), torch.tensor(2):
        assert call(G, fine) is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda G: G.sample(10**12),
        lambda G: G.sample(1, first=10**12),
        lambda G: latent(10**12, 5),
        lambda G: latent(2, 10**14),
        lambda G: Generator([["conv_t", 1, 4]], 10**14),
        lambda G: Generator([["conv_t", 10**300, 4]], 5),
    ],
)
def test_what_fits_into_no_memory_is_said_before_it_is_made(G, call):
    with pytest.raises(ValueError, match=r"would need [0-9,^]+ MiB of memory, and [0-9,]+ MiB are free") as e:
        call(G)
    assert len(str(e.value)) < 200


TABLE = [["conv_t", 8, 4, 1, 0, True, "relu"], ["conv_t", 1, 4, 2, 1, False, "tanh"]]


@pytest.mark.parametrize(
    "call",
    [
        lambda G: Generator(None, 4),
        lambda G: Generator(7, 4),
        lambda G: Generator([], 4),
        lambda G: Generator(["conv"], 4),
        lambda G: Generator([3], 4),
        lambda G: Generator([["conv_t", 8, "4"]], 4),
        lambda G: Generator([["conv_t", 8, 4.5]], 4),
        lambda G: Generator([["conv_t", None, 4]], 4),
        lambda G: Generator([[["conv_t"], 8, 4]], 4),
        lambda G: Generator([["conv_t", 8, 4, 1, 0, "yes"]], 4),
        *(
            lambda G, s=s: Generator(TABLE, 4, slope=s)
            for s in (None, "0.2", -0.1, 1, float("nan"), True, [0.2])
        ),
        *(lambda G, law=law: Generator(TABLE, 4, law) for law in (None, "cauchy", 3, ["normal"], True)),
        *(
            lambda G, s=s: Discriminator([["conv", 1, 4]], s)
            for s in (None, 4, (4, 4), (1, 4, 0), (1, 4, 4.0), "144", (1, "4", 4), (-1, 4, 4))
        ),
        lambda G: Discriminator(None, (1, 4, 4)),
        *(
            lambda G, z=z: G(z)
            for z in (
                None,
                3,
                [0.0] * 5,
                np.zeros((2, 5)),
                torch.zeros(2, 5, dtype=torch.int64),
                torch.zeros(5),
                torch.zeros(()),
                torch.zeros(2, 5, dtype=torch.float64),
                torch.zeros(2, 5, dtype=torch.complex64),
                torch.zeros(2, 5, device="meta"),
            )
        ),
        *(lambda G, net=net: init_weights(net) for net in (None, "G", 3, [])),
        *(
            lambda G, std=std: init_weights(G, std)
            for std in (0, -1, "0.02", float("nan"), float("inf"), True, [1])
        ),
        *(lambda G, seed=seed: init_weights(G, 0.02, seed) for seed in (None, -1, 1.5, "a")),
        *(
            lambda G, words=words: generator_for(*words)
            for words in ((-1,), (1.5,), ("a",), (None, 1), (True,))
        ),
        *(lambda G, act=act: activation(act, 0.2) for act in (None, "selu", 3, ["relu"])),
        lambda G: activation("leaky_relu", 2),
        *(
            lambda G, row=row: layer(row, (4,))
            for row in (None, 3, "conv", ["conv"], ["conv", 1, 9], ["what", 1, 1])
        ),
        lambda G: layer(Row("conv", 1, 1), None),
        lambda G: layer(Row("conv", 1, 1), (1, 2)),
        lambda G: blocks(None, (4,), 0.2),
        lambda G: blocks(TABLE, (4,), 3),
        *(
            lambda G, what=what: Generator.from_pretrained(what)
            for what in (None, 3, ["digits"], b"digits", True)
        ),
    ],
)
def test_wrong_arguments_are_one_sentence(G, call):
    with pytest.raises(ValueError) as e:
        call(G)
    said = str(e.value)
    assert "\n" not in said and 20 < len(said) < 250 and said.endswith("."), said


def test_a_table_in_numpy_s_numbers_is_saved_in_plain_ones(tmp_path):
    rows = [[row[0], *map(np.int64, row[1:5]), *row[5:]] for row in TABLE]
    G = Generator(rows, np.int32(4), np.str_("uniform"), np.float32(0.25))
    G.save_pretrained(tmp_path)
    again = Generator.from_pretrained(tmp_path)
    assert (
        again.z_dim == 4
        and again.z_law == "uniform"
        and again.table == G.table
        and torch.equal(again.sample(3), G.eval().sample(3))
    )
    D = Discriminator([["conv", np.int64(1), np.int64(4)]], np.array([1, 4, 4]).tolist())
    D.save_pretrained(tmp_path / "D")
    assert Discriminator.from_pretrained(tmp_path / "D").in_shape == (1, 4, 4)


def test_sampling_that_fails_leaves_the_mode_as_it_was(G):
    G.train()
    G.layers[0].register_forward_hook(lambda *a: (_ for _ in ()).throw(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        G.sample(2)
    assert G.training
