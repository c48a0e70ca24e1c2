"""The default recipe with one guideline undone at a time: changed tables, changed fields, or a changed step. `ablations.py` runs them."""
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from dcgan.losses import d_loss, g_loss_saturating
from dcgan.recipes import NETS, Recipe, without_norm
from dcgan.shapes import Row, shape_table
from dcgan.steps import g_step, real_probability
from dcgan.training import Trainer
from dcgan.weights import ASSETS

Rows = tuple[Row, ...]


# How a table is changed: functions of (rows, shape of the input)

def shapes(rows: Rows, in_shape: tuple) -> list[tuple]:
    "What goes into each row, and last what comes out."
    return [in_shape, *(s.out_shape for s in shape_table(rows, in_shape))]


def pooled(rows: Rows, in_shape: tuple) -> Rows:
    "Each stride replaced: the same kernel at stride 1, then max pooling to the same size."
    out = []
    for row, before, after in zip(rows, shapes(rows, in_shape), shapes(rows, in_shape)[1:]):
        one = row._replace(stride=1)
        side = shape_table([one], before).out_shape[-1]
        pool = Row("pool", 0, row.stride, row.stride, side % row.stride)
        out += [row] if row.kind != "conv" or side == after[-1] else [one, pool]
    return tuple(out)


def normless(rows: Rows, in_shape: tuple) -> Rows: return without_norm(rows)


def norm_at(place: int) -> Callable[[Rows, tuple], Rows]:
    "BatchNorm also on the row at `place`."
    return lambda rows, in_shape: tuple(row._replace(norm=True) if row is rows[place] else row for row in rows)


def linear_in_d(rows: Rows, in_shape: tuple) -> Rows:
    "A fully connected layer before the last row, as wide as the map that it reads."
    return (
        *rows[:-1],
        rows[-2]._replace(kind="linear", out=shapes(rows, in_shape)[-2], kernel=0, stride=1, padding=0),
        rows[-1],
    )


def linear_in_g(rows: Rows, in_shape: tuple) -> Rows:
    "A fully connected layer before the first map, as wide as its channels; on 1×1 the first row was one in disguise, and is written as one."
    first = rows[0]._replace(kind="linear", out=shapes(rows, in_shape)[1], kernel=0, stride=1, padding=0)
    return first._replace(out=rows[0].out), first, *rows[1:]


