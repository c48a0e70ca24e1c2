"The audit: every planted fault is named with its layer, nothing else is, and nothing is changed by looking."
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dcgan.audit import audit, judge, strides_not_pooling, trace, watch
from dcgan.recipes import RECIPES

torch.manual_seed(0)  # networks in lists of parameters are built while this file is read


def started(net, std=0.02, bn=1.0):
    "The paper's initial weights."
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            m.weight.data.normal_(0, std)
        if isinstance(m, nn.BatchNorm2d) and m.affine:
            m.weight.data.normal_(bn, 0.02)
        if getattr(m, "bias", None) is not None:
            m.bias.data.zero_()
    return net


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def g(*replace, z=16, c=1, f=8, act=nn.ReLU, norm=nn.BatchNorm2d, end=nn.Tanh):
    "A generator of 16×16 images that keeps every rule."
    return started(nn.Sequential(nn.ConvTranspose2d(z, 2 * f, 4, bias=False), norm(2 * f), act(),
                                 nn.ConvTranspose2d(2 * f, f, 4, 2, 1, bias=False), norm(f), act(),
                                 nn.ConvTranspose2d(f, c, 4, 2, 1, bias=False), end()))


def d(c=1, f=8, act=lambda: nn.LeakyReLU(0.2), norm=nn.BatchNorm2d, end=nn.Identity):
    "A discriminator of 16×16 images that keeps every rule."
    return started(
        nn.Sequential(
            nn.Conv2d(c, f, 4, 2, 1),
            act(),
            nn.Conv2d(f, 2 * f, 4, 2, 1, bias=False),
            norm(2 * f),
            act(),
            nn.Conv2d(2 * f, 1, 4, bias=False),
            end(),
        )
    )


SHAPES = {"G": (16,), "D": (1, 16, 16)}
SIXTEEN = ((16, 1, 1), (1, 16, 16))


def broken(net, shape, **more):
    "Rules that are broken and where, without the network's letter."
    return {f.rule: f.where[2:] for f in audit(net, shape, **more).broken}


def untold(net, shape, **more):
    return {f.rule: f.where[2:] for f in audit(net, shape, **more).findings if f.verdict == "not told"}


def paper(c=1, f=8):
    "Reference 4: 64×64, four inner layers each, no biases; here with fewer filters."
    w = [8 * f, 4 * f, 2 * f, f]
    G = [nn.ConvTranspose2d(100, w[0], 4, bias=False), nn.BatchNorm2d(w[0]), nn.ReLU(True)]
    D = [nn.Conv2d(c, f, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for a, b in zip(w, w[1:]):
        G += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
        D[2:2] = [nn.Conv2d(b, a, 4, 2, 1, bias=False), nn.BatchNorm2d(a), nn.LeakyReLU(0.2, True)]
    G += [nn.ConvTranspose2d(f, c, 4, 2, 1, bias=False), nn.Tanh()]
    D += [nn.Conv2d(8 * f, 1, 4, bias=False), nn.Flatten(0)]
    return started(nn.Sequential(*G)), started(nn.Sequential(*D))


def mnist28():
    "Reference 1, corrected."
    D = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 5, 2),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 5, 2),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(64, 1),
    )
    G = nn.Sequential(
        nn.ConvTranspose2d(64, 256, 3, 2),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 3, 2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2),
        nn.Tanh(),
    )
    assert sum(p.numel() for p in D.parameters()) == 64_545 and sum(p.numel() for p in G.parameters()) == 747_841
    return started(G), started(D)


def svhn32():
    "Reference 5, as its text has it."
    G = nn.Sequential(nn.Linear(100, 2048), nn.Unflatten(1, (128, 4, 4)), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
                      nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                      nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                      nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh())
    D = nn.Sequential(
        nn.Conv2d(3, 32, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2048, 1),
    )
    assert sum(p.numel() for p in G.parameters()) == 372_672 and sum(p.numel() for p in D.parameters()) == 167_809
    return started(G), started(D)


# The reference systems

