"Networks that take classes: how a label enters, what wrong labels get, and a run that carries them from the data to the sheet."
import json
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from dcgan.checkpoints import content
from dcgan.cli import main
from dcgan.datasets.sources import load
from dcgan.networks import Discriminator, Generator, Given, latent
from dcgan.recipes import RECIPES
from dcgan.shapes import Row
from dcgan.training import Trainer
from dcgan.weights import ASSETS

from notebooks import ROOT, checks, refusing
from running import train
from running import trainer as trainer_for

LAUNCHERS = {"one": [sys.executable], "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
UP = [Row("conv_t", 8, 7, norm=True, act="relu"), Row("conv_t", 1, 4, 4, act="tanh")]
DOWN = [Row("conv", 8, 4, 4, act="leaky_relu"), Row("conv", 1, 7)]


@pytest.fixture
def G():
    return Generator(UP, z_dim=5, classes=4).eval()


@pytest.fixture
def D():
    return Discriminator(DOWN, (1, 28, 28), classes=4).eval()


# How a label enters

def test_in_g_the_label_adds_a_column_of_the_first_layer(G):
    z, y = latent(6, 5), torch.tensor([0, 1, 2, 3, 3, 0])
    weight = G.layers[0].conv.weight.flatten(1)  # (5 + 4, outputs)
    wanted = z @ weight[:5] + weight[5:][y]
    seen = []
    G.layers[0].conv.register_forward_hook(lambda layer, inputs, out: seen.append(out.flatten(1)))
    G(z, y)
    bias = G.layers[0].conv.bias.repeat_interleave(49)
    assert torch.allclose(seen[0], wanted + bias, atol=1e-5)


def test_in_d_the_label_adds_a_projection_of_the_features(D):
    x, y = torch.rand(6, 1, 28, 28) * 2 - 1, torch.tensor([0, 1, 2, 3, 3, 0])
    h = D.layers[0](x).flatten(1)
    wanted = D.layers[1](D.layers[0](x)).flatten() + (h * D.project.weight[y]).sum(1)
    assert torch.allclose(D(x, y), wanted, atol=1e-5) and D(x, y).shape == (6,)


def test_given_a_label_it_is_a_function_of_one_thing(G, D):
    z, y = latent(6, 5), torch.arange(6) % 4
    assert torch.equal(Given(G, y)(z), G(z, y)) and torch.equal(Given(D, y)(G(z, y)), D(G(z, y), y))
    assert [*Given(D, y).parameters()] == [*D.parameters()]


def test_without_classes_nothing_is_added():
    G, D = RECIPES["digits"].built()
    assert not [name for name in {**G.state_dict(), **D.state_dict()} if not name.startswith("layers.")]
    assert RECIPES["digits"].g_table.in_shape == (24,) and RECIPES["digits-conditional"].g_table.in_shape == (34,)


def test_saved_and_loaded_it_takes_the_same_classes(G, D, tmp_path):
    G.save_pretrained(tmp_path / "G")
    D.save_pretrained(tmp_path / "D")
    again = Generator.from_pretrained(tmp_path / "G")
    assert again.classes == 4 and torch.equal(again.sample(9, labels=2), G.sample(9, labels=2))
    assert Discriminator.from_pretrained(tmp_path / "D").project.weight.equal(D.project.weight)


def test_sample_takes_a_label_for_all_for_each_or_all_in_turn(G):
    with torch.no_grad():
        wanted = G(latent(6, 5, seed=3), torch.tensor([2, 3, 0, 1, 2, 3]))
    for labels in ([2, 3, 0, 1, 2, 3], (2, 3, 0, 1, 2, 3), torch.tensor([2, 3, 0, 1, 2, 3])):
        assert torch.allclose(G.sample(6, seed=3, labels=labels, batch=4), wanted, atol=1e-6)
    assert torch.equal(G.sample(6, labels=3), G.sample(6, labels=[3] * 6))
    assert torch.equal(G.sample(6), G.sample(6, labels=[0, 1, 2, 3, 0, 1]))
    assert torch.allclose(G.sample(3, first=2), G.sample(5)[2:], atol=1e-6), "an image has one class, wherever one begins"


def test_a_sheet_has_a_row_for_each_class(G):
    sheet = G.sheet(seed=7)
    assert sheet.shape == (32, 1, 28, 28)
    assert torch.equal(sheet, G.sample(32, 7, labels=[y for y in range(4) for _ in range(8)]))
    plain = Generator(UP, z_dim=5)
    assert torch.equal(plain.sheet(7), plain.sample(64, 7))


# What wrong labels get

@pytest.mark.parametrize("labels, words", [
    ([0, 1, 4], ["labels has 4", "0 to 3"]), ([0, -1, 2], ["labels has -1"]), (4, ["labels has 4"]),
    ([0, 1], ["(2,)", "3 images"]), ([[0, 1, 2]], ["(1, 3)"]), (torch.zeros(3), ["float32", "int64"]), (1.5, ["float32"]),
    ("seven", ["'seven'", "whole number"]), (["a", "b", "c"], ["whole number"]), (True, ["bool"]),
    (torch.zeros(3, dtype=torch.int32), ["int32"]), (10**30, ["whole number"]),
])
def test_labels_that_are_none_are_a_sentence(G, labels, words):
    with pytest.raises(ValueError) as e:
        G.sample(3, labels=labels)
    assert "\n" not in str(e.value) and all(word in str(e.value) for word in words), str(e.value)


@pytest.mark.parametrize("call, words", [
    (lambda G, D: Generator(UP, z_dim=5).sample(2, labels=1), "takes no labels"),
    (lambda G, D: Generator(UP, z_dim=5)(latent(2, 5), torch.zeros(2).long()), "takes no labels"),
    (lambda G, D: G(latent(2, 5)), "a class for each image, from 0 to 3, and there are no labels"),
    (lambda G, D: D(torch.zeros(2, 1, 28, 28)), "a class for each image"),
    (lambda G, D: D(torch.zeros(2, 1, 28, 28), torch.zeros(3).long()), r"\(3,\) for 2 images"),
    (lambda G, D: Generator(UP, z_dim=5, classes=-1), "classes is -1; it must be a whole number from 0"),
    (lambda G, D: Discriminator(DOWN, (1, 28, 28), classes=1.5), "classes is 1.5"),
    (lambda G, D: Discriminator(DOWN, (1, 28, 28), classes=10**12), "memory"),
])
def test_other_wrong_calls_are_a_sentence(G, D, call, words):
    with pytest.raises(ValueError, match=words):
        call(G, D)


@pytest.mark.parametrize("classes, labels, words", [
    (10, None, "no labels"),
    (0, torch.zeros(256).long(), "takes no labels"),
    (5, torch.arange(256) % 10, "labels has 5; this network's classes are 0 to 4"),
    (10, torch.arange(255) % 10, r"\(255,\) for 256 images"),
])
def test_a_trainer_refuses_labels_that_do_not_fit(tiny, classes, labels, words):
    with pytest.raises(ValueError, match=words):
        Trainer(tiny.replace(classes=classes), load("digits", images=256).images, labels=labels)


# A run

def plain_loop(G, D, recipe, batches, labels):
    "Steps as a tutorial has them, fakes with the labels of the real images; losses of D and of G."
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=1e-3, betas=(recipe.beta1, recipe.beta2), fused=True) for net in (G, D))
    losses, bce = [], F.binary_cross_entropy_with_logits
    for step, (x, y) in enumerate(zip(batches, labels, strict=True)):
        z_d, z_g = (latent(len(x), recipe.z_dim, seed=recipe.seed, step=2 * step + 1 + draw) for draw in (0, 1))
        opt_d.zero_grad()
        loss_d = bce(D(x, y), torch.ones(len(x))) + bce(D(G(z_d, y).detach(), y), torch.zeros(len(x)))
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        loss_g = bce(D(G(z_g, y), y), torch.ones(len(x)))
        loss_g.backward()
        opt_g.step()
        losses.append([loss_d.item(), loss_g.item()])
    return losses


