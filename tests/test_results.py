"The shipped runs: whole, small, and what their papers say they are."
import csv
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dcgan.evaluation.metrics import digit_fid
from dcgan.networks import Generator
from dcgan.recipes import command, from_json
from dcgan.weights import ASSETS, shipped

from notebooks import ROOT
from running import train

sys.path.insert(0, str(ROOT / "bench"))
import measuring  # noqa: E402
import report_set  # noqa: E402
import ship  # noqa: E402


def test_there_are_some():
    assert {"digits", "faces", "house_numbers", "mnist28", "mnist64"} <= set(shipped())
    assert sum(f.stat().st_size for name in shipped() for f in (ASSETS / name).rglob("*")) < 20_000_000


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_run_is_whole(name):
    folder = ASSETS / name
    recipe, report = from_json((folder / "recipe.json").read_bytes()), json.loads((folder / "report.json").read_text())
    weights = load_file(folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size < 8_100_000
    assert all(t.dtype == torch.half for t in weights.values() if t.is_floating_point())
    G = Generator.from_pretrained(name)
    assert G.table.rows == recipe.g_table.rows and (G.z_dim, G.z_law) == (recipe.z_dim, recipe.z_law)
    x = G.sample(5)
    assert x.dtype == torch.float and x.shape[1:] == recipe.x_shape and x.abs().max() <= 1 and x.std(0).mean() > 0.1
    assert report["command"] == command(recipe) and report["images"] > 0 and report["machine"]
    with open(folder / "history.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert int(rows[-1]["step"]) == report["steps"]
    assert len((folder / "film.txt").read_text().split()) == 6


def test_the_shipped_digits_are_small_and_were_measured():
    folder = ASSETS / "digits"
    measured = json.loads((folder / "report.json").read_text())["evaluation"]
    assert (folder / "model.safetensors").stat().st_size <= 2_000_000
    now = digit_fid(Generator.from_pretrained("digits"), n=4000)
    assert now == pytest.approx(measured["fid_seeds"][0], abs=0.03)  # half precision moves it a little
    assert now < 3 * measured["fid_floor"]


def test_shipping_a_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "ASSETS", tmp_path)
    trainer = train(tiny.replace(sample_every=1), tmp_path / "run")
    folder = ship.ship(tmp_path / "run", "little")
    assert {f.name for f in folder.iterdir()} == {
        "config.json", "model.safetensors", "recipe.json", "history.csv", "report.json", "film.png",
        "film.txt",
    }
    assert (folder / "film.txt").read_text().split()[0] == "0" and (folder / "film.txt").read_text().split()[-1] == "16"
    a, b = trainer.best_G.sample(8, seed=3), Generator.from_pretrained(folder).sample(8, seed=3)
    assert not torch.equal(a, b) and (a - b).abs().max() < 0.02  # half precision
    monkeypatch.setattr(ship, "LIMIT", 100)
    with pytest.raises(ValueError, match="at most 100"):
        ship.ship(tmp_path / "run", "too-large")
    assert not (tmp_path / "too-large").exists()


def test_every_shipped_generator_of_digits_has_a_row():
    rows = {row["generator"]: row for row in measuring.read(report_set.ROWS)}
    assert {name for name in report_set.GENERATORS if name in shipped()} <= set(rows)
    for name, row in rows.items():
        assert set(report_set.KEPT) < set(row) and row["command"].startswith("python bench/report_set.py") and row["date"]
        assert 0 < float(row["fid_floor"]) < float(row["fid"]) and float(row["kernel_error"]) > 0
        shares = [float(share) for share in row["coverage_by_class"].split()]
        assert len(shares) == 10 and sum(shares) / 10 == pytest.approx(float(row["coverage"]), abs=.03)
        side = Generator.from_pretrained(name).table.out_shape[1]
        assert row["processing"] == ("" if side == 28 else f"28→{side}→28")


def test_a_row_replaces_that_of_the_same_generator(tmp_path, monkeypatch):
    monkeypatch.setattr(report_set, "ROWS", tmp_path / "rows.csv")
    assert measuring.read(report_set.ROWS) == []
    for name, fid in ("a", 1), ("b", 2), ("a", 3):
        report_set.keep({"generator": name, "fid": fid})
    assert [tuple(row.values()) for row in measuring.read(report_set.ROWS)] == [("a", "3"), ("b", "2")]


@pytest.mark.parametrize("arrays, words", [
    ({"images": np.zeros((5000, 28, 28), np.uint8)}, "holds images; expected images and labels"),
    ({"images": np.zeros((4000, 28, 28), np.uint8), "labels": np.zeros(4000)}, r"\(4000, 28, 28\) and 4000 labels; expected uint8 \(5000, 28"),
    ({"images": np.zeros((5000, 32, 32), np.uint8), "labels": np.zeros(5000)}, r"\(5000, 32, 32\)"),
    ({"images": np.zeros((5000, 28, 28), np.float32), "labels": np.zeros(5000)}, "float32"),
    ({"images": np.zeros((5000, 28, 28), np.uint8), "labels": np.zeros(400)}, "400 labels"),
    ({"images": np.zeros((5000, 28, 28), np.uint8), "labels": np.full(5000, 10)}, "from 10 to 10"),
])
def test_another_report_set_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=words) as e:
        report_set.report_digits(tmp_path / "set.npz")
    assert "\n" not in str(e.value)


def test_a_report_set_is_read(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.full((5000, 28, 28), 7, np.uint8), labels=np.arange(5000) % 10)
    bank = report_set.report_digits(tmp_path / "set.npz")
    assert bank.images.shape == (5000, 1, 28, 28) and bank.labels.dtype == torch.long and bank.images.max() == 7
    (tmp_path / "other.npz").write_text("nothing")
    with pytest.raises(ValueError, match="other.npz is no npz file"):
        report_set.report_digits(tmp_path / "other.npz")