@pytest.mark.parametrize("shapes", [None, ((64, 1, 1), (1, 28, 28))])
def test_mnist28_breaks_one_rule_and_its_linear_layer_is_not_hidden(shapes):
    report = audit(mnist28(), shapes)
    assert [(f.rule, f.where) for f in report.broken] == [("batchnorm but at the edges", "D 1")] and not report.ok
    linear, = (f for f in report.findings if f.rule == "no hidden linear" and f.where.startswith("D"))
    assert linear.verdict == "kept" and linear.where == "D 10" and "64→1 is not hidden" in linear.why


@pytest.mark.parametrize("shapes", [None, ((100,), (3, 32, 32))])
def test_svhn32_breaks_one_rule(shapes):
    report = audit(svhn32(), shapes)
    assert [(f.rule, f.where) for f in report.broken] == [("activation inside", "G 3")]
    assert any("only projects z" in f.why and f.where == "G 0" for f in report.findings)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("shapes", [False, True])
def test_the_papers_network_breaks_none(c, shapes):
    report = audit(paper(c), ((100, 1, 1), (c, 64, 64)) if shapes else None)
    assert report.ok and not report.broken and {f.verdict for f in report.findings} == {"kept"}
    assert any(f"makes {c}×64×64" in f.why for f in report.findings)


def conditional():
    torch.manual_seed(0)
    return RECIPES["digits-conditional"].replace(filters=8).networks()


def test_networks_that_take_classes_are_audited_with_them():
    "The projection of D's features on the classes is no hidden layer, and its weights are looked at as all others."
    recipe = RECIPES["digits-conditional"]
    report = audit(conditional(), ((recipe.z_dim,), recipe.x_shape))
    assert report.ok and {f.verdict for f in report.findings} == {"kept"}
    linear, = (f for f in report.findings if f.rule == "no hidden linear" and f.where.startswith("D"))
    assert "project" in linear.where and "→10 is not hidden: the label picks one" in linear.why
    G, D = conditional()
    D.project.weight.data.mul_(20)
    assert [(f.rule, f.where) for f in audit((G, D)).broken] == [("initial weights", "D project")]
    trace_of_g = trace(G, (recipe.z_dim,))
    assert trace_of_g.ops[0].name == "cat" and trace_of_g.y.shape[1:] == recipe.x_shape


# Faults of one module each

@pytest.mark.parametrize("net, fault", [
    (g(act=lambda: nn.LeakyReLU(0.2)), {"activation inside": "2, 5"}),
    (g(end=nn.Sigmoid), {"tanh last and output range": "7"}),
    (g(end=nn.Identity), {"tanh last and output range": "6"}),
    (g(end=nn.Hardtanh), {"tanh last and output range": "7"}),
    (g(norm=nn.Identity), {"batchnorm but at the edges": "0, 3"}),
    (g(norm=nn.InstanceNorm2d), {"batchnorm but at the edges": "0, 3"}),
    (g(norm=lambda c: nn.BatchNorm2d(c, 0.8)), {"batchnorm but at the edges": "1, 4"}),
    (g(end=lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Tanh())), {"batchnorm but at the edges": "7.0"}),
    (started(g(), bn=0), {"initial weights": "1, 4"}),
    (started(g(), std=0.2), {"initial weights": "0, 3, 6"}),
    (d(act=nn.ReLU), {"activation inside": "1, 4"}),
    (d(act=nn.LeakyReLU), {"activation inside": "1, 4"}),
    (d(act=nn.GELU), {"activation inside": "1, 4"}),
    (d(act=nn.Identity), {"activation inside": "0, 2"}),
    (d(norm=lambda c: nn.GroupNorm(1, c)), {"batchnorm but at the edges": "2"}),
    (d(end=lambda: nn.Sequential(nn.Sigmoid(), nn.Sigmoid())), {"no sigmoid twice": "6.0, 6.1"}),
    (d(end=nn.Tanh), {"no sigmoid twice": "6"}),
    (nn.Sequential(nn.BatchNorm2d(1), d()), {"batchnorm but at the edges": "0"}),
])
def test_one_fault_is_the_only_one_named(net, fault):
    shape = (16, 1, 1) if any(isinstance(m, nn.ConvTranspose2d) for m in net.modules()) else (1, 16, 16)
    assert broken(net, shape) == fault


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.FractionalMaxPool2d(2, 8), nn.AdaptiveMaxPool2d(8)]
)
def test_pooling_is_named(pool):
    net = started(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.2), pool, nn.Conv2d(8, 1, 8)))
    assert broken(net, (1, 16, 16)) == {"strides not pooling": "2"}


