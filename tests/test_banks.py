"Banks: what becomes of each kind of file, and what a cache survives."
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan.data import Batches, check_images
from dcgan.datasets import files as banks
from dcgan.datasets.files import Job, cached, decoded, fingerprint, from_files

from notebooks import ROOT

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))


# files of all kinds

def saved(tmp_path, image, name, **how):
    image.save(tmp_path/name, **how)
    return tmp_path/name


@pytest.mark.parametrize(
    "mode, name",
    [
        ("L", "a.png"),
        ("RGB", "a.png"),
        ("RGB", "a.bmp"),
        ("RGB", "a.webp"),
        ("P", "a.png"),
        ("P", "a.gif"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("RGBA", "a.png"),
        ("PA", "a.tif"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.jpg"),
        ("LAB", "a.tif"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_file_becomes_bytes(tmp_path, mode, name, channels):
    if mode == "P":
        image = Image.fromarray(RAMP).convert("P")
    elif mode == "PA":
        image = Image.fromarray(RAMP).convert("P").convert("PA")
    elif mode == "LAB":
        image = Image.merge("LAB", [Image.fromarray(RAMP), *[Image.new("L", (64, 64), 128)]*2])
    else:
        image = Image.fromarray(RAMP).convert("RGB").convert(mode)
    try:
        file = saved(tmp_path, image, name)
    except OSError:
        pytest.skip("this Pillow does not write it")
    got = decoded(file, 64, channels)
    assert not isinstance(got, str), got
    assert got.dtype == np.uint8 and got.shape == (channels, 64, 64)
    if mode not in ("1", "LAB"):
        assert np.abs(got.astype(int) - RAMP).max() < 25
    assert got[..., -1].mean() > 200 and got[..., 0].mean() < 40


def test_16_bits_keep_their_upper_eight(tmp_path):
    for name in "a.png", "a.tif":
        file = saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16)*256 + 77), name)
        assert np.array_equal(decoded(file, None, 1)[0], RAMP)
        assert np.array_equal(decoded(file, None, 3)[2], RAMP)


def test_what_has_no_known_white_is_refused(tmp_path):
    assert "floats" in decoded(saved(tmp_path, Image.fromarray(RAMP.astype(np.float32)), "f.tif"), 8, 1)
    assert "32 bits" in decoded(saved(tmp_path, Image.fromarray(RAMP.astype(np.int32)*100_000), "i.tif"), 8, 1)


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decoded(saved(tmp_path, image, "a.png"), 8, 3) == 255).all()
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0]*256)
    assert (decoded(saved(tmp_path, image, "p.png", transparency=0), 8, 3) == 255).all()
    assert (decoded(saved(tmp_path, image, "q.png"), 8, 3) == 0).all()


def test_the_middle_square_is_scaled(tmp_path):
    wide = np.zeros((40, 100), np.uint8)
    wide[:, 30:70] = 200
    file = saved(tmp_path, Image.fromarray(wide), "a.png")
    assert decoded(file, 20, 1).shape == (1, 20, 20) and (decoded(file, 20, 1)[..., 1:-1] == 200).all()
    assert decoded(file, None, 1).shape == (1, 40, 100)
    fine = np.indices((64, 64)).sum(0) % 2*255                                   # every second pixel white
    assert abs(decoded(saved(tmp_path, Image.fromarray(fine.astype(np.uint8)), "f.png"), 16, 1).mean() - 127.5) < 2


def test_cameras_that_were_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                                             # turn by 90° to see it upright
    file = saved(tmp_path, Image.fromarray(RAMP), "a.jpg", exif=exif, quality=95)
    assert np.abs(decoded(file, 64, 1)[0].astype(int) - np.rot90(RAMP, -1)).max() < 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html>",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n" + bytes(60),
        b"GIF89a",
        b"BM" + bytes(20),
        b"II*\0" + bytes(30),
        b"P5 99999 99999 255 ",
    ],
)
def test_broken_files_never_raise(tmp_path, content):
    (tmp_path/"a.jpg").write_bytes(content)
    assert isinstance(decoded(tmp_path/"a.jpg", 8, 3), str)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif"])
