"A race between processes that keeps its rows, what ends them, peaks, and the two commands that race."
import csv
import json
import os
import pickle
import signal
import subprocess
import sys
from math import inf

import numpy as np
import psutil
import pytest
import torch

from dcgan.cli import main
from dcgan.datasets.sources import load
from dcgan.engine.cost import cost, textbook, textbook_macs
from dcgan.engine.speed import Lap, Race, Runner, ours, peak, peak_memory, race, standings
from dcgan.recipes import RECIPES
from dcgan.training import Trainer
from dcgan.weights import ASSETS

from notebooks import HOOD, ROOT, refusing

sys.path.insert(0, str(ROOT / "bench"))
import train as bench  # noqa: E402
import waterfall  # noqa: E402
from waterfall import CHANGES, Switched  # noqa: E402

LESSON = ROOT / "nbs" / HOOD / "32_speed.ipynb"


@pytest.fixture(scope="module")
def images(): return load("digits", images=200).images


def small(**more): return RECIPES["digits"].replace(filters=4, z_dim=6, batch_size=32, **more)


def test_textbook_and_ours_see_the_same_images(images):
    recipe = small(last_batch="keep", epochs=2)
    with open("/dev/null", "w") as nowhere:
        theirs = list(textbook(recipe, images, 2, file=nowhere))
    mine = list(ours(Trainer(recipe, images)))
    assert theirs == mine == ([32] * 6 + [8]) * 2


def test_a_race_gives_a_row_a_round_and_leaves_no_process(images):
    found = race(small(), images[:33], rounds=3, seconds=1, precision="fp32", device="cpu")  # 33: one too many for BatchNorm
    assert all(100 < mib < 4000 for mib in found.memories) and found.busy >= 0
    assert len(found.laps) == 3 and all(lap.textbook > 0 < lap.ours for lap in found.laps)
    assert found.device.type == "cpu" and found.precision == "fp32"
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: race(small(), x, rounds=0), ["rounds is 0", "from 1"]),
        (lambda x: race(small(), x, seconds=-1), ["seconds is -1", "above 0"]),
        (lambda x: race(small(), x, seconds=inf), ["seconds is inf"]),
        (lambda x: race(small(), x[:10]), ["32", "10"]),
        (lambda x: race(small(channels=3), x), ["(3, 28, 28)"]),
        (lambda x: race(small(), x, device="tpu"), ["'tpu'"]),
        (lambda x: race(small(), x, precision="fp8"), ["'fp8'"]),
        (lambda x: race(small(classes=10), x), ["takes classes", "copied loop", "digits"]),
    ],
)
def test_what_can_not_be_meant_is_said(images, call, words):
    with pytest.raises(ValueError) as e:
        call(images)
    assert all(w in str(e.value) for w in words) and "\n" not in str(e.value), e.value
    assert not psutil.Process().children()


def test_a_runner_that_is_killed_is_said(images):
    runner = Runner("textbook")
    try:
        assert runner.ask((small(epochs=9), images.numpy(), "fp32", torch.device("cpu"), 1)) == "ready"
        speed, mib = runner.ask(0.1)
        assert speed > 0 and mib > 100
        os.kill(runner.process.pid, signal.SIGKILL)
        with pytest.raises(ConnectionError, match="'textbook' is gone"):
            runner.ask(0.1)
    finally:
        runner.close()


def test_a_runner_ends_with_its_orders(images):
    runner = Runner("ours")
    assert runner.ask((small(epochs=9), images.numpy(), "fp32", torch.device("cpu"), 1)) == "ready"
    assert runner.ask(0.1)[0] > 0
    assert os.getsid(runner.process.pid) != os.getsid(0)  # the terminal's Ctrl-C is not for it
    runner.process.communicate(timeout=300)  # no more orders
    assert runner.process.returncode == 0


