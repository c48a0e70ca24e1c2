"The two steps: what each may change, what comes out, and the plain loop that they stand for."
import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from dcgan.losses import g_loss_saturating
from dcgan.networks import latent
from dcgan.recipes import RECIPES
from dcgan.steps import (
    Engine,
    Precision,
    Targets,
    as_is,
    average_beta,
    d_step,
    follow,
    frozen,
    g_step,
    r1_penalty,
    real_probability,
    twice,
)


@pytest.fixture
def game():
    "Small G and D with their optimisers, a batch x and noise z; weights large enough that the logits are not all alike."
    G, D = RECIPES["digits"].replace(filters=4, z_dim=5, init_std=0.2).networks()
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999)) for net in (G, D))
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return G, D, opt_g, opt_d, x, latent(6, 5, seed=1)


def copied(net): return {k: v.clone() for k, v in net.state_dict().items()}
def changed(net, before): return {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
def buffers(net): return {k for k, _ in net.named_buffers()}
def parameters(net): return {k for k, _ in net.named_parameters()}


def test_d_step_changes_d_and_only_the_running_averages_of_g(game):
    G, D, opt_g, opt_d, x, z = game
    g, d = copied(G), copied(D)
    d_step(D, G, opt_d, x, z)
    assert changed(G, g) == buffers(G), "G makes fakes in train mode: its averages move, its weights stay"
    assert changed(D, d) == parameters(D) | buffers(D)
    assert all(D.state_dict()[k] == 2 for k in buffers(D) if k.endswith("num_batches_tracked")), (
        "real and fake are two batches"
    )
    assert all(p.grad is None for p in G.parameters()) and not opt_g.state


def test_g_step_changes_g_and_only_the_running_averages_of_d(game):
    G, D, opt_g, opt_d, x, z = game
    g, d = copied(G), copied(D)
    g_step(D, G, opt_g, z)
    assert changed(G, g) == parameters(G) | buffers(G)
    assert changed(D, d) == buffers(D)
    assert all(p.grad is None for p in D.parameters()) and all(p.requires_grad for p in D.parameters())
    assert not opt_d.state


def test_g_step_leaves_d_s_gradients_as_they_were(game):
    G, D, opt_g, opt_d, x, z = game
    d_step(D, G, opt_d, x, z)
    grads = [p.grad.clone() for p in D.parameters()]
    g_step(D, G, opt_g, z)
    assert all(torch.equal(p.grad, g) for p, g in zip(D.parameters(), grads, strict=True))


def test_what_comes_out_is_detached_scalars_in_range(game):
    G, D, opt_g, opt_d, x, z = game
    for out, n in (d_step(D, G, opt_d, x, z), 3), (g_step(D, G, opt_g, z), 2):
        assert len(out) == n
        assert all(isinstance(t, torch.Tensor) and t.shape == () and not t.requires_grad for t in out)
        assert out[0] > 0 and all(0 < t < 1 for t in out[1:])


@pytest.mark.parametrize("reduction", ("sum", "mean"))
@pytest.mark.parametrize("real_label, fake_label", [(1., 0.), (0.9, 0.), (0.9, 0.1)])
def test_d_step_is_the_step_written_out(game, real_label, fake_label, reduction):
    G, D, _, opt_d, x, z = game
    G2, D2 = copy.deepcopy((G, D))
    opt = torch.optim.Adam(D2.parameters(), lr=1e-3, betas=(0.5, 0.999))
    real, fake = D2(x), D2(G2(z).detach())
    halves = bce(real, torch.full((6,), real_label)), bce(fake, torch.full((6,), fake_label))
    loss = sum(halves) / (2 if reduction == "mean" else 1)
    loss.backward()
    opt.step()
    said, d_x, d_gz = d_step(D, G, opt_d, x, z, Targets(real_label, fake_label, reduction))
    assert torch.allclose(said, loss, atol=1e-6)
    assert torch.allclose(d_x, real.sigmoid().mean()) and torch.allclose(d_gz, fake.sigmoid().mean())
    for p, q in zip(D.parameters(), D2.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-7)


@pytest.mark.parametrize("weight", (0.5, 3.))
def test_the_r1_penalty_of_a_line_is_its_squared_length(weight):
    w = torch.randn(12, requires_grad=True)
    penalty = r1_penalty(lambda x: x.flatten(1) @ w, torch.randn(5, 3, 2, 2))
    assert torch.allclose(penalty, w.square().sum())
    (weight / 2 * penalty).backward()
    assert torch.allclose(w.grad, weight * w)


def test_d_step_follows_the_penalty_and_reports_the_loss_without_it(game):
    G, D, _, opt_d, x, z = game
    D2 = copy.deepcopy(D)
    real, fake = D2(x), D2(G(z).detach())
    loss = bce(real, torch.ones(6)) + bce(fake, torch.zeros(6))
    inputs = x.clone().requires_grad_()
    slope, = torch.autograd.grad(D2(inputs).sum(), inputs, create_graph=True)
    (loss + 2.5 * slope.pow(2).flatten(1).sum(1).mean()).backward()
    said, *_ = d_step(D, G, opt_d, x, z, Targets(r1=5.))
    assert torch.allclose(said, loss, atol=1e-6)
    for p, q in zip(D.parameters(), D2.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-6)


def test_the_penalty_sees_the_images_that_d_sees(game):
    _, D, _, opt_d, x, z = game
    seen = []
    D.register_forward_pre_hook(lambda net, args: seen.append(args[0].detach()))
    d_step(D, lambda z: -x, opt_d, x, z, Targets(r1=1.), augment=lambda x: x / 2)
    assert [torch.equal(t, s * x / 2) for t, s in zip(seen, (1, -1, 1), strict=True)] == [True] * 3


@pytest.mark.parametrize("saturating", (False, True))
def test_g_step_is_the_step_written_out(game, saturating):
    G, D, opt_g, _, _, z = game
    G2, D2 = copy.deepcopy((G, D))
    fake = D2(G2(z))
    loss = -bce(fake, torch.zeros(6)) if saturating else bce(fake, torch.ones(6))
    loss.backward()
    said, d_gz = g_step(D, G, opt_g, z, **({"loss_fn": g_loss_saturating} if saturating else {}))
    assert torch.allclose(said, loss, atol=1e-6) and torch.allclose(d_gz, fake.sigmoid().mean())
    for p, q in zip(G.parameters(), G2.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-7) and q.grad.abs().sum() > 0, "gradients must flow through D"


def test_old_gradients_do_not_pile_up(game):
    G, D, opt_g, opt_d, x, z = game
    for net in G, D:
        for p in net.parameters():
            p.grad = torch.full_like(p, 1e6)
    d_step(D, G, opt_d, x, z)
    g_step(D, G, opt_g, z)
    assert all(p.grad.abs().max() < 1e5 for net in (G, D) for p in net.parameters())


def test_the_steps_play_the_game(game):
    G, D, opt_g, opt_d, x, z = game
    first = d_step(D, G, opt_d, x, z)
    for _ in range(30):
        last = d_step(D, G, opt_d, x, z)
    assert last[0] < first[0] and last[1] > first[1] and last[2] < first[2], "D alone learns to tell them apart"
    first = g_step(D, G, opt_g, z)
    for _ in range(30):
        last = g_step(D, G, opt_g, z)
    assert last[0] < first[0] and last[1] > first[1], "then G alone learns to fool it"


def test_both_real_and_fake_are_augmented(game):
    G, D, opt_g, opt_d, x, z = game
    seen = []
    def note(images):
        seen.append(images)
        return images.flip(-1)
    d_step(D, G, opt_d, x, z, augment=note)
    assert len(seen) == 2 and torch.equal(seen[0], x) and seen[1].shape == x.shape and not seen[1].requires_grad
    g_step(D, G, opt_g, z, augment=note)
    assert len(seen) == 3 and seen[2].requires_grad, "G must feel the augmentation's gradient"


def test_d_sees_what_the_augmentation_returns(game):
    G, D, _, opt_d, x, z = game
    loss, d_x, d_gz = d_step(D, G, opt_d, x, z, augment=torch.zeros_like)
    assert torch.equal(d_x, d_gz)


def test_in_fp16_each_optimiser_s_own_scaler_scales_and_unscales(game):
    G, D, opt_g, opt_d, x, z = game
    G2, D2 = copy.deepcopy((G, D))
    opts = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (G, D, G2, D2)]
    class Scaled(Precision):
        def autocast(self): return Precision("cpu", "fp32").autocast()  # the scaler alone is looked at
    engine = Scaled(precision="fp16")
    before = engine.scaler(opts[0]).get_scale(), engine.scaler(opts[1]).get_scale()
    d_step(D, G, opts[1], x, z, engine=engine)
    g_step(D, G, opts[0], z, engine)
    d_step(D2, G2, opts[3], x, z)
    g_step(D2, G2, opts[2], z)
    assert before == (2.**16, 2.**16)
    for p, q in zip([*G.parameters(), *D.parameters()], [*G2.parameters(), *D2.parameters()], strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), "the step is the one without a scale"


