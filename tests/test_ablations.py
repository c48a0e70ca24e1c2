"Ablations: each variant differs from the default in what it names and in nothing else; runs are resumed, shared, and fail as rows."
import json
import math
import subprocess
import sys
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from dcgan.audit import audit
from dcgan.datasets.sources import load
from dcgan.recipes import NETS, RECIPES, differences
from dcgan.shapes import Row, rows_from, shape_table
from dcgan.training import Trainer

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import ablations  # noqa: E402

from variants import Mixed, Saturating, Spectral, Variant, listed, undone, variants  # noqa: E402

DEFAULT = RECIPES["digits"]
NETS_BEFORE = dict(NETS)
VARIANTS = variants(DEFAULT)
FAMILIES = {name: NETS.pop(name) for name in set(NETS) - set(NETS_BEFORE)}
TINY = DEFAULT.replace(filters=4, z_dim=6, images=128, batch_size=32, ema=0.5)


@pytest.fixture(autouse=True)
def families():
    "The variants' families of networks, for the time of a test."
    NETS.update(FAMILIES)
    yield
    NETS.clear()
    NETS.update(NETS_BEFORE)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    "The runner on a tiny default and an empty folder, its distances made up: a number for each generator."
    torch.set_num_threads(1)
    for name, value in ("BASE", TINY), ("FOLDER", tmp_path), ("IMAGES", 128):
        monkeypatch.setattr(ablations, name, value)
    monkeypatch.setattr(ablations, "digit_fid", lambda G: 5 + G.sample(4).mean().item())
    cached = ablations.all_variants, ablations.bank
    for f in cached:
        f.cache_clear()
    yield ablations
    for f in cached:
        f.cache_clear()


# What a variant changes

ROWS = {  # variant: columns of a row that may differ, in G and in D, row by row
    "no BatchNorm in G": ("norm bias", ""),
    "no BatchNorm in D": ("", "norm bias"),
    "no BatchNorm": ("norm bias", "norm bias"),
    "BatchNorm on D's input": ("", "norm"),
    "BatchNorm on G's output": ("norm", ""),
    "BatchNorm at both edges": ("norm", "norm"),
    "ReLU in D": ("", "act"),
    "LeakyReLU in G": ("act", ""),
    "tanh in G": ("act", ""),
    "sigmoid in G": ("act", ""),
    "sigmoid at G's end": ("act", ""),
}
FIELDS = {
    "PyTorch's weights": "init_std",
    "beta1 0.9": "beta1",
    "rates ×5": "lr_g lr_d",
    "rates ÷5": "lr_g lr_d",
    "rates 2e-4": "lr_g lr_d",
    "uniform z": "z_law",
    "no average": "ema",
    "reused fakes": "g_fakes",
}
OTHERS = {
    "default",
    "pooling in D",
    "hidden linear in G",
    "hidden linear in D",
    "saturating loss",
    "mixed batches",
    "resize-convolution",
    "authors' 5×5",
    "spectral norm in D",
}


def test_every_variant_is_examined_here():
    assert set(undone(DEFAULT)) == set(ROWS) | set(FIELDS) | OTHERS
    assert list(VARIANTS)[0] == "default" and VARIANTS["default"].recipe == DEFAULT
    left_out = {"rates 2e-4"} if DEFAULT.lr_g == DEFAULT.lr_d == 1e-3 else set()
    assert set(undone(DEFAULT)) - set(VARIANTS) == left_out


@pytest.mark.parametrize("name", ROWS)
def test_rows_differ_in_what_is_named(name):
    r = VARIANTS[name].recipe
    for columns, rows, before in zip(ROWS[name], (r.g_layers, r.d_layers), (DEFAULT.g_layers, DEFAULT.d_layers)):
        assert len(rows) == len(before)
        changed = {c for a, b in zip(rows, before) for c, x, y in zip(Row._fields, a, b) if x != y}
        assert changed == set(columns.split()), "each named column changes, and no other"
    assert [d.split(":")[0] for d in differences(DEFAULT, r)] == ["net"] and VARIANTS[name].trainer is Trainer


@pytest.mark.parametrize("name", [n for n in FIELDS if n in VARIANTS])
def test_fields_differ_in_what_is_named(name):
    v = VARIANTS[name]
    assert {d.split(":")[0] for d in differences(DEFAULT, v.recipe)} == set(
        FIELDS[name].split()
    ) and v.trainer is Trainer
    assert (v.recipe.g_layers, v.recipe.d_layers) == (DEFAULT.g_layers, DEFAULT.d_layers)


