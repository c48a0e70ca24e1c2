"Convolutions as matrix products: the same numbers as PyTorch's, for every layer of every recipe and for odd ones."
import copy

import pytest
import torch
from dcgan.engine.devices import products_pay
from dcgan.engine.products import ProductConv2d, ProductConvTranspose2d, Walk, met, paint, patches, use_products, ways
from dcgan.recipes import RECIPES
from dcgan.training import Trainer
from torch import nn
from torch.nn import functional as F

WALKS = [(28, 3, 2, 0, 1), (13, 5, 2, 0, 4), (5, 5, 2, 0, 3), (8, 4, 2, 1, 3), (7, 3, 1, 1, 2), (4, 4, 1, 0, 2), (14, 4, 2, 1, 1), (9, 4, 3, 2, 1), (1, 1, 1, 0, 5)]


def close(a, b, tolerance=1e-4):
    assert a.shape == b.shape and (a - b).norm() <= tolerance * b.norm() + 1e-6, (a - b).norm() / b.norm()


@pytest.mark.parametrize("side, k, s, p, c", WALKS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_three_answers(side, k, s, p, c, batch):
    n, walk = (side + 2 * p - k) // s + 1, Walk(k, s, p)
    x, w = torch.randn(batch, c, side, side), torch.randn(6, c, k, k, requires_grad=True)
    y = F.conv2d(x, w, None, s, p)
    g = torch.randn_like(y)
    close(patches(x, walk, n) @ w.detach().permute(0, 2, 3, 1).flatten(1).T, y.detach().permute(0, 2, 3, 1).reshape(-1, 6))
    close(met(g, x, walk), torch.autograd.grad(y, w, g)[0])
    missing = side - (n - 1) * s - k + 2 * p
    close(paint(g, w.detach(), walk, side), F.conv_transpose2d(g, w.detach(), None, s, p, missing))


def gradients(net, x):
    net.zero_grad()
    x = x.clone().requires_grad_()
    out = net(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("side, k, s, p, c", WALKS[1:4] + WALKS[5:6])
def test_a_layer_and_its_gradients(make, bias, side, k, s, p, c):
    layer = make(c, 6, k, s, p, bias=bias).double()
    x = torch.randn(3, c, side, side).double()
    fast = use_products(copy.deepcopy(layer))
    assert type(fast) in (ProductConv2d, ProductConvTranspose2d) and list(fast.state_dict()) == list(layer.state_dict())
    for a, b in zip(gradients(fast, x), gradients(layer, x), strict=True): close(a, b, 1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_the_same_network(name):
    recipe = RECIPES[name].replace(filters=8)
    G, D = recipe.networks()
    x = torch.rand(2, *recipe.x_shape) * 2 - 1
    z = torch.randn(3, recipe.z_dim)
    for net, what in (G, z), (D, x):
        plain = gradients(net, what)
        fast = gradients(use_products(net), what)
        assert any(isinstance(m, (ProductConv2d, ProductConvTranspose2d)) for m in net.modules())
        close(fast[0], plain[0], 1e-4)
        close(fast[1], plain[1], 1e-2)  # through BatchNorm of three images, in fp32
        use_products(net, False)
        assert not any(isinstance(m, (ProductConv2d, ProductConvTranspose2d)) for m in net.modules())
        assert torch.equal(gradients(net, what)[1], plain[1])


@pytest.mark.parametrize("make, side", [(nn.Conv2d, 5), (nn.Conv2d, 7), (nn.ConvTranspose2d, 1), (nn.ConvTranspose2d, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_may_work_in_place_on_what_comes_out(make, side, dtype):
    "As it does in a network without BatchNorm."
    net = nn.Sequential(make(3, 4, 5), nn.LeakyReLU(0.2, inplace=True))
    x = torch.randn(2, 3, side, side)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        fast, plain = gradients(use_products(copy.deepcopy(net)), x), gradients(net, x)
    for a, b in zip(fast, plain, strict=True): close(a.float(), b.float(), 1e-4 if dtype == torch.float32 else 3e-2)


def test_a_bias_is_added_after_a_transposed_convolution(monkeypatch):
    "With a bias of its own, the library's leaves its fast path for some sizes."
    own, given = F.conv_transpose2d, []
    monkeypatch.setattr(F, "conv_transpose2d", lambda y, w, bias, *more: given.append(bias) or own(y, w, bias, *more))
    layer, y = use_products(nn.ConvTranspose2d(5, 4, 3, 2)), torch.randn(2, 5, 13, 13)
    close(layer(y), own(y, layer.weight, layer.bias, 2))
    assert given == [None]


def test_what_the_walk_does_not_describe_is_left_alone():
    odd = nn.ModuleList([nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, (3, 5)), nn.Conv2d(4, 4, 3, padding="same"),
                         nn.Conv2d(4, 4, 3, padding_mode="circular", padding=1), nn.ConvTranspose2d(4, 4, 3, 2, output_padding=1)])
    assert [type(m) for m in use_products(odd)] == [nn.Conv2d] * 5 + [nn.ConvTranspose2d]
    wide = torch.randn(2, 4, 5, 9)
    layer = nn.Conv2d(4, 4, 5)
    close(use_products(copy.deepcopy(layer))(wide), layer(wide))


def test_products_are_where_they_pay():
    assert all(ways(Walk(5, 2, 0), 1, 5, 64)) and ways(Walk(4, 2, 1), 14, 28, 1) == (False, True, False)
    assert ways(Walk(4, 2, 1), 4, 8, 512) == (False, False, True) and not any(ways(Walk(4, 2, 1), 16, 32, 64))


def test_frozen_parameters_get_no_gradients():
    layer = use_products(nn.Conv2d(3, 4, 5)).requires_grad_(False)
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None and layer.bias.grad is None


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    slope, = torch.autograd.grad(use_products(nn.Conv2d(3, 4, 5))(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"): slope.sum().backward()


def test_the_trainer_switches_them_on_where_they_pay(tiny):
    def switched(**options): return any(isinstance(m, ProductConv2d) for m in Trainer(tiny, device="cpu", verbose=0, **options).D.modules())
    cpu = torch.device("cpu")
    assert not switched(precision="fp32") and switched(precision="fp32", products=True) and not switched(precision="bf16", products=False)
    assert switched(precision="bf16") == products_pay("bf16", cpu)


def test_products_change_a_run_by_rounding_only(tiny):
    tiny = tiny.replace(ema=None)
    slow, fast = (Trainer(tiny, device="cpu", precision="fp32", verbose=0, products=on) for on in (False, True))
    x = next(slow.batches.epoch(0))
    for run in slow, fast: run.train_discriminator(x)
    close(torch.stack(fast.d_stats), torch.stack(slow.d_stats))
    assert not any(isinstance(m, ProductConv2d) for m in fast.best_G.modules()) or fast.best_G is fast.G
