"The trainer: the same numbers as a plain loop, exact resume from any moment, and what faults leave behind."
import copy
import csv
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dcgan.checkpoints
import dcgan.training
from dcgan.cli import main
from dcgan.data import Batches
from dcgan.datasets.sources import load
from dcgan.engine.devices import has_bf16, pick_precision
from dcgan.networks import Generator, latent
from dcgan.recipes import from_json
from dcgan.training import Live, Progress, Trainer, decayed

from running import train
from running import trainer as trainer_for

TIMES = "seconds", "images_per_s"
LATER = {"g_fakes": "fresh", "classes": 0, "r1": 0.0, "d_norm": True}  # fields that older runs don't have


def same(a, b):
    "Equal through dicts and lists, tensors bit for bit."
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def state(run_dir):
    "What a run's checkpoint holds, its time columns aside."
    held = torch.load(Path(run_dir) / "checkpoint.pt", weights_only=True)
    del held["elapsed"]
    return held | {"rows": [{k: v for k, v in row.items() if k not in TIMES} for row in held["rows"]]}


def pictures(run_dir):
    return {p.name: p.read_bytes() for p in [*Path(run_dir).glob("samples/*"), Path(run_dir) / "samples.png"]}


def assert_same_run(a, b):
    "Networks, optimisers, average, history, generator and pictures, bit for bit."
    one, two = state(a), state(b)
    assert not [k for k in one if k not in two or not same(one[k], two[k])]
    assert pictures(a) == pictures(b)
    assert (a / "generator/model.safetensors").read_bytes() == (b / "generator/model.safetensors").read_bytes()
    with open(a / "history.csv") as f, open(b / "history.csv") as g:
        for row, other in zip(csv.DictReader(f), csv.DictReader(g), strict=True):
            assert all(row[k] == other[k] for k in row if k not in TIMES)
    assert not [p for folder in (a, b) for p in folder.rglob(".*")], "something is left of a write that failed"


@pytest.fixture
def plain_pictures(monkeypatch):
    "Runs without curves and animations, which cost most of a tiny run's time; pictures of the fixed z stay."
    monkeypatch.setattr(dcgan.checkpoints, "save_figure", lambda figure, path: None)
    monkeypatch.setattr(dcgan.checkpoints, "curves", lambda rows: None)
    monkeypatch.setattr(dcgan.checkpoints, "animate", lambda trainer, folder: None)


def at(monkeypatch, step, act, verb="train_generator"):
    "Let `act(trainer)` happen right after that verb of that step (counted from 1)."
    whole = getattr(Trainer, verb)
    def watched(self, *x):
        whole(self, *x)
        if self.step == step - 1:
            act(self)
    monkeypatch.setattr(Trainer, verb, watched)


# The same numbers as a plain loop

def plain_loop(G, D, recipe, batches, fused):
    "Ten steps as a tutorial has them; losses of D and of G, and each step's gradients. Fakes are fresh or used again."
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), lr=lr, betas=(recipe.beta1, recipe.beta2), fused=fused)
                    for net, lr in ((G, recipe.lr_g), (D, recipe.lr_d)))
    bce, losses, grads = nn.BCEWithLogitsLoss(), [], []
    for step, x in enumerate(batches):
        ones, zeros = torch.ones(len(x)), torch.zeros(len(x))
        z_d, z_g = (latent(len(x), recipe.z_dim, recipe.z_law, recipe.seed, 2 * step + 1 + draw) for draw in (0, 1))
        opt_d.zero_grad()
        real, fake = D(x), G(z_d)
        loss_d = bce(real, recipe.real_label * ones) + bce(D(fake.detach()), zeros)
        loss_d.backward()
        opt_d.step()
        d_grads = [p.grad.clone() for p in D.parameters()]
        opt_g.zero_grad()
        loss_g = bce(D(fake if recipe.g_fakes == "reuse" else G(z_g)), ones)
        loss_g.backward()
        opt_g.step()
        losses.append([loss_d.item(), loss_g.item()])
        grads.append((d_grads, [p.grad.clone() for p in G.parameters()]))
    return losses, grads, opt_g, opt_d


@pytest.fixture
def ten_steps(tiny):
    return tiny.replace(
        filters=16,
        images=640,
        epochs=1,
        ema=None,
        shift=0,
        rotate=0.0,
        decay="none",
        lr_g=2e-4,
        lr_d=2e-4,
        real_label=0.9,
        log_every=1,
    )


def x_of(recipe, layout):
    "The ten batches of the only epoch."
    images = load(recipe.data, images=recipe.images).images
    return [x.to(memory_format=layout) for x in Batches(images, recipe.batch_size, recipe.seed).epoch(0)]


