"Folders of images from the wild: what is walked, what is left out, and that it is said."
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan.datasets.files import decoded, image_endings
from dcgan.datasets.sources import _header, load

from formats import picture
from notebooks import ROOT


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "DCGAN_DATA", "DCGAN_CACHE":
        monkeypatch.delenv(name, raising=False)


def four(where="f"):
    for k in range(4):
        picture(Path(where)/f"{k}.png", colour=50*k)


def note(**wish):
    return load("folder:f", **wish).note


# what is walked

def test_hidden_files_and_folders_are_no_data():
    four("f/cat"), four("f/dog")
    for name in "f/.ipynb_checkpoints/a.png", "f/cat/.thumbs/a.png", "f/cat/._0.png":
        picture(Path(name).with_suffix(".x.png")), os.replace(Path(name).with_suffix(".x.png"), name)
    for name in "Thumbs.db", "desktop.ini", ".DS_Store":
        Path("f", name).write_text("x")
    bank = load("folder:f")
    assert bank.labels.tolist() == [0]*4 + [1]*4 and bank.note == "", "all is well, so the note stays empty"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and sockets of Unix")
def test_what_is_no_regular_file_is_named_and_never_opened():
    four()
    (
        os.mkfifo("f/pipe.png"),
        os.symlink("/nowhere/x.png", "f/x.png"),
        os.symlink("loop.png", "f/loop.png"),
        os.symlink("/dev/zero", "f/zero.png"),
    )
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("f/s.png")
        bank = load("folder:f")
    assert len(bank.images) == 4
    assert "5 of 9 left out: " in bank.note and "2 (loop.png, x.png) linked to nothing" in bank.note
    assert "3 (pipe.png, s.png, zero.png) no regular file" in bank.note
    assert decoded(Path("f/pipe.png"), 8, 1) == "no regular file" and _header(Path("f/pipe.png")) is None


def test_every_real_thing_once_whatever_the_links():
    four("f/z/real"), four("elsewhere")
    os.symlink("..", "f/z/up"), os.symlink("../..", "f/z/real/upper"), os.symlink("z/real", "f/a_link")
    (
        os.symlink("0.png", "f/z/real/again.png"),
        os.symlink(Path("elsewhere").resolve(), "f/more"),
        os.link("f/z/real/1.png", "f/z/real/hard.png"),
    )
    bank = load("folder:f")
    assert len(bank.images) == 8 and bank.labels.tolist() == [0] * 4 + [1] * 4, (
        "the linked folder is a class, the real place wins over its link"
    )
    assert bank.note.startswith("5 of 13 left out: 5 (") and bank.note.endswith("reached twice")


def test_two_links_up_a_tree_end():
    "In a process of its own, so that a walk without end is a failure and not a test that hangs."
    four("f/a/b")
    for k in range(4):
        os.symlink("../..", f"f/a/b/up{k}")
    program = "from dcgan.datasets.sources import load; print(len(load('folder:f').images))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "4", done.stderr


