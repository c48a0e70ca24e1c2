"Cost on paper against what runs, a race that keeps its rows, and the two commands that race."
import csv
import json
import multiprocessing
import subprocess
import sys
from math import inf

import pytest
import torch
from dcgan.cli import main, usage
from dcgan.networks import Discriminator
from dcgan.recipes import RECIPES
from dcgan.scale import CARDS, Lap, Race, cost, estimate, fitting_batch, memory, ours, peak, peak_memory, race, standings, textbook, too_large
from dcgan.sources import Bank, load
from dcgan.steps import d_step, g_step
from dcgan.training import Trainer
from notebooks import ROOT
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(ROOT / "bench"))
import train as bench  # noqa: E402

NARROW = {name: recipe.replace(filters=8) for name, recipe in RECIPES.items()}


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
    with FlopCounterMode(display=False) as of_d: d_step(D, G, opt_d, torch.randn(b, *recipe.x_shape), z)
    with FlopCounterMode(display=False) as of_g: g_step(D, G, opt_g, z)
    c = cost(recipe)
    assert (of_d.get_total_flops(), of_g.get_total_flops()) == (2 * b * c.d_macs, 2 * b * c.g_macs)
    assert c.flops == 2 * (c.d_macs + c.g_macs)
    assert (c.d_params, c.g_params) == tuple(sum(p.numel() for p in net.parameters()) for net in (D, G))


@pytest.mark.parametrize("name", NARROW)
def test_what_is_kept_is_what_autograd_keeps(name):
    recipe, b, held = NARROW[name], 16, {}
    D = recipe.networks()[1]
    own = {p.untyped_storage().data_ptr() for p in D.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.setdefault(len(held), t), lambda t: t):
        D(torch.randn(b, *recipe.x_shape))
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() // 4 for t in held.values()}
    kept = sum(n for at, n in sizes.items() if at not in own) / b
    assert 2 * kept == pytest.approx(cost(recipe).kept, rel=0.02) or 2 * kept < cost(recipe).kept  # the larger of both steps


def test_memory_and_the_batch_that_fits():
    r = RECIPES["celeba64"]
    assert memory(r, 256) > memory(r, 128) > memory(r, 128, "bf16") == memory(r, 128, "fp16") > memory(r.replace(filters=64), 128, "bf16")
    found = [fitting_batch(r, free * 1e9, "bf16") for free in (0.45, 0.5, 1, 4, 16, 80)]
    assert found == sorted(found) and found[0] >= 2 and found[-1] > 1000 and all(b % 8 == 0 or b == 2 for b in found)
    for b, free in zip(found[2:], (1e9, 4e9, 16e9)): assert memory(r, b, "bf16") <= free < memory(r, b + 8, "bf16")
    assert fitting_batch(r, 8e9, "fp32") < fitting_batch(r, 8e9, "bf16")
    assert fitting_batch(r, memory(r, 2)) == 2 and fitting_batch(r, memory(r, 8)) == 8
    said = too_large(r.replace(batch_size=4096), 2e9)
    assert "A batch of 4096" in said and "--batch-size" in said and int(said.split("; ")[1].split()[0]) < 4096
    assert "; 2048 might" in too_large(r.replace(batch_size=4096), 1e15)


def test_textbook_and_ours_see_the_same_images(images):
    recipe = small(last_batch="keep", epochs=2)
    with open("/dev/null", "w") as nowhere: theirs = list(textbook(recipe, images, 2, file=nowhere))
    mine = list(ours(Trainer(recipe, None, Bank(images, None, "digits"), "cpu", "fp32", verbose=0)))
    assert theirs == mine == ([32] * 6 + [8]) * 2


def test_textbook_prints_a_line_a_step_and_learns(images, capsys):
    seen = []
    forward = Discriminator.forward
    Discriminator.forward = lambda self, x: seen.append(next(self.parameters()).detach().clone()) or forward(self, x)
    try: list(textbook(small(), images[:64], 1))
    finally: Discriminator.forward = forward
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("[0/1][1/2] Loss_D: ") and not torch.equal(seen[0], seen[-1])


def test_a_race_gives_a_row_a_round_and_leaves_no_process(images):
    found = race(small(), images[:33], rounds=3, seconds=1, precision="fp32", device="cpu")  # 33: one too many for BatchNorm
    assert len(found.laps) == 3 and all(lap.textbook > 0 < lap.ours for lap in found.laps)
    assert found.device.type == "cpu" and found.precision == "fp32"
    assert not multiprocessing.active_children()


def test_the_numbers_of_a_race():
    found = Race([Lap(10, 20), Lap(20, 30), Lap(30, 90)], torch.device("cpu"), "fp32")
    assert (found.textbook, found.ours, found.ratio, found.spread) == (20, 30, 1.5, (1.5, 3))
    text = standings(RECIPES["digits"], found, 1000.)
    assert "| textbook | 20.0 | 10.0 to 30.0 |" in text and "1.50 times as fast (1.50 to 3.00 in 3 rounds)" in text