def test_norms_and_activations_go_where_they_should():
    def g(name, column): return [getattr(row, column) for row in VARIANTS[name].recipe.g_layers]
    def d(name, column): return [getattr(row, column) for row in VARIANTS[name].recipe.d_layers]

    assert not any(g("no BatchNorm", "norm") + d("no BatchNorm", "norm")) and all(
        g("no BatchNorm", "bias") + d("no BatchNorm", "bias")
    )
    assert (
        all(g("BatchNorm on G's output", "norm"))
        and all(d("BatchNorm on D's input", "norm")[:-1])
        and not d("BatchNorm at both edges", "norm")[-1]
    )
    assert set(d("ReLU in D", "act")) == {"relu", "none"} and g("sigmoid at G's end", "act") == [
        *g("default", "act")[:-1],
        "sigmoid",
    ]
    for act, name in ("leaky_relu", "LeakyReLU in G"), ("tanh", "tanh in G"), ("sigmoid", "sigmoid in G"):
        assert set(g(name, "act")) == {act, "tanh"}
    for name, factor in ("rates ×5", 5), ("rates ÷5", 1 / 5):
        assert VARIANTS[name].recipe.lr_g == pytest.approx(factor * DEFAULT.lr_g)


@pytest.mark.parametrize("base", [DEFAULT, RECIPES["celeba64"], DEFAULT.replace(net="mnist28")], ids=lambda r: r.net)
def test_pooling_keeps_maps_widths_and_weights(base):
    r = variants(base)["pooling in D"].recipe
    convs, maps = [row for row in r.d_layers if row.kind != "pool"], [s.out_shape for s in r.d_table]
    assert any(row.kind == "pool" for row in r.d_layers) and r.g_layers == base.g_layers
    assert [row._replace(stride=1) for row in base.d_layers] == [row._replace(stride=1) for row in convs]
    after = [i for i, row in enumerate(r.d_layers) if i + 1 == len(maps) or r.d_layers[i + 1].kind != "pool"]
    assert [maps[i] for i in after] == [s.out_shape for s in base.d_table]
    assert r.d_table.params == base.d_table.params


def test_hidden_linear_layers_are_one_row_more():
    r = VARIANTS["hidden linear in D"].recipe
    more, = (Counter(r.d_layers) - Counter(DEFAULT.d_layers)).elements()
    assert more.kind == "linear" and r.d_layers.index(more) == len(r.d_layers) - 2 and r.g_layers == DEFAULT.g_layers
    assert r.d_table[-2].out_shape == r.d_table[-3].out_shape, "as wide as what it reads"
    assert (more.norm, more.act) == (DEFAULT.d_layers[-2].norm, DEFAULT.d_layers[-2].act)
    r = VARIANTS["hidden linear in G"].recipe
    assert r.g_layers[2:] == DEFAULT.g_layers[1:] and r.d_layers == DEFAULT.d_layers
    assert [s.out_shape for s in r.g_table][1:] == [s.out_shape for s in DEFAULT.g_table]
    first = DEFAULT.g_layers[0]
    same = shape_table([first, r.g_layers[1]], (DEFAULT.z_dim,)), shape_table([r.g_layers[1]], (DEFAULT.z_dim,))
    assert same[1].out_shape == DEFAULT.g_table[0].out_shape
    assert same[1].macs == DEFAULT.g_table[0].macs, "on one pixel the first row was fully connected already"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_audit_names_what_is_undone(name):
    v = VARIANTS[name]
    broken = {f"{f.where[0]}: {f.rule}" for f in audit(v.recipe.networks(), loss_takes_logits=True).broken}
    assert broken == set(v.breaks)


def test_a_definition_changes_with_what_decides_a_run():
    keys = [v.key(ablations.IMAGES) for v in VARIANTS.values()]
    assert len(set(keys)) == len(keys)
    v = VARIANTS["no BatchNorm"]
    for same in {"seed": 3, "epochs": 99, "sample_every": 7, "name": "x"}.items():
        assert v._replace(recipe=v.recipe.replace(**dict([same]))).key(9) == v.key(9)
    for other in {"filters": 16, "lr_d": 1e-4, "shift": 3, "data": "mnist"}.items():
        assert v._replace(recipe=v.recipe.replace(**dict([other]))).key(9) != v.key(9)
    assert v.key(9) != v.key(10) and v._replace(trainer=Mixed).key(9) != v.key(9)


def test_rows_without_output_padding_are_listed_as_before_there_was_any():
    "So that runs measured before keep their definition."
    old = ("conv_t", 8, 4, 2, 1, True, "relu", False)
    assert listed([Row(*old)]) == [old] and listed([Row(*old, 1)]) == [(*old, 1)]
    assert all(len(row) == 8 for net in "gd" for row in VARIANTS["default"].definition(9)[f"{net}_layers"])


# Changed steps

def images(): return load("digits", images=TINY.images).images


def steps_of(trainer, n=1):
    torch.set_num_threads(1)
    t = trainer(TINY, images())
    for _ in zip(range(n), t.steps()):
        pass
    return t


