"The guidelines' exercises: the hidden solutions pass, plausible wrong answers don't."
import math

import pytest
import torch
from torch import nn

from notebooks import ROOT, checks, refusing

LESSON = ROOT / "nbs/05_guidelines.ipynb"


def relus(net, x, count):
    "The sum of `count` over what the ReLUs of `net` give for `x`; no hook is left."
    found = []
    hooks = [
        m.register_forward_hook(lambda m, i, y: found.append(count(y)))
        for m in net.modules()
        if isinstance(m, nn.ReLU)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return int(sum(found))


def closed(y):
    return (y == 0).transpose(0, 1).flatten(1)


def with_hooks_left(net, x):
    found = []
    for m in net.modules():
        if isinstance(m, nn.ReLU):
            m.register_forward_hook(lambda m, i, y: found.append(closed(y).all(1).sum()))
    net(x)
    return int(sum(found))


def only_the_outer_ones(net, x):
    dead = 0
    for m in net:
        x = m(x)
        dead += int(closed(x).all(1).sum()) if isinstance(m, nn.ReLU) else 0
    return dead


WRONG = {
    "normed_std": {
        "eps added to the standard deviation": lambda std, eps: std / (std + eps),
        "the variance forgotten": lambda std, eps: std / (std + eps) ** 0.5,
        "eps squared": lambda std, eps: std / (std**2 + eps**2) ** 0.5,
        "always 1": lambda std, eps: 1.0,
        "no root": lambda std, eps: std / (std**2 + eps),
        "the variance itself": lambda std, eps: std**2 / (std**2 + eps),
    },
    "floor": {
        "as if both could be met": lambda: math.log(1 + math.exp(-1)),
        "the sum of both": lambda: math.log(1 + math.exp(-1)) + math.log(2),
        "D at a half": lambda: (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(0.5))) / 2,
        "no second sigmoid": lambda: 0.0,
        "chance": lambda: math.log(2),
    },
    "dead_channels": {
        "closed activations": lambda net, x: relus(net, x, lambda y: (y == 0).sum()),
        "closed somewhere": lambda net, x: relus(net, x, lambda y: closed(y).any(1).sum()),
        "image by image": lambda net, x: relus(net, x, lambda y: (y == 0).flatten(2).all(2).sum()),
        "the first image only": lambda net, x: relus(net, x[:1], lambda y: closed(y).all(1).sum()),
        "no nested ones": only_the_outer_ones,
        "hooks left behind": with_hooks_left,
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(WRONG, LESSON)


def test_a_refusal_says_something():
    with pytest.raises(AssertionError, match="is eps added to the variance"):
        checks(LESSON)["normed_std"](lambda std, eps: std / (std + eps))
    with pytest.raises(AssertionError, match="2 channels|two channels"):
        checks(LESSON)["dead_channels"](lambda net, x: 0)
    checks(LESSON)["dead_channels"](lambda net, x: relus(net, x, lambda y: closed(y).all(1).sum()))
    assert torch.is_grad_enabled()
