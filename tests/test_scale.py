"Cost on paper against what runs, memory, the copied loop, and the estimate."

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dcgan.datasets.sources import load
from dcgan.engine.cost import (
    CARDS,
    cost,
    estimate,
    explained,
    fitting_batch,
    left,
    memory,
    textbook,
    textbook_macs,
    too_large,
)
from dcgan.networks import Discriminator
from dcgan.recipes import RECIPES
from dcgan.steps import d_step, g_step, twice

from notebooks import HOOD, ROOT, refusing

LESSON = ROOT / "nbs" / HOOD / "31_cost.ipynb"
NARROW = {name: recipe.replace(filters=8, classes=0) for name, recipe in RECIPES.items()}


@pytest.fixture(scope="module")
def images(): return load("digits", images=200).images


def small(**more): return RECIPES["digits"].replace(filters=4, z_dim=6, batch_size=32, **more)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NARROW)
def test_the_cost_is_what_pytorch_counts(name, channels):
    recipe, b = NARROW[name].replace(channels=channels), 2
    G, D = recipe.networks()
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (G, D))
    z = torch.randn(b, recipe.z_dim)
    for_d, for_g = twice(G) if recipe.g_fakes == "reuse" else (G, G)
    with FlopCounterMode(display=False) as of_d:
        d_step(D, for_d, opt_d, torch.randn(b, *recipe.x_shape), z)
    with FlopCounterMode(display=False) as of_g:
        g_step(D, for_g, opt_g, z)
    c = cost(recipe)
    assert (of_d.get_total_flops(), of_g.get_total_flops()) == (2 * b * c.d_macs, 2 * b * c.g_macs)
    assert c.flops == 2 * (c.d_macs + c.g_macs)
    assert (c.d_params, c.g_params) == tuple(sum(p.numel() for p in net.parameters()) for net in (D, G))


def test_the_textbook_has_a_sum_of_its_own():
    "It makes its fakes once, and computes D's weight gradients twice."
    r1 = RECIPES["mnist28"]
    assert (textbook_macs(r1), sum(cost(r1)[:2])) == (26_444_208, 33_741_920)
    with pytest.raises(ValueError, match="recipe"):
        textbook_macs("mnist28")


@pytest.mark.parametrize("name", ["digits", "mnist28", "mnist28-trainer", "svhn32-code"])
def test_the_textbook_s_sum_is_what_pytorch_counts(name):
    recipe = NARROW[name].replace(channels=1, batch_size=4)
    some = load("digits", images=4, image_size=recipe.image_size).images
    with open("/dev/null", "w") as nowhere, FlopCounterMode(display=False) as counter:
        assert list(textbook(recipe, some, 1, file=nowhere)) == [4]
    assert counter.get_total_flops() == 2 * 4 * textbook_macs(recipe)


def kept_by_autograd(nets, run):
    "Numbers that a forward pass keeps for the backward pass, the weights left out."
    own, held = {p.untyped_storage().data_ptr() for net in nets for p in net.parameters()}, []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        run()
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() // 4 for t in held}
    return sum(n for at, n in sizes.items() if at not in own)


@pytest.mark.parametrize("name", NARROW)
def test_what_is_kept_is_what_autograd_keeps(name):
    recipe, b = NARROW[name], 16
    G, D = recipe.networks()
    x, z = torch.randn(b, *recipe.x_shape), torch.randn(b, recipe.z_dim)
    of_d = kept_by_autograd([D], lambda: D(x)) / b
    of_both = kept_by_autograd([G, D], lambda: D(G(z))) / b
    assert of_d == pytest.approx(left(recipe.d_table), rel=0.02)
    most = of_d + of_both if recipe.g_fakes == "reuse" else max(2 * of_d, of_both)
    assert cost(recipe).kept == pytest.approx(most, rel=0.02)