def counted(t): return {int(b) for name, b in t.D.named_buffers() if name.endswith("num_batches_tracked")}


def test_mixed_batches_go_through_d_as_one():
    usual, mixed = steps_of(Trainer), steps_of(Mixed)
    assert counted(usual) == {3} and counted(mixed) == {2}, "two batches and G's, or one and G's"
    assert mixed.d_stats[0] != usual.d_stats[0] and abs(mixed.d_stats[0] - usual.d_stats[0]) < .2
    assert all(0 < p < 1 for p in mixed.d_stats[1:])


def test_spectral_norm_bounds_each_layer_of_d():
    t = steps_of(Spectral, 4)
    t.D.train()
    for _ in range(20):  # power iterations
        t.D(images()[:8] / 127.5 - 1)
    layers = [m for m in t.D.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    norms = [torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2).item() for m in layers]
    assert len(layers) == 4 and norms == pytest.approx([1.] * 4, abs=.02)
    learning = {id(p) for group in t.opt_d.param_groups for p in group["params"]}
    assert learning == {id(p) for p in t.D.parameters()}, "its optimiser has the weights that are divided"


def test_resized_maps_keep_their_sizes_and_widths():
    r = VARIANTS["resize-convolution"].recipe
    assert r.d_layers == DEFAULT.d_layers
    assert not any(row.kind == "conv_t" and row.stride > 1 for row in r.g_layers)
    maps = [s.out_shape for row, s in zip(r.g_layers, r.g_table) if row.kind != "upsample"]
    assert maps == [s.out_shape for s in DEFAULT.g_table]


def test_the_authors_network_has_their_layers():
    g, d = VARIANTS["authors' 5×5"].recipe.g_layers, VARIANTS["authors' 5×5"].recipe.d_layers
    theirs = RECIPES["dcgan-2015"]
    for ours, rows in (g, theirs.g_layers), (d, theirs.d_layers):
        kinds = {(row.kind, row.kernel, row.stride, row.padding, row.extra, row.act) for row in rows}
        assert {(row.kind, row.kernel, row.stride, row.padding, row.extra, row.act) for row in ours} == kinds


def test_the_saturating_loss_is_minus_softplus():
    usual, saturating = steps_of(Trainer), steps_of(Saturating)
    assert torch.equal(usual.d_stats[0], saturating.d_stats[0]) and usual.g_stats[0] > 0 > saturating.g_stats[0]
    assert counted(saturating) == {3}
    assert all(
        torch.equal(a, b)
        for a, b in zip(saturating.G_ema.parameters(), saturating.G.parameters(), strict=True)
    ), "the first average copies"


# The runner

def test_a_run_is_the_trainers(bench):
    t = Trainer(TINY, images())
    bench.train(t)
    straight = Trainer(TINY.replace(epochs=1), images()).train()
    assert t.step == straight.step == 4 and t.images_seen == 128
    for a, b in zip(t.best_G.state_dict().values(), straight.best_G.state_dict().values()):
        assert torch.equal(a, b)


def test_runs_go_on_where_they_stopped(bench, monkeypatch, tmp_path):
    measured, measure = [], bench.measure
    def at_most_two(name, seed):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append((name, seed))
        return measure(name, seed)
    monkeypatch.setattr(bench, "measure", at_most_two)
    with pytest.raises(KeyboardInterrupt):
        bench.work(["default"])
    first = (tmp_path / "ablations.csv").read_text()
    assert [(row["variant"], row["seed"]) for row in bench.read()] == [("default", "0"), ("default", "1")]
    monkeypatch.setattr(bench, "measure", measure)
    bench.work(["default"])
    assert (tmp_path / "ablations.csv").read_text().startswith(first) and len(bench.read()) == 5
    before = (tmp_path / "ablations.csv").read_text()
    bench.work(["default"])
    assert (tmp_path / "ablations.csv").read_text() == before, "nothing was missing"
    row = bench.read()[0]
    assert (
        list(row) == list(bench.COLUMNS)
        and row["images"] == "128"
        and math.isfinite(float(row["digit_fid"]))
        and row["note"] == ""
    )


def test_samples_of_every_seed_stay(bench):
    bench.work(["default"])
    samples = bench.read_samples()
    assert sorted(samples) == [f"default, {seed}" for seed in range(5)]
    assert {(x.shape, x.dtype) for x in samples.values()} == {((16, 28, 28), np.dtype(np.uint8))}


def test_one_seed_of_all_variants_comes_before_the_next(bench):
    assert bench.wanted({"default": {}, "x": {0: 9.}}) == [
        ("default", 0),
        *((name, seed) for seed in range(1, 5) for name in ("default", "x")),
    ]
    assert not bench.wanted({"default": dict.fromkeys(range(5), math.nan)}), "a run that failed is not run again"