def test_the_trainer_s_steps_are_a_plain_loop_with_labels(tiny):
    recipe = tiny.replace(classes=10, epochs=1, ema=None, shift=0, rotate=0., decay="none", log_every=1)
    bank = load("digits", images=256)
    trainer = trainer_for(recipe)
    G, D = (net.to(memory_format=torch.channels_last) for net in recipe.networks())
    where = [trainer.batches.places(0, step) for step in range(4)]
    x = [x.to(memory_format=torch.channels_last) for x in trainer.batches.epoch(0)]
    assert torch.equal(((x[1] + 1) * 127.5).round().byte(), bank.images[where[1]]), "labels and images go together"
    losses = plain_loop(G, D, recipe, x, [bank.labels[i] for i in where])
    rows = trainer.train().history.rows
    assert [[row["loss_d"], row["loss_g"]] for row in rows] == losses
    for net, plain in (trainer.G, G), (trainer.D, D):
        assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), plain.state_dict().values(), strict=True))


def test_the_last_smaller_batch_has_its_own_labels(tiny):
    train(tiny.replace(classes=10, images=250, last_batch="keep", epochs=1))


def test_a_run_with_other_labels_is_not_resumed(tiny, tmp_path):
    bank, recipe = load("digits", images=256), tiny.replace(classes=10, epochs=1)
    train(recipe, tmp_path / "run", save_plots=False)
    assert train(recipe.replace(epochs=2), tmp_path / "run", resume=True, save_plots=False).step == 8
    trainer = trainer_for(recipe.replace(epochs=3), tmp_path / "run", resume=True, save_plots=False)
    trainer.labels = bank.labels.flip(0)
    with pytest.raises(ValueError, match="other images or labels"):
        trainer.train()
    assert content(bank.images) != content(bank.images, bank.labels) != content(bank.images, bank.labels.flip(0))