def test_files_cut_anywhere_never_raise(tmp_path, name):
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, {"jpg": "JPEG"}.get(name[2:], name[2:].upper()))
    data = out.getvalue()
    for length in range(0, len(data) - 20, max(1, len(data)//40)):
        (tmp_path/name).write_bytes(data[:length])
        assert isinstance(decoded(tmp_path/name, 8, 3), (str, np.ndarray))
    assert decoded(tmp_path/"gone.jpg", 8, 3) == "missing"


# the cache

def numbers(n, fail=None, shape=(1, 4, 4), **more):
    "A job that counts what it was asked for, in .read.asked."
    def read(i, j):
        if fail:
            fail(i)
        read.asked.append((i, j))
        return [np.full(shape, k % 251, np.uint8) for k in range(i, j)]
    read.asked = []
    return Job("numbers", n, shape, read, **more)


def expected(n):
    return (torch.arange(n) % 251).to(torch.uint8)


@pytest.mark.parametrize("n", [1, 7, 1023, 1024, 1025, 5000])
def test_made_once_then_opened(tmp_path, n, capsys):
    job = numbers(n, labels=list(range(n)), note="drawn")
    for _ in range(2):
        images, info = cached(tmp_path/"a"/"b", "numbers", ["key", n], lambda: job)
        assert images.dtype == torch.uint8 and images.shape == (n, 1, 4, 4)
        assert (
            torch.equal(images[:, 0, 3, 3], expected(n))
            and info["labels"] == list(range(n))
            and info["note"] == "drawn"
        )
    assert len(job.read.asked) == -(-n//1024)
    assert capsys.readouterr().out.count("images go into") == 1


def test_another_key_is_another_bank(tmp_path):
    for size in 4, 8:
        images, _ = cached(tmp_path, "numbers", ["same", size], lambda: numbers(3, shape=(1, size, size)))
        assert images.shape[2] == size
    assert len(list(tmp_path.glob("numbers-*/images.u8"))) == 2


def test_the_bank_can_be_written_without_harm(tmp_path):
    images, _ = cached(tmp_path, "numbers", 1, lambda: numbers(3))
    images[0] = 77
    assert torch.equal(cached(tmp_path, "numbers", 1, None)[0][:, 0, 0, 0], expected(3))


def test_broken_images_are_left_out_and_named(tmp_path):
    def read(i, j):
        return ["cut short" if k % 1000 == 1 else np.full((1, 2, 2), k % 251, np.uint8) for k in range(i, j)]
    job = Job("numbers", 3000, (1, 2, 2), read, labels=list(range(3000)), names=[f"{k}.jpg" for k in range(3000)])
    images, info = cached(tmp_path, "numbers", 1, lambda: job)
    assert info["broken"] == {"1.jpg": "cut short", "1001.jpg": "cut short", "2001.jpg": "cut short"}
    kept = [k for k in range(3000) if k % 1000 != 1]
    assert info["labels"] == kept and images[:, 0, 0, 0].tolist() == [k % 251 for k in kept]


def test_images_of_another_shape_are_broken(tmp_path):
    def read(i, j):
        return [np.zeros((1, 2, 3 if k == 1 else 2), np.uint8) for k in range(i, j)]
    images, info = cached(tmp_path, "numbers", 1, lambda: Job("numbers", 3, (1, 2, 2), read))
    assert len(images) == 2 and "has shape (1, 2, 3)" in info["broken"]["image 1"]


def test_nothing_but_broken_images(tmp_path):
    with pytest.raises(ValueError, match="none of 2 images could be read; the first is a.jpg: not an image"):
        cached(
            tmp_path,
            "x",
            1,
            lambda: Job("x", 2, (1, 2, 2), lambda i, j: ["not an image"] * (j - i), names=["a.jpg", "b.jpg"]),
        )
    assert not list(tmp_path.glob("x-*/**")) and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("stop", [0, 1024, 3072, 4096])
def test_interrupted_and_started_again(tmp_path, stop):
    def fail(i):
        if i == stop:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "numbers", 1, lambda: numbers(5000, fail))
    assert not list(tmp_path.glob("numbers-*[!t]/log.jsonl"))
    job = numbers(5000)
    images, _ = cached(tmp_path, "numbers", 1, lambda: job)
    assert torch.equal(images[:, 0, 0, 0], expected(5000)) and job.read.asked[0][0] == stop


@pytest.mark.parametrize("harm", ["torn log", "torn data", "long data", "flipped", "no data", "no log", "foreign log"])
def test_whatever_an_interruption_left(tmp_path, harm):
    part = tmp_path/"p"
    def fail(i):
        if i == 3072:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        banks._fill(part, numbers(5000, fail))
    data, log = part/"images.u8", part/"log.jsonl"
    if harm == "torn log":
        log.write_text(log.read_text()[:-9])
    if harm == "torn data":
        data.write_bytes(data.read_bytes()[:-9])
    if harm == "long data":
        data.write_bytes(data.read_bytes() + b"tail")
    if harm == "flipped":
        data.write_bytes(b"x" + data.read_bytes()[1:])
    if harm == "no data":
        data.unlink()
    if harm == "no log":
        log.unlink()
    if harm == "foreign log":
        log.write_text("[]\nhello")
    sound = {"torn log": 2, "torn data": 2, "long data": 3}.get(harm, 0)
    job = numbers(5000)
    banks._fill(part, job)
    assert job.read.asked[0][0] == sound*1024
    assert torch.equal(banks._mapped(part)[0][:, 0, 0, 0], expected(5000))


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from dcgan.datasets import files as banks
banks._CHUNK = 16
def read(i, j):
    time.sleep(.002)
    return [np.full((1, 4, 4), k % 251, np.uint8) for k in range(i, j)]
banks.cached(Path(sys.argv[1]), "numbers", 1, lambda: banks.Job("numbers", 2000, (1, 4, 4), read))
print("made")
"""


def start(tmp_path):
    return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment(tmp_path):
    "Five kills while it writes; each run goes on where the last one was killed."
    chance, seen = random.Random(0), []
    for _ in range(5):
        process = start(tmp_path)
        while not (log := list(tmp_path.glob("*.part/log.jsonl"))) and process.poll() is None:
            time.sleep(.005)
        time.sleep(chance.uniform(.02, .15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if log and log[0].exists():
            seen.append(len(banks._sound(log[0].parent)))
    assert seen == sorted(seen), "an interruption has cost finished work"
    assert "made" in start(tmp_path).communicate()[0]
    images, _ = cached(tmp_path, "numbers", 1, None)
    assert torch.equal(images[:, 0, 0, 0], expected(2000))


def test_two_processes_at_once(tmp_path):
    both = [start(tmp_path) for _ in range(2)]
    said = [p.communicate()[0] for p in both]
    assert all("made" in s for s in said) and sum("images go into" in s for s in said) == 1
    assert torch.equal(cached(tmp_path, "numbers", 1, None)[0][:, 0, 0, 0], expected(2000))


def test_a_second_thread_waits_and_says_so(tmp_path, capsys):
    def slow(i):
        time.sleep(.3)
    with ThreadPoolExecutor() as pool:
        got = list(pool.map(lambda _: cached(tmp_path, "numbers", 1, lambda: numbers(2000, slow))[0], range(2)))
    assert torch.equal(*got) and "another process is making the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    "harm", ["flipped", "cut", "longer", "no images", "no log", "torn log", "foreign log", "empty"]
)
def test_a_damaged_cache_is_made_anew_and_it_is_said(tmp_path, harm, capsys):
    cached(tmp_path, "numbers", 1, lambda: numbers(5000))
    folder, = tmp_path.glob("numbers-*[!k]")
    data, info = folder/"images.u8", folder/"log.jsonl"
    if harm == "flipped":
        with open(data, "r+b") as f:
            f.seek(70_001), f.write(b"\xff")
    if harm == "cut":
        os.truncate(data, 70_000)
    if harm == "longer":
        data.write_bytes(data.read_bytes() + b"x")
    if harm == "no images":
        data.unlink()
    if harm == "no log":
        info.unlink()
    if harm == "torn log":
        info.write_text(info.read_text()[:50])
    if harm == "foreign log":
        info.write_text(json.dumps([1, 2]))
    if harm == "empty":
        data.unlink(), info.unlink()
    assert banks._mapped(folder) is None
    capsys.readouterr()
    images, _ = cached(tmp_path, "numbers", 1, lambda: numbers(5000))
    assert torch.equal(images[:, 0, 0, 0], expected(5000)) and banks._mapped(folder)
    assert "is damaged" in capsys.readouterr().out


def test_too_little_room_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(banks.shutil, "disk_usage", lambda _: type("", (), dict(free=10_000)))
    job = numbers(5000)
    with pytest.raises(
        OSError, match="5,000 images need 80 kB in .*, where 10 kB are free: make room, or ask for fewer"
    ):
        cached(tmp_path, "numbers", 1, lambda: job)
    assert not job.read.asked and not list(tmp_path.glob("**/images.u8"))


def test_a_disk_that_fills_leaves_nothing(tmp_path, monkeypatch):
    write, calls = banks._append, []
    def full(file, data):
        calls.append(1)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, data)
    monkeypatch.setattr(banks, "_append", full)
    with pytest.raises(OSError, match="need 80 kB in .*, where the disk is full now"):
        cached(tmp_path, "numbers", 1, lambda: numbers(5000))
    assert not list(tmp_path.glob("**/images.u8")) and len(calls) == 5
    assert len(cached(tmp_path, "numbers", 1, lambda: numbers(5000))[0]) == 5000


def test_files_go_through_threads(tmp_path):
    files = [saved(tmp_path, Image.new("L", (9, 12), k), f"{k:03}.png") for k in range(50)]
    files[3].write_bytes(b"")
    images, info = cached(
        tmp_path / "c",
        "x",
        fingerprint(tmp_path, files),
        lambda: from_files("x", files, 4, 3, names=list("ab") * 25),
    )
    assert images[:, 2, 1, 1].tolist() == [k for k in range(50) if k != 3] and info["broken"] == {"b": "not an image"}
    before = fingerprint(tmp_path, files)
    os.utime(files[0], ns=(1, 1))
    assert fingerprint(tmp_path, files) != before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_mapped_bank_is_no_anonymous_memory(tmp_path):
    def anonymous():
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])/1024
    def epoch(images):
        return sum(x[0, 0, 0, 0].item() for x in Batches(images, 128).epoch(0))
    small, _ = cached(tmp_path, "small", 1, lambda: numbers(1024, shape=(3, 64, 64)))
    large, _ = cached(tmp_path, "large", 1, lambda: numbers(10_240, shape=(3, 64, 64)))
    epoch(small)
    before = anonymous()
    epoch(large)
    assert anonymous() - before < 30, "120 MB of mapped images have been copied"


def test_sizes_are_said_in_units_of_a_person():
    assert [banks._gigabytes(n) for n in (80_000, 3_700_000, 2_490_000_000)] == ["80 kB", "3.7 MB", "2.5 GB"]


@pytest.mark.parametrize(
    "images",
    [
        None,
        [[1]],
        torch.zeros(2, 1, 4, 4),
        torch.zeros(2, 2, 4, 4).byte(),
        torch.zeros(4, 4).byte(),
        torch.zeros(0, 1, 4, 4).byte(),
        torch.zeros(2, 3, 0, 4).byte(),
    ],
)
def test_what_is_no_bank(images):
    with pytest.raises(ValueError, match="^faces (holds|has shape) .*expected"):
        check_images(images, "faces")
    check_images(torch.zeros(1, 3, 2, 2).byte())
