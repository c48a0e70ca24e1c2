"Wrong calls of what lessons 21 to 08 export: one sentence each, ours, and nobody else's exception."
import os

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan import data
from dcgan.datasets import drawn as standins
from dcgan.datasets import files as banks
from dcgan.datasets import sources

IMAGES, X = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8)
BAD = {
    "None": None,
    "text": "x\n\ud800",
    "list": [],
    "dict": {},
    "minus": -1,
    "half": 0.5,
    "nan": float("nan"),
    "huge": 10**18,
    "object": object(),
    "empty": torch.zeros(0),
    "floats": torch.zeros(2, 3),
    "array": np.zeros(3),
    "bytes": b"x",
}
CALLS = [  # a function, its good arguments, and for each the names of what of BAD is fine there after all
    (data.check_bytes, [IMAGES], [""]),
    (banks.check_shape, [8, 1], ["None", "None"]),
    (banks.place, ["f", "x"], ["text", None]),
    (banks.decoded, ["f/a.png", 8, 1], [None, "None", ""]),
    (sources.load, ["folder:f", "train", 8, 1, 1, "d", 0], ["", "", "None", "None", "None", None, "huge"]),
    (
        sources.Want,
        ["digits", "train", 8, 1, 1, "d", 0],
        ["text", "", "None", "None", "None huge", "text", "huge"],
    ),
    (data.digits, ["train"], [""]),
    (data.to_x, [IMAGES], [""]),
    (data.draws, [1, 2], ["huge", "huge"]),
    (data.order, [5, 0, 0], ["", "huge", "huge"]),
    (data.rotated, [X, torch.zeros(2)], ["", ""]),
    (data.last_batch, [9, 4, "keep", 1], ["huge", "", "", ""]),
    (data.check_batches, [9, 3, "keep", 0.0, 0, 1], ["huge", "", "", "half", "", ""]),
    (data.Batches, [IMAGES, 1, 0, "drop", 0.0, 0, 1], ["", "", "huge", "", "half", "", ""]),
    (data.Batches(IMAGES, 1).epoch, [0, 0], ["huge", ""]),
    (data.offsets, [2, 1, 0, 0], ["", "", "huge", "huge"]),
    (data.shift, [X, 1, 0, 0, 0], ["", "", "huge", "huge", None]),
    (standins.house_numbers, [2, 0, "train", 0], ["", "huge", "", "huge"]),
    (standins.faces, [2, 0, 0], ["", "huge", "huge"]),
    (standins.face_factors, [2, 0, 0], ["", "huge", "huge"]),
    (standins.faces_from, [{}], ["dict"]),
    *[
        (
            lambda v, name=name: standins.faces_from({name: v}),
            [0.0],
            ["half floats array" if name == "skin" else "floats array"],
        )
        for name in ("skin", "hat")
    ],
]
TABLE = [(f, args, i, names.split()) for f, args, fine in CALLS for i, names in enumerate(fine) if names is not None]


@pytest.mark.parametrize("f, args, i, fine", TABLE, ids=lambda v: getattr(v, "__name__", str(v)[:12].strip()))
def test_one_sentence(f, args, i, fine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("f"), Image.new("L", (8, 8)).save("f/a.png")
    for bad in set(BAD) - set(fine):
        with pytest.raises((ValueError, FileNotFoundError)) as e:
            f(*args[:i], BAD[bad], *args[i + 1:])
        said = str(e.value)
        said.encode()
        assert "\n" not in said and any(
            word in said for word in ("expected", "give ", "must be", "there is", "there are", "ask for")
        ), bad
        assert len(said) < 400 and os.listdir() == ["f"], f"{bad}: nothing was made"


def test_the_good_arguments_are_good(tmp_path, monkeypatch):
    "Or the table would prove nothing."
    monkeypatch.chdir(tmp_path)
    os.mkdir("f"), Image.new("L", (8, 8)).save("f/a.png")
    for f, args, _ in CALLS:
        f(*args)