TWO = """
import sys, torch
from dcgan.recipes import NETS, RECIPES
from dcgan.engine.processes import engine_for, leave
from dcgan.datasets.sources import load
from dcgan.training import Trainer
torch.set_num_threads(1)
bare = lambda table: lambda *a: tuple(row._replace(norm=False, bias=True) for row in table(*a))
NETS["bare"] = tuple(bare(table) for table in NETS["digits"])
recipe = RECIPES["digits-conditional"].replace(net="bare", filters=4, images=320, batch_size=32, epochs=1, ema=None, shift=1,
                                               init_std=0.1, g_fakes="reuse")
bank = load("digits", images=320)
run = Trainer(recipe, bank.images, engine_for("cpu", "fp32"), labels=bank.labels)
run.opt_g, run.opt_d = (torch.optim.SGD(net.parameters(), lr=0.05) for net in (run.G, run.D))
run.train()
if run.engine.main:
    torch.save(torch.cat([p.detach().flatten() for net in (run.G, run.D) for p in run.engine.bare(net).parameters()]), sys.argv[1])
leave(0)
"""


def test_two_processes_share_labels_and_reused_fakes(tmp_path):
    "No BatchNorm, plain SGD, the same whole batch: to 1e-5 the steps of one process."
    (tmp_path / "two.py").write_text(TWO)
    env = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")} | {"OMP_NUM_THREADS": "1"}
    for name, launcher in LAUNCHERS.items():
        words = [*launcher, tmp_path / "two.py", tmp_path / name]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    assert (one - two).abs().max() < 1e-5


# The command line