def test_a_runner_at_work_is_stopped(images):
    runner = Runner("ours")
    assert runner.ask((small(epochs=10**6), images.numpy(), "fp32", torch.device("cpu"), 1)) == "ready"
    pickle.dump(10**5, runner.process.stdin)  # a day's work
    runner.process.stdin.flush()
    runner.close()
    assert runner.process.returncode == -signal.SIGKILL and not psutil.Process().children()


def test_the_numbers_of_a_race():
    found = Race([Lap(10, 20), Lap(20, 30), Lap(30, 90)], torch.device("cpu"), "fp32")
    assert (found.textbook, found.ours, found.ratio, found.spread) == (20, 30, 1.5, (1.5, 3))
    text = standings(RECIPES["digits"], found, 1000.)
    assert "cores busy" not in text and "other programs kept 1.3 cores busy" in standings(
        RECIPES["digits"], found._replace(busy=1.3), 1000.0
    )
    assert "textbook 20.0 10.0 to 30.0" in " ".join(text.split()) and "1.50 times as fast (1.50 to 3.00 in 3 rounds)" in text


def test_the_textbook_s_share_is_of_its_own_arithmetic():
    recipe = RECIPES["mnist28"]
    text = standings(recipe, Race([Lap(1000, 1000)], torch.device("cpu"), "fp32"), 100.)
    mine, theirs = 2 * 33_741_920 * 1000 / 1e11, 2 * textbook_macs(recipe) * 1000 / 1e11
    shares = {line.split()[0]: line.split()[-1] for line in text.splitlines()[1:3]}
    assert shares == {"textbook": f"{theirs:.1%}", "ours": f"{mine:.1%}"} and "the textbook's: 26.4" in text


def steps_of(images, changed, file, n=2, **more):
    "The loop after n steps."
    loop = Switched(small(**more), images, changed, file)
    run = iter(loop)
    assert [next(run) for _ in range(n)] == [32] * n
    return loop


@pytest.mark.parametrize("k", range(1, len(CHANGES)))
def test_a_change_leaves_the_losses(images, tmp_path, k):
    "Batches that hold all images, in any order, give the same losses."
    with open(tmp_path / "lines", "w") as file:
        before, after = (torch.stack(steps_of(images[:32], list(CHANGES)[:n], file).losses) for n in (0, k))
    assert (before - after).abs().max() < (0.05 if "bf16" in list(CHANGES)[:k] else 1e-3)


def test_the_changes_do_what_they_are_called(images, tmp_path, monkeypatch):
    with open(tmp_path / "lines", "w") as file:
        loop = steps_of(images, [], file)
        loop.d_step(next(loop.batches()))
        grads = [p.grad.clone() for p in loop.D.parameters()]
        loop.g_step(32)
        assert any(not torch.equal(a, p.grad) for a, p in zip(grads, loop.D.parameters())), "D's gradients in G's step"
    assert len((tmp_path / "lines").read_text().splitlines()) == 2
    with open(tmp_path / "lines", "w") as file:
        loop = steps_of(images, ["quiet", "frozen", "memory"], file)
        loop.d_step(next(loop.batches()))
        grads = [p.grad.clone() for p in loop.D.parameters()]
        loop.g_step(32)
        assert all(torch.equal(a, p.grad) for a, p in zip(grads, loop.D.parameters()))
        made, forward = [], type(loop.G).forward
        monkeypatch.setattr(type(loop.G), "forward", lambda self, z: made.append(len(z)) or forward(self, z))
        for changed, count in (["quiet", "memory"], 2), (["quiet", "memory", "fresh"], 4):
            made.clear()
            steps_of(images, changed, file)
            assert made == [32] * count
    assert not (tmp_path / "lines").read_text()
    assert Switched(small(), images, ["adam"]).opt_g.defaults["fused"] and not Switched(small(), images, []).opt_g.defaults["fused"]
    with pytest.raises(ValueError, match="'quite'.*'quiet'"):
        Switched(small(), images, ["quite"])