@pytest.mark.parametrize("up", [nn.Upsample(scale_factor=2), nn.UpsamplingBilinear2d(scale_factor=2)])
def test_upsampling_is_named(up):
    net = started(
        nn.Sequential(
            nn.ConvTranspose2d(16, 8, 8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            up,
            nn.Conv2d(8, 1, 3, padding=1),
            nn.Tanh(),
        )
    )
    assert broken(net, (16, 1, 1)) == {"strides not pooling": "3"}


def test_hidden_linear_layers_are_named_in_both():
    D = started(
        nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(512, 20),
            nn.BatchNorm1d(20),
            nn.LeakyReLU(0.2),
            nn.Linear(20, 1),
        )
    )
    assert broken(D, (1, 16, 16)) == {"no hidden linear": "3"}
    G = started(
        nn.Sequential(
            nn.Linear(16, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Unflatten(1, (8, 4, 4)),
            nn.ConvTranspose2d(8, 1, 4, 4),
            nn.Tanh(),
        )
    )
    assert broken(G, (16,)) == {"no hidden linear": "3"}


def test_a_linear_layer_over_pixels_is_a_convolution():
    class PerPixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mix, self.bn, self.last = (
                nn.Conv2d(1, 8, 4, 2, 1),
                nn.Linear(8, 16),
                nn.BatchNorm2d(16),
                nn.Conv2d(16, 1, 8),
            )

        def forward(self, x):
            h = self.mix(F.leaky_relu(self.conv(x), 0.2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.last(F.leaky_relu(self.bn(h), 0.2))
    assert broken(started(PerPixel()), (1, 16, 16)) == {}


# Functions, nested blocks, other names, norms by hand

class Functional(nn.Module):
    "D in functions only; `fault` plants one."
    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(1, 8, 4, 2, 1),
            nn.Conv2d(8, 16, 4, 2, 1),
            nn.Conv2d(16, 1, 2 if "pool" in fault else 4),
        )
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x):
        h = F.leaky_relu(self.conv1(x), 0.2, inplace=True)
        h = F.batch_norm(self.conv2(h), None, None, self.scale, training=True)
        h = {"relu": F.relu, "elu": F.elu}.get(self.fault, lambda h: F.leaky_relu(h, 0.2))(h)
        if self.fault == "pool":
            h = F.max_pool2d(h, 2)
        if self.fault == "pool by mean":
            h = h.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5))
        logits = self.conv3(h).flatten()
        return torch.sigmoid(logits) if self.fault == "sigmoid" else logits


@pytest.mark.parametrize(
    "fault, found",
    [
        ("", {}),
        ("relu", {"activation inside": "relu after conv2"}),
        ("elu", {"activation inside": "elu after conv2"}),
        ("pool", {"strides not pooling": "max_pool2d_with_indices after conv2"}),
        ("pool by mean", {"strides not pooling": "mean after conv2"}),
    ],
)
def test_functional_faults_are_named_after_their_layer(fault, found):
    assert broken(started(Functional(fault)), (1, 16, 16)) == found


@pytest.mark.parametrize("takes_logits, is_broken", [(None, False), (False, False), (True, True)])
def test_sigmoid_in_d_and_in_the_loss(takes_logits, is_broken):
    for net, where in (started(Functional("sigmoid")), "sigmoid after conv3"), (d(end=nn.Sigmoid), "6"):
        report = audit(net, (1, 16, 16), loss_takes_logits=takes_logits)
        assert report.ok != is_broken
        found, = (f for f in report.findings if f.rule == "no sigmoid twice")
        assert found.where == f"D {where}" and ("BCELoss" in found.why or is_broken)


