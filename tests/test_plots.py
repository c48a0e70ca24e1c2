"Lesson 02: sheets of the right size and true grey values, honest errors, whole files, the same bytes again."
import gc
import math
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from dcgan.plots import (
    LINES,
    animate_curves,
    animate_grids,
    check_images,
    curves,
    draw_network,
    grid,
    real_and_fake,
    save_figure,
    save_grid,
    show_grid,
    write_aside,
)


def images(n, c=1, h=5, w=5, seed=0):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def history(n):
    return [{"step": 10 * i, **{key: 1 / (i + 1 + j) for j, key in enumerate(LINES)}, "epoch": i} for i in range(n)]


@pytest.mark.parametrize("n", (1, 2, 5, 7, 8, 9, 64))
@pytest.mark.parametrize("columns", (1, 4, 8))
@pytest.mark.parametrize("pad", (0, 2))
def test_grid_size_and_place(n, columns, pad):
    x = images(n, h=4, w=6)
    sheet = grid(x, columns, pad)
    rows, across = math.ceil(n / columns), min(n, columns)
    assert sheet.shape == (rows * (4 + pad) + pad, across * (6 + pad) + pad, 3) and sheet.dtype == numpy.uint8
    for i in range(n):
        top, left = pad + i // columns * (4 + pad), pad + i % columns * (6 + pad)
        expected = ((x[i, 0] + 1) * 127.5).round()
        assert (torch.tensor(sheet[top:top + 4, left:left + 6, 0].astype(float)) - expected).abs().max() <= 1


def test_grid_returns_every_byte():
    u = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert (grid(u / 127.5 - 1, pad=0)[..., 0].reshape(-1) == numpy.arange(256)).all()


def test_grid_scale_is_fixed():
    assert (grid(torch.zeros(2, 1, 3, 3), pad=0) == 128).all()
    half = grid(images(6).clamp(0), pad=0)
    assert half.min() >= 127, "images in [0, 1] must be grey, not stretched to black"


def test_grid_keeps_colours_in_order():
    x = -torch.ones(1, 3, 2, 2)
    x[:, 0] = 1
    assert grid(x, pad=0)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("dtype", (torch.float64, torch.float16, torch.bfloat16))
def test_grid_takes_any_float_and_leaves_it_alone(dtype):
    x = images(3).to(dtype).requires_grad_()
    before = x.detach().clone()
    assert grid(x).dtype == numpy.uint8 and torch.equal(x, before)


@pytest.mark.parametrize("wrong, said", (
    (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "uint8"), (torch.full((2, 1, 4, 4), 255.), "255"),
    (torch.full((2, 1, 4, 4), math.nan), "nan"), (torch.full((2, 1, 4, 4), -1.01), "-1.01"),
    (torch.zeros(1, 4, 4), r"\(1, 4, 4\)"), (torch.zeros(2, 2, 4, 4), r"\(2, 2, 4, 4\)"),
    (torch.zeros(0, 1, 4, 4), r"\(0, 1, 4, 4\)"), (numpy.zeros((2, 1, 4, 4)), "ndarray")))
def test_what_is_not_images_is_refused(wrong, said):
    for function in (check_images, grid, show_grid):
        with pytest.raises(ValueError, match=said):
            function(wrong)


def test_rounding_is_forgiven():
    assert grid(torch.full((1, 1, 2, 2), 1 + 1e-6), pad=0).max() == 255


@pytest.mark.parametrize("arguments", ({"columns": 0}, {"pad": -1}))
def test_grid_refuses_impossible_layouts(arguments):
    with pytest.raises(ValueError, match="columns >= 1 and pad >= 0"):
        grid(images(2), **arguments)


def test_real_and_fake_have_axes_of_their_own():
    figure = real_and_fake(images(8), images(3, seed=1))
    titles = [(ax.get_title(), ax.title.get_color()) for ax in figure.axes]
    assert titles == [("real", "tab:blue"), ("generated", "tab:orange")]
    assert all(len(ax.images) == 1 for ax in figure.axes)


