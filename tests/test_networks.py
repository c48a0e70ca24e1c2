"Networks built from tables: counts, shapes, initial weights, sampling, and saving without pickle."
import json

import numpy as np
import pytest
import torch
from dcgan.networks import Discriminator, Generator, find_model, init_weights, latent
from dcgan.recipes import NETS, RECIPES, Recipe
from dcgan.shapes import Row
from safetensors.torch import load_file, save_file
from torch import nn

COUNTS = [  # REFERENCES section 1: net, size, channels, filters, z_dim, bias, parameters of G and of D
    ("mnist28", 28, 1, 64, 64, True, 747_841, 64_545),
    ("paper", 64, 1, 128, 100, False, 12_654_336, 11_032_064),
    ("paper", 64, 3, 128, 100, False, 12_658_432, 11_036_160),
    ("svhn32", 32, 3, 32, 100, False, 372_672, 167_809),
    ("svhn32", 32, 3, 128, 100, False, 3_456_768, 2_637_313),
    ("svhn32-code", 32, 3, 32, 100, False, 372_416, 167_809),
    ("svhn32-code", 32, 3, 128, 100, False, 3_455_744, 2_637_313),
]
SIZES = [(net, 28) for net in ("mnist28", "digits")] + [(net, s) for net in ("paper", "svhn32", "svhn32-code") for s in (8, 16, 32, 64, 128)]


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
        assert -1 <= x.min() and x.max() <= 1
        assert D(x).shape == (b,) and D(x).isfinite().all()


def test_no_two_nets_are_forgotten():
    assert {net for net, _ in SIZES} == set(NETS)


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
    layers = [Row("conv", 4, 3, 2, 1, act="leaky_relu"), Row("pool", 0, 2, 2), Row("linear", 6, norm=True, act="sigmoid"), Row("linear", 1)]
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
        assert all(not torch.equal(p, q) for (n, p), q in zip(a.named_parameters(), c.parameters()) if n.endswith("weight"))
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
    assert x.shape == (7, 1, 28, 28) and -1 <= x.min() and x.max() <= 1 and not x.requires_grad
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


def test_shipped_names_are_found_in_the_package(tmp_path, monkeypatch, G):
    monkeypatch.setattr("dcgan.networks.ASSETS", tmp_path)
    G.save_pretrained(tmp_path / "little")
    assert torch.equal(Generator.from_pretrained("little").sample(2), G.sample(2))
    with pytest.raises(FileNotFoundError, match="(?s)'litle'.*little"):
        Generator.from_pretrained("litle")
    assert find_model("hub:owner/name") == "owner/name"


def test_an_unknown_name_asks_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("asked the network"))
    for what in "nobody/nothing", tmp_path, tmp_path / "absent", "":
        with pytest.raises(FileNotFoundError, match="hub:owner/name") as e:
            Generator.from_pretrained(what)
        assert "\n" not in str(e.value)


def config(folder, **changes):
    "Change the saved config's fields; None takes one out."
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def cut(folder, share):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])


def without(folder, name):
    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != name}, path)


@pytest.mark.parametrize("damage", [
    lambda f: cut(f, 0), lambda f: cut(f, 0.01), lambda f: cut(f, 0.9),
    lambda f: (f / "model.safetensors").write_bytes(b"no tensors" * 99),
    lambda f: without(f, "layers.0.conv.weight"),
    lambda f: without(f, "layers.2.norm.running_var"),
    lambda f: save_file(load_file(f / "model.safetensors") | {"extra": torch.ones(2)}, f / "model.safetensors"),
    lambda f: config(f, layers=None), lambda f: config(f, z_dim=None), lambda f: config(f, z_dim=6), lambda f: config(f, z_dim="five"),
    lambda f: config(f, layers=[["conv_t", 1, 4]]), lambda f: config(f, layers=7), lambda f: config(f, layers=[["mystery", 1, 4]]),
    lambda f: (f / "config.json").write_text("{"),
    lambda f: (f / "config.json").write_text("{}"),
    lambda f: (f / "config.json").write_text("[1, 2]"),
    lambda f: (f / "config.json").write_text("null"),
    lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
], ids=range(19))
def test_damaged_and_foreign_networks_are_refused_in_one_sentence(tmp_path, G, damage):
    folder = tmp_path / "generator"
    G.save_pretrained(folder)
    damage(folder)
    with pytest.raises(ValueError) as e:
        Generator.from_pretrained(tmp_path)
    assert str(folder) in str(e.value) and "\n" not in str(e.value) and "save" in str(e.value), e.value


def test_a_generator_is_no_discriminator(tmp_path, G):
    G.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no whole Discriminator"):
        Discriminator.from_pretrained(tmp_path)
