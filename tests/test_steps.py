"The two steps: what each may change, what comes out, and the plain loop that they stand for."
import copy

import pytest
import torch
from dcgan.losses import g_loss_saturating
from dcgan.networks import latent
from dcgan.recipes import RECIPES
from dcgan.steps import as_is, belief, d_step, frozen, g_step
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce


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
    assert all(D.state_dict()[k] == 2 for k in buffers(D) if k.endswith("num_batches_tracked")), "real and fake are two batches"
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
    said, d_x, d_gz = d_step(D, G, opt_d, x, z, real_label, fake_label, reduction)
    assert torch.allclose(said, loss, atol=1e-6)
    assert torch.allclose(d_x, real.sigmoid().mean()) and torch.allclose(d_gz, fake.sigmoid().mean())
    for p, q in zip(D.parameters(), D2.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-7)


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
    for _ in range(30): last = d_step(D, G, opt_d, x, z)
    assert last[0] < first[0] and last[1] > first[1] and last[2] < first[2], "D alone learns to tell them apart"
    first = g_step(D, G, opt_g, z)
    for _ in range(30): last = g_step(D, G, opt_g, z)
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


def test_backward_is_the_caller_s(game):
    G, D, opt_g, opt_d, x, z = game
    losses = []
    def backward(loss):
        losses.append(loss.detach())
        loss.backward()
    out = d_step(D, G, opt_d, x, z, backward=backward)[0], g_step(D, G, opt_g, z, backward=backward)[0]
    assert list(out) == losses


def test_autocast_covers_the_forwards_and_not_the_loss(game):
    G, D, opt_g, opt_d, x, z = game
    seen = []
    D.layers[0].conv.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    G.layers[0].conv.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    autocast = torch.autocast("cpu", torch.bfloat16)
    out = *d_step(D, G, opt_d, x, z, autocast=autocast), *g_step(D, G, opt_g, z, autocast=autocast)
    assert set(seen) == {torch.bfloat16} and len(seen) == 5
    assert all(t.dtype == torch.float32 for t in out) and not torch.is_autocast_enabled("cpu")
    assert all(p.grad.dtype == torch.float32 for net in (G, D) for p in net.parameters())


class Trouble(Exception): pass


def test_d_is_melted_again_even_after_an_exception(game):
    G, D, opt_g, _, _, z = game
    D.layers[0].conv.bias.requires_grad_(False)  # frozen by somebody else: stays so
    inside = []
    def fail(loss):
        inside.extend(p.requires_grad for p in D.parameters())
        raise Trouble
    with pytest.raises(Trouble):
        g_step(D, G, opt_g, z, backward=fail)
    assert inside and not any(inside)
    assert {k for k, p in D.named_parameters() if not p.requires_grad} == {"layers.0.conv.bias"}


def test_gradients_flow_through_a_frozen_net():
    net, x = nn.Linear(3, 1), torch.ones(2, 3, requires_grad=True)
    with frozen(net):
        net(x).sum().backward()
    assert net.weight.grad is None and torch.equal(x.grad, net.weight.detach().expand(2, 3))


def test_belief_is_a_mean_of_probabilities():
    logits = torch.tensor([0., 2., -2.], requires_grad=True)
    assert belief(logits).item() == pytest.approx(0.5) and not belief(logits).requires_grad
    x = torch.ones(2)
    assert as_is(x) is x