@pytest.mark.parametrize("n", (1, 2, 30))
def test_curves_draw_what_they_are_given(n):
    rows = history(n)
    losses, beliefs = curves(rows).axes
    assert list(losses.lines[0].get_ydata()) == [row["loss_d"] for row in rows]
    assert list(beliefs.lines[2].get_ydata()) == [row["d_gz_after"] for row in rows]
    assert beliefs.get_ylim()[0] < 0 and beliefs.get_ylim()[1] > 1


@pytest.mark.parametrize("key, legend", (("digit_fid", "digit-FID"), ("judge_fid", "distance, by a judge")))
def test_what_was_measured_has_a_panel_where_rows_hold_it(key, legend):
    rows = history(9)
    for row, value in zip(rows[2::3], (40., 20., 10.)):
        row[key] = value
    rows[0][key], rows[1][key] = None, ""  # as a CSV gives back what was not measured
    *_, distance = curves(rows).axes
    assert list(distance.lines[0].get_xdata()) == [20, 50, 80] and list(distance.lines[0].get_ydata()) == [40, 20, 10]
    assert distance.get_yscale() == "log" and distance.get_legend().get_texts()[0].get_text() == legend


def test_an_animation_shows_a_measurement_when_it_was_made(tmp_path):
    rows = history(6)
    rows[-1]["digit_fid"] = 3.
    animate_curves(rows, tmp_path / "a.gif")
    gif = Image.open(tmp_path / "a.gif")
    third = []
    for frame in range(gif.n_frames):
        gif.seek(frame)
        pixels = numpy.asarray(gif.convert("RGB")).astype(int)[25:175, 500:655]  # inside the panel
        third.append(((pixels - (255, 127, 14)).__abs__().sum(2) < 60).any())
    assert third == [False] * (gif.n_frames - 1) + [True]


def test_curves_say_what_is_missing():
    with pytest.raises(ValueError, match="no rows"):
        curves([])
    with pytest.raises(ValueError, match="needs d_x, d_gz_before, d_gz_after"):
        curves([{"step": 0, "loss_d": 1., "loss_g": 1.}])


