"Other people's loops: found, stopped in time, asked for images; their networks compared; the rows that were measured."
import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from dcgan.recipes import RECIPES

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import peer  # noqa: E402
import peers  # noqa: E402

LOOP = '''
import argparse
import torch
import torch.nn as nn
import torchvision.datasets as sets
import torchvision.transforms as transforms
import matplotlib.pyplot as plt
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser()
for word in "dataset", "dataroot", "niter", "workers", "manualSeed":
    parser.add_argument("--" + word)
opt = parser.parse_args()
torch.manual_seed(int(opt.manualSeed))
print(opt)

def block(made, a, b, k, s, p, end):
    norm = [nn.BatchNorm2d(b)] if end != "none" else []
    return [made(a, b, k, s, p, bias=False), *norm]

class Generator(nn.Module):
    def __init__(self, gpus):
        super().__init__()
        widths, layers = [nz, 8 * ngf, 4 * ngf, 2 * ngf, ngf], []
        for k, (a, b) in enumerate(zip(widths, widths[1:])):
            layers += [*block(nn.ConvTranspose2d, a, b, 4, 1 + (k > 0), int(k > 0), "norm"), nn.ReLU(True)]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z):
        return self.main(z)

class Discriminator(nn.Module):
    def __init__(self, gpus):
        super().__init__()
        widths = [ndf, 2 * ndf, 4 * ndf, 8 * ndf]
        layers = [nn.Conv2d(nc, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(SLOPE, True)]
        for a, b in zip(widths, widths[1:]):
            layers += [*block(nn.Conv2d, a, b, 4, 2, 1, "norm"), nn.LeakyReLU(SLOPE, True)]
        self.main = nn.Sequential(*layers, nn.Conv2d(8 * ndf, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x):
        return self.main(x).view(-1)

nz, ngf, ndf, nc = 100, 2, 2, 1
netG, netD = Generator(1), Discriminator(1)
plt.plot([1, 2])
data = sets.MNIST(opt.dataroot, download=True, transform=transforms.Compose([transforms.Resize(64), transforms.ToTensor()]))
assert len(data) == 4000
loader = DataLoader(data, batch_size=64, shuffle=True, num_workers=2)
images, _ = iter(loader).next()
for epoch in range(1):
    for images, labels in loader:
        assert images.shape == (64, 1, 64, 64) or images.shape == (32, 1, 64, 64)
        netD(images)
raise SystemExit("the loader came to its end")
'''


@pytest.fixture
def repository(tmp_path):
    "A folder in the form of pytorch/examples, with a loop written here."
    folder = tmp_path / "examples"
    (folder / "dcgan").mkdir(parents=True)
    (folder / "dcgan/main.py").write_text(LOOP.replace("SLOPE", "0.2"))
    return folder


def test_a_repository_is_known_by_its_files(repository, tmp_path):
    assert peer.peer_in(repository) == "examples"
    lacking = tmp_path / "DCGAN-MNIST"
    (lacking / "src").mkdir(parents=True)
    (lacking / "src/generator.py").write_text("")
    other = tmp_path / "other"
    other.mkdir()
    for folder, words in [
        (tmp_path / "nowhere", ["no folder", "nowhere"]),
        (lacking, ["lacks src/main.py", "gabcastro/DCGAN-MNIST"]),
        (other, ["holds none", *(p.repository for p in peer.PEERS.values())]),
    ]:
        with pytest.raises(ValueError) as e:
            peer.peer_in(folder)
        assert all(w in str(e.value) for w in words) and "\n" not in str(e.value), e.value


def test_good_folders_go_on_where_one_is_missing(repository, tmp_path, capsys):
    assert list(peers.usable([tmp_path / "nowhere", repository])) == [(repository, "examples")]
    assert capsys.readouterr().err == f"peers.py: There is no folder {tmp_path / 'nowhere'}; fetch the repository first, and name where it lies.\n"
    with pytest.raises(ValueError, match="no folder"):
        list(peers.usable([tmp_path / "nowhere"]))


