"""What `make site-test` checks: the playground as a browser draws it, against torch.

A page of the test's own opens the playground in a frame, as wide as a phone, moves its sliders, and sends back pixels,
numbers and the printed line of Python, which is run here.
"""
import contextlib
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "playground")]
from browser import HTML, PHONE, browse  # noqa: E402
from build import SHEET, SHOWN  # noqa: E402

from dcgan.data import digits, to_x  # noqa: E402
from dcgan.doctor import apart  # noqa: E402
from dcgan.latent import draw, jump, lerp, neighbours, slerp, walk  # noqa: E402
from dcgan.networks import Generator, latent  # noqa: E402
from dcgan.weights import shipped  # noqa: E402

NAMES = [shown.name for shown in SHOWN if shown.name in shipped()]
SEED, NUMBER, N = 7, 3, 4
GIVEN = {"seed": SEED, "number": NUMBER, "n": N}
PROBE = (HERE / "play.html").read_text(encoding="utf-8").replace("PHONE", str(PHONE)).replace("GIVEN", json.dumps(GIVEN))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    assert (HTML / "playground/index.html").exists(), "there is no playground: make playground"
    found, refused = browse(PROBE, tmp_path_factory.mktemp("browser"))
    assert "error" not in found, found["error"]
    return found, refused


@pytest.fixture(scope="module")
def networks():
    return {name: Generator.from_pretrained(name) for name in NAMES}


def shown(x):
    "As the page's canvas holds one image: red, green, blue, 255 for each pixel."
    levels = ((x + 1) / 2 * 255).round().clamp(0, 255).expand(3, -1, -1)
    return torch.cat([levels, torch.full_like(levels[:1], 255)]).permute(1, 2, 0).flatten()


def agrees(pixels, x):
    "Whether nearly all levels are the same and none is off by more than one."
    off = (torch.tensor(pixels) - shown(x)).abs()
    return off.max() <= 1 and (off > 0).float().mean() < 0.01


def by_python(line):
    "The image that a printed line of Python makes."
    space = {}
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        exec(line, space)
    return space["x"][0]


def test_the_page_shows_every_generator(seen):
    assert [g["name"] for g in seen[0]["list"]] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_latent_vectors_are_python_s(seen, networks, name):
    G, found = networks[name], seen[0][name]
    z = latent(N, G.z_dim, G.z_law, SEED, first=NUMBER)
    assert (torch.tensor(found["z"]).view(N, -1) - z).abs().max() < 2e-6
    far = latent(2, G.z_dim, G.z_law, 123456789, first=1000)
    assert (torch.tensor(found["far"]).view(2, -1) - far).abs().max() < 2e-6
    assert (torch.tensor(found["near"]).view(3, -1) - neighbours(z[0], 2, 0.25, 5)).abs().max() < 4e-6


@pytest.mark.parametrize("name", NAMES)
def test_its_images_are_torch_s(seen, networks, name):
    found = seen[0][name]
    x = networks[name].sample(N, seed=SEED, first=NUMBER)
    assert (torch.tensor(found["x"]).view_as(x) - x).abs().max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_line_makes_the_image(seen, name):
    found = seen[0][name]
    assert f'"{name}").sample(1, seed={SEED}, first={NUMBER}' in found["drawn"]["python"]
    for state in {"drawn", "slid", "dragged", "told"} & found.keys():
        assert agrees(found[state]["pixels"], by_python(found[state]["python"])), state
    texts = {found[state]["python"] for state in ("drawn", "slid", "dragged")}
    assert len(texts) == 3 and sum("torch.tensor" in text for text in texts) == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_sheet_and_its_numbers(seen, networks, name):
    found, G = seen[0][name], networks[name]
    x = G.sample(SHEET, seed=SEED)
    assert agrees(found["tile"], x[5])
    real = next(g["apart"] for g in seen[0]["list"] if g["name"] == name)
    assert abs(float(re.match(r"Variety of the sheet([\d.]+\d)", found["variety"])[1]) - apart(x) / real) < 0.006
    low, high = map(float, re.match(r"Range of the sheet(\S+) to (-?\d\.\d\d)", found["range"]).groups())
    assert math.isclose(low, x.min(), abs_tol=0.006) and math.isclose(high, x.max(), abs_tol=0.006)
    assert found["around"] == [x.shape[-1]] * 9
    if G.table.in_shape[0] == G.z_dim:  # takes no classes
        ends, path = latent(2, G.z_dim, G.z_law, SEED), slerp if G.z_law == "normal" else lerp
        way = jump(draw(G, walk(ends, 8, path)))
        assert abs(float(re.match(r"Largest step of the walk([\d.]+) ×", found["step"])[1]) - way) < 0.06


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_phone_and_everything_has_a_name(seen, name):
    found = seen[0][name]
    assert found["client"] == PHONE and found["beyond"] <= 0
    assert found["nameless"] == []


def test_it_asks_no_other_host(seen):
    assert seen[1] == []


def test_speed_is_printed(seen, capsys):
    with capsys.disabled():
        print()
        for name in NAMES:
            print(f"playground, {name}: {re.match(r'Speed(.*/s)', seen[0][name]['speed'])[1]}")


def test_what_is_missing_is_said(seen):
    found = seen[0]
    assert "can't run WebAssembly" in found["nowasm"]["says"] and "“faces” could not be opened" in found["gone"]["says"]
    for case in found["nowasm"], found["gone"]:
        assert case["still"] > 0 and case["alt"] and not case["live"]
    assert "no generator “nobody”" in found["unknown"]["says"] and found["unknown"]["live"]


def test_directions_were_tried():
    entries = json.loads((HTML / "playground/generators/generators.json").read_text())
    for entry in entries:
        assert entry["directions"] and all(len(d["v"]) == entry["z_dim"] and d["rose"] > d["of"] / 2 for d in entry["directions"])
    assert to_x(digits()[0][:1]).shape[1:] == tuple(entries[0]["shape"])