def resized(rows: Rows, in_shape: tuple) -> Rows:
    "Each transposed convolution with a stride replaced: nearest neighbours, then a convolution to the same size (Odena et al. 2016)."
    out, maps = [], shapes(rows, in_shape)
    for row, before, after in zip(rows, maps, maps[1:]):
        if row.kind != "conv_t" or row.stride == 1:
            out.append(row)
            continue
        side = before[-1] if len(before) == 3 else 1  # z is one pixel
        grown = after[-1] - side * row.stride  # what the convolution has to add
        kernel = 3 if grown % 2 == 0 else 4
        conv = row._replace(kind="conv", kernel=kernel, stride=1, padding=(grown + kernel - 1) // 2, extra=0)
        out += [Row("upsample", 0, stride=row.stride), conv]
    return tuple(out)


def authors_g(rows: Rows, in_shape: tuple) -> Rows:
    "The authors' layers, as wide as the default: fully connected to 7×7 or less, then kernels of 5 that double each side."
    side, wide = shapes(rows, in_shape)[-1][-1], rows[0].out
    doublings = 0
    while side > 7:
        side, doublings = side // 2, doublings + 1
    five = {"kernel": 5, "stride": 2, "padding": 2, "extra": 1}
    return (
        rows[0]._replace(kind="linear", out=(wide, side, side), kernel=0, stride=1, padding=0),
        *(rows[0]._replace(out=wide >> i, **five) for i in range(1, doublings)),
        rows[-1]._replace(**five),
    )


def authors_d(rows: Rows, in_shape: tuple) -> Rows:
    "The authors' layers, as wide as the default: kernels of 5 with stride 2 and padding 2, then fully connected."
    convs = tuple(row._replace(kernel=5, stride=2, padding=2) for row in rows[:-1])
    return (*convs, rows[-1]._replace(kind="linear", kernel=0, stride=1, padding=0))


def acts(old: str, new: str) -> Callable[[Rows, tuple], Rows]:
    "One activation for another."
    return lambda rows, in_shape: tuple(row._replace(act=new) if row.act == old else row for row in rows)


def unchanged(rows: Rows, in_shape: tuple) -> Rows: return rows


# How a step is changed

class Mixed(Trainer):
    "D sees real images and fakes in one batch, so that BatchNorm's statistics are those of the mixture."
    def train_discriminator(self, x):
        r, self.n = self.recipe, len(x)
        x = x.to(self.engine.device, memory_format=torch.channels_last)
        with self.engine.autocast():
            with torch.no_grad():
                fake = self.G(self.noise(0))
            real, fake = self.D(torch.cat([self.augment(x), self.augment(fake)])).split(len(x))
        loss = d_loss(real, fake, r.real_label, r.fake_label, r.d_reduction)
        scaler = self.engine.scaler(self.opt_d)
        self.opt_d.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(self.opt_d)
        scaler.update()
        self.d_stats = loss.detach(), real_probability(real), real_probability(fake)


class Saturating(Trainer):
    "G goes down log(1 - D(G(z))), as the minimax game says."
    def train_generator(self):
        D = self.engine.bare(self.D)
        self.g_stats = g_step(D, self.G, self.opt_g, self.noise(1), self.engine, self.augment, g_loss_saturating)
        self.follow()


class Spectral(Trainer):
    "Every layer of D that has a kernel is divided by its largest singular value (Miyato et al. 2018, section 2.1)."
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        for layer in self.engine.bare(self.D).modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                spectral_norm(layer)
        self.opt_d = self.adam(self.D, self.recipe.lr_d)


# The variants

class Undone(NamedTuple):
    "One guideline undone: changes of tables, of fields, of a step; and the rules that an audit should find broken, with their network."
    says: str
    g: Callable[[Rows, tuple], Rows] = unchanged
    d: Callable[[Rows, tuple], Rows] = unchanged
    fields: dict = {}
    trainer: type = Trainer
    breaks: tuple[str, ...] = ()  # "D: strides not pooling"


def undone(base: Recipe) -> dict[str, Undone]:
    "Name → what is undone in `base`."
    norm, inside = "batchnorm but at the edges", "activation inside"
    def rates(f): return {"lr_g": f(base.lr_g), "lr_d": f(base.lr_d)}
    return {
        "default": Undone("nothing: every guideline kept"),
        "pooling in D": Undone(
            "D's strides are 1, and max pooling halves the maps", d=pooled, breaks=("D: strides not pooling",)
        ),
        "no BatchNorm in G": Undone("G has biases in place of BatchNorm", normless, breaks=(f"G: {norm}",)),
        "no BatchNorm in D": Undone("D has biases in place of BatchNorm", d=normless, breaks=(f"D: {norm}",)),
        "no BatchNorm": Undone(
            "neither network has BatchNorm", normless, normless, breaks=(f"G: {norm}", f"D: {norm}")
        ),
        "BatchNorm on D's input": Undone(
            "D's first layer has BatchNorm too", d=norm_at(0), breaks=(f"D: {norm}",)
        ),
        "BatchNorm on G's output": Undone(
            "G's last layer has BatchNorm too", norm_at(-1), breaks=(f"G: {norm}",)
        ),
        "BatchNorm at both edges": Undone(
            "D's first and G's last layer have BatchNorm too",
            norm_at(-1),
            norm_at(0),
            breaks=(f"G: {norm}", f"D: {norm}"),
        ),
        "hidden linear in G": Undone(
            "a fully connected layer between z and the first map",
            linear_in_g,
            breaks=("G: no hidden linear",),
        ),
        "hidden linear in D": Undone(
            "a fully connected layer before the last", d=linear_in_d, breaks=("D: no hidden linear",)
        ),
        "ReLU in D": Undone(
            "D has ReLU for LeakyReLU", d=acts("leaky_relu", "relu"), breaks=(f"D: {inside}",)
        ),
        "LeakyReLU in G": Undone(
            "G has LeakyReLU for ReLU", acts("relu", "leaky_relu"), breaks=(f"G: {inside}",)
        ),
        "tanh in G": Undone("G has tanh for ReLU", acts("relu", "tanh"), breaks=(f"G: {inside}",)),
        "sigmoid in G": Undone("G has sigmoids for ReLU", acts("relu", "sigmoid"), breaks=(f"G: {inside}",)),
        "sigmoid at G's end": Undone(
            "G's output is a sigmoid, in [0, 1]; the images stay in [-1, 1]",
            acts("tanh", "sigmoid"),
            breaks=("G: tanh last and output range",),
        ),
        "PyTorch's weights": Undone(
            "initial weights as PyTorch draws them, not N(0, 0.02)",
            fields={"init_std": None},
            breaks=("G: initial weights", "D: initial weights"),
        ),
        "beta1 0.9": Undone("Adam's β1 is PyTorch's 0.9, not 0.5", fields={"beta1": 0.9}),
        "rates ×5": Undone(
            "both learning rates five times as high", fields=rates(lambda lr: round(lr * 5, 10))
        ),
        "rates ÷5": Undone("both learning rates a fifth", fields=rates(lambda lr: round(lr / 5, 10))),
        "rates 2e-4": Undone("both learning rates the paper's", fields=rates(lambda lr: 2e-4)),
        "uniform z": Undone("z from U(-1, 1), as in the paper, not N(0, 1)", fields={"z_law": "uniform"}),
        "saturating loss": Undone("G's loss is log(1 - D(G(z))), the minimax one", trainer=Saturating),
        "mixed batches": Undone("D sees real images and fakes in one batch", trainer=Mixed),
        "resize-convolution": Undone(
            "G enlarges by nearest neighbours and a convolution, not by transposed convolutions with a stride",
            resized,
            breaks=("G: strides not pooling",),
        ),
        "authors' 5×5": Undone(
            "the paper's own kind of network: kernels of 5, fully connected at z and at the logit", authors_g, authors_d
        ),
        "spectral norm in D": Undone("each layer of D also divided by its spectral norm", trainer=Spectral),
        "reused fakes": Undone("G's step uses the fakes that D's step has just seen", fields={"g_fakes": "reuse"}),
        "no average": Undone("the last weights of G, not their moving average", fields={"ema": None}),
    }


OF_NO_MATTER = (
    "name",
    "net",
    "seed",
    "epochs",
    "log_every",
    "sample_every",
    "save_every",
)  # fields that change no result, or not the variant
LATER = {"g_fakes": "fresh", "classes": 0, "r1": 0.0, "d_norm": True}  # fields that came after the first rows, and what those rows had


def digest(what: bytes) -> str: return hashlib.sha256(what).hexdigest()[:8]


@cache
def judge() -> str:
    "Eight digits that change with the judge's weights: distances of two judges can't be compared."
    return digest((ASSETS / "judges/digits/model.safetensors").read_bytes())


def listed(rows: Rows) -> list[tuple]:
    "The rows as the definitions hold them: without output padding where there is none, as before rows had it."
    return [tuple(row) if row.extra else tuple(row)[:-1] for row in rows]


class Variant(NamedTuple):
    "A variant, ready to run."
    says: str
    recipe: Recipe
    trainer: type
    breaks: tuple[str, ...]

    def definition(self, images: int) -> dict:
        "Everything that decides a run of so many images and its distance, but the seed; plain values."
        fields = {k: v for k, v in asdict(self.recipe).items() if k not in OF_NO_MATTER and LATER.get(k, ...) != v}
        return {"images": images, "judge": judge(), "trainer": self.trainer.__name__, "fields": fields,
                "g_layers": listed(self.recipe.g_layers), "d_layers": listed(self.recipe.d_layers)}

    def key(self, images: int) -> str:
        "Eight digits that change with the definition."
        return digest(json.dumps(self.definition(images), sort_keys=True).encode())


def variants(base: Recipe) -> dict[str, Variant]:
    "All variants of `base`. Changed tables become families of networks, registered in NETS; a variant that equals another is left out."
    found = {}
    for name, u in undone(base).items():
        net, (g, d) = base.net, NETS[base.net]
        if (u.g, u.d) != (unchanged, unchanged):
            net = f"{base.net}, {name}"
            NETS[net] = (
                lambda *a, u=u, g=g: u.g(g(*a), (base.z_dim,)),
                lambda *a, u=u, d=d: u.d(d(*a), (a[1], a[0], a[0])),
            )
        v = Variant(u.says, base.replace(net=net, **u.fields), u.trainer, u.breaks)
        if not any((v.recipe, v.trainer) == (o.recipe, o.trainer) for o in found.values()):
            found[name] = v
    return found