def test_saved_grid_is_the_grid(tmp_path):
    x = images(7, 3)
    save_grid(x, tmp_path / "a.png", columns=4)
    assert (numpy.asarray(Image.open(tmp_path / "a.png")) == grid(x, 4)).all()
    save_figure(curves(history(3)), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").format == "PNG"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), write_aside(path) as aside:
        aside.write_text("half")
        raise OSError("disk full")
    with pytest.raises(ValueError):
        save_grid(images(1) * 9, path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_grid(images(1), tmp_path / "nowhere" / "a.png")


def test_animated_grids(tmp_path):
    frames = [images(7, seed=s) for s in range(4)]
    for name in ("a.gif", "b.gif"):
        animate_grids(frames, tmp_path / name, columns=4, fps=5)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    gif = Image.open(tmp_path / "a.gif")
    assert gif.n_frames == 4 and gif.info["loop"] == 0 and gif.size == grid(frames[0], 4).shape[1::-1]
    for i, x in enumerate(frames):
        gif.seek(i)
        assert abs(numpy.asarray(gif.convert("RGB")).astype(int) - grid(x, 4)).max() <= 3, (
            f"frame {i} shows something else"
        )
    assert gif.info["duration"] == 2000


@pytest.mark.parametrize("frames, said", (([], "a frame or more"), ([images(2), images(3)], "one shape")))
def test_animated_grids_refuse(tmp_path, frames, said):
    with pytest.raises(ValueError, match=said):
        animate_grids(frames, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="fps"):
        animate_grids([images(2)], tmp_path / "a.gif", fps=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n, frames, expected", ((1, 40, 1), (2, 40, 1), (7, 40, 6), (200, 12, 12), (50, 1, 1)))
def test_animated_curves(tmp_path, n, frames, expected):
    animate_curves(history(n), tmp_path / "a.gif", frames=frames)
    animate_curves(history(n), tmp_path / "b.gif", frames=frames)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    gif = Image.open(tmp_path / "a.gif")
    assert gif.n_frames == expected
    gif.seek(expected - 1)
    figure = curves(history(n))
    figure.canvas.draw()
    difference = abs(
        numpy.asarray(gif.convert("RGB")).astype(int) - numpy.asarray(figure.canvas.buffer_rgba())[..., :3]
    )
    assert difference.mean() < 2, "the last frame must be the whole figure, on the same axes"


def row(kind, out_shape, kernel=4, stride=2):
    return SimpleNamespace(kind=kind, kernel=kernel, stride=stride, out_shape=out_shape)


def test_draw_network_writes_every_size():
    table = [row("linear", (64, 4, 4), 0, 1), row("conv_t", (32, 8, 8)), row("conv_t", (3, 16, 16))]
    figure = draw_network(table, in_shape=(100,), title="G")
    written = [text.get_text() for text in figure.axes[0].texts]
    for size in ("100", "64 × 4 × 4", "32 × 8 × 8", "3 × 16 × 16", "G", "linear"):
        assert size in written
    assert written.count("conv_t, kernel 4, stride 2") == 2 and len(figure.axes[0].patches) >= 12


@pytest.mark.parametrize("kind, shape", (("conv_t", (1024, 128, 128)), ("upsample", (3, 4, 4))))
def test_draw_network_fits_a_phone(kind, shape):
    "390 pixels, of which a page's margins take some; whatever is written stays inside, in type of 10 points or more."
    figure = draw_network([row(kind, shape)] * 8, in_shape=(100,), title="D of digits-conditional")
    figure.canvas.draw()
    width = figure.get_figwidth() * figure.dpi
    assert width <= 340
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and (not text.get_text() or text.get_fontsize() >= 10)


def test_curves_are_told_apart_without_colour():
    for panel in 0, 1:
        looks = [look for of_panel, _, look in LINES.values() if of_panel == panel]
        assert len({(look.get("ls", "-"), look.get("lw")) for look in looks}) == len(looks)


def test_draw_network_colours_by_direction():
    up, down = [row("conv_t", (8, 4, 4)), row("conv_t", (1, 8, 8))], [row("conv", (8, 4, 4)), row("linear", (1,), 0)]
    face = lambda table: draw_network(table).axes[0].patches[0].get_facecolor()
    assert face(up)[0] > face(up)[2] and face(down)[0] < face(down)[2]
    with pytest.raises(ValueError, match="no rows"):
        draw_network([])


def test_figures_show_themselves_and_are_freed():
    figure = curves(history(3))
    assert isinstance(figure, Figure) and figure._repr_png_()[:4] == b"\x89PNG"
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None


def test_no_pyplot_in_headless_use():
    code = ("import sys, torch; from dcgan.plots import *; curves; grid(torch.zeros(2, 1, 4, 4));"
            "curves([dict(step=0, loss_d=1, loss_g=1, d_x=.5, d_gz_before=.5, d_gz_after=.5)])._repr_png_();"
            "real_and_fake(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4));"
            "print([m for m in ('matplotlib.pyplot', 'pandas', 'sklearn', 'mlxtend', 'scipy') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name, kind", [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")])
def test_a_name_s_ending_decides_the_format(tmp_path, name, kind):
    x = torch.linspace(-1, 1, 28).expand(5, 1, 28, 28)
    save_grid(x, tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        seen = numpy.asarray(picture.convert("RGB")).astype(int)
        assert picture.format == kind
    assert abs(seen - grid(x)).max() <= (0 if kind == "PNG" else 40) and abs(seen - grid(x)).mean() < 4


@pytest.mark.parametrize("name", ["a", "a.", "a.gif", "a.txt", ".png", "a.png.bak"])
def test_an_unknown_ending_is_refused_and_writes_nothing(tmp_path, name):
    with pytest.raises(ValueError, match="a picture's name ends in .png"):
        save_grid(images(1), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_sheet_too_large_for_its_format_is_refused(tmp_path):
    x = torch.zeros(1, 1, 4, 17_000)
    with pytest.raises(ValueError, match="a WEBP holds 16383"):
        save_grid(x, tmp_path / "a.webp")
    save_grid(x, tmp_path / "a.jpg")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]


def test_a_picture_is_written_into_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_grid(images(1), "~/a.png")
    assert (tmp_path / "a.png").is_file()
