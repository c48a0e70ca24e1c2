"Downloads: whole or not at all, and a sentence when there is none. No test goes to the network."
import errno
import gzip
import urllib.error
import zipfile
from pathlib import Path

import pytest
from formats import mnist_files  # noqa: F401 (a fixture)
from torchvision.datasets import utils

from dcgan.datasets.downloads import obtained, unpacked
from dcgan.datasets.sources import load

REFUSED = urllib.error.HTTPError("http://x", 403, "Forbidden", None, None)


@pytest.fixture
def server(monkeypatch):
    "A server to be filled: file name → bytes, or an error to raise after half of them were written."
    files = {}
    def fetch(url, path, chunk_size=None):
        got = files.get(url.rsplit("/")[-1], REFUSED)
        Path(path).write_bytes(got if isinstance(got, bytes) else b"half a file")
        if not isinstance(got, bytes): raise got
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", fetch)
    return files


def everything(folder): return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_downloaded_once(tmp_path, server, mnist_files, name):
    server.update(mnist_files)
    assert load(name, data_dir=tmp_path/"d").images.shape == (12, 1, 28, 28)
    assert not [p for p in everything(tmp_path) if ".download" in p]
    server.clear()
    bank = load(name, "test", data_dir=tmp_path/"d")
    assert bank.images.shape == (5, 1, 28, 28) and bank.labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [REFUSED, urllib.error.URLError("no route"), OSError("reset"), TimeoutError("timed out")])
def test_refused_leaves_no_trace_and_says_what_to_do(tmp_path, server, mnist_files, error):
    server.update(mnist_files | {"t10k-images-idx3-ubyte.gz": error})
    with pytest.raises(FileNotFoundError) as e:
        load("mnist", data_dir=tmp_path/"a"/"b")
    said = str(e.value)
    assert "\n" not in said and said.endswith("or use the offline stand-in digits") and "could not be downloaded" in said
    assert all(f"MNIST/raw/{name}" in said for name in mnist_files)
    assert not everything(tmp_path)


def test_a_page_instead_of_the_file(tmp_path, server, mnist_files):
    server.update({name: b"<!DOCTYPE html>quota" for name in mnist_files})
    with pytest.raises(FileNotFoundError, match="File not found or corrupted"):
        load("mnist", data_dir=tmp_path)
    assert not everything(tmp_path)


def test_interrupted_leaves_no_trace(tmp_path, server, mnist_files):
    server.update(mnist_files | {"t10k-images-idx3-ubyte.gz": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt): load("mnist", data_dir=tmp_path)
    assert not everything(tmp_path)


def test_archives_put_by_hand_are_enough(tmp_path, server, mnist_files):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    for name, data in mnist_files.items(): (tmp_path/"MNIST"/"raw"/name).write_bytes(data)
    assert len(load("mnist", data_dir=tmp_path).images) == 12


def test_only_what_is_missing_is_named_and_what_is_there_stays(tmp_path, server, mnist_files):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    good, bad, *missing = mnist_files
    (tmp_path/"MNIST"/"raw"/good).write_bytes(mnist_files[good])
    (tmp_path/"MNIST"/"raw"/bad).write_bytes(b"cut short")
    before = everything(tmp_path)
    with pytest.raises(FileNotFoundError) as e: load("mnist", data_dir=tmp_path)
    assert f"the checksum of MNIST/raw/{bad} is wrong" in str(e.value).replace("\\", "/")
    assert good not in str(e.value) and all(name in str(e.value) for name in missing)
    assert everything(tmp_path) == before and (tmp_path/"MNIST"/"raw"/bad).read_bytes() == b"cut short"
    server.update(mnist_files)
    assert len(load("mnist", data_dir=tmp_path).images) == 12


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\0\0\x08\x03\0\0\0\x0c"])
def test_damaged_files_are_named_and_left_alone(tmp_path, server, mnist_files, content):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    for name, data in mnist_files.items(): (tmp_path/"MNIST"/"raw"/name[:-3]).write_bytes(gzip.decompress(data))
    (tmp_path/"MNIST"/"raw"/"train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="the files of mnist in .* can't be read .*: delete them$"):
        load("mnist", data_dir=tmp_path)
    assert (tmp_path/"MNIST"/"raw"/"train-images-idx3-ubyte").read_bytes() == content


def test_a_download_that_cannot_be_written(tmp_path, server, mnist_files):
    (tmp_path/"file").write_text("not a folder")
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        load("mnist", data_dir=tmp_path/"file")


def test_obtained_takes_a_folder_below(tmp_path, server):
    seen = []
    def make(root, download=False):
        seen.append(Path(root).name)
        if download: Path(root).mkdir(), (Path(root)/"f").write_text("x")
        if not (Path(root)/"f").exists(): raise RuntimeError("Dataset not found")
        return (Path(root)/"f").read_text()
    assert obtained("x", tmp_path, make, [], "digits", "SVHN") == "x" and set(seen) == {"SVHN"}


def test_unpacked(tmp_path):
    file, made = tmp_path/"a.zip", tmp_path/"a"
    unpacked(file, made, "faces")                                     # nothing there: nothing to do
    file.write_bytes(b"\n<HTML>quota exceeded")
    with pytest.raises(ValueError, match="a.zip is no zip file but a web page .* or use the offline stand-in faces$"):
        unpacked(file, made, "faces")
    with zipfile.ZipFile(file, "w") as archive: archive.writestr("a/1.jpg", "one" * 100)
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match="cut short or damaged"): unpacked(file, made, "faces")
    assert everything(tmp_path) == ["a.zip"]
    file.write_bytes(whole)
    unpacked(file, made, "faces")
    assert (made/"1.jpg").read_text() == "one" * 100 and everything(tmp_path) == ["a", "a.zip", "a/1.jpg"]


@pytest.fixture
def archive(tmp_path):
    "A zip archive of the folder a, with three files."
    with zipfile.ZipFile(tmp_path/"a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3): archive.writestr(f"a/{k}.jpg", f"face {k} " * 1000)
    return tmp_path/"a.zip"


@pytest.mark.parametrize("place", [45, 60, 70])
def test_an_archive_damaged_inside_leaves_nothing(archive, place):
    data = bytearray(archive.read_bytes())
    data[place] ^= 0xff
    archive.write_bytes(data)
    assert zipfile.is_zipfile(archive)
    with pytest.raises(ValueError, match="a.zip is damaged .*delete it and fetch it again .* stand-in faces$") as e: unpacked(archive, archive.with_name("a"), "faces")
    assert "\n" not in str(e.value) and everything(archive.parent) == ["a.zip"]


def test_an_archive_of_something_else(archive):
    with pytest.raises(ValueError, match="a.zip holds no folder b: delete it"): unpacked(archive, archive.with_name("b"), "faces")
    assert everything(archive.parent) == ["a.zip"]


def test_too_little_room_to_unpack_is_said_before(archive, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), dict(free=9000)))
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    with pytest.raises(OSError, match="a.zip needs 25 kB in .*, where 9 kB are free: make room, or use the offline stand-in faces"):
        unpacked(archive, archive.with_name("a"), "faces")
    assert everything(archive.parent) == ["a.zip"]