def test_a_gradient_that_overflows_in_fp16_takes_no_step(game):
    G, D, opt_g, opt_d, x, z = game
    engine, d = Precision(precision="fp16"), {k: v.clone() for k, v in D.named_parameters()}
    engine.scaler(opt_d).scale(torch.ones(1))  # which makes its scale
    engine.scaler(opt_d).update(1e38)
    d_step(D, G, opt_d, x, z, engine=engine)
    assert all(torch.equal(v, d[k]) for k, v in D.named_parameters()) and engine.scaler(opt_d).get_scale() == pytest.approx(5e37)
    g = {k: v.clone() for k, v in G.named_parameters()}
    g_step(D, G, opt_g, z, engine)
    assert any(not torch.equal(v, g[k]) for k, v in G.named_parameters()), "the other optimiser has a scale of its own"


def test_autocast_covers_the_forwards_and_not_the_loss(game):
    G, D, opt_g, opt_d, x, z = game
    seen = []
    D.layers[0].conv.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    G.layers[0].conv.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    engine = Engine(precision="bf16")
    out = *d_step(D, G, opt_d, x, z, engine=engine), *g_step(D, G, opt_g, z, engine)
    assert set(seen) == {torch.bfloat16} and len(seen) == 5
    assert all(t.dtype == torch.float32 for t in out) and not torch.is_autocast_enabled("cpu")
    assert all(p.grad.dtype == torch.float32 for net in (G, D) for p in net.parameters())