def test_logits_for_a_loss_that_takes_probabilities():
    assert set(broken(d(), (1, 16, 16), loss_takes_logits=False)) == {"no sigmoid twice"}
    assert broken(d(), (1, 16, 16), loss_takes_logits=True) == {}


def test_a_sigmoid_by_hand_is_seen_by_what_it_does():
    class ByHand(nn.Module):
        def forward(self, x):
            return 1 / (1 + (-x).exp())
    assert set(broken(d(end=ByHand), (1, 16, 16), loss_takes_logits=True)) == {"no sigmoid twice"}
    assert set(broken(g(end=ByHand), (16, 1, 1))) == {"tanh last and output range"}


def test_a_tanh_that_is_moved_to_0_1_misses_the_range():
    class Moved(nn.Module):
        def forward(self, x):
            return (x.tanh() + 1) / 2
    finding, = audit(g(end=Moved), (16, 1, 1)).broken
    assert finding.where == "G 7" and "reaches 0 to 1" in finding.why


def test_a_deep_g_whose_first_images_are_all_but_grey_still_ends_in_tanh():
    "Without BatchNorm, weights of 0.02 let each layer's numbers fade."
    layers = [nn.Sequential(nn.ConvTranspose2d(8, 8, 3, 1, 1), nn.ReLU()) for _ in range(8)]
    net = nn.Sequential(nn.ConvTranspose2d(16, 8, 4), nn.ReLU(), *layers, nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Tanh())
    for p in net.parameters():
        nn.init.normal_(p, 0, .02) if p.ndim > 1 else nn.init.zeros_(p)
    assert net(torch.randn(8, 16, 1, 1)).abs().max() < 1e-6
    assert set(broken(net, (16, 1, 1))) == {"batchnorm but at the edges"}


def test_nested_blocks_are_named_by_their_path():
    def block(i, o, norm):
        return nn.ModuleDict(
            {"conv": nn.Conv2d(i, o, 4, 2, 1), "norm": nn.BatchNorm2d(o) if norm else nn.Identity()}
        )

    class Nested(nn.Module):
        def __init__(self, norms):
            super().__init__()
            self.blocks, self.head = (
                nn.ModuleList(block(i, o, n) for (i, o), n in zip([(1, 4), (4, 8), (8, 16)], norms)),
                nn.Conv2d(16, 1, 2),
            )

        def forward(self, x):
            for b in self.blocks:
                x = F.leaky_relu(b["norm"](b["conv"](x)), 0.2)
            return self.head(x)
    assert broken(started(Nested([0, 1, 1])), (1, 16, 16)) == {}
    assert broken(started(Nested([1, 1, 0])), (1, 16, 16)) == {
        "batchnorm but at the edges": "blocks.0.norm, blocks.2.conv"
    }


class Standardise(nn.Module):
    "BatchNorm by hand."
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        return self.weight * (x - mean) / (var + 1e-8).sqrt()


class PixelNorm(nn.Module):
    "Each pixel's channels divided by their size: no BatchNorm, but no 'nothing' either."
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


class Frozen(nn.Module):
    "A normalisation by stored numbers."
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, channels, 1, 1))
        self.register_buffer("spread", torch.full((1, channels, 1, 1), 0.1))

    def forward(self, x):
        return (x - self.centre) / self.spread


class MyNorm(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize(
    "norm",
    [
        Standardise,
        MyNorm,
        lambda c: nn.BatchNorm2d(c, affine=False),
        lambda c: nn.BatchNorm2d(c, track_running_stats=False),
    ],
)
def test_batchnorm_under_another_name(norm):
    assert broken(g(norm=norm), (16, 1, 1)) == {} and broken(d(norm=norm), (1, 16, 16)) == {}
    assert not untold(g(norm=norm), (16, 1, 1))
    first = started(nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), norm(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 8)))
    assert broken(first, (1, 16, 16)) == {"batchnorm but at the edges": "1"}


@pytest.mark.parametrize("norm", [PixelNorm, Frozen])
def test_other_norms_are_not_told(norm):
    assert broken(d(norm=norm), (1, 16, 16)) == {}
    assert untold(d(norm=norm), (1, 16, 16)) == {"batchnorm but at the edges": "2"}