def test_only_runs_in_fp32_count(bench):
    bench.work(["default"])
    rows = bench.read()
    assert {row["precision"] for row in rows} == {"fp32"} and {row["torch"] for row in rows} == {torch.__version__}
    rows[2]["precision"] = "bf16"
    assert sorted(bench.current(rows)["default"]) == [0, 1, 3, 4]


def test_rows_of_another_default_count_for_nothing(bench, capsys, tmp_path):
    row = dict(zip(bench.COLUMNS, ("default", 0, 128, "1.0", 1, "fp32", "00000000", "2026-01-01", "some", "2", "")))
    bench.write([row])
    assert bench.current(bench.read())["default"] == {} and ("default", 0) in bench.wanted(bench.current(bench.read()))
    bench.work(["default"])
    assert len(bench.read()) == 6 and bench.read()[0]["definition"] == "00000000", "nothing measured is deleted"
    bench.table()
    assert "1 rows are of other definitions" in capsys.readouterr().out


class NoLoss(Trainer):
    "D's loss turns to nan at step 3."
    def train_discriminator(self, x): super().train_discriminator(x * float("nan") if self.step == 2 else x)


class NoImage(Trainer):
    "All weights are numbers, but a running average is not."
    def train_generator(self):
        super().train_generator()
        for b in self.best_G.buffers():
            if b.is_floating_point():
                b.fill_(float("nan"))


@pytest.mark.parametrize(
    "trainer, says, images",
    [
        (NoLoss, "A loss is not a number any more at step 3", 128),
        (NoImage, "the images hold what is no number", 128),
    ],
)
def test_a_run_that_diverges_is_a_row(bench, monkeypatch, capsys, trainer, says, images):
    monkeypatch.setattr(
        bench,
        "all_variants",
        lambda: {"default": Variant("nothing", TINY, Trainer, ()), "bad": Variant("all", TINY, trainer, ())},
    )
    bench.work()
    rows = [row for row in bench.read() if row["variant"] == "bad"]
    assert [(row["seed"], row["digit_fid"], row["note"], row["images"]) for row in rows] == [
        (str(s), "nan", says, str(images)) for s in range(5)
    ]
    assert "bad, 1" in bench.read_samples(), "and its samples show what there was"
    bench.table()
    assert "| bad | 5 | – | – | – | – | 5 |" in capsys.readouterr().out


def test_two_processes_share_the_work(tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'bench')!r}); import ablations as a; from pathlib import Path; import os, time\n"
        f"a.FOLDER, a.IMAGES, a.BASE = Path({str(tmp_path)!r}), 64, a.BASE.replace(filters=4, z_dim=6, images=64, batch_size=32)\n"
        "def met(G):  # a process goes on with its second run when the other has its first\n"
        "    Path(a.FOLDER, f'met-{os.getpid()}').touch()\n"
        "    until = time.time() + 900  # the other has died\n"
        "    while len(list(a.FOLDER.glob('met-*'))) < 2 and time.time() < until: time.sleep(.01)\n"
        "    return 1.\n"
        "a.digit_fid = met\n"
        "a.define(); print('ready', flush=True); sys.stdin.read(); a.work(['default', 'no average'])\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for p in both:
        assert p.stdout.readline() == "ready\n"
    for p in both:
        p.stdin.close()
    said = [p.stdout.read().splitlines() for p in both]
    assert [p.wait() for p in both] == [0, 0]
    rows = (tmp_path / "ablations.csv").read_text().splitlines()[1:]
    expected = {f"{name},{seed}" for name, seed in product(("default", "no average"), range(5))}
    assert (
        len(rows) == len(expected) == len(said[0]) + len(said[1])
        and {",".join(row.split(",")[:2]) for row in rows} == expected
    )
    assert said[0] and said[1], "both had their share"
    with np.load(tmp_path / "ablations.npz") as samples:
        assert {f"{key.replace(', ', ',')}" for key in samples} == expected


def test_the_file_of_definitions_gives_the_networks(bench, tmp_path):
    bench.define()
    stored = json.loads((tmp_path / "ablations.json").read_text(encoding="utf-8"))
    assert list(stored) == list(bench.all_variants())
    for name, v in bench.all_variants().items():
        own = stored["default"] | stored[name]
        assert (own["definition"], own["trainer"], own["breaks"]) == (v.key(128), v.trainer.__name__, list(v.breaks))
        assert rows_from(own["g_layers"]) == v.recipe.g_layers and rows_from(own["d_layers"]) == v.recipe.d_layers
        assert TINY.replace(**stored["default"]["fields"] | stored[name]["fields"] | {"net": v.recipe.net}) == v.recipe


def test_an_unknown_variant_is_refused():
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/ablations.py"), "train", "no BatchNrm"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "there is no variant no BatchNrm; there are: default, " in done.stderr