def test_the_waterfall_appends_nothing_but_whole_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(waterfall, "ROWS", tmp_path / "waterfall.csv")
    monkeypatch.setattr(waterfall, "NETS", {"tiny": small()})
    monkeypatch.setattr(waterfall, "IMAGES", 64)
    waterfall.main(["--table"])
    assert "Nothing has been measured" in capsys.readouterr().out
    waterfall.main("--rounds 2 --seconds 0.01".split())
    out = capsys.readouterr().out
    assert out.startswith("| net | after |") and "| tiny | the copied loop | " in out and "| tiny | our trainer's loop | " in out
    with pytest.raises(ValueError, match="--rounds is 0"):
        waterfall.main("--rounds 0".split())


def test_the_measured_waterfall_is_whole():
    with open(ASSETS / "waterfall.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for net in waterfall.NETS:
        some = [row for row in rows if row["net"] == net]
        left = [change for change in ("copied", *CHANGES, "trainer") if change != "bf16" or len(some) == len(CHANGES) + 2]
        assert [row["change"] for row in some] == left
        assert float(some[0]["times"]) == 1 and all(float(row["least"]) <= float(row["times"]) <= float(row["most"]) for row in some)
        assert all(row["machine"] and row["torch"] and row["date"] and row["command"] for row in some)


def test_peaks():
    assert 0 < peak(sizes=(64, 128), repeats=1) < 1e6
    assert peak_memory() > 0


def test_peak_memory_is_the_most_not_what_is_held_now():
    "In a process of its own: what this one has freed would be used again and hide the ballast."
    program = (
        "import torch; from dcgan.engine.speed import peak_memory; before = peak_memory(); "
        "ballast = torch.ones(300 * 2**20, dtype=torch.uint8); held = peak_memory(); del ballast; print(before, held, peak_memory())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, held, after = map(float, said.split())
    assert 250 <= held - before <= 400 and after >= held - 1  # the kernel counts in batches of pages


def test_the_command_races(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DCGAN_DATA", raising=False)
    monkeypatch.setattr("dcgan.engine.speed.peak", lambda *_: 100.)
    assert (
        main(
            "bench mnist28 --filters 8 --images 200 --batch-size 64 --seconds 1 --device cpu --precision fp32".split()
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert err == "" and len({len(line) for line in out.splitlines()[:3]}) == 1, "columns are aligned"
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["mnist28", "textbook", "ours"]
    assert (
        "in 5 rounds" in out
        and "multiply-adds" in out
        and "28×28×1, 8 filters, batch 64; cpu" in out
        and "100 GFLOP/s" in out
    )
    assert not list(tmp_path.iterdir())
    for words, said in [
        ("bench", "which recipe"),
        ("bench digit", "'digits'"),
        ("bench digits --seconds 0", "seconds is 0"),
        ("bench digits --epoch 3", "'--epochs'"),
        ("bench digits --second 3", "'--seconds'"),
        ("bench digits --device tpu", "'tpu'"),
        ("bench digits --images 10", "10"),
        ("bench digits-conditional", "digits-conditional takes classes"),
        ("bench digits --lr-g -1", "--lr-g is -1"),
    ]:
        assert main(words.split()) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and said in err and err.count("\n") == 1, err


def test_the_bench_appends_and_joins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROWS", tmp_path / "train.csv")
    monkeypatch.setattr(bench, "recipe_of", lambda net, channels: small(channels=channels))
    monkeypatch.setattr("dcgan.engine.speed.peak", lambda *_: 100.)
    words = "--nets r1 --seconds 0.4 --rounds 2 --device cpu --precision fp32".split()
    assert bench.main(["--table"]) == 0 and "Nothing has been measured" in capsys.readouterr().out
    assert bench.main(words) == bench.main([*words, "--channels", "1"]) == 0
    rows = list(csv.DictReader(open(tmp_path / "train.csv")))
    assert [row["channels"] for row in rows] == ["1", "3", "1"] and {
        "date", "machine", "torch", "ratio", "least", "most", "share",
    } <= set(rows[0])
    assert 100 < float(rows[0]["textbook_mib"]) < 4000
    capsys.readouterr()
    assert bench.main(["--table"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2].startswith("| reference 1, 28×28 | 1 |") and out[2].endswith("| 2 |") and out[3].endswith("| 1 |")


@pytest.mark.parametrize(
    "words, said",
    [
        ("--nets r2", "'r2'"),
        ("--channels 2", "2"),
        ("--rounds 0", "--rounds is 0"),
        ("--seconds 0", "--seconds is 0"),
        ("--seconds nan", "--seconds is nan"),
        ("--second 3", "--second"),
        ("--script", "--script needs"),
        ("--script nowhere.py", "no script nowhere.py"),
        ("--seconds many", "'many'"),
    ],
)
def test_bad_words_are_a_sentence(capsys, words, said):
    assert bench.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("train.py: ") and said in err and err.count("\n") == 1, err


def test_another_script_is_timed(tmp_path, capsys):
    (tmp_path / "theirs.py").write_text(
        "import json, sys\njson.dump(sys.argv[1:], open(sys.argv[1], 'w'))\nsys.exit(len(sys.argv) - 3)\n"
    )
    for more, status in (["--epochs"], 0), (["--epochs", "3"], 1):
        assert bench.main(["--script", str(tmp_path / "theirs.py"), str(tmp_path / "seen"), *more]) == status
        assert f"exit status {status}" in capsys.readouterr().out
        assert json.load(open(tmp_path / "seen"))[1:] == more


def by_bootstrap(ratio, n=1000, ends=(0.05, 0.95)):
    "An answer that draws rounds and takes some ratio of them."
    def answer(textbook, ours, seed=0):
        picks = np.random.default_rng(seed).integers(0, len(ours), (n, len(ours)))
        return tuple(np.quantile(ratio(np.array(textbook), np.array(ours), picks), ends))
    return answer


def apart(a, b, picks):
    "Speeds drawn, not rounds."
    return np.median(b[picks], axis=1) / np.median(a[np.random.default_rng(1).permuted(picks, axis=1)], axis=1)[::-1]


def work(r): return 2 * sum(cost(r)[:2]) / 1e9


WRONG = {
    "faster": {
        "what is left": lambda p, s: (p / s + 1 - p, 1 - p),
        "as if all of it became faster": lambda p, s: (s, s),
        "the share alone": lambda p, s: (1 / (1 - p), 1 / (1 - p)),
        "divided, not added": lambda p, s: (1 / (1 - p * s), 1 / (1 - p)),
        "no limit": lambda p, s: (1 / (1 - p + p / s), s),
    },
    "trusted": {
        "least and most": lambda a, b, seed=0: (min(y / x for x, y in zip(a, b)), max(y / x for x, y in zip(a, b))),
        "speeds, not rounds": by_bootstrap(apart),
        "the other way round": by_bootstrap(lambda a, b, picks: np.median(a[picks], axis=1) / np.median(b[picks], axis=1)),
        "the median alone": lambda a, b, seed=0: (np.median(b) / np.median(a),) * 2,
        "differences": by_bootstrap(lambda a, b, picks: np.median(b[picks], axis=1) - np.median(a[picks], axis=1)),
    },
    "shares": {
        "one sum for both": lambda r, a, b, peak: (work(r) * a / peak, work(r) * b / peak, b / a),
        "multiply-adds as one operation": lambda r, a, b, peak: (
            textbook_macs(r) * a / 1e9 / peak, sum(cost(r)[:2]) * b / 1e9 / peak, sum(cost(r)[:2]) * b / textbook_macs(r) / a),
        "the ratio of the speeds": lambda r, a, b, peak: (2 * textbook_macs(r) * a / 1e9 / peak, work(r) * b / peak, b / a),
        "the ratio of the work alone": lambda r, a, b, peak: (
            2 * textbook_macs(r) * a / 1e9 / peak, work(r) * b / peak, sum(cost(r)[:2]) / textbook_macs(r)),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(
    WRONG, LESSON, also=(ZeroDivisionError,)
)