def test_other_endings_are_used_or_named():
    ends = {end for end in (".jfif", ".jpe", ".avif", ".tga", ".jp2", ".PNG", ".JPG") if end.lower() in image_endings()}
    for k, end in enumerate(sorted(ends)):
        picture(Path("f", f"{k}{end}"))
    for end in ".heic", ".eps", ".txt", ".mpg", "":
        Path("f", "x" + end).write_text("x")
    bank = load("folder:f")
    assert (
        len(bank.images) == len(ends)
        and f"5 of {len(ends) + 5} left out: 5 (x, x.eps, x.heic, …) with another ending" in bank.note
    )
    Path("f/y.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert decoded(Path("f/y.png"), 8, 1) == "not an image", "Ghostscript would be started to open it"


def test_a_plugin_s_format_is_used(monkeypatch):
    Image.init()
    monkeypatch.setitem(Image.EXTENSION, ".strange", "PNG")
    picture(Path("f/a.png"))
    os.rename("f/a.png", "f/a.strange")
    assert len(load("folder:f").images) == 1


# what dcgan wrote

def run_folder(path):
    path.mkdir(parents=True)
    for name in "recipe.json", "checkpoint.pt", "history.csv":
        (path/name).write_text("{}")
    for name in "samples.png", "samples/step-0000001.png", "losses.png", "generator/samples-n4-seed0.png":
        picture(path/name)


def test_runs_and_caches_and_pictures_of_dcgan_are_no_data():
    four("f")
    os.chdir("f")
    for _ in range(2):
        bank = load("folder:.")                        # its cache goes into ./data/cache
        assert len(bank.images) == 4 and bank.labels is None
    run_folder(Path("runs/digits-001")), picture(Path("samples-n64-seed0.png")), picture(Path("report.png"))
    Path("report.json").write_text("{}")
    bank = load("folder:.")
    assert len(bank.images) == 4 and "(data/cache, report.png, runs/digits-001, …) written by dcgan" in bank.note
    os.remove("report.json")
    assert len(load("folder:.").images) == 5, "without report.json it is somebody's picture"


def test_a_run_in_the_folder_of_its_images():
    four("f"), run_folder(Path("f/x")), [os.rename(p, Path("f", p.name)) for p in Path("f/x").iterdir()]
    bank = load("folder:f")
    assert len(bank.images) == 4 and "left out" in bank.note
    for inside in "f/samples", "f/generator":
        with pytest.raises(ValueError, match="was written by dcgan: give a folder of images of your own"):
            load(f"folder:{inside}")
    run_folder(Path("r"))
    with pytest.raises(FileNotFoundError, match=r"found 0 images in r .*written by dcgan"):
        load("folder:r")


def test_somebody_s_recipe_is_no_run():
    four("f/soup"), Path("f/soup/recipe.json").write_text("{}")
    bank = load("folder:f")
    assert len(bank.images) == 4 and bank.note == "1 of 5 left out: 1 (soup/recipe.json) with another ending"


# splits

@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "Val"])
def test_known_names_are_splits(name):
    for k in range(5):
        picture(Path("f", "Train" if k < 3 else name, f"{k}.png"), colour=k)
    assert load("folder:f").images[:, 0, 0, 0].tolist() == [0, 1, 2] and note() == ""
    bank = load("folder:f", "test")
    assert bank.images[:, 0, 0, 0].tolist() == [3, 4] and bank.note == ("" if name == "test" else f"held out is {name}")


def test_test_comes_before_val_and_the_rest_is_said():
    for k, name in enumerate(["train", "test", "val", "other"]):
        picture(Path("f", name, "a.png"), colour=k)
    Path("f/notes.txt").write_text("x")
    assert load("folder:f", "test").images.max() == 1
    assert note() == "3 of 4 left out: 3 (notes.txt, other, val) beside the splits"


def test_train_alone_is_no_class_and_a_class_named_train_is_one():
    four("f/train/a"), four("f/train/b")
    assert load("folder:f").labels.tolist() == [0]*4 + [1]*4
    with pytest.raises(ValueError, match="no images held out"):
        load("folder:f", "test")
    four("f/car")
    bank = load("folder:f")
    assert len(bank.images) == 12 and bank.note == "taken as folders like any other: train"
    four("g/images/train"), four("g/images/val")
    assert load("folder:g").note == "taken as folders like any other: train, val"


# pixels

def deep(file, top, mode="grey"):
    "A file of 16 bits whose values go from 0 to `top`."
    values = np.linspace(0, top, 64).round().astype(np.uint16).reshape(8, 8)
    Path(file).parent.mkdir(exist_ok=True)
    if mode == "grey":
        return Image.fromarray(values).save(file)
    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values[:, :, None].repeat(3, 2))
    Path(file).write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
                           + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b""))


