"The first lesson: one page of plain PyTorch, exercises that refuse wrong answers, two steps that change one network each."
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from notebooks import ROOT, cells, code_cells, python, tags

LESSON = ROOT / "nbs/00_first_gan.ipynb"


def exercise(name):
    "The names that the exercise with `check_NAME` defines."
    source, = [c["source"] for c in code_cells(LESSON) if f"def check_{name}(" in c["source"]]
    names = {"__name__": "exercise"}
    exec(compile(source, name, "exec"), names)
    return names


def lesson_cells():
    "The code cells of the lesson proper: no exercises, no install cell."
    return [c["source"] for c in code_cells(LESSON) if "exercise" not in tags(c) and "google.colab" not in c["source"]]


def test_the_whole_gan_is_a_page():
    lines = [line for source in lesson_cells() for line in source.splitlines() if line.strip() and line[:2] != "#|"]
    assert len(lines) <= 100
    assert not [line for line in lines if len(line) > 88]


def test_nothing_comes_from_the_package():
    assert not [c["source"] for c in code_cells(LESSON) if re.search(r"^\s*(from|import) dcgan", python(c), re.M)]


def test_the_pictures_have_words():
    "After each cell that draws comes a sentence in italics that says what is seen."
    found = cells(LESSON)
    for i, cell in enumerate(found):
        drawn = [o for o in cell.get("outputs", []) if {"image/png", "text/html"} & set(o.get("data", {}))]
        if drawn:
            assert re.match(r"\*[A-Z][^*]{60,}\*\n", found[i + 1]["source"]), f"no words for the picture of cell {i}"


@pytest.fixture(scope="module")
def lesson():
    "The lesson's names before the loop: networks, optimisers and steps, on two threads less than a second."
    before = []
    for source in lesson_cells():
        if "for step in range(1, steps + 1)" in source:
            break
        before.append(source)
    names = {"__name__": "lesson", "show": None}
    exec(compile("\n".join(before).replace("plt.show()", "plt.close()"), "lesson", "exec"), names)
    return names


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def same(before, net):
    return all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_each_step_changes_one_network(lesson):
    G, D = lesson["G"], lesson["D"]
    x, fake = lesson["images"][:32], G(torch.randn(32, lesson["z_dim"]))
    g, d = weights(G), weights(D)
    lesson["d_step"](x, fake)
    assert same(g, G) and not same(d, D)
    d = weights(D)
    lesson["g_step"](fake)
    assert same(d, D) and not same(g, G)


def test_the_labels_point_the_right_way(lesson):
    "Steps of D alone lower its loss; steps of G alone lower its own."
    G, x = lesson["G"], lesson["images"][::125]
    first, *_, last = [lesson["d_step"](x, G(torch.randn(32, lesson["z_dim"]))).item() for _ in range(8)]
    assert last < first
    first, *_, last = [lesson["g_step"](G(torch.randn(32, lesson["z_dim"]))).item() for _ in range(8)]
    assert last < first


# Wrong answers that a student might give.

def generator(biases, norms, last=(nn.Tanh,), relu=True):
    layers = [nn.Unflatten(1, (24, 1, 1))]
    for i, o, k, s, p in (
        (24, 64, 3, 1, 0),
        (64, 64, 3, 1, 1),
        (64, 64, 3, 1, 1),
        (64, 32, 3, 2, 0),
        (32, 16, 4, 2, 1),
    ):
        layers.append(nn.ConvTranspose2d(i, o, k, s, p, bias=biases))
        layers += [nn.BatchNorm2d(o)] * norms + [nn.ReLU()] * relu
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 1, 4, 2, 1), *[m() for m in last])


