"Wrong arguments of the public functions: each gets one sentence of ours, with the words that help."
import math

import numpy as np
import pytest
import torch
from torch import nn

from dcgan import audit, losses, plots, shapes
from dcgan.datasets.files import Bank
from dcgan.engine import cost, speed
from dcgan.evaluation import judge, metrics, reports
from dcgan.recipes import RECIPES

NAN, RECIPE = math.nan, RECIPES["digits"].replace(filters=4, z_dim=6, batch_size=32)
X = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
LOGITS, CLOUD = torch.zeros(3), torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
PROBS = torch.eye(3)[[0, 1, 2, 0]]
LOOK = metrics.Look(CLOUD[:4], PROBS)
BYTES = torch.zeros(20, 1, 28, 28, dtype=torch.uint8)
LABELS = torch.arange(20) % 2
ROWS = [{"step": 1, **dict.fromkeys(plots.LINES, 0.5)}]
NET = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
OUT = "nowhere/a.png"


def broken(x, value):
    "A copy with one odd number in it."
    x = x.clone()
    x.view(-1)[0] = value
    return x


PLOTS = {
    "columns 1.5": (lambda: plots.grid(X, 1.5), "whole numbers, columns >= 1"),
    "columns as text": (lambda: plots.show_grid(X, "8"), "'8'"),
    "padding without end": (lambda: plots.grid(X, pad=10**12), "up to 1000"),
    "several axes": (lambda: plots.show_grid(X, ax=[1, 2]), "one matplotlib Axes, .* got list"),
    "bytes as floats": (lambda: plots.real_and_fake(X, X * 255), "from bytes"),
    "no history": (lambda: plots.curves(5), "list of rows, .* got int"),
    "rows that are no rows": (lambda: plots.curves([3]), "each a dict"),
    "text in a history": (lambda: plots.curves([ROWS[0] | {"loss_d": "high"}]), "numbers, got loss_d = 'high'"),
    "a loss that is missing": (lambda: plots.curves([ROWS[0] | {"loss_g": None}]), "needs loss_g"),
    "a step that is nan": (lambda: plots.animate_curves([ROWS[0] | {"step": NAN}], OUT), "step = 'nan'"),
    "no frames": (lambda: plots.animate_curves(ROWS, OUT, frames=0), "frames must be a whole number"),
    "a number as path": (lambda: plots.save_grid(X, 3), "a path, such as 'samples.png', got '3'"),
    "an empty path": (lambda: plots.save_grid(X, ""), "a path"),
    "axes for a figure": (lambda: plots.save_figure(X, OUT), "a matplotlib Figure, .* got Tensor"),
    "one picture for several": (lambda: plots.animate_grids(X, OUT), "a list of images"),
    "a frame out of range": (lambda: plots.animate_grids([X, X * 9], OUT), r"in \[-1, 1\]"),
    "sheets of floats": (lambda: plots.save_gif([np.zeros((2, 2, 3))], OUT, 5), "uint8 arrays"),
    "sheets of two sizes": (lambda: plots.save_gif([plots.grid(X), plots.grid(X, pad=0)], OUT, 5), "of one size"),
    "fps as text": (lambda: plots.animate_grids([X], OUT, fps="5"), r"fps in \(0, 50\]"),
    "a table without sizes": (lambda: plots.draw_network(RECIPE.g_layers), "shape_table"),
    "a network for a table": (lambda: plots.draw_network(NET), "needs a table .* got Sequential"),
    "a shape with -1": (lambda: plots.draw_network(RECIPE.g_table, (-1,)), "in_shape must be"),
}
LOSSES = {
    "an array for logits": (lambda: losses.d_loss(np.zeros(3), LOGITS), "real must be float logits .* got ndarray"),
    "nothing for logits": (lambda: losses.g_loss(None), "fake must be .* got NoneType"),
    "two axes": (lambda: losses.bce(LOGITS[:, None], 1.), r"t must be float logits .* \(3, 1\)"),
    "no logits": (lambda: losses.bce(LOGITS[:0], 1.), "b >= 1"),
    "a label of 1.5": (lambda: losses.bce(LOGITS, 1.5), r"label must be in \[0, 1\], got 1.5"),
    "a label that is nan": (lambda: losses.bce(LOGITS, NAN), "got nan"),
    "a label as text": (lambda: losses.d_loss(LOGITS, LOGITS, "0.9"), r"real_label must be in \(0.5, 1\], got str"),
    "a reduction of 1": (lambda: losses.d_loss(LOGITS, LOGITS, reduction=1), "'sum' or 'mean'"),
}
GUIDELINES = {
    "an input that is no tensor": (lambda: audit.watch(NET, [1.]), "a batch of the network's inputs, .* got list"),
    "a rule that is none": (lambda: audit.judge("image size", None), "such as image_size, .* got str and NoneType"),
    "yes for True": (lambda: audit.audit(NET, loss_takes_logits="yes"), "True, False, or None"),
    "one for True": (lambda: audit.audit(NET, loss_takes_logits=1), "True, False, or None"),
    "a number as shape": (lambda: audit.audit((NET, NET), input_shape=6), "input_shape='6'"),
    "a role that is a list": (lambda: audit.audit(NET, role=["G"]), "role="),
}
SHAPES = {
    "True for 1": (lambda: shapes.conv_out(8, 4, True, 1), "stride is True; it must be a whole number from 1"),
    "a walk of a million cells": (lambda: shapes.draw_walk(10**6, 4, 2, 1), "at most 200 can be drawn"),
    "a kind that is none": (lambda: shapes.draw_walk(8, 4, 2, 1, "linear"), "kind is 'linear'; it must be conv"),
    "axes that are none": (lambda: shapes.draw_walk(8, 4, 2, 1, ax=[]), r"ax is \[\]"),
    "a table that is a number": (lambda: shapes.rows_from(5), "must be a list of rows"),
    "one size for all": (lambda: shapes.shape_table(RECIPE.g_layers, (6,), 28), "sizes are 28; they must be a list"),
}
JUDGES = {
    "a shape of one axis": (lambda: judge.judge_layers((28,)), r"must be \(c, h, w\)"),
    "a width of 0": (lambda: judge.judge_layers((1, 8, 8), 0), "width is 0"),
    "no questions": (lambda: judge.Judge(judge.judge_layers((1, 8, 8)), (1, 8, 8), []), "how many answers"),
    "images as features": (lambda: judge.Judge([("conv", 4, 3)], (1, 8, 8), [2]), r"leads .* to \(features,\)"),
    "labels that are floats": (lambda: judge.train_judge(BYTES, LABELS.float(), batch=10), "float32 .* whole numbers"),
    "too few labels": (lambda: judge.train_judge(BYTES, LABELS[:9], batch=10), "9 labels for 20 images"),
    "a label below 0": (lambda: judge.train_judge(BYTES, LABELS - 1, batch=10), "least label is -1"),
    "one class": (lambda: judge.train_judge(BYTES, LABELS * 0, batch=10), "two classes or more"),
    "floats for bytes": (lambda: judge.train_judge(BYTES.float(), LABELS), "uint8"),
    "no epochs": (lambda: judge.train_judge(BYTES, LABELS, 0), "epochs is 0"),
    "a rate of 0": (lambda: judge.train_judge(BYTES, LABELS, 1, batch=10, lr=0), "lr is 0; it must be above 0"),
    "a batch of 1": (lambda: judge.train_judge(BYTES, LABELS, 1, batch=1), "batch is 1"),
    "moved by nan": (lambda: judge.moved(X, torch.Generator(), NAN), "strength is nan"),
    "moved by a seed": (lambda: judge.moved(X, 0), "g is 0; it must be a Generator"),
    "no images": (lambda: judge.moved(X[:0], torch.Generator()), "n at least 1"),
    "no judge": (lambda: judge.accuracy(NET, BYTES, LABELS), "must be a Judge"),
    "a split that is none": (lambda: judge.labels_of(Bank(BYTES, LABELS, "x"), "valid"), "no split 'valid'"),
    "a judge of no epochs": (lambda: judge.judge_for(Bank(BYTES, LABELS, "x"), epochs=0), "epochs is 0"),
    "images for a bank": (lambda: judge.judge_for(BYTES), "bank is a Tensor; it must be a Bank"),
}
METRICS = {
    "features that are nan": (
        lambda: metrics.frechet(broken(CLOUD, NAN), CLOUD),
        "1 of 20 samples have features that are nan",
    ),
    "features without end": (
        lambda: metrics.kernel_distance(CLOUD, broken(CLOUD, math.inf)),
        "nan or infinite",
    ),
    "neighbours of nan": (lambda: metrics.precision_recall(CLOUD, CLOUD * NAN), "20 of 20"),
    "copies of nan": (lambda: metrics.copies(CLOUD * NAN, CLOUD, CLOUD), "nan or infinite"),
    "an array for features": (
        lambda: metrics.frechet(CLOUD.numpy(), CLOUD),
        r"Features must be .* got a ndarray",
    ),
    "features of two judges": (lambda: metrics.nearest(CLOUD, CLOUD[:, :2]), "of 3 and of 2 numbers"),
    "no features": (lambda: metrics.nearest(CLOUD, CLOUD[:0]), "n and d at least 1"),
    "whole numbers as features": (lambda: metrics.enough(CLOUD.long()), "must be a float tensor .*int64"),
    "no subsets": (lambda: metrics.kernel_distance(CLOUD, CLOUD, subsets=0), "subsets is 0"),
    "subsets of one": (
        lambda: metrics.kernel_distance(CLOUD, CLOUD, size=1),
        "size is 1; it must be a whole number from 2",
    ),
    "one sample": (lambda: metrics.kernel_distance(CLOUD, CLOUD[:1]), "1 sample is too few"),
    "no neighbours": (lambda: metrics.precision_recall(CLOUD, CLOUD, k=0), "k is 0"),
    "no images to cover": (lambda: metrics.modes(PROBS[:0]), "n at least 1"),
    "logits for probabilities": (lambda: metrics.modes(CLOUD), r"softmax\(1\)"),
    "probabilities that are nan": (lambda: metrics.modes(PROBS * NAN), "from 0 to 1"),
    "confident from 90": (lambda: metrics.modes(PROBS, confident=90), "confident is 90; it must be a probability"),
    "looks of two lengths": (
        lambda: metrics.diversity(LOOK._replace(probs=PROBS[:2]), LOOK),
        "of the same images",
    ),
    "features for a look": (lambda: metrics.diversity(CLOUD, LOOK), "fake is a Tensor; it must be a Look"),
    "a level of 5": (lambda: metrics.copies(CLOUD, CLOUD, CLOUD).share(5), "level is 5; it must be a share"),
    "no choices": (lambda: metrics.bootstrap(metrics.frechet, CLOUD, CLOUD, times=0), "times is 0"),
    "a name for a measure": (lambda: metrics.bootstrap("frechet", CLOUD, CLOUD), "measure is 'frechet'"),
    "a batch of 0": (lambda: metrics.look(metrics.digit_judge(), X, 0), "batch is 0"),
    "no judge": (lambda: metrics.look("digits", X), "judge is 'digits'; it must be a Judge"),
    "a name for a generator": (lambda: metrics.digit_fid("digits"), "G is 'digits'; it must be a generator"),
    "too many images": (lambda: metrics.digit_fid(RECIPE.networks()[0], n=10**12), "more than a million"),
    "a seed below 0": (lambda: metrics.digit_fid(RECIPE.networks()[0], 80, -1), "seed is -1"),
    "images of two channels": (lambda: metrics.fitted(torch.zeros(2, 2, 8, 8), (1, 28, 28)), "c 1 or 3"),
}
REPORTS = {
    "no seeds": (
        lambda: reports.evaluate(None, reports.Reference("", None, None, None), seeds=0),
        "seeds is 0",
    ),
    "a name for a reference": (lambda: reports.evaluate(None, "digits"), "must be a Reference"),
    "a name for a generator": (
        lambda: reports.evaluate("digits", reports.Reference("", None, None, None)),
        "must be a generator",
    ),
    "numbers for an evaluation": (lambda: reports.in_words({"fid": 1}), "must be an Evaluation"),
    "a page of nothing": (lambda: reports.page(None, "mine"), "e is None"),
    "never": (lambda: reports.FidCallback(reports.Reference("", None, None, None), 0), "evaluate_every is 0"),
    "a half": (
        lambda: reports.FidCallback(reports.Reference("", None, None, None), 0.5),
        "evaluate_every is 0.5",
    ),
    "no data set": (lambda: reports.reference_for(None), "data is None"),
    "no name": (lambda: reports.trained(None), "None names no network"),
}
SCALE = {
    "a name for a recipe": (lambda: cost.cost("digits"), "recipe is 'digits'; it must be a Recipe"),
    "rows for a table": (lambda: cost.left(RECIPE.g_layers), "must be a ShapeTable"),
    "half an image": (lambda: cost.memory(RECIPE, 1.5), "batch is 1.5"),
    "memory that is nan": (lambda: cost.fitting_batch(RECIPE, NAN), "free_bytes is nan"),
    "memory without end": (lambda: cost.too_large(RECIPE, math.inf), "free_bytes is inf"),
    "no images": (lambda: cost.estimate(RECIPE, 0, 1), "images is 0"),
    "epochs as text": (lambda: cost.estimate(RECIPE, 1, "3"), "epochs is '3'"),
    "a share as text": (lambda: cost.estimate(RECIPE, 1, 1, "all"), "share is 'all'"),
    "floats for bytes": (lambda: cost.Pictures(BYTES.float()), "uint8"),
    "one image": (lambda: next(cost.textbook(RECIPE, BYTES[:1], 1)), "1 image; BatchNorm needs two"),
    "no device": (lambda: next(cost.textbook(RECIPE, BYTES, 1, "tpu")), "no device 'tpu'"),
}
SPEED = {
    "a recipe for a trainer": (lambda: next(speed.ours(RECIPE)), "must be a Trainer"),
    "a list for a loop": (lambda: speed.rate([32], 1, "cpu"), r"run is \[32\]"),
    "no time": (lambda: speed.rate(iter([32]), 0, "cpu"), "seconds is 0; it must be above 0"),
    "time that is nan": (lambda: speed.race(RECIPE, BYTES, seconds=NAN), "seconds is nan"),
    "half a round": (lambda: speed.race(RECIPE, BYTES, rounds=1.5), "rounds is 1.5"),
    "a loop that is none": (lambda: speed.begun("theirs", RECIPE, BYTES, "fp32", "cpu"), "no loop 'theirs'"),
    "no device": (lambda: speed.peak_memory("tpu"), "no device 'tpu'"),
    "matrices of text": (lambda: speed.peak(dtype="fp32"), "must be a dtype"),
    "a matrix of 0": (lambda: speed.peak(sizes=(0,)), r"sizes\[0\] is 0"),
    "no repeats": (lambda: speed.peak(sizes=(8,), repeats=0), "repeats is 0"),
    "a race without rounds": (
        lambda: speed.standings(RECIPE, speed.Race([], torch.device("cpu"), "fp32")),
        "0 rounds",
    ),
    "a limit that is nan": (
        lambda: speed.standings(RECIPE, speed.Race([speed.Lap(1, 2)], torch.device("cpu"), "fp32"), NAN),
        "limit is nan",
    ),
}
CALLS = {
    f"{module}: {name}": case
    for module, cases in {
        "plots": PLOTS,
        "losses": LOSSES,
        "guidelines": GUIDELINES,
        "shapes": SHAPES,
        "judges": JUDGES,
        "metrics": METRICS,
        "reports": REPORTS,
        "scale": SCALE,
        "speed": SPEED,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_a_wrong_argument_is_one_sentence(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words) as e:
        call()
    assert "\n" not in str(e.value) and len(str(e.value)) < 250
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("net", [None, "G", 3, [nn.Linear(1, 1)]])
def test_what_is_no_network_is_said(net):
    for call in (lambda: audit.watch(net, X), lambda: audit.trace(net)):
        with pytest.raises(TypeError, match="expected a network"):
            call()


def test_numbers_of_numpy_count_as_numbers():
    four, one = np.int64(4), np.float32(1)
    assert shapes.conv_out(np.int64(8), four, np.int64(2), np.int64(1)) == 4
    (row,) = shapes.rows_from([["conv", four, np.int64(3)]])
    assert row == ("conv", 4, 3, 1, 0, False, "none", True, 0) and type(row.out) is type(row.kernel) is int, (
        "as JSON holds them"
    )
    assert type(shapes.conv_out(np.int64(8), four, np.int64(2), np.int64(1))) is int
    assert plots.grid(X, four, np.int64(0)).shape == (8, 8, 3)
    assert losses.bce(LOGITS, one) == losses.bce(LOGITS, 1.)
    same = metrics.kernel_distance(CLOUD, CLOUD + 1, np.int64(3), np.int64(10), np.int64(0))
    assert same == metrics.kernel_distance(CLOUD, CLOUD + 1, 3, 10, 0)
    assert metrics.bootstrap(metrics.frechet, CLOUD, CLOUD, four).shape == (4,)
    assert cost.memory(RECIPE, four) == cost.memory(RECIPE, 4)


def test_other_types_of_features_are_taken_as_they_are_meant():
    a, b = CLOUD, CLOUD.flip(0) + .5
    for metric in metrics.frechet, lambda a, b: metrics.nearest(a, b)[0].mean().item():
        assert metric(a.double(), b) == pytest.approx(metric(a, b), rel=1e-4)
        assert metric(a.half(), b.half()) == pytest.approx(metric(a, b), rel=.02)


def test_images_scaled_to_0_1_are_warned_about(recwarn):
    digits = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    metrics.look(metrics.digit_judge(), digits * 2 - 1)
    metrics.look(metrics.digit_judge(), digits[:3])
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"give 2 \* x - 1"):
        metrics.look(metrics.digit_judge(), digits)


def test_a_history_from_a_csv_can_be_animated(tmp_path):
    rows = [{key: str(value) for key, value in (ROWS[0] | {"step": step}).items()} for step in (1, 2, 3)]
    plots.animate_curves(rows, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size > 1000


def test_what_is_no_number_is_none_in_a_report():
    assert reports._rounded({"a": [math.inf, NAN, -math.inf, 1.23456], "n": 3}) == {
        "a": [None, None, None, 1.2346],
        "n": 3,
    }
