"Every recipe, run: by its command on real file formats, on the stand-ins, on other data, and one step at full size."
import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.datasets import utils

from dcgan.cli import main
from dcgan.networks import Generator
from dcgan.recipes import RECIPES, from_json

from formats import celeba, cifar, mnist_files, picture, svhn  # noqa: F401 (fixtures)
from running import trainer as trainer_for

SMALL = "--filters 4 --batch-size 4 --log-every 1 --sample-every 2 --device cpu --precision fp32"
MADE = {
    "recipe.json", "history.csv", "checkpoint.pt", "checkpoint-previous.pt", "generator", "samples",
    "samples.png", "samples.gif", "losses.png", "losses.gif", "real_and_fake.png", "report.json",
}


@pytest.fixture
def data(tmp_path, monkeypatch, mnist_files, svhn, cifar, celeba):  # noqa: F811
    "A data folder with MNIST, FashionMNIST, SVHN, CIFAR-10, CelebA and pictures of one's own; no network."
    def refuse(*_, **__): raise OSError("no network in tests")
    monkeypatch.setattr(utils, "_get_redirect_url", refuse)
    for name in "DCGAN_DATA", "DCGAN_CACHE":
        monkeypatch.delenv(name, raising=False)
    for name, content in mnist_files.items():
        for kind in "MNIST", "FashionMNIST":
            (tmp_path/kind/"raw").mkdir(parents=True, exist_ok=True)
            (tmp_path/kind/"raw"/name).write_bytes(content)
    for k in range(9):
        picture(tmp_path/"mine"/"ab"[k % 2]/f"{k}.png", (40 + k, 50), colour=25*k)
    for k in range(9):
        picture(tmp_path/"grey"/f"{k}.png", (64, 64), "L", colour=25*k)
    (tmp_path/"here").mkdir()
    monkeypatch.chdir(tmp_path/"here")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def train(words, data, capsys):
    "Run the command; the folder it made and what it said."
    status = main([*shlex.split(f"train {words}"), "--data-dir", str(data), "--run", "run"])
    out, err = capsys.readouterr()
    assert status == 0, err
    return Path("run"), out