WRONG_G = {
    "the switch is ignored": lambda batchnorm: generator(False, True),
    "the switch is the wrong way round": lambda batchnorm: generator(batchnorm, not batchnorm),
    "no biases come back": lambda batchnorm: generator(False, batchnorm),
    "biases before BatchNorm": lambda batchnorm: generator(True, batchnorm),
    "BatchNorm on the output too": lambda batchnorm: generator(
        not batchnorm, batchnorm, [lambda: nn.BatchNorm2d(1)] * batchnorm + [nn.Tanh]
    ),
    "tanh is lost with the switch off": lambda batchnorm: generator(
        not batchnorm, batchnorm, [nn.Tanh] * batchnorm
    ),
    "ReLU went with BatchNorm": lambda batchnorm: generator(not batchnorm, batchnorm, relu=batchnorm),
}
WRONG_PUSH = {
    "the slope itself": lambda t, label: torch.sigmoid(t) - label,
    "no sigmoid": lambda t, label: label - t,
    "the sigmoid differentiated as well": lambda t, label: (
        (label - torch.sigmoid(t)) * torch.sigmoid(t) * (1 - torch.sigmoid(t))
    ),
    "the direction only": lambda t, label: torch.sign(label - torch.sigmoid(t)),
    "the mean over the batch": lambda t, label: (label - torch.sigmoid(t)).mean(),
    "the label is ignored": lambda t, label: 1 - torch.sigmoid(t),
    "only for 0 and 1": lambda t, label: torch.sigmoid(-t) if label == 1 else -torch.sigmoid(t),
}


def step_of_g(
    G, D, opt_g, fake, seen=lambda fake: fake, label=1.0, clear=True, reduction="mean", out=lambda loss: loss.detach()
):
    on_fake = D(seen(fake))
    loss = bce(on_fake, torch.full_like(on_fake, label), reduction=reduction)
    if clear:
        opt_g.zero_grad()
    loss.backward()
    opt_g.step()
    return out(loss)


def moves_both(G, D, opt_g, fake):
    loss = step_of_g(G, D, opt_g, fake)
    torch.optim.SGD(D.parameters(), lr=0.1).step()
    return loss


def frozen(G, D, opt_g, fake, afterwards=False):
    D.requires_grad_(False)
    loss = step_of_g(G, D, opt_g, fake)
    D.requires_grad_(afterwards)
    return loss


def on_gradients(G, D, opt_g, fake):
    loss = nn.functional.softplus(-D(fake)).mean()
    for p, slope in zip(G.parameters(), torch.autograd.grad(loss, list(G.parameters()))):
        p.grad = slope
    opt_g.step()
    return loss.item()


WRONG_STEP = {
    "as it was": lambda *a: step_of_g(*a, seen=lambda fake: fake.detach(), clear=False),
    "still detached": lambda *a: step_of_g(*a, seen=lambda fake: fake.detach()),
    "not cleared": lambda *a: step_of_g(*a, clear=False),
    "label 0": lambda *a: step_of_g(*a, label=0.0),
    "the sum of the losses": lambda *a: step_of_g(*a, reduction="sum"),
    "two steps": lambda *a: (step_of_g(*a), a[2].step())[0],
    "D moves too": moves_both,
    "D stays frozen": frozen,
    "with its graph": lambda *a: step_of_g(*a, out=lambda loss: loss),
    "no loss": lambda *a: step_of_g(*a, out=lambda loss: None),
}
MESSAGE = {
    "as it was": "G does not move",
    "still detached": "G does not move",
    "not cleared": "in the second step",
    "label 0": "in the first step",
    "the sum of the losses": "in the first step",
    "two steps": "in the first step",
    "D moves too": "D's weights have moved",
    "D stays frozen": "D is left frozen",
    "with its graph": "return the loss detached",
    "no loss": "return the loss",
}


@pytest.mark.parametrize("what", WRONG_STEP)
def test_a_wrong_step_gets_its_message(what):
    with pytest.raises(AssertionError, match=MESSAGE[what]):
        exercise("mended_step")["check_mended_step"](WRONG_STEP[what])


@pytest.mark.parametrize("right", [step_of_g, lambda *a: frozen(*a, afterwards=True), on_gradients])
def test_right_steps_are_accepted(right):
    exercise("mended_step")["check_mended_step"](right)


@pytest.mark.parametrize(
    "name, wrong",
    [*[("make_G", f) for f in WRONG_G.values()], *[("push", f) for f in WRONG_PUSH.values()]],
    ids=[*WRONG_G, *WRONG_PUSH],
)
def test_wrong_answers_are_refused(name, wrong):
    with pytest.raises(AssertionError) as refused:
        exercise(name)[f"check_{name}"](wrong)
    assert len(str(refused.value).split()) >= 5, "the message helps"