def test_trained_and_sampled_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "--filters 4 --images 256 --epochs 1 --device cpu --precision fp32 --verbose 0 --no-save-plots".split()
    assert main(["train", "digits-conditional", "--run", "run", *small]) == 0
    assert main(["sample", "run", "--labels", "0", "1", "7", "--columns", "5", "--out", "a.png"]) == 0
    assert main(["sample", "run", "--out", "b.png"]) == 0
    from PIL import Image
    assert Image.open("a.png").size == (5 * 30 + 2, 3 * 30 + 2) and Image.open("b.png").size == (8 * 30 + 2, 10 * 30 + 2)
    capsys.readouterr()
    for words, said in (
        ("sample run --labels 0 10", "labels has 10"), ("sample digits --labels 1", "takes no labels"),
        ("train digits-conditional --data faces --channels 3 --image-size 64 --net paper --images 64", "no labels"),
        ("train digits-conditional --classes 5", "labels has 5"),
    ):
        assert main(words.split()) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err, err


# What ships

def test_what_ships_is_small_and_says_how_it_was_made():
    folder = ASSETS / "digits-conditional"
    assert sum(f.stat().st_size for f in folder.rglob("*")) < 1_500_000
    report = json.loads((folder / "report.json").read_text())
    assert report["command"].startswith("dcgan train digits-conditional") and {"date", "machine", "precision"} <= set(report)
    assert Generator.from_pretrained("digits-conditional").classes == 10


# The lesson's exercises

def hand(order=1, labels=lambda y: y, z=lambda z, n: z.expand(n, -1), dim=2):
    "An answer to `number` with something changed."
    def answer(G, digits, hand):
        y = labels(torch.tensor([int(k) for k in digits][::order]))
        return torch.cat(list(G(z(hand, len(digits)), y)), dim)
    return answer


def maps(x, labels, classes, value=1., behind=True, wrong=0):
    "An answer to `with_maps` with something changed."
    made = torch.eye(classes)[(labels + wrong) % classes][:, :, None, None].expand(-1, -1, *x.shape[2:]) * value
    return torch.cat([x, made] if behind else [made, x], 1)


WRONG = {
    "number": {
        "from the right": hand(order=-1),
        "one below the other": hand(dim=1),
        "counted from 1": hand(labels=lambda y: (y + 9) % 10),
        "another hand for each": hand(z=lambda z, n: z * torch.arange(1, n + 1)[:, None]),
        "one digit only": lambda G, digits, z: G(z.expand(len(digits), -1), torch.full((len(digits),), int(digits[0])))[0],
    },
    "with_maps": {
        "maps first": lambda *a: maps(*a, behind=False),
        "the next class": lambda *a: maps(*a, wrong=1),
        "-1 for the others": lambda x, labels, classes: torch.cat([x, maps(x, labels, classes)[:, x.shape[1]:] * 2 - 1], 1),
        "one map with the number": lambda x, y, classes: torch.cat([x, y[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1),
        "255 for 1": lambda *a: maps(*a, value=255.),
    },
    "pairs": {
        "the learner's": lambda x, y, fake, y_fake: {"D, real": (x, y), "D, fake": (fake, y), "G, fake": (fake, y)},
        "D's step mended only": lambda x, y, fake, y_fake: {"D, real": (x, y), "D, fake": (fake, y_fake), "G, fake": (fake, y)},
        "G's step mended only": lambda x, y, fake, y_fake: {"D, real": (x, y), "D, fake": (fake, y), "G, fake": (fake, y_fake)},
        "label first": lambda x, y, fake, y_fake: {"D, real": (y, x), "D, fake": (y_fake, fake), "G, fake": (y_fake, fake)},
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(
    WRONG, ROOT / "nbs/17_labels.ipynb", also=(IndexError, RuntimeError)
)


def test_right_answers_pass():
    checks(ROOT / "nbs/17_labels.ipynb")["number"](hand())
    checks(ROOT / "nbs/17_labels.ipynb")["with_maps"](maps)
    checks(ROOT / "nbs/17_labels.ipynb")["pairs"](
        lambda x, y, fake, y_fake: {"D, real": (x, y), "D, fake": (fake.detach(), y_fake), "G, fake": (fake, y_fake)})