@pytest.mark.parametrize("g_fakes", ("fresh", "reuse"))
def test_ten_steps_equal_a_plain_loop_bit_for_bit(ten_steps, g_fakes):
    ten_steps = ten_steps.replace(g_fakes=g_fakes)
    trainer = trainer_for(ten_steps)
    G, D = copy.deepcopy((trainer.G, trainer.D))
    assert same(G.state_dict(), ten_steps.networks()[0].state_dict()), "training starts from the recipe's networks"
    trainer.train()
    losses, _, opt_g, opt_d = plain_loop(G, D, ten_steps, x_of(ten_steps, torch.channels_last), fused=True)
    assert len(losses) == trainer.step == 10
    assert [[row["loss_d"], row["loss_g"]] for row in trainer.history.rows] == losses
    assert same(trainer.G.state_dict(), G.state_dict()) and same(trainer.D.state_dict(), D.state_dict())
    for opt, plain in (trainer.opt_g, opt_g), (trainer.opt_d, opt_d):
        assert same(opt.state_dict()["state"], plain.state_dict()["state"])


@pytest.mark.parametrize("seed", range(3))
def test_layout_and_fused_adam_change_rounding_only(ten_steps, seed):
    """Against the contiguous layout and Adam's plain loop. Biases before BatchNorm, which takes them out again, have gradients of
    pure round-off and are left out. A small net and batch: among many activations rounding carries one or another over a ReLU's
    kink, and each of those moves the gradient by more than 1e-5."""
    recipe = ten_steps.replace(filters=4, batch_size=16, images=160, bias=True, seed=seed)
    losses, grads, *_ = plain_loop(*recipe.networks(), recipe, x_of(recipe, torch.contiguous_format), fused=False)
    trainer = trainer_for(recipe)
    trainer.train_discriminator(x_of(recipe, torch.channels_last)[0])
    d_grads = [p.grad for p in trainer.D.parameters()]
    trainer.train_generator()
    for net, ours, wanted in (
        (trainer.D, d_grads, grads[0][0]),
        (trainer.G, [p.grad for p in trainer.G.parameters()], grads[0][1]),
    ):
        idle = [f"layers.{i}.conv.bias" for i, row in enumerate(net.table) if row.norm]
        kept = [i for i, (name, _) in enumerate(net.named_parameters()) if name not in idle]
        a, b = (torch.cat([g[i].flatten() for i in kept]) for g in (ours, wanted))
        assert len(idle) == sum(row.norm for row in net.table) > 1 and (a - b).norm() <= 1e-5 * b.norm()
    rows = train(recipe).history.rows
    assert np.allclose([[row["loss_d"], row["loss_g"]] for row in rows], losses, rtol=1e-3, atol=0)


def test_from_train_to_the_update_there_are_four_own_frames(tiny):
    trainer, seen = trainer_for(tiny.replace(epochs=1)), {}
    def look(name):
        def hook(opt, *_): seen[name] = [f.name for f in traceback.extract_stack() if "/dcgan/" in f.filename]
        return hook
    trainer.opt_d.register_step_pre_hook(look("D"))
    trainer.opt_g.register_step_pre_hook(look("G"))
    trainer.train()
    assert seen["D"] == ["train", "steps", "train_discriminator", "d_step"]
    assert seen["G"] == ["train", "steps", "train_generator", "g_step"]


def test_fakes_are_used_again_once_and_each_step_can_be_called_alone(tiny):
    trainer = trainer_for(tiny.replace(g_fakes="reuse"))
    x = next(trainer.batches.epoch(0))
    for verb in (trainer.train_generator, lambda: trainer.train_discriminator(x), trainer.train_generator,
                 trainer.train_generator, lambda: trainer.train_discriminator(x), lambda: trainer.train_discriminator(x)):
        verb()
    assert all(s.isfinite() for s in (*trainer.d_stats, *trainer.g_stats))


@pytest.mark.parametrize("changes", ({"g_fakes": "reuse"}, {"classes": 10}, {"g_fakes": "reuse", "classes": 10}, {"r1": 1.0, "d_norm": False}), ids=" ".join)
@pytest.mark.parametrize("precision", ("fp32", "fp16"))
def test_other_steps_resume_exactly_too(tiny, changes, precision):
    recipe = tiny.replace(epochs=2, **changes)
    straight, first, second = (trainer_for(recipe, precision=precision) for _ in range(3))
    straight.train()
    next(step for step in first.steps() if step == 3)
    second.load_state(first.state())
    assert second.train().step == 8
    for name, part in straight.parts().items():
        assert same(part.state_dict(), second.parts()[name].state_dict()), name


