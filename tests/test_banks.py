"Banks: what becomes of each kind of file, and what a cache survives."
import errno
import io
import json
import os
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

from dcgan.data import Batches, check_bytes
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
    "A job whose images are made when they are asked for; `fail` is called with the number of each."
    def images():
        for k in range(n):
            if fail:
                fail(k)
            yield np.full(shape, k % 251, np.uint8)
    return Job("numbers", n, shape, images(), **more)


def expected(n):
    return (torch.arange(n) % 251).to(torch.uint8)


@pytest.mark.parametrize("n", [1, 7, 1024, 5000])
def test_made_once_then_opened(tmp_path, n, capsys):
    asked = []
    def job():
        asked.append(n)
        return numbers(n, labels=list(range(n)), note="drawn")
    for _ in range(2):
        images, info = cached(tmp_path/"a"/"b", "numbers", ["key", n], job)
        assert images.dtype == torch.uint8 and images.shape == (n, 1, 4, 4)
        assert torch.equal(images[:, 0, 3, 3], expected(n))
        assert info == {"labels": list(range(n)), "broken": {}, "note": "drawn"}
    assert len(asked) == 1 and capsys.readouterr().out.count("images go into") == 1


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
    made = ["cut short" if k % 1000 == 1 else np.full((1, 2, 2), k % 251, np.uint8) for k in range(3000)]
    job = Job("numbers", 3000, (1, 2, 2), made, labels=list(range(3000)), names=[f"{k}.jpg" for k in range(3000)])
    images, info = cached(tmp_path, "numbers", 1, lambda: job)
    assert info["broken"] == {"1.jpg": "cut short", "1001.jpg": "cut short", "2001.jpg": "cut short"}
    kept = [k for k in range(3000) if k % 1000 != 1]
    assert info["labels"] == kept and images[:, 0, 0, 0].tolist() == [k % 251 for k in kept]


def test_images_of_another_shape_are_broken(tmp_path):
    made = [np.zeros((1, 2, 3 if k == 1 else 2), np.uint8) for k in range(3)]
    images, info = cached(tmp_path, "numbers", 1, lambda: Job("numbers", 3, (1, 2, 2), made))
    assert len(images) == 2 and "has shape (1, 2, 3)" in info["broken"]["image 1"]


def test_nothing_but_broken_images(tmp_path):
    job = Job("x", 2, (1, 2, 2), ["not an image"] * 2, names=["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match="none of 2 images could be read; the first is a.jpg: not an image"):
        cached(tmp_path, "x", 1, lambda: job)
    assert left(tmp_path) == []


def left(folder):
    "What is in the cache beside locks."
    return sorted(p.name for p in folder.rglob("*") if p.suffix != ".lock")


@pytest.mark.parametrize("stop", [0, 1024, 4999])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, SystemExit])
def test_interrupted_it_leaves_nothing_and_begins_anew(tmp_path, stop, error):
    def fail(i):
        if i == stop:
            raise error
    with pytest.raises(error):
        cached(tmp_path, "numbers", 1, lambda: numbers(5000, fail))
    assert left(tmp_path) == []
    images, _ = cached(tmp_path, "numbers", 1, lambda: numbers(5000))
    assert torch.equal(images[:, 0, 0, 0], expected(5000))


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from dcgan.datasets.files import Job, cached
def images():
    for k in range(2000):
        time.sleep(float(sys.argv[2]))
        yield np.full((1, 4, 4), k % 251, np.uint8)
cached(Path(sys.argv[1]), "numbers", 1, lambda: Job("numbers", 2000, (1, 4, 4), images()))
print("made")
"""


def start(tmp_path, pause=0):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_killed_while_it_writes(tmp_path):
    "What a killed process leaves counts for nothing, and the next one removes it."
    process = start(tmp_path, pause=1)
    while not list(tmp_path.glob("*.part/images.u8")) and process.poll() is None:
        time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    part, = tmp_path.glob("*.part")
    (part/"junk").write_text("x")
    assert left(tmp_path) == ["images.u8", "junk", part.name]
    assert "made" in start(tmp_path).communicate()[0]
    assert left(tmp_path) == ["about.json", "images.u8", part.stem]
    images, _ = cached(tmp_path, "numbers", 1, None)
    assert torch.equal(images[:, 0, 0, 0], expected(2000))


def test_two_processes_at_once(tmp_path):
    both = [start(tmp_path, pause=.0005) for _ in range(2)]
    said = [p.communicate()[0] for p in both]
    assert all("made" in s for s in said) and sum("images go into" in s for s in said) == 1
    assert torch.equal(cached(tmp_path, "numbers", 1, None)[0][:, 0, 0, 0], expected(2000))


def test_a_second_thread_waits_and_says_so(tmp_path, capsys):
    def slow(i):
        if i % 1000 == 0:
            time.sleep(.3)
    with ThreadPoolExecutor() as pool:
        got = list(pool.map(lambda _: cached(tmp_path, "numbers", 1, lambda: numbers(2000, slow))[0], range(2)))
    assert torch.equal(*got) and "another process is making the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    "harm", ["flipped", "cut", "longer", "no images", "no facts", "torn facts", "foreign facts", "a list", "empty"]
)
def test_a_damaged_cache_is_made_anew_and_it_is_said(tmp_path, harm, capsys):
    cached(tmp_path, "numbers", 1, lambda: numbers(5000))
    folder, = tmp_path.glob("numbers-*[!k]")
    data, info = folder/"images.u8", folder/"about.json"
    if harm == "flipped":
        with open(data, "r+b") as f:
            f.seek(70_001), f.write(b"\xff")
    if harm == "cut":
        os.truncate(data, 70_000)
    if harm == "longer":
        data.write_bytes(data.read_bytes() + b"x")
    if harm == "no images":
        data.unlink()
    if harm == "no facts":
        info.unlink()
    if harm == "torn facts":
        info.write_text(info.read_text()[:50])
    if harm == "foreign facts":
        info.write_text("{}")
    if harm == "a list":
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
    def fail(i):
        pytest.fail("it was begun")
    with pytest.raises(OSError, match="5,000 images need 0.1 MB in .*, where 0.0 MB are free: make room, or ask for fewer"):
        cached(tmp_path, "numbers", 1, lambda: numbers(5000, fail))
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's disk without room")
def test_a_disk_that_fills_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        return open("/dev/full", "wb")
    with monkeypatch.context() as m:
        m.setattr(banks, "open", full, raising=False)
        with pytest.raises(OSError, match="can't be written .No space left on device.: choose another folder by DCGAN_CACHE"):
            cached(tmp_path, "numbers", 1, lambda: numbers(5000))
    assert left(tmp_path) == []
    assert len(cached(tmp_path, "numbers", 1, lambda: numbers(5000))[0]) == 5000


def test_another_error_of_the_disk_keeps_its_own_words(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(banks.os, "replace", broken)
    with pytest.raises(OSError, match="can't be written .Input/output error.: choose another folder by DCGAN_CACHE"):
        cached(tmp_path, "numbers", 1, lambda: numbers(5))
    assert left(tmp_path) == []


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
        check_bytes(images, "faces")
    check_bytes(torch.zeros(1, 3, 2, 2).byte())