@pytest.mark.parametrize(
    "top, bits",
    [(255, 8), (200, 8), (1, 8), (256, 9), (1023, 10), (4095, 12), (32767, 15), (32768, 16), (65535, 16)],
)
@pytest.mark.parametrize("end", ["png", "tif"])
def test_16_bit_values_are_scaled_by_the_bits_that_the_folder_uses(top, bits, end):
    for k in range(2):
        deep(f"f/{k}.{end}", top)
    deep(f"f/dark.{end}", top//4)
    bank = load("folder:f")
    assert bank.images.amax((1, 2, 3)).tolist() == [top >> bits - 8] * 2 + [(top // 4) >> bits - 8], (
        "a dark one stays darker"
    )
    assert ("16-bit values end at" in bank.note) == (bits < 16) and "3 16-bit" in bank.note
    if bits < 16:
        assert f"16-bit values end at {top:,}: the upper 8 of {bits} bits are used" in bank.note


def test_16_bit_that_stay_nearly_black_are_counted():
    deep("f/a.png", 65535), deep("f/b.png", 255), deep("f/c.png", 255, "rgb"), deep("f/d.png", 65535, "rgb")
    assert "1 16-bit nearly black" in note() and "1 nearly black" in note() and "4 16-bit" in note()


def test_animated_files_are_said():
    frames = [Image.new("L", (9, 9), v) for v in (10, 200, 100)]
    for name in "a.gif", "b.png", "c.tif", "d.webp":
        Path("f").mkdir(exist_ok=True)
        frames[0].save(
            Path("f", name),
            save_all=True,
            append_images=frames[1:],
            **{"lossless": True} if name == "d.webp" else {},
        )
    bank = load("folder:f", channels=1)
    assert "4 with several frames, the first is used" in bank.note and (bank.images.float() - 10).abs().max() <= 1


def test_bombs_are_refused_by_their_header(monkeypatch, recwarn):
    four()
    Path("f/huge.pgm").write_bytes(b"P5 40000 40000 255 "), Path("f/large.pgm").write_bytes(b"P5 10000 10000 255 ")
    bank = load("folder:f")
    assert (
        len(bank.images) == 4
        and bank.note == "2 of 6 left out: 2 (huge.pgm, large.pgm) refused: more than 89 million pixels"
    )
    assert not recwarn.list
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    assert "89 million" in decoded(Path("f/large.pgm"), 8, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "0 million" in decoded(Path("f/0.png"), 8, 1)


# names and places

def test_names_that_are_no_text_are_escaped():
    four()
    for name in b"caf\xe9.png", b"new\nline.txt":
        Path("f", os.fsdecode(name)).write_bytes(b"x")
    os.rename("f", os.fsdecode(b"f\xff"))
    bank = load("folder:" + os.fsdecode(b"f\xff"))
    for text in bank.note, bank.name:
        text.encode(), text.encode("latin-1")
    assert "caf\\udce9.png" in bank.note and "new\\nline.txt" in bank.note and bank.name == "folder:f\\udcff"
    with pytest.raises(FileNotFoundError) as e:
        load("folder:" + os.fsdecode(b"g\xff"))
    str(e.value).encode()
    with pytest.raises(ValueError) as e:
        load("\udcff")
    str(e.value).encode()


def test_home_is_expanded_everywhere(monkeypatch):
    monkeypatch.setenv("HOME", str(Path("home").resolve()))
    four("home/pics"), monkeypatch.setenv("DCGAN_CACHE", "~/c")
    assert len(load("folder:~/pics").images) == 4 and list(Path("home/c").iterdir())
    monkeypatch.delenv("DCGAN_CACHE"), monkeypatch.setenv("DCGAN_DATA", "~/d")
    load("folder:~/pics"), load("folder:~/pics", data_dir="~/e"), load("folder:~/pics", data_dir=Path("~/g"))
    assert {"d", "e", "g"} <= {p.name for p in Path("home").iterdir()} and not Path("~").exists()


@pytest.mark.parametrize(
    "wish, env",
    [
        ("folder:~nobody_here/x", {}),
        ("digits", {"data_dir": "~nobody_here/x"}),
        ("digits", {"DCGAN_DATA": "~nobody_here"}),
        ("folder:f", {"DCGAN_CACHE": "~nobody_here/x"}),
    ],
)
def test_an_unknown_user_is_a_sentence(monkeypatch, wish, env):
    four()
    for name in env:
        name == "data_dir" or monkeypatch.setenv(name, env[name])
    with pytest.raises(
        ValueError,
        match="^~nobody_here is no home folder on this machine; write the path in full",
    ):
        load(wish, data_dir=env.get("data_dir"))
    assert {p.name for p in Path().iterdir()} == {"f"}


def test_a_folder_really_called_tilde():
    four("~x")
    assert len(load("folder:./~x").images) == 4


def test_a_cache_that_cannot_be_written_is_named(monkeypatch):
    four(), Path("file").write_text("no folder")
    with pytest.raises(OSError, match="^file/cache can't be written .*: choose another folder by DCGAN_CACHE") as e:
        load("folder:f", data_dir="file")
    assert e.value.errno is None
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system", "d/cache/x.lock")
    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    with pytest.raises(OSError, match="^d/cache can't be written .Read-only file system"):
        load("folder:f", data_dir="d")


def test_a_slash_at_the_end_changes_nothing():
    four(), Path("f/x.txt").write_text("x")
    assert torch.equal(load("folder:f").images, load("folder:f/").images)


def test_numpys_numbers_are_numbers():
    four()
    bank = load("folder:f", image_size=np.int64(8), channels=np.int64(1), images=np.int64(2), seed=np.int64(1))
    assert bank.images.shape == (2, 1, 8, 8)


def test_the_first_question_knows_all_endings():
    "In a process of its own: Pillow loads most formats only when it is asked for all of them."
    ask = "from dcgan.datasets.files import image_endings; print(*image_endings())"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert {".png", ".jpg", ".webp", ".tif", ".bmp", ".gif"} <= set(said)