def test_every_fourth_step_has_the_penalty_for_all_four(tiny, monkeypatch):
    weights, step = [], dcgan.training.d_step
    def watched(D, G, opt, x, z, targets, *more):
        weights.append(targets.r1)
        return step(D, G, opt, x, z, targets, *more)
    monkeypatch.setattr(dcgan.training, "d_step", watched)
    trainer_for(tiny.replace(r1=0.5)).train()
    assert weights == [2., 0., 0., 0.] * (len(weights) // 4) and len(weights) >= 8
    assert dcgan.training.R1_EVERY == 4


def test_an_old_run_without_the_newer_fields_goes_on(tiny, begun):
    path = begun / "recipe.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in LATER}))
    for name in "checkpoint.pt", "checkpoint-previous.pt":
        held = torch.load(begun / name, weights_only=True)
        rewritten(begun / name, recipe={k: v for k, v in held["recipe"].items() if k not in LATER})
    assert train(tiny, begun, resume=True).step == 16
    recipe = from_json(path.read_text())
    assert recipe == tiny and {name: getattr(recipe, name) for name in LATER} == LATER


def test_the_optimisers_and_layout_are_the_fast_ones(tiny):
    trainer = trainer_for(tiny)
    assert all(opt.param_groups[0]["fused"] for opt in (trainer.opt_g, trainer.opt_d))
    assert trainer.D.layers[1].conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_precision(tiny):
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) == ("bf16" if has_bf16(cpu) else "fp32")
    trainer = train(tiny, precision="bf16")
    assert trainer.engine.precision == "bf16" and all(
        p.dtype == torch.float32 for net in (trainer.G, trainer.D) for p in net.parameters()
    )
    assert trainer.history.rows[0]["loss_d"] != train(tiny).history.rows[0]["loss_d"]


@pytest.mark.parametrize("decay, rates", [("none", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])])
def test_the_rates_go_to_zero_over_the_run(tiny, monkeypatch, decay, rates):
    assert [decayed(2e-4, decay, done) for done in (0, 0.5, 1)] == pytest.approx([2e-4 * r for r in rates])
    seen = []
    whole = Trainer.train_generator
    monkeypatch.setattr(
        Trainer,
        "train_generator",
        lambda self: (
            whole(self),
            seen.append((self.opt_g.param_groups[0]["lr"], self.opt_d.param_groups[0]["lr"])),
        ),
    )
    train(tiny.replace(decay=decay, lr_g=1e-3, lr_d=2e-3))
    assert seen == [(decayed(1e-3, decay, i / 16), decayed(2e-3, decay, i / 16)) for i in range(16)]


def test_the_moving_average_is_the_one_on_paper(tiny, monkeypatch):
    seen, whole = [], Trainer.train_generator
    monkeypatch.setattr(Trainer, "train_generator",
                        lambda self: (whole(self), seen.append({k: v.clone() for k, v in self.G.state_dict().items()})))
    trainer = train(tiny.replace(ema=0.5))
    average = {k: v.double() for k, v in seen[0].items()}
    for n, weights in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))  # 2/11, 3/12, … reach 0.5 at the eighth
        average = {k: decay * average[k] + (1 - decay) * weights[k].double() for k in average}
    held = trainer.best_G.state_dict()
    assert trainer.best_G is trainer.G_ema and len(seen) == 16
    assert all(torch.allclose(held[k].double(), v, atol=1e-6) for k, v in average.items() if v.ndim)
    assert not torch.allclose(held["layers.0.conv.weight"], seen[-1]["layers.0.conv.weight"], atol=1e-5)
    without = train(tiny.replace(ema=None))
    assert without.G_ema is None and without.best_G is without.G and same(without.G.state_dict(), seen[-1])


# Exact resume

@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny):
    "Four epochs without interruption, through the command line."
    run = tmp_path_factory.mktemp("straight") / "run"
    assert typed(tiny, run) == 0
    return run


def flags_of(recipe):
    from dcgan.recipes import command
    return shlex.split(command(recipe))[3:]


def typed(recipe, run):
    "The recipe trained by its command line; the exit status."
    where = ["--run", str(run), "--precision", "fp32", "--device", "cpu", "--verbose", "0"]
    return main(["train", "digits", *flags_of(recipe), *where])


KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from dcgan.cli import main
from dcgan.training import Trainer
whole = Trainer.train_discriminator
def watched(self, x):
    whole(self, x)
    if self.step == 10: os.kill(os.getpid(), signal.SIGKILL)