def test_a_disk_that_fills_while_unpacking(archive, monkeypatch):
    def full(self, path):
        (Path(path)/"a").mkdir(), (Path(path)/"a"/"0.jpg").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match="a.zip needs 25 kB in .*, where the disk is full now: make room"): unpacked(archive, archive.with_name("a"), "faces")
    assert everything(archive.parent) == ["a.zip"]


def test_another_process_was_faster(archive, monkeypatch):
    extract = zipfile.ZipFile.extractall
    def slow(self, path):
        archive.with_name("a").mkdir(), (archive.with_name("a")/"theirs.jpg").write_text("x")
        extract(self, path)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", slow)
    unpacked(archive, archive.with_name("a"), "faces")
    assert everything(archive.parent) == ["a", "a.zip", "a/theirs.jpg"]


@pytest.mark.parametrize("what", ["bytes", "growth", "files"])
def test_an_archive_made_to_fill_the_disk(tmp_path, monkeypatch, what):
    with zipfile.ZipFile(tmp_path/"a.zip", "w", zipfile.ZIP_DEFLATED) as archive: archive.writestr("a/0.jpg", bytes(10**7 + 10**6))
    if what == "bytes": monkeypatch.setattr("dcgan.datasets.downloads.MOST_BYTES", 10**6)
    if what == "files": monkeypatch.setattr("dcgan.datasets.downloads.MOST_FILES", 0)
    if what != "growth": monkeypatch.setattr("dcgan.datasets.downloads.MOST_GROWTH", 10**9)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    with pytest.raises(ValueError, match="a.zip would grow from 11 kB to 1 files and 11.0 MB, as no archive of photographs does: delete it"):
        unpacked(tmp_path/"a.zip", tmp_path/"a", "faces")
    assert everything(tmp_path) == ["a.zip"]


def test_an_archive_whose_table_of_contents_is_damaged(archive):
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 3] ^= 0xff
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="a.zip is damaged .*delete it and fetch it again"): unpacked(archive, archive.with_name("a"), "faces")


def test_a_folder_that_cannot_be_written_is_named(archive, monkeypatch):
    def read_only(self, path): raise OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr(zipfile.ZipFile, "extractall", read_only)
    with pytest.raises(OSError, match="can't be written .Read-only file system.: choose another folder by data_dir") as e: unpacked(archive, archive.with_name("a"), "faces")
    assert str(archive.parent) in str(e.value)


def test_an_empty_raw_folder_is_not_mnist(tmp_path, server, mnist_files):
    (tmp_path/"MNIST"/"raw").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="mnist is not in .*put MNIST/raw/train-images"): load("mnist", data_dir=tmp_path)
    assert not any((tmp_path/"MNIST"/"raw").iterdir())


def test_a_missing_gdown_is_said_whole(tmp_path):
    def make(root, download=False):
        if not download: raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        raise RuntimeError("To download files from GDrive, 'gdown' is required. You can install it with 'pip install gdown'.")
    with pytest.raises(FileNotFoundError, match="'gdown' is required; pip install gdown, then try again.: put a.txt there"):
        obtained("x", tmp_path, make, [("a.txt", None)], "faces")
    (tmp_path/"a.csv").write_text("image_id,partition")
    with pytest.raises(FileNotFoundError, match="tables such as a.csv are not read in their place: put a.txt there"):
        obtained("x", tmp_path, make, [("a.txt", None)], "faces")