def test_instance_norm_by_hand_is_no_pooling_and_no_batchnorm():
    class Instance(nn.Module):
        def __init__(self, channels): super().__init__()

        def forward(self, x):
            return (x - x.mean((2, 3), keepdim=True)) / (
                x.var((2, 3), keepdim=True, unbiased=False) + 1e-8
            ).sqrt()
    finding, = audit(d(norm=Instance), (1, 16, 16)).broken
    assert finding.where == "D 2" and "InstanceNorm" in finding.why


class LeakyByHand(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, 0.2 * x)


def test_an_activation_by_hand_is_not_told():
    assert broken(d(act=LeakyByHand), (1, 16, 16)) == {} and untold(d(act=LeakyByHand), (1, 16, 16)) == {
        "activation inside": "1, 4"
    }


def test_control_flow_custom_layers_and_raw_parameters():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.ParameterList(
                [
                    nn.Parameter(0.02 * torch.randn(8, 1, 4, 4)),
                    nn.Parameter(0.02 * torch.randn(16, 8, 4, 4)),
                    nn.Parameter(0.02 * torch.randn(1, 16, 4, 4)),
                ]
            )

        def forward(self, x):
            for i, w in enumerate(self.w):
                last = i == 2
                x = F.conv2d(x, w, stride=1 if last else 2, padding=0 if last else 1)
                if x.abs().max() > 0 and not last:  # control flow on values
                    x = F.relu(x) if i == 1 else F.leaky_relu(x, 0.2)
            return x

    assert broken(Raw(), (1, 16, 16)) == {
        "batchnorm but at the edges": "conv number 2",
        "activation inside": "relu after conv number 2",
    }


def test_a_shortcut_around_a_layer():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.bn, self.c = (
                nn.Conv2d(1, 8, 4, 2, 1),
                nn.Conv2d(8, 8, 3, 1, 1),
                nn.BatchNorm2d(8),
                nn.Conv2d(8, 1, 8),
            )

        def forward(self, x):
            h = F.leaky_relu(self.a(x), 0.2)
            return self.c(F.leaky_relu(h + self.bn(self.b(h)), 0.2))
    assert broken(started(Residual()), (1, 16, 16)) == {}


def test_a_size_that_changes_unseen_is_not_told():
    class Slice(nn.Module):
        def forward(self, x): return x[:, :, ::2, ::2]
    net = started(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.2), Slice(), nn.Conv2d(8, 1, 8)))
    assert broken(net, (1, 16, 16)) == {} and untold(net, (1, 16, 16)) == {"strides not pooling": "0"}
    padded = started(nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.ZeroPad2d(1), nn.Conv2d(8, 1, 10)))
    assert not broken(padded, (1, 16, 16)) and not untold(padded, (1, 16, 16))


def test_global_average_pooling_is_named():
    net = started(
        nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 1),
        )
    )
    assert broken(net, (1, 16, 16)) == {"strides not pooling": "2"}


# What can't be told