def test_notebooks_and_old_python_become_a_script(tmp_path):
    cells = [{"cell_type": "code", "source": ["%matplotlib inline\n", "a = 1"]}, {"cell_type": "markdown", "source": ["words"]},
             {"cell_type": "code", "source": ["!pip install x\n", "b = 2"]}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert peer.source_of(tmp_path / "n.ipynb") == "a = 1\nb = 2\n"
    (tmp_path / "old.py").write_text("if True:\n    print 'a', 1\nprint(2)\nprinted = 3\n")
    assert peer.source_of(tmp_path / "old.py") == "if True:\n    print('a', 1)\nprint(2)\nprinted = 3\n"


def test_the_watch_gives_turns_and_stops(monkeypatch):
    now, turns = [0.0], []
    monkeypatch.setattr(peer, "process_time", lambda: now[0])
    watch = peer.Watch(10, 4, lambda: turns.append(now[0]))
    with pytest.raises(peer.Done):
        for _ in range(99):
            watch.tick()
            watch.saw(16)
            now[0] += 1
    assert turns == [0, 4, 8] and (watch.images, watch.steps) == (160, 10)
    watch.start()
    assert watch.images == 0


def test_a_loop_is_stopped_and_asked(repository):
    "In a process of its own, as always: it changes PyTorch's loader and torchvision's data sets."
    program = (
        "import sys, torch; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import peer; watch = peer.Watch(2.); "
        "came = peer.train({'peer': 'examples', 'folder': sys.argv[2]}, 0, watch); x = came['x']; "
        "print(came['images'], came['steps'], tuple(x.shape), bool(x.abs().max() <= 1), bool(x.std() > 0), came['d_params'])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(ROOT / "bench"), str(repository)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1].split(maxsplit=2)
    images, steps = int(said[0]), int(said[1])
    epochs, rest = divmod(steps, 63)
    assert steps > 0 and images == 4000 * epochs + 64 * rest
    assert said[2] == "(5000, 1, 28, 28) True True 3032"


def test_networks_are_compared(repository, capsys):
    first, second = peers.check(repository, "examples")
    G, D = RECIPES["mnist64-paper"].replace(filters=64).networks()
    for line, net in (first, G), (second, D):
        assert f"{sum(p.numel() for p in net.parameters()):,} parameters, every output bit is the same" in line
    (repository / "dcgan/main.py").write_text(LOOP.replace("SLOPE", "0.1"))
    first, second = peers.check(repository, "examples")
    assert "every output bit" in first and "outputs differ by up to" in second
    assert "MagicMock" not in repr(sys.modules.get("matplotlib.pyplot")) and not any(str(repository) in p for p in sys.path)


@pytest.mark.parametrize("words, said", [("", "Name the folders"), ("--seconds 0 x", "--seconds is 0"), ("--check nowhere", "no folder nowhere")])
def test_bad_words_are_a_sentence(words, said):
    with pytest.raises(ValueError, match=said):
        peers.main(words.split())


def test_rows_and_images_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "ROWS", tmp_path / "peers.csv")
    monkeypatch.setattr(peers, "IMAGES", tmp_path / "peers.npz")
    assert "Nothing has been measured" in peers.table()
    given = peers.argparse.Namespace(seconds=1.0, seed=0)
    for k, name in enumerate(("R1", "digits")):
        contender = {"name": name, "repository": "who/what", "commit": "abc", "net": "n", "batch": 2, "precision": "fp32"}
        came = {"images": 4, "steps": 2, "g_params": 1, "d_params": 1, "x": torch.zeros(20, 1, 28, 28)}
        peers.keep(peers.row_of(contender, came, {"fid_held_out": 3.0 - k, "fid_report": 2.0 - k}, given), came["x"])
    with np.load(peers.IMAGES) as kept:
        assert {name: kept[name].shape for name in kept} == {"R1": (16, 28, 28), "digits": (16, 28, 28)}
    lines = peers.table().splitlines()
    assert lines[2].startswith("| digits | 1 |") and lines[3].startswith("| R1: who/what | 1 |")


def test_what_was_measured_is_whole():
    with open(peers.ROWS, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    names = {row["contender"] for row in rows}
    real = {row["contender"] for row in rows if not float(row["cpu_seconds"])}
    assert {"R1", "R3", "digits", "mnist28"} <= names - real <= {*peer.PEERS, *peers.OURS} and len(real) == 4
    nearest = min(rows, key=lambda row: float(row["fid_report"]))
    assert nearest["contender"] == "real digits"
    for row in rows:
        assert row["machine"] and row["torch"] and row["date"] and float(row["fid_held_out"]) > 0
        if float(row["cpu_seconds"]):
            assert row["commit"] not in ("", "?") and int(row["samples"]) == peer.N
            assert (int(row["steps"]) - 1) * int(row["batch"]) * 0.9 < int(row["images"]) <= int(row["steps"]) * int(row["batch"])
    assert peers.IMAGES.stat().st_size < 300_000
    with np.load(peers.IMAGES) as kept:
        assert set(kept) == names and all(kept[name].shape == (16, 28, 28) and kept[name].dtype == np.uint8 for name in kept)