@pytest.mark.parametrize("call, words", [
    (lambda x: race(small(), x, rounds=0), ["rounds is 0", "from 1"]), (lambda x: race(small(), x, seconds=-1), ["seconds is -1", "above 0"]),
    (lambda x: race(small(), x, seconds=inf), ["seconds is inf"]), (lambda x: race(small(), x[:10]), ["32", "10"]),
    (lambda x: race(small(channels=3), x), ["(3, 28, 28)"]), (lambda x: memory(small(), 8, "fp8"), ["'fp8'"]),
    (lambda x: fitting_batch(small(), 1000), ["digits", "MiB", "filters than 4"]), (lambda x: estimate(small(), 1, 1, share=15), ["share is 15"]),
    (lambda x: estimate(small(), 1, 1, scaling=0), ["scaling is 0"])])
def test_what_can_not_be_meant_is_said(images, call, words):
    with pytest.raises(ValueError) as e: call(images)
    assert all(w in str(e.value) for w in words) and "\n" not in str(e.value), e.value
    assert not multiprocessing.active_children()


def test_peaks():
    assert 0.1 < peak(sizes=(64, 128), repeats=1) < 1e6
    ballast = torch.ones(2**28, dtype=torch.uint8)
    assert 256 <= peak_memory()
    assert ballast.numel()


def test_an_estimate_is_linear_and_says_what_it_assumes():
    one, two = (estimate(RECIPES["celeba64"], 1000, epochs) for epochs in (1, 2))
    assert [row.cards for row in one] == list(CARDS)
    assert all(b.minutes == pytest.approx(2 * a.minutes) for a, b in zip(one, two))
    assert one[-2].minutes / one[-1].minutes == pytest.approx(6.4) and one[-1].share == pytest.approx(0.12)
    work = cost(RECIPES["celeba64"]).flops * 1000
    assert one[1].minutes == pytest.approx(work / (0.15 * 312e12) / 60)


def test_the_command_races(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DCGAN_DATA", raising=False)
    monkeypatch.setattr("dcgan.scale.peak", lambda *_: 100.)
    assert main("bench mnist28 --filters 8 --images 200 --batch-size 64 --seconds 1 --device cpu --precision fp32".split()) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("| mnist28 | images/s") and "| textbook | " in out and "| ours | " in out
    assert "in 5 rounds" in out and "multiply-adds" in out and "28×28×1, 8 filters, batch 64; cpu" in out and "100 GFLOP/s" in out
    assert not list(tmp_path.iterdir()) and "dcgan bench" in usage()
    for words, said in [("bench", "which recipe"), ("bench digit", "'digits'"), ("bench digits --seconds 0", "seconds is 0"), ("bench digits --epoch 3", "'--epochs'"),
                        ("bench digits --second 3", "'--seconds'"), ("bench digits --device tpu", "'tpu'"), ("bench digits --images 10", "10"), ("bench digits --lr-g -1", "lr_g")]:
        assert main(words.split()) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and said in err and err.count("\n") == 1, err


def test_the_bench_appends_and_joins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROWS", tmp_path / "train.csv")
    monkeypatch.setattr(bench, "recipe_of", lambda net, channels: small(channels=channels))
    monkeypatch.setattr(bench, "memory_of", lambda *_: 400.)
    monkeypatch.setattr("dcgan.scale.peak", lambda *_: 100.)
    words = "--nets r1 --seconds 0.4 --rounds 2 --device cpu --precision fp32".split()
    assert bench.main(["--table"]) == 0 and "Nothing has been measured" in capsys.readouterr().out
    assert bench.main(words) == bench.main([*words, "--channels", "1"]) == 0
    rows = list(csv.DictReader(open(tmp_path / "train.csv")))
    assert [row["channels"] for row in rows] == ["1", "3", "1"] and {"date", "machine", "torch", "ratio", "least", "most", "share"} <= set(rows[0])
    assert float(rows[0]["textbook_mib"]) == 400
    capsys.readouterr()
    assert bench.main(["--table"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2].startswith("| reference 1, 28×28 | 1 |") and out[2].endswith("| 2 |") and out[3].endswith("| 1 |")


def test_the_memory_of_a_loop_is_a_process_s_own():
    done = subprocess.run([sys.executable, ROOT / "bench/train.py", "--memory", "ours", "--nets", "r1", "--channels", "1", "--device", "cpu"],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and 100 < float(done.stdout) < 4000, done.stderr


@pytest.mark.parametrize("words, said", [
    ("--nets r2", "'r2'"), ("--channels 2", "2"), ("--rounds 0", "--rounds is 0"), ("--seconds 0", "--seconds is 0"), ("--seconds nan", "--seconds is nan"),
    ("--second 3", "--second"), ("--script", "--script needs"), ("--script nowhere.py", "no script nowhere.py"), ("--seconds many", "'many'")])
def test_bad_words_are_a_sentence(capsys, words, said):
    assert bench.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("train.py: ") and said in err and err.count("\n") == 1, err


def test_another_script_is_timed(tmp_path, capsys):
    (tmp_path / "theirs.py").write_text("import json, sys\njson.dump(sys.argv[1:], open(sys.argv[1], 'w'))\nsys.exit(len(sys.argv) - 3)\n")
    for more, status in (["--epochs"], 0), (["--epochs", "3"], 1):
        assert bench.main(["--script", str(tmp_path / "theirs.py"), str(tmp_path / "seen"), *more]) == status
        assert f"exit status {status}" in capsys.readouterr().out
        assert json.load(open(tmp_path / "seen"))[1:] == more