class Trouble(Exception):
    pass


def test_d_is_melted_again_even_after_an_exception(game):
    G, D, opt_g, _, _, z = game
    D.layers[0].conv.bias.requires_grad_(False)  # frozen by somebody else: stays so
    inside = []
    class Failing(Precision):
        def scaler(self, opt):
            inside.extend(p.requires_grad for p in D.parameters())
            raise Trouble
    with pytest.raises(Trouble):
        g_step(D, G, opt_g, z, Failing())
    assert inside and not any(inside)
    assert {k for k, p in D.named_parameters() if not p.requires_grad} == {"layers.0.conv.bias"}


@pytest.mark.parametrize("precision", ("fp32", "bf16"))
def test_reused_fakes_are_the_round_written_out(game, precision):
    G, D, opt_g, opt_d, x, z = game
    G2, D2 = copy.deepcopy((G, D))
    engine = Precision(precision=precision)
    opt = torch.optim.Adam(D2.parameters(), lr=1e-3, betas=(0.5, 0.999))
    with engine.autocast():
        fake = G2(z)
        logits = D2(x), D2(fake.detach())
    (bce(logits[0], torch.ones(6)) + bce(logits[1], torch.zeros(6))).backward()
    opt.step()
    with engine.autocast():
        logits = D2(fake)
    bce(logits, torch.ones(6)).backward()

    first, again = twice(G)
    d_step(D, first, opt_d, x, z, engine=engine)
    assert all(p.grad is None for p in G.parameters()), "D's step stops before G"
    g_step(D, again, opt_g, z, engine)
    for p, q in zip(G.parameters(), G2.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad) and q.grad.abs().sum() > 0
    assert all(int(v) == 1 for k, v in G.state_dict().items() if k.endswith("num_batches_tracked")), "one pass through G"


def test_fakes_are_kept_for_one_step():
    net, z = nn.Linear(2, 2), torch.ones(3, 2)
    first, again = twice(net)
    with torch.no_grad():
        seen = first(z)
    kept = again(z)
    assert torch.equal(seen, kept) and kept.requires_grad and not seen.requires_grad
    with pytest.raises(IndexError):
        again(z)


def test_gradients_flow_through_a_frozen_net():
    net, x = nn.Linear(3, 1), torch.ones(2, 3, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert net.weight.grad is None and torch.equal(x.grad, net.weight.detach().expand(2, 3))


def test_the_probability_of_real_is_a_mean():
    logits = torch.tensor([0., 2., -2.], requires_grad=True)
    assert real_probability(logits).item() == pytest.approx(0.5) and not real_probability(logits).requires_grad
    x = torch.ones(2)
    assert as_is(x) is x


# The engine and the moving average

@pytest.mark.parametrize(
    "precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_casts_the_forwards(precision, dtype):
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    with Engine(precision=precision).autocast():
        assert layer(x).dtype == dtype


def test_a_bank_goes_to_a_gpu_that_has_room(monkeypatch):
    images, cuda = torch.zeros(8, 1, 4, 4, dtype=torch.uint8), Engine("cuda")
    assert Engine().hold(images) is images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * images.numel() - 1, 0))
    assert cuda.hold(images) is images, "too little room: it stays"
    moved = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * images.numel(), 0))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: moved.append(device))
    cuda.hold(images)
    assert moved == [torch.device("cuda")]


def test_scalers_are_the_optimisers_own_and_go_with_them():
    engine, nets = Engine(precision="fp16"), [nn.Linear(2, 2) for _ in range(2)]
    opts = [torch.optim.Adam(net.parameters()) for net in nets]
    first, second = map(engine.scaler, opts)
    assert first is not second and first is engine.scaler(opts[0]) and first.is_enabled()
    assert not Engine().scaler(opts[0]).is_enabled() and not Engine(precision="bf16").scaler(opts[0]).is_enabled()
    del opts
    assert not engine.scalers, "an engine keeps no optimiser alive"


def test_the_average_copies_first_and_then_follows():
    assert [average_beta(0.9, n) for n in (0, 1, 10**6)] == [0, 2 / 11, 0.9]
    net, average = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in "ab")
    net(torch.randn(8, 2))
    follow(average, net, 0.)
    assert all(torch.equal(a, b) for a, b in zip(average.state_dict().values(), net.state_dict().values(), strict=True))
    before = copied(average)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    net(torch.randn(8, 2))
    follow(average, net, 0.75)
    for k, v in net.state_dict().items():
        wanted = v if v.dtype == torch.int64 else 0.75 * before[k] + 0.25 * v
        assert torch.allclose(average.state_dict()[k], wanted, atol=1e-6), k
    assert average[0].weight.requires_grad and int(average[1].num_batches_tracked) == 2