def whole(run, recipe, images, epochs, plots=True):
    "Is the folder complete, and did the run see what it should?"
    assert {p.name for p in run.iterdir()} == (MADE if plots else {p for p in MADE if not p.endswith((".png", ".gif", "samples"))})
    assert from_json((run/"recipe.json").read_bytes()) == recipe
    rows = (run/"history.csv").read_text().splitlines()
    seen = images if recipe.last_batch == "keep" and images % 4 != 1 else images//4*4
    said = json.loads((run/"report.json").read_text())
    assert (said["images"], said["steps"]) == (epochs*seen, epochs*-(-seen//4)) and len(rows) == 1 + said["steps"]
    assert said["data"] == recipe.data and shlex.split(said["command"])[:3] == ["dcgan", "train", recipe.name]
    if plots:
        assert (
            len(list((run / "samples").iterdir())) == 1 + said["steps"] // 2
            and Image.open(run / "samples.gif").n_frames > 1
        )
    x = Generator.from_pretrained(run).sample(2, seed=1)
    assert x.shape == (2, *recipe.x_shape) and x.abs().max() <= 1


TRAINED_ON = {
    "digits": 4000,
    "digits-conditional": 4000,
    "mnist28": 12,
    "mnist28-trainer": 12,
    "mnist64": 12,
    "mnist64-paper": 12,
    "celeba64": 8,
    "dcgan-2015": 8,
    "svhn32": 30,
    "svhn32-code": 30,
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_on_its_own_data(data, capsys, name):
    few = "--images 30 --ema 0.5" if name.startswith("digits") else ""
    run, out = train(f"{name} --epochs 3 --save-every 3 {SMALL} {few}", data, capsys)
    changes = {"images": 30, "ema": 0.5} if few else {}
    recipe = RECIPES[name].replace(
        epochs=3, filters=4, batch_size=4, log_every=1, sample_every=2, save_every=3, **changes
    )
    whole(run, recipe, changes.get("images", TRAINED_ON[name]), 3)
    assert f"images of {recipe.data}," in out
    if recipe.data == "mnist" and recipe.image_size == 64:
        assert "resized from 28×28 to 64×64" in out
    if recipe.data == "celeba":
        assert "middle squares of 178×218 scaled to 64×64" in out


def test_once_decoded_no_jpeg_is_read(data, capsys, monkeypatch):
    first, _ = train(f"celeba64 --epochs 1 {SMALL} --no-save-plots", data, capsys)
    first.rename("first")
    def refuse(*_, **__): raise AssertionError("a picture file was opened")
    monkeypatch.setattr("dcgan.datasets.files.decoded", refuse)
    for jpeg in (data/"celeba"/"img_align_celeba").iterdir():
        os.truncate(jpeg, 0)     # the folder's own date stays
    again, out = train(f"celeba64 --epochs 2 {SMALL} --no-save-plots", data, capsys)
    assert "images go into" not in out and len((again/"history.csv").read_text().splitlines()) == 5


SWAPS = [  # the command, images, and all that must be said
    ("svhn32 --data house_numbers --epochs 3 --images 12", 12, ["drawn, a stand-in for SVHN"]),
    ("svhn32 --net svhn32-code --epochs 1", 30, []),
    ("svhn32 --data svhn-extra --images 8 --epochs 1", 8, ["8 of 1,500 images"]),
    ("svhn32 --data cifar10 --epochs 1", 20, []),
    ("svhn32 --data fashion_mnist --epochs 1", 12, ["resized from 28×28 to 32×32", "grey to RGB"]),
    ("svhn32 --data celeba --epochs 1", 8, ["middle squares of 178×218 scaled to 32×32"]),
    ("celeba64 --data faces --epochs 1 --images 8", 8, ["drawn, a stand-in for CelebA"]),
    (
        "celeba64 --data digits --epochs 1 --images 8",
        8,
        ["8 of 4,000 images", "resized from 28×28 to 64×64", "grey to RGB"],
    ),
    ("celeba64 --data cifar10 --epochs 1", 20, ["resized from 32×32 to 64×64"]),
    ("mnist64 --data svhn --epochs 1", 30, ["resized from 32×32 to 64×64", "RGB to grey"]),
    (
        "mnist64-paper --data celeba --epochs 1",
        8,
        ["middle squares of 178×218 scaled to 64×64", "RGB to grey"],
    ),
    ("mnist28 --data fashion_mnist --epochs 1", 12, []),
    (
        "mnist28 --data faces --epochs 1 --images 8",
        8,
        ["resized from 64×64 to 28×28", "RGB to grey", "stand-in"],
    ),
    ("mnist28 --data folder:~/mine --epochs 1", 9, ["middle squares scaled to 28×28", "RGB to grey"]),
    ("mnist64 --data folder:~/grey --epochs 1", 9, []),
    ("celeba64 --data folder:~/grey --epochs 1", 9, ["grey to RGB"]),
    ("celeba64 --data folder:~/mine --epochs 1 --image-size 128", 9, ["middle squares scaled to 128×128"]),
    (
        "digits --data house_numbers --epochs 1 --images 8",
        8,
        ["resized from 32×32 to 28×28", "RGB to grey", "stand-in"],
    ),
]
DOINGS = ["resized", "grey to RGB", "RGB to grey", "middle squares", "stand-in", " of 4,000 images", " of 1,500 images"]


@pytest.mark.parametrize("words, images, said", SWAPS, ids=[words.split(" --ep")[0] for words, *_ in SWAPS])
def test_data_can_be_swapped_and_what_was_done_is_said(data, capsys, words, images, said):
    run, out = train(f"{words} {SMALL} --no-save-plots", data, capsys)
    recipe = from_json((run/"recipe.json").read_bytes())
    whole(run, recipe, images, recipe.epochs, plots=False)
    assert recipe.name == words.split()[0]
    for doing in said:
        assert doing in out
    for doing in DOINGS:
        assert doing not in out or any(doing in s for s in said), f"{doing!r} was said and not done"


ABSENT = [  # recipe, files that must be named, the stand-in
    ("mnist28", ["MNIST/raw/train-images-idx3-ubyte.gz", "MNIST/raw/t10k-labels-idx1-ubyte.gz"], "digits"),
    ("mnist28-trainer", ["MNIST/raw/train-labels-idx1-ubyte.gz"], "digits"),
    ("mnist64", ["MNIST/raw/train-images-idx3-ubyte.gz"], "digits"),
    ("mnist64-paper", ["MNIST/raw/t10k-images-idx3-ubyte.gz"], "digits"),
    (
        "celeba64",
        ["celeba/img_align_celeba.zip", "celeba/list_eval_partition.txt", "celeba/list_attr_celeba.txt"],
        "faces",
    ),
    ("svhn32", ["SVHN/train_32x32.mat"], "house_numbers"),
    ("svhn32 --data cifar10", ["cifar-10-python.tar.gz"], "house_numbers"),
    ("mnist28 --data fashion_mnist", ["FashionMNIST/raw/train-images-idx3-ubyte.gz"], "digits"),
]


@pytest.mark.parametrize("words, files, instead", ABSENT, ids=[words for words, *_ in ABSENT])
def test_without_data_and_network_a_sentence_and_no_trace(data, capsys, words, files, instead):
    assert main(["train", *words.split(), "--data-dir", "elsewhere", "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dcgan: ") and err.count("\n") == 1, err
    assert all(f in err for f in files) and "elsewhere" in err and f"or use the offline stand-in {instead}" in err
    assert not list(Path(".").iterdir())


def damaged(archive, to):
    "A copy of the archive with one byte changed in its middle."
    data = bytearray(archive.read_bytes())
    data[len(data)//2] ^= 0xff
    to.write_bytes(data)


BAD = [  # what is done to the data folder, the command, and what the sentence must hold
    (
        lambda d: (d / "celeba" / "list_eval_partition.txt").unlink(),
        "celeba64",
        ["put celeba/list_eval_partition.txt there", "faces"],
    ),
    (
        lambda d: (d / "celeba" / "list_attr_celeba.txt").unlink(),
        "celeba64",
        ["put celeba/list_attr_celeba.txt there", "faces"],
    ),
    (
        lambda d: (
            (d / "celeba" / "img_align_celeba").rename(d / "celeba" / "x"),
            (d / "celeba" / "img_align_celeba.zip").write_text("<html>quota"),
        ),
        "celeba64",
        ["the checksum of celeba/img_align_celeba.zip is wrong (it is a web page", "faces"],
    ),
    (
        lambda d: (
            (d / "celeba" / "img_align_celeba").rename(d / "celeba" / "x"),
            damaged(d / "img_align_celeba.zip", d / "celeba" / "img_align_celeba.zip"),
        ),
        "celeba64",
        ["the checksum of celeba/img_align_celeba.zip is wrong: put", "faces"],
    ),
    (
        lambda d: (d / "SVHN" / "train_32x32.mat").write_bytes(b"MATLAB 5.0"),
        "svhn32",
        ["checksum of SVHN/train_32x32.mat is wrong", "house_numbers"],
    ),
    (
        lambda d: (d / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"<html>"),
        "mnist28",
        ["checksum of MNIST/raw/train-images-idx3-ubyte.gz is wrong", "digits"],
    ),
    (lambda d: (d / "empty").mkdir(), "mnist28 --data folder:~/empty", ["found 0 images", "no files at all"]),
    (lambda d: None, "mnist28 --data folder:~/nowhere", ["there is no folder"]),
    (lambda d: None, "svhn32 --images 31", ["--images 31 of svhn, which has 30"]),
    (lambda d: None, "svhn32 --batch-size 31", ["--batch-size 31 with 30 images"]),
    (lambda d: (d / "cache").write_text("a file where the cache belongs"), "celeba64", ["cache"]),
]


@pytest.mark.parametrize("harm, words, said", BAD, ids=[f"{i} {words}" for i, (_, words, _) in enumerate(BAD)])
def test_bad_data_gets_a_sentence_and_no_run(data, capsys, harm, words, said):
    harm(data)
    assert main(["train", *f"{words.split()[0]} {SMALL}".split(), *words.split()[1:], "--data-dir", str(data)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("dcgan: ") and err.count("\n") == 1 and all(s in err for s in said), err
    assert not list(Path(".").iterdir())


# Full size

PARAMS = {  # reference: parameters of each layer of G, and of D, by hand: weights + biases + 2 a channel for BatchNorm
    "mnist28": ([64*256*9 + 256 + 512, 256*128*16 + 128 + 256, 128*64*9 + 64 + 128, 64*16 + 1],
                [16*9 + 16 + 32, 16*32*25 + 32 + 64, 32*64*25 + 64 + 128, 64 + 1]),
    "mnist64": ([100*1024*16 + 2048, 1024*512*16 + 1024, 512*256*16 + 512, 256*128*16 + 256, 128*16],
                [128*16, 128*256*16 + 512, 256*512*16 + 1024, 512*1024*16 + 2048, 1024*16]),
    "celeba64": ([100*1024*16 + 2048, 1024*512*16 + 1024, 512*256*16 + 512, 256*128*16 + 256, 3*128*16],
                 [3*128*16, 128*256*16 + 512, 256*512*16 + 1024, 512*1024*16 + 2048, 1024*16]),
    "dcgan-2015": ([100*16384 + 2048, 1024*512*25 + 1024, 512*256*25 + 512, 256*128*25 + 256, 128*3*25],
                   [3*128*25, 128*256*25 + 512, 256*512*25 + 1024, 512*1024*25 + 2048, 1024*16]),
    "svhn32": ([100*2048 + 2048 + 256, 128*64*16 + 128, 64*32*16 + 64, 3*32*16],
               [3*32*16, 32*64*16 + 128, 64*128*16 + 256, 2048 + 1]),
}
PARAMS |= {
    "mnist64-paper": PARAMS["mnist64"],
    "svhn32-code": ([100*2048 + 2048, *PARAMS["svhn32"][0][1:]], PARAMS["svhn32"][1]),
    "mnist28-trainer": ([0, 15*20*9 + 20 + 40, 0, 20*25*9 + 25 + 50, 0, 25*20*9 + 20 + 40, 20*9 + 1],
                        [10*9 + 10 + 20, 10*15*9 + 15 + 30, 0, 15*20*9 + 20 + 40, 0, 20*10*9 + 10 + 20, 10*9 + 1]),
}
TOTALS = {
    "mnist28": (747_841, 64_545),
    "mnist64": (12_654_336, 11_032_064),
    "celeba64": (12_658_432, 11_036_160),
    "svhn32": (372_672, 167_809),
    "svhn32-code": (372_416, 167_809),
    "mnist28-trainer": (12_076, 6_196),
}


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_layer_by_layer(name):
    r = RECIPES[name]
    with torch.device("meta"):
        G, D = r.built()
    found = [[sum(p.numel() for p in layer.parameters()) for layer in net.layers] for net in (G, D)]
    assert found == [[row.params for row in table] for table in (r.g_table, r.d_table)]
    assert all(p.is_meta for net in (G, D) for p in net.parameters())
    if not name.startswith("digits"):
        assert found == list(PARAMS[name])              # the default may change; the references may not
    if name in TOTALS:
        assert tuple(map(sum, found)) == TOTALS[name]


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "mnist64-paper"])  # the same nets
def test_one_step_at_full_size(name):
    "Each weight moves, as far as Adam moves it in its first step; what comes out is in range."
    r = RECIPES[name].replace(batch_size=8, epochs=1, images=8)
    images = torch.randint(0, 256, (8, *r.x_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trainer = trainer_for(r, images=images, labels=torch.arange(8))
    before = {net: [p.detach().clone() for p in getattr(trainer, net).parameters()] for net in "GD"}
    trainer.train()
    assert trainer.step == 1 and trainer.recipe.filters == RECIPES[name].filters
    for net, lr in ("G", r.lr_g), ("D", r.lr_d):
        for old, (key, new) in zip(before[net], getattr(trainer, net).named_parameters()):
            move = (new.detach() - old).abs()
            assert new.isfinite().all() and 0 < move.max() <= 1.01*lr, (key, move.max())
    row, = trainer.history.rows
    assert all(0 <= row[k] <= 1 for k in ("d_x", "d_gz_before", "d_gz_after")) and row["loss_d"] > 0 < row["loss_g"]
    x = trainer.best_G.sample(4, seed=1)
    assert x.shape == (4, *r.x_shape) and -1 <= x.min() < x.max() <= 1
    assert trainer.D(x, *([torch.arange(4)] if r.classes else [])).shape == (4,)
