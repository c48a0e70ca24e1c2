"Lesson 01: both losses against PyTorch's and against their formulas; what is refused."
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from dcgan.losses import bce, d_loss, g_loss, g_loss_saturating


def logits(b, seed=0, spread=4., **kwargs):
    return (torch.randn(b, generator=torch.Generator().manual_seed(seed)) * spread).to(**kwargs).requires_grad_()


@pytest.mark.parametrize("b", (1, 2, 5))
@pytest.mark.parametrize("labels", ((1., 0.), (0.9, 0.), (0.9, 0.1)))
def test_d_loss_is_bce_with_logits(b, labels):
    real, fake = logits(b), logits(b + 1, seed=1)
    criterion = nn.BCEWithLogitsLoss()
    expected = criterion(real, torch.full((b,), labels[0])) + criterion(fake, torch.full((b + 1,), labels[1]))
    assert torch.equal(d_loss(real, fake, *labels), expected), "bit for bit"
    assert torch.equal(d_loss(real, fake, *labels, reduction="mean"), expected / 2)


@pytest.mark.parametrize("b", (1, 2, 5))
def test_g_loss_is_bce_with_logits(b):
    fake = logits(b)
    assert torch.equal(g_loss(fake), nn.BCEWithLogitsLoss()(fake, torch.ones(b)))
    assert torch.equal(g_loss(fake, 0.9), nn.BCEWithLogitsLoss()(fake, torch.full((b,), 0.9)))


def test_the_formulas():
    t = logits(50, dtype=torch.float64)
    for y in (0., 0.1, 0.9, 1.):
        assert torch.allclose(bce(t, y), (y * softplus(-t) + (1 - y) * softplus(t)).mean(), rtol=1e-12)
    assert torch.allclose(g_loss_saturating(t), torch.log(1 - torch.sigmoid(t)).mean(), rtol=1e-10)
    assert torch.allclose(g_loss(t), -torch.log(torch.sigmoid(t)).mean(), rtol=1e-10)


def test_gradients():
    t = torch.linspace(-30, 30, 121, dtype=torch.float64, requires_grad=True)
    slope = lambda loss: torch.autograd.grad(loss, t)[0] * len(t)
    assert torch.allclose(slope(g_loss(t)), -torch.sigmoid(-t), atol=1e-12)
    assert torch.allclose(slope(g_loss_saturating(t)), -torch.sigmoid(t), atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda a, b: d_loss(a, b, 0.9, 0.1),
        (logits(3, dtype=torch.float64), logits(2, 1, dtype=torch.float64)),
    )


def test_equilibrium_and_value():
    zero = torch.zeros(7)
    assert math.isclose(d_loss(zero, zero), math.log(4), rel_tol=1e-6)
    assert math.isclose(d_loss(zero, zero, reduction="mean"), math.log(2), rel_tol=1e-6)
    assert math.isclose(g_loss(zero), math.log(2), rel_tol=1e-6)
    assert math.isclose(g_loss_saturating(zero), -math.log(2), rel_tol=1e-6)


def test_far_out_nothing_overflows_or_vanishes():
    t = torch.tensor([1000.], requires_grad=True)
    loss = d_loss(-t, t)
    loss.backward()
    assert loss.item() == 2000 and t.grad.item() == 2
    assert torch.isfinite(g_loss_saturating(torch.tensor([1e4, -1e4])))


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_half_precision_logits_are_summed_in_float32(dtype):
    t = logits(5, dtype=dtype).detach().requires_grad_()
    loss = d_loss(t, -t)
    assert loss.dtype == torch.float32 and torch.equal(loss, d_loss(t.float(), -t.float()))
    loss.backward()
    assert t.grad.dtype == dtype
    assert g_loss(t).dtype == g_loss_saturating(t).dtype == torch.float32
    assert d_loss(t.double(), t.double()).dtype == torch.float64


def test_under_autocast():
    t = logits(5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(d_loss(t, t), d_loss(t, t).float())
        assert torch.allclose(d_loss(t, t), binary_cross_entropy_with_logits(t, torch.ones(5)) + softplus(t).mean())


@pytest.mark.parametrize(
    "wrong", (torch.zeros(5, 1), torch.zeros(()), torch.zeros(0), torch.zeros(5, dtype=torch.long))
)
def test_wrong_logits_are_refused(wrong):
    good = torch.zeros(5)
    for name, call in (("real", lambda: d_loss(wrong, good)), ("fake", lambda: d_loss(good, wrong)),
                       ("fake", lambda: g_loss(wrong)), ("fake", lambda: g_loss_saturating(wrong))):
        with pytest.raises(ValueError, match=rf"{name} must be float logits of shape \(b,\)"):
            call()


@pytest.mark.parametrize("label", (0.5, 0., 1.01, -1., math.nan))
def test_wrong_real_labels_are_refused(label):
    for call in (
        lambda: d_loss(torch.zeros(2), torch.zeros(2), real_label=label),
        lambda: g_loss(torch.zeros(2), label),
    ):
        with pytest.raises(ValueError, match=r"real_label must be in \(0.5, 1\]"):
            call()


@pytest.mark.parametrize("label", (0.5, 1., -0.1, math.nan))
def test_wrong_fake_labels_are_refused(label):
    with pytest.raises(ValueError, match=r"fake_label must be in \[0, 0.5\)"):
        d_loss(torch.zeros(2), torch.zeros(2), fake_label=label)


def test_wrong_reduction_is_refused():
    with pytest.raises(ValueError, match="'sum' or 'mean'.*'none'"):
        d_loss(torch.zeros(2), torch.zeros(2), reduction="none")