def test_memory_and_the_batch_that_fits():
    r = RECIPES["celeba64"]
    assert (
        memory(r, 256)
        > memory(r, 128)
        > memory(r, 128, "bf16")
        == memory(r, 128, "fp16")
        > memory(r.replace(filters=64), 128, "bf16")
    )
    found = [fitting_batch(r, free * 1e9, "bf16") for free in (0.45, 0.5, 1, 4, 16, 80)]
    assert found == sorted(found) and found[0] >= 2 and found[-1] > 1000 and all(b % 8 == 0 or b == 2 for b in found)
    for b, free in zip(found[2:], (1e9, 4e9, 16e9)):
        assert memory(r, b, "bf16") <= free < memory(r, b + 8, "bf16")
    assert fitting_batch(r, 8e9, "fp32") < fitting_batch(r, 8e9, "bf16")
    assert fitting_batch(r, memory(r, 2)) == 2 and fitting_batch(r, memory(r, 8)) == 8
    said = too_large(r.replace(batch_size=4096), 2e9)
    assert "A batch of 4096" in said and int(said.split("; batch_size=")[1].split()[0]) < 4096
    assert "; batch_size=2048 might" in too_large(r.replace(batch_size=4096), 1e15)


def test_textbook_prints_a_line_a_step_and_learns(images, capsys):
    seen = []
    forward = Discriminator.forward
    Discriminator.forward = lambda self, x: seen.append(next(self.parameters()).detach().clone()) or forward(self, x)
    try:
        list(textbook(small(), images[:64], 1))
    finally:
        Discriminator.forward = forward
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("[0/1][1/2] Loss_D: ") and not torch.equal(seen[0], seen[-1])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: memory(small(), 8, "fp8"), ["'fp8'"]),
        (lambda: fitting_batch(small(), 1000), ["digits", "MiB", "filters than 4"]),
        (lambda: estimate(small(), 1, 1, share=15), ["share is 15"]),
        (lambda: estimate(small(), 1, 1, scaling=0), ["scaling is 0"]),
    ],
)
def test_what_can_not_be_meant_is_said(call, words):
    with pytest.raises(ValueError) as e:
        call()
    assert all(w in str(e.value) for w in words) and "\n" not in str(e.value), e.value


def test_only_memory_that_ran_out_is_explained():
    cpu, full, other = (
        torch.device("cpu"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("shape"),
    )
    said = explained(full, small(), cpu, "bf16")
    assert isinstance(said, ValueError) and "A batch of 32 does not fit" in str(said)
    assert explained(other, small(), cpu, "bf16") is other


def test_an_estimate_is_linear_and_says_what_it_assumes():
    one, two = (estimate(RECIPES["celeba64"], 1000, epochs) for epochs in (1, 2))
    assert [row.cards for row in one] == list(CARDS)
    assert all(b.minutes == pytest.approx(2 * a.minutes) for a, b in zip(one, two))
    assert one[-2].minutes / one[-1].minutes == pytest.approx(6.4) and one[-1].share == pytest.approx(0.12)
    work = cost(RECIPES["celeba64"]).flops * 1000
    assert one[1].minutes == pytest.approx(work / (0.15 * 312e12) / 60)


def whole_step(r): return 4 * r.g_table.macs + 8 * r.d_table.macs - 2 * r.d_table[0].macs - r.g_table[0].macs


def numbers(r): return cost(r).d_params + cost(r).g_params


WRONG = {
    "unfrozen": {
        "the copied loop's whole sum": lambda r: textbook_macs(r) / sum(cost(r)[:2]),
        "without the first layer": lambda r: 1 + (r.d_table.macs - r.d_table[0].macs) / whole_step(r),
        "the inputs' gradients, too": lambda r: 1 + 2 * r.d_table.macs / whole_step(r),
        "the other way round": lambda r: whole_step(r) / (whole_step(r) + r.d_table.macs),
        "the share of G's step": lambda r: 1 + r.d_table.macs / cost(r).g_macs,
    },
    "sent": {
        "one turn of the ring": lambda r, n: (n - 1) / n * 4 * numbers(r),
        "everything to everybody": lambda r, n: (n - 1) * 4 * numbers(r),
        "numbers, not bytes": lambda r, n: 2 * (n - 1) / n * numbers(r),
        "G alone": lambda r, n: 2 * (n - 1) / n * 4 * cost(r).g_params,
        "n chunks a turn": lambda r, n: 2 * 4 * numbers(r),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(WRONG, LESSON)