Trainer.train_discriminator = watched
main(sys.argv[1:])
"""


def test_four_epochs_are_two_and_a_kill_and_two_more(tiny, straight, tmp_path):
    run, quiet = tmp_path / "run", ["--precision", "fp32", "--device", "cpu", "--verbose", "0"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "train", "digits", *flags_of(tiny), "--run", str(run), *quiet], env=env
    )
    assert killed.returncode == -signal.SIGKILL and state(run)["step"] == 8
    assert not same(state(run)["G"], state(straight)["G"])
    resumed = subprocess.run([sys.executable, "-m", "dcgan", "train", "digits", "--run", str(run), "--resume", *quiet],
                             env=env, capture_output=True, text=True)
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    assert_same_run(straight, run)
    assert (run / "samples.gif").read_bytes() == (straight / "samples.gif").read_bytes()
    assert (run / "losses.gif").is_file() and json.loads((run / "report.json").read_text())["steps"] == 16


def test_a_finished_run_is_made_longer(tiny, plain_pictures, tmp_path):
    recipe = tiny.replace(decay="none")
    train(recipe, tmp_path / "straight")
    train(recipe.replace(epochs=2), tmp_path / "run")
    assert train(recipe, tmp_path / "run", resume=True).step == 16
    assert_same_run(tmp_path / "straight", tmp_path / "run")
    assert from_json((tmp_path / "run/recipe.json").read_text()) == recipe


def moments(patch, kill_at, log):
    "Inside the patch every write and every step is a moment, appended to `log`; at the kill_at-th this process kills itself."
    def due(name, *details):
        log.append((name, *details))
        return len(log) - 1 == kill_at
    def die(): os.kill(os.getpid(), signal.SIGKILL)
    def before(whole, name, detail):
        def call(*args, **kwargs):
            if due(name, *detail(args)):
                die()
            return whole(*args, **kwargs)
        return call
    def half_written(path, *mode, **how):
        file = open(path, *mode, **how)
        return HalfWritten(file, die) if due("open", Path(path).name) else file
    for act in "replace", "link":
        patch.setattr(os, act, before(getattr(os, act), act, lambda args: [Path(p).name for p in args]))
    patch.setattr(os, "fsync", before(os.fsync, "fsync", lambda args: []))
    patch.setattr(dcgan.checkpoints, "open", half_written, raising=False)
    for verb in "train_discriminator", "train_generator":
        patch.setattr(Trainer, verb, before(getattr(Trainer, verb), verb, lambda args: [args[0].step]))


class HalfWritten:
    "A file that takes the first half of what is written, and then its process dies."
    def __init__(self, file, die): self.file, self.die = file, die
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def write(self, data):
        self.file.write(data[:len(data) // 2])
        self.file.flush()
        self.die()


def killed_at(moment, tiny, run):
    "Train in a child that kills itself at that moment."
    with pytest.MonkeyPatch.context() as patch:
        moments(patch, moment, [])
        assert in_a_child(lambda: train(tiny, run)) == -signal.SIGKILL


def in_a_child(work, wait=None):
    "Run `work` in a fork of this process, killed after `wait` seconds if given; how it ended: exit status, or minus the signal."
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status if type(status) is int else 0)
    if wait is not None:
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def goes_on(tiny, run, straight):
    "Resume: the note, if it goes on to the same end; the sentence, if nothing had been saved yet."
    had = [p.name for p in run.glob("checkpoint*.pt")]
    try:
        trainer = train(tiny, run, resume=True)
    except (ValueError, FileNotFoundError) as e:
        assert not had, f"there was {had}, but: {e}"
        return str(e)
    assert_same_run(straight, run)
    return " ".join(trainer.notes)


def test_a_kill_at_any_moment_is_survived(tiny, straight, plain_pictures, tmp_path):
    log = []
    with pytest.MonkeyPatch.context() as patch:
        moments(patch, None, log)
        begun = time.perf_counter()
        train(tiny, tmp_path / "counted")
        seconds = time.perf_counter() - begun
    names = [" ".join(map(str, moment)) for moment in log]
    saves = [i for i, name in enumerate(names) if name.startswith("open .checkpoint.pt")]
    assert len(saves) == 5, "the start and four epochs"
    third = list(range(saves[2], saves[2] + 6))  # half written, flushed, named twice, moved, and what follows
    assert [names[i].split(".")[0].split()[0] for i in third[:4]] == ["open", "fsync", "link", "replace"]
    chance = random.Random(0)
    arranged = [
        *third,
        saves[1],
        saves[4],
        saves[4] + 4,
    ]  # the last: the checkpoint is whole, what lies beside it is not
    arranged += chance.sample([i for i in range(len(log)) if i not in arranged], 7)
    notes = {}
    for i in arranged:
        run = tmp_path / f"moment-{i}"
        killed_at(i, tiny, run)
        notes[i] = goes_on(tiny, run, straight)
    for n in range(4):
        run = tmp_path / f"time-{n}"
        in_a_child(lambda: train(tiny, run), wait=chance.uniform(0.1, 1) * seconds)
        goes_on(tiny, run, straight) if run.exists() else None
    assert not any(notes.values()), "there is a whole checkpoint.pt at every moment"


def test_a_kill_before_the_first_checkpoint_is_said(tiny, plain_pictures, tmp_path):
    for i in 0, 3:
        run = tmp_path / str(i)
        killed_at(i, tiny, run)
        with pytest.raises(
            (ValueError, FileNotFoundError),
            match=r"no run to resume|can't be resumed: checkpoint.pt is missing, .*; start a new run",
        ):
            train(tiny, run, resume=True)


@pytest.mark.parametrize("step", (1, 6, 8, 16))
def test_ctrl_c_saves_and_the_printed_command_goes_on(
    tiny, straight, plain_pictures, tmp_path, monkeypatch, capsys, step
):
    run = tmp_path / "a run"
    with monkeypatch.context() as m:
        at(m, step, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        done = typed(tiny, run)
    said = capsys.readouterr()
    assert said.err == "" and state(run)["step"] == step
    if step < 16:
        assert done == 130 and said.out.count("\n") == 1
        go_on = shlex.split(said.out.split("To go on: ")[1])
        assert go_on[:2] == ["dcgan", "train"] and main(go_on[1:]) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same_run(straight, run)


def test_a_second_ctrl_c_interrupts_at_once(tiny, straight, plain_pictures, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        at(m, 6, lambda trainer: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
        assert (
            main(
                [
                    "train", "digits", *flags_of(tiny), "--run", str(tmp_path / "run"), "--precision", "fp32",
                    "--verbose", "0",
                ]
            )
            == 130
        )
    assert state(tmp_path / "run")["step"] == 4
    goes_on(tiny, tmp_path / "run", straight)


def test_callbacks_and_ctrl_c_at_an_epoch_s_end(tiny, plain_pictures, tmp_path, monkeypatch):
    callback = lambda trainer: {"seen": trainer.step}  # noqa: E731
    with monkeypatch.context() as m:
        at(m, 8, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        train(tiny, tmp_path / "run", callbacks=[callback])
    train(tiny, tmp_path / "run", callbacks=[callback], resume=True)
    assert [row["seen"] for row in state(tmp_path / "run")["rows"] if "seen" in row] == [4, 8, 12, 16]


def test_resume_keeps_the_precision_of_the_start(tiny, plain_pictures, tmp_path):
    train(tiny.replace(epochs=1, decay="none"), tmp_path / "run", precision="bf16")
    assert train(tiny.replace(decay="none"), tmp_path / "run", resume=True, precision="auto").engine.precision == "bf16"
    assert (
        train(
            tiny.replace(decay="none", epochs=5), tmp_path / "run", resume=True, precision="fp32"
        ).engine.precision
        == "fp32"
    )


# Refused: other recipes, other images, other checkpoints

@pytest.fixture
def begun(tiny, plain_pictures, tmp_path):
    "A run of two epochs."
    train(tiny.replace(epochs=2), tmp_path / "run")
    return tmp_path / "run"


def contents(folder): return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def refused(words, *args, **options):
    with pytest.raises((ValueError, OSError)) as e:
        train(*args, **options)
    said = str(e.value)
    assert "\n" not in said and all(str(w) in said for w in words), said


def test_resume_refuses_what_would_be_another_run(tiny, begun, tmp_path):
    before = contents(tmp_path)
    refused(["exists", "resume=True"], tiny, begun)
    refused(["epoch 2", "not 1"], tiny.replace(epochs=1), begun, resume=True)
    refused(
        ["lr_g: 0.001 → 0.002", "seed: 0 → 3", "only epochs and data may change"],
        tiny.replace(lr_g=2e-3, seed=3),
        begun,
        resume=True,
    )
    refused(["recipe.json"], tiny, tmp_path / "nowhere", resume=True)
    refused(["256", "300"], tiny, begun, resume=True, images=load("digits", images=300).images)
    assert contents(tmp_path) == before


def test_resume_refuses_a_net_that_has_changed_since(tiny, begun):
    told = json.loads((begun / "recipe.json").read_text())
    told["d_layers"][0][1] += 1
    (begun / "recipe.json").write_text(json.dumps(told))
    refused(["net 'digits' had other layers"], tiny, begun, resume=True)


def test_resume_in_the_middle_of_an_epoch_counts_that_epoch(tiny, plain_pictures, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        at(m, 6, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        train(tiny, tmp_path / "run")
    refused(["epoch 2", "not 1"], tiny.replace(epochs=1), tmp_path / "run", resume=True)


class Touch:
    "Unpickled, it would create a file."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system, (f"touch {self.path}",)


def flipped(path):
    "One bit changed in one weight."
    data, weight = bytearray(path.read_bytes()), torch.load(path, weights_only=True)["G"]["layers.1.conv.weight"]
    data[data.index(weight.permute(0, 2, 3, 1).numpy().tobytes()) + 100] ^= 1  # stored as channels_last
    path.write_bytes(data)


def rewritten(path, **changes):
    torch.save(torch.load(path, weights_only=True) | changes, path)


def pickled(path):
    import pickle
    path.write_bytes(pickle.dumps(Touch(path.parent / "owned"), protocol=2))


def of_another_recipe(path):
    recipe = from_json((path.parent / "recipe.json").read_text())
    train(recipe.replace(filters=8, epochs=1), path.parent.parent / "other")
    shutil.copy(path.parent.parent / "other/checkpoint.pt", path)


BROKEN = {
    "empty": (lambda p: p.write_bytes(b""), "cut short"),
    "half": (lambda p: p.write_bytes(p.read_bytes()[:p.stat().st_size // 2]), "cut short"),
    "one byte short": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "cut short"),
    "flipped": (flipped, "damaged"),
    "text": (lambda p: p.write_text("no checkpoint at all\n" * 50), "no checkpoint"),
    "missing": (lambda p: p.unlink(), "missing"),
    "code": (lambda p: rewritten(p, extra=Touch(p.parent / "owned")), "pickled code"),
    "code alone": (pickled, "no checkpoint"),
    "other program's": (lambda p: torch.save({"model": {"w": torch.ones(3)}}, p), "not a checkpoint of dcgan"),
    "a tensor": (lambda p: torch.save(torch.ones(3), p), "not a checkpoint of dcgan"),
    "version": (lambda p: rewritten(p, version=2), "not a checkpoint of dcgan in format version 1"),
    "other recipe": (of_another_recipe, "another recipe (filters"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused_and_the_one_before_is_used(tiny, begun, straight, name):
    spoil, word = BROKEN[name]
    spoil(begun / "checkpoint.pt")
    trainer = train(tiny.replace(epochs=2), begun, resume=True)
    note, = trainer.notes
    assert note.startswith("checkpoint.pt") and word in note and note.endswith("the one before it, step 4.")
    assert state(begun)["step"] == 8 and not (begun / "owned").exists()


def test_with_both_broken_nothing_is_touched(tiny, begun):
    for name in "checkpoint.pt", "checkpoint-previous.pt":
        rewritten(begun / name, extra=Touch(begun / "owned"))
    before = contents(begun)
    refused(["checkpoint.pt holds pickled code", "checkpoint-previous.pt holds pickled code"], tiny, begun, resume=True)
    assert contents(begun) == before


def test_the_note_is_printed(tiny, begun, capsys):
    (begun / "checkpoint.pt").write_bytes(b"PK")
    train(tiny.replace(epochs=2), begun, resume=True, verbose=1)
    assert (
        "checkpoint.pt is cut short or is no checkpoint (File is not a zip file); going on from the one before it, step 4\n"
        in capsys.readouterr().out
    )


# Faults on the way

def test_nan_in_a_loss_stops_and_keeps_the_last_good_checkpoint(tiny, plain_pictures, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as m:
        at(m, 7, lambda trainer: setattr(trainer, "d_stats", tuple(s * float("nan") for s in trainer.d_stats)))
        assert main(["train", "digits", *flags_of(tiny), "--run", str(tmp_path / "run"), "--verbose", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "step 7" in said.err
    kept = state(tmp_path / "run")
    assert kept["step"] == 4 and all(v.isfinite().all() for part in ("G", "D", "G_ema") for v in kept[part].values())
    assert train(tiny, tmp_path / "run", resume=True).step == 16


@pytest.mark.parametrize("step", (6, 8, 9))  # a picture is due, a checkpoint is due, neither
def test_nan_in_a_weight_never_reaches_a_checkpoint(tiny, plain_pictures, tmp_path, monkeypatch, step):
    def spoil(trainer):
        with torch.no_grad():
            trainer.G.layers[0].conv.weight[0, 0] = float("nan")
    at(monkeypatch, step, spoil)
    with pytest.raises(FloatingPointError, match=f"step ({step}|{step + 1})"):
        train(tiny, tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 4 * ((step - 1) // 4)


def limited(size, argv):
    "The command line in a child that can write no file larger than `size`, as on a full disk; exit status and stderr."
    out, into = os.pipe()
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        os.dup2(into, 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        return main(argv)
    status = in_a_child(work)
    os.close(into)
    with open(out) as f:
        return status, f.read()


@pytest.mark.parametrize("share", (0.02, 0.5, 0.99))
def test_a_full_disk_leaves_the_last_checkpoint(tiny, begun, tmp_path, share):
    before = contents(begun)
    size = int((begun / "checkpoint.pt").stat().st_size * share)
    argv = [
        "train", "digits", "--run", str(begun), "--resume", "--epochs", "4", "--precision", "fp32",
        "--verbose", "0",
    ]
    status, said = limited(size, argv)
    assert status == 2 and said.count("\n") == 1 and str(begun) in said and "too large" in said, said
    for name in "checkpoint.pt", "checkpoint-previous.pt":
        assert contents(begun)[begun / name] == before[begun / name]
    assert Generator.from_pretrained(begun)
    assert train(tiny, begun, resume=True).step == 16


def test_a_full_disk_at_the_start_leaves_nothing(tiny, plain_pictures, tmp_path):
    for size in 10, 3000:
        status, said = limited(
            size, ["train", "digits", *flags_of(tiny), "--run", str(tmp_path / "run"), "--verbose", "0"]
        )
        assert status == 2 and said.count("\n") == 1 and "too large" in said and str(tmp_path / "run") in said, said
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ("/proc/nothing/run", "a file/run"))
def test_a_folder_that_cannot_be_made_is_said(tiny, tmp_path, monkeypatch, capsys, folder):
    monkeypatch.chdir(tmp_path)
    Path("a file").write_text("")
    assert main(["train", "digits", *flags_of(tiny), "--run", folder]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and folder.split("/run")[0] in said.err and said.out == ""
    assert os.listdir() == ["a file"]


@pytest.mark.parametrize(
    "images, words",
    [
        (torch.zeros(100, 1, 28, 28), ["uint8"]),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), ["no images"]),
        (torch.zeros(100, 28, 28, dtype=torch.uint8), ["(100, 28, 28)"]),
        (torch.zeros(100, 1, 32, 32, dtype=torch.uint8), ["(1, 32, 32)", "(1, 28, 28)"]),
        (torch.zeros(100, 3, 28, 28, dtype=torch.uint8), ["(3, 28, 28)", "(1, 28, 28)"]),
        (torch.zeros(10, 1, 28, 28, dtype=torch.uint8), ["64", "10"]),
    ],
)
def test_banks_that_do_not_fit_are_refused_before_anything_is_made(tiny, tmp_path, images, words):
    refused(words, tiny, tmp_path / "run", images=images)
    assert not os.listdir(tmp_path)


# What a run says, leaves alone, and leaves behind

def test_looking_at_a_run_does_not_change_it(tiny, straight, tmp_path):
    def metric(trainer):
        return {"mean": trainer.best_G.sample(20, seed=5).mean()}
    trainer = trainer_for(tiny, tmp_path / "run", callbacks=[metric])
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    trainer.train()
    assert same(before[0], torch.get_rng_state()) and before[1:] == (
        np.random.get_state()[1].tolist(),
        random.getstate(),
    )
    blind = train(tiny, save_plots=False)
    for part in "G", "D", "opt_g", "opt_d", "G_ema":
        assert same(blind.state()[part], trainer.state()[part]) and same(blind.state()[part], state(straight)[part])


def test_verbose_is_cumulative(tiny, capsys):
    said = []
    for verbose in range(4):
        train(tiny.replace(epochs=1), verbose=verbose)
        out, err = capsys.readouterr()
        assert err == ""
        said.append(set(out.splitlines()))
    none, shapes, optimisers, parameters = said
    timed = {line for line in shapes if "images/s" in line}
    assert (
        not none
        and shapes - timed <= optimisers
        and (optimisers - {l for l in optimisers if "images/s" in l}) <= parameters
    )
    assert any("conv_t" in line for line in shapes) and any(
        "256 images of digits" in line and "fp32" in line for line in shapes
    )
    assert not any("betas" in line for line in shapes) and any(
        f"betas: (0.5, {tiny.beta2})" in line for line in optimisers
    )
    assert not any("D.layers.0.conv.weight" in line for line in optimisers) and any(
        "D.layers.0.conv.weight" in line for line in parameters
    )
    with pytest.raises(ValueError, match="verbose is 4"):
        Progress(4)


def test_what_callbacks_return_joins_the_epoch_s_row_in_plain_numbers(tiny, plain_pictures, tmp_path):
    calls = []
    def measure(trainer):
        calls.append(trainer.step)
        return {"torch": torch.tensor(0.5), "numpy": np.float64(trainer.step), "plain": 3, "word": "fine"}
    train(tiny, tmp_path / "run", callbacks=[measure, lambda trainer: None])
    assert calls == [4, 8, 12, 16]
    rows = state(tmp_path / "run")["rows"]
    assert [row["numpy"] for row in rows if "numpy" in row] == [4., 8., 12., 16.]
    assert {type(v) for row in rows for v in row.values()} <= {int, float, str}
    with open(tmp_path / "run/history.csv") as f:
        read = list(csv.DictReader(f))
    assert [row["torch"] for row in read] == ["", "0.5"] * 4 and read[1]["word"] == "fine"
    assert train(tiny.replace(epochs=5), tmp_path / "run", resume=True).step == 20, "the checkpoint must stay readable"


def test_the_history_holds_means_of_what_happened(tiny, tmp_path, plain_pictures, monkeypatch):
    seen, whole = [], Trainer.train_generator
    monkeypatch.setattr(
        Trainer, "train_generator", lambda self: (whole(self), seen.append([*self.d_stats, *self.g_stats]))
    )
    rows = train(tiny, tmp_path / "run").history.rows
    assert [row["step"] for row in rows] == [3, 4, 7, 8, 11, 12, 15, 16] and [
        row["epoch"] for row in rows
    ] == [0, 0, 1, 1, 2, 2, 3, 3]
    means = torch.tensor(seen[:3]).mean(0).tolist()
    assert [rows[0][k] for k in ("loss_d", "d_x", "d_gz_before", "loss_g", "d_gz_after")] == pytest.approx(
        means, rel=1e-6
    )
    assert all(row["seconds"] > 0 and row["images_per_s"] > 0 for row in rows)
    with open(tmp_path / "run/history.csv") as f:
        assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)] == rows


def test_the_last_epoch_is_always_saved(tiny, plain_pictures, tmp_path, monkeypatch):
    saved, whole = [], dcgan.checkpoints.save_checkpoint
    monkeypatch.setattr(
        dcgan.checkpoints,
        "save_checkpoint",
        lambda state, *rest: (saved.append(state["step"]), whole(state, *rest)),
    )
    train(tiny.replace(save_every=3), tmp_path / "run")
    train(tiny.replace(save_every=10), tmp_path / "other")
    train(tiny.replace(save_every=2), tmp_path / "mine")
    assert saved == [0, 12, 16] + [0, 16] + [0, 8, 16]


FILES = {
    "recipe.json", "report.json", "history.csv", "checkpoint.pt", "checkpoint-previous.pt",
    "generator/config.json", "generator/model.safetensors",
}
PLOTS = {"samples.png", "samples.gif", "losses.png", "losses.gif", "real_and_fake.png"} | {
    f"samples/step-{s:07d}.png" for s in (0, 3, 6, 9, 12, 15)
}


def test_what_lies_in_a_run_folder(tiny, straight, tmp_path, plain_pictures):
    found = {p.relative_to(straight).as_posix() for p in straight.rglob("*") if p.is_file()}
    assert found - {"generator/README.md"} == FILES | PLOTS
    told = json.loads((straight / "recipe.json").read_text())
    assert from_json((straight / "recipe.json").read_text()) == tiny
    assert (len(told["g_layers"]), len(told["d_layers"])) == (len(tiny.g_layers), len(tiny.d_layers))
    report = json.loads((straight / "report.json").read_text())
    assert (
        report["steps"] == 16
        and report["images"] == 1024
        and report["precision"] == "fp32"
        and report["command"].startswith("dcgan train digits ")
    )
    train(tiny, tmp_path / "run", save_plots=False)
    assert {
        p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*") if p.is_file()
    } - {"generator/README.md"} == FILES


def test_the_pictures_are_the_moving_average_s(tiny, straight):
    from PIL import Image

    from dcgan.plots import grid
    G = Generator.from_pretrained(straight)
    shown = np.asarray(Image.open(straight / "samples.png").convert("RGB")).astype(int)
    assert np.abs(shown - grid(G.sample(64, seed=tiny.seed))).max() <= 1
    kept = torch.load(straight / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(v, kept["G_ema"][k]) for k, v in G.state_dict().items())


def test_images_seen_with_the_last_batch_kept(tiny):
    trainer = train(tiny.replace(images=150, last_batch="keep", epochs=2))
    assert trainer.step == 6 and trainer.images_seen == 300
    assert train(tiny.replace(images=150, epochs=2)).images_seen == 256


class Shown(list):
    "What a notebook was given to show: the first picture, then what replaced it."
    def display(self, picture, display_id):
        assert display_id is True
        self.append(picture)
        return self

    def update(self, picture): self.append(picture)


def test_a_live_picture_is_one_output_that_is_replaced(tiny, monkeypatch):
    import IPython.display
    shown = Shown()
    monkeypatch.setattr(IPython.display, "display", shown.display)
    images = load("digits", images=tiny.images).images
    trainer = Trainer(tiny, images, callbacks=[Live(every=6, n=5)]).train()
    titles = [picture.axes[0].get_title() for picture in shown]
    assert titles == ["step 0", "step 6", "step 12", "step 16"]
    points = [len(picture.axes[1].lines[0].get_xdata()) for picture in shown]
    assert points[0] == 0 and points == sorted(points) and points[-1] == len(trainer.history.rows)
    unwatched = Trainer(tiny, images).train()
    for a, b in zip(trainer.best_G.parameters(), unwatched.best_G.parameters(), strict=True):
        assert torch.equal(a, b), "looking changes nothing"


def test_a_live_picture_outside_a_notebook_is_shown_once_at_most(tiny, capsys):
    Trainer(tiny.replace(epochs=1), load("digits", images=tiny.images).images, callbacks=[Live()]).train()
    assert capsys.readouterr().out.count("Picture") <= 1


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": 1.5}, {"n": 0}])
def test_a_live_picture_refuses(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; it must be a whole number from 1"):
        Live(**wrong)