def test_few_weights_trained_weights_and_no_values():
    tiny = started(nn.Sequential(nn.Conv2d(1, 2, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(2, 1, 4)), std=1)
    assert untold(tiny, (1, 10, 10), role="D") == {"initial weights": ""}
    net = d()
    assert "initial weights" not in untold(net, (1, 16, 16))
    net(torch.randn(4, 1, 16, 16))  # in training mode BatchNorm's running mean moves
    assert set(untold(net, (1, 16, 16))) == {"initial weights"}
    report = audit((g().to("meta"), d().to("meta")), SIXTEEN)
    assert report.ok and {f.rule for f in report.findings if f.verdict == "not told"} == {
        "tanh last and output range",
        "initial weights",
    }


def test_a_net_without_layers_is_not_told():
    class Mean(nn.Module):
        def forward(self, x): return x.flatten(1).mean(1)
    assert {f.verdict for f in audit(Mean(), (1, 16, 16)).findings} == {"not told"}


# Sizes

def test_images_that_do_not_fit():
    big = started(nn.Sequential(g()[:-2], nn.ConvTranspose2d(8, 1, 4, 2, 3, bias=False), nn.Tanh()))
    report = audit((big, d()), SIXTEEN)
    assert [f.rule for f in report.broken] == ["image size"] and "G makes 1×12×12" in report.broken[0].why
    one, = audit(d(), (1, 32, 32), role="D").broken
    assert one.rule == "image size" and "1×5×5" in one.why


def test_sizes_are_found_if_not_given():
    assert audit(g(z=24, f=8)).findings[-1].why == "makes 1×16×16 of 24×1×1"
    assert trace(paper()[1]).x.shape == (8, 1, 64, 64)
    assert audit(paper(3)).ok


# Nothing is changed by looking

@pytest.mark.parametrize("mode", [True, False])
def test_auditing_changes_nothing(mode):
    G, D = mnist28()
    D.insert(3, nn.Dropout(0.5))
    for net in (G, D):
        net.train(mode)
        net[1].eval()
        for p in net.parameters():
            p.grad = torch.ones_like(p)
    before, random = copy.deepcopy((G, D)), torch.get_rng_state()
    buffers = [b for net in (G, D) for b in net.buffers()]
    audit((G, D))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(a is b for a, b in zip(buffers, [b for net in (G, D) for b in net.buffers()]))
    for a, b in zip((G, D), before):
        assert all(torch.equal(v, w) for v, w in zip(a.state_dict().values(), b.state_dict().values()))
        assert all(torch.equal(p.grad, torch.ones_like(p)) and p.requires_grad for p in a.parameters())
        assert [m.training for m in a.modules()] == [m.training for m in b.modules()]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in a.modules())


def test_a_network_that_raises_is_left_as_it_was():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(1)

        def forward(self, x):
            raise RuntimeError(f"no {self.bn(x).ndim}")
    net = Fails().eval()
    with pytest.raises(RuntimeError, match="no 4"):
        watch(net, torch.ones(2, 1, 4, 4))
    assert (
        not net.training
        and not net.bn.running_mean.any()
        and not net.bn._forward_hooks
        and not net.bn._forward_pre_hooks
    )


def test_parametrised_weights():
    net = d()
    for i in (0, 2, 5):
        torch.nn.utils.parametrizations.spectral_norm(net[i])
    before = copy.deepcopy(net.state_dict())
    assert set(broken(net, (1, 16, 16))) == {"initial weights"}  # spectral norm scales them to 1, and that is what runs
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# Errors and looks

@pytest.mark.parametrize("what", [None, "G", nn.Conv2d, (), (g(),) * 3, (g(), "D"), [1, 2]])
def test_no_network(what):
    with pytest.raises(TypeError, match="audit takes a network") as e:
        audit(what)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "net, more",
    [
        (g(), {"input_shape": (17, 1, 1)}),
        (d(), {"input_shape": (1, 17)}),
        (d(), {"input_shape": (1, 32, 32)}),
        (g(), {"input_shape": 16}),
        (g(), {"input_shape": (0,)}),
        (g(), {"input_shape": ()}),
        (g(), {"role": "X"}),
        (d(), {"role": "G"}),
        ((g(), d()), {"role": "G"}),
        ((g(), d()), {"input_shape": (16,)}),
        ((d(), g()), {}),
        ((d(), g()), {"input_shape": SIXTEEN[::-1]}),
        (nn.LSTM(4, 4), {}),
        (nn.Flatten(), {}),
        (nn.LSTM(4, 4), {"input_shape": (4,)}),
    ],
)
def test_an_input_that_does_not_fit(net, more):
    with pytest.raises(ValueError) as e:
        audit(net, **more)
    assert str(e.value) and "\n" not in str(e.value)


def test_the_report_prints_and_shows():
    report = audit(mnist28())
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100 and sum(line.startswith("broken") for line in lines) == 1
    starts = {line.index(f.rule) for f in report.findings for line in lines if f.rule in line[:40]}
    assert starts == {10}
    html = report._repr_html_()
    assert html.count("<tr>") == len(report.findings) + 1 and "→" in html
    assert judge(strides_not_pooling, trace(mnist28()[0])) in report.findings
