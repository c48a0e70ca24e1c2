"Batches are a function of (seed, epoch), shifts of (seed, step): nothing else decides what the network sees."
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dcgan.data import Batches, digits, draws, last_batch, offsets, order, rotated, shift, to_x

from notebooks import ROOT


def bank(n, c=1, side=6):
    "n images, each with its own number in its pixels."
    images = torch.arange(n).view(n, 1, 1, 1).repeat(1, c, side, side)
    return torch.cat([images % 256, images // 256], 3).to(torch.uint8)


def places(x):
    "The numbers of the images in a batch made from `bank`."
    u = ((x + 1)*127.5).round().long()
    return (u[:, 0, 0, 0] + 256*u[:, 0, 0, -1]).tolist()


# the digits

def test_digits_are_split_and_nobody_can_change_them():
    (images, labels), (held, classes) = digits(), digits("test")
    assert images.shape == (4000, 1, 28, 28) and held.shape == (1000, 1, 28, 28) and images.dtype == torch.uint8
    assert labels.bincount().tolist() == [400]*10 and classes.bincount().tolist() == [100]*10
    rows = {image.numpy().tobytes() for image in images}
    assert not any(image.numpy().tobytes() in rows for image in held), "an image is held out and trained on"
    images.zero_()
    assert digits()[0].any(), "what one caller does to its images reaches the next"
    for split in "extra", None, ["train"]:
        with pytest.raises(ValueError, match="expected 'train' or 'test'"):
            digits(split)


# the range

def test_to_x_reaches_both_ends_and_loses_nothing():
    u = torch.arange(256, dtype=torch.uint8)
    x = to_x(u)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    assert torch.equal(((x + 1) * 127.5).round().to(torch.uint8), u) and torch.equal(
        u, torch.arange(256, dtype=torch.uint8)
    )


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int64)])
def test_to_x_refuses_what_is_no_bytes(images):
    with pytest.raises(ValueError, match="expected torch.uint8"):
        to_x(images)
    with pytest.raises(ValueError, match="expected a uint8 tensor"):
        Batches(images, 1)


# the order

@pytest.mark.parametrize("n", [1, 7, 8, 1000])
def test_order_is_a_permutation(n):
    assert order(n, 0, 0).sort().values.tolist() == list(range(n))


def test_order_depends_on_seed_and_epoch_only():
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    keys = list(itertools.product(range(4), range(4)))
    orders = {k: tuple(order(50, *k).tolist()) for k in keys}
    assert len(set(orders.values())) == len(keys), "two keys share an order: seed + epoch is no key"
    torch.rand(3), np.random.rand(3), order(50, 9, 9)
    assert all(orders[k] == tuple(order(50, *k).tolist()) for k in keys)
    torch.set_rng_state(states[0])
    order(50, 1, 1), offsets(5, 2, 0, 0), list(Batches(bank(20), 5, rotate=10).epoch(0))
    assert torch.equal(torch.get_rng_state(), states[0])


def test_order_is_the_same_in_another_process():
    program = "from dcgan.data import order; print(order(20, 3, 4).tolist())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said.strip() == str(order(20, 3, 4).tolist())


def test_streams_are_apart():
    assert len({draws(what, 0, 0).integers(2**60) for what in (1, 2, 3)}) == 3
    with pytest.raises(ValueError, match="from 0"):
        order(5, -1, 0)


def test_no_key_is_taken_for_another():
    "NumPy takes a number from 2**32 on for two, so that (2**32, 0) would be (0, 1)."
    last = 2**32 - 1
    keys = [(0, 0), (0, 1), (1, 0), (0, last), (last, 0), (last, 1), (1, last)]
    assert len({tuple(order(50, *key).tolist()) for key in keys}) == len(keys)
    assert len({tuple(offsets(50, 3, *key).flatten().tolist()) for key in keys}) == len(keys)
    for call in (lambda: order(50, 2**32, 0), lambda: order(50, 0, 2**32), lambda: draws(3, 0, 2**40),
                 lambda: offsets(5, 2, 2**32, 0), lambda: Batches(bank(4), 2, seed=2**32)):
        with pytest.raises(ValueError, match="at most 4,294,967,295"):
            call()


# batches

@pytest.mark.parametrize(
    "n, size, last",
    [
        (1, 1, "drop"),
        (7, 2, "drop"),
        (7, 2, "keep"),
        (8, 5, "keep"),
        (8, 8, "keep"),
        (300, 128, "drop"),
        (300, 128, "keep"),
    ],
)
def test_an_epoch_takes_the_order_in_slices(n, size, last):
    batches = Batches(bank(n), size, seed=3, last=last)
    got = [places(x) for x in batches.epoch(2)]
    kept, note = last_batch(n, size, last)
    whole = n//size*size
    assert len(got) == len(batches) and sum(got, []) == order(n, 3, 2)[:whole + kept].tolist()
    assert [len(b) for b in got] == [size]*(n//size) + [kept]*(kept > 0)
    assert bool(note) == (whole + kept < n) and batches.note == note


@pytest.mark.parametrize("world", [1, 2])
def test_places_are_those_of_the_images_that_come(world):
    for rank in range(world):
        cut = Batches(bank(61), 8, seed=3, last="keep", rank=rank, world=world)
        for e in 0, 5:
            assert [cut.places(e, step).tolist() for step in range(len(cut))] == [places(x) for x in cut.epoch(e)]


def test_nobody_can_change_the_order_of_an_epoch():
    order(8, 0, 0).zero_()
    assert sorted(order(8, 0, 0).tolist()) == list(range(8))


def test_a_last_batch_of_one_is_dropped_and_said():
    batches = Batches(bank(9), 4, last="keep")
    assert len(batches) == 2 and "1 of 9 images" in batches.note and "BatchNorm" in batches.note
    assert last_batch(10, 4, "keep") == (2, "")
    assert last_batch(19, 8, "keep", 2)[0] == 0, "three images leave one of two processes a single one"
    assert last_batch(20, 8, "keep", 2) == (4, "")


def test_x_is_float32_contiguous_and_in_range():
    images = torch.randint(256, (9, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for rotate in 0, 30:
        for x in Batches(images, 4, rotate=rotate).epoch(0):
            assert x.dtype == torch.float32 and x.is_contiguous() and x.shape == (4, 3, 5, 5)
            assert x.min() >= -1 - 1e-6 and x.max() <= 1 + 1e-6


def test_start_goes_on_in_the_middle():
    batches = Batches(bank(50), 8, seed=1, last="keep", rotate=15)
    for start in 0, 3, 6, 7:
        rest = list(batches.epoch(4))[start:]
        assert all(torch.equal(a, b) for a, b in zip(rest, batches.epoch(4, start=start), strict=True))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("n", [64, 61, 60])
@pytest.mark.parametrize("rotate", [0, 20])
def test_the_shards_are_the_whole_batch(n, world, rotate):
    whole = list(Batches(bank(n), 8, last="keep", rotate=rotate).epoch(1))
    shards = [Batches(bank(n), 8, last="keep", rotate=rotate, rank=r, world=world) for r in range(world)]
    assert len({len(s) for s in shards}) == 1
    together = [torch.cat(parts) for parts in zip(*(s.epoch(1) for s in shards), strict=True)]
    assert len(together) >= n//8 and all(torch.equal(a, b) for a, b in zip(whole, together))


@pytest.mark.parametrize("wish, says", [(dict(batch_size=11), "1 to 10"), (dict(batch_size=0), "1 to 10"),
                                        (dict(last="pad"), "'drop' or 'keep'"), (dict(rotate=-1), "0 to 180"),
                                        (dict(rotate=float("nan")), "0 to 180"), (dict(rank=2, world=2), "0 to 1"),
                                        (dict(batch_size=5, world=2), "multiple of 2")])
def test_wishes_that_cannot_be_meant(wish, says):
    with pytest.raises(ValueError, match=says):
        Batches(bank(10), **{"batch_size": 4, **wish})


@pytest.mark.parametrize("images, says", [(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), "no images"),
                                          (torch.zeros(3, 4, 4, dtype=torch.uint8), "expected \\(n, c, h, w\\)"),
                                          (torch.zeros(3, 4, 4, 2, dtype=torch.uint8), "c 1 \\(grey\\) or 3"),
                                          (np.zeros((3, 1, 4, 4), np.uint8), "expected a uint8 tensor")])
def test_banks_that_are_none(images, says):
    with pytest.raises(ValueError, match=says):
        Batches(images, 1)


# rotation

def test_rotated():
    x = to_x(torch.randint(256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)))
    for quarter in range(4):
        got = rotated(x, torch.full((4,), 90.*quarter))
        assert torch.allclose(got, x.rot90(quarter, (2, 3)), atol=1e-4)
    corner = rotated(torch.ones(1, 1, 9, 9), torch.tensor([45.]))[0, 0, 0, 0]
    assert corner == -1, "what comes in is black, not grey"
    tall = torch.full((1, 1, 8, 16), -1.)
    tall[..., 3:5, :] = 1                                          # a horizontal bar stands upright, as wide as before
    assert (rotated(tall, torch.tensor([90.]))[0, 0].mean(0) > .9).nonzero().flatten().tolist() == [7, 8]


def test_rotation_is_by_image_not_by_place():
    images = torch.randint(256, (16, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    a = torch.cat(list(Batches(images, 4, rotate=20).epoch(0)))
    b = torch.cat(list(Batches(images, 8, rotate=20).epoch(0)))
    assert torch.allclose(a, b, atol=1e-6), "the batch size changes an image's angle"
    assert not torch.allclose(a, torch.cat(list(Batches(images, 4).epoch(0))))


# shift

@pytest.mark.parametrize("b, c, h, w", [(1, 1, 28, 28), (2, 3, 8, 8), (5, 1, 6, 9), (64, 3, 16, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shift_against_a_loop(b, c, h, w, dtype, layout):
    x = torch.rand(b, c, h, w, generator=torch.Generator().manual_seed(0)).to(dtype).contiguous(memory_format=layout)
    x.requires_grad_()
    y = shift(x, 3, 5, 7)
    wide = F.pad(x, (3,)*4, value=-1.)
    plain = torch.stack(
        [
            im[:, 3 - d : 3 - d + h, 3 - r : 3 - r + w]
            for im, (d, r) in zip(wide, offsets(b, 3, 5, 7).tolist())
        ]
    )
    assert torch.equal(y, plain) and y.dtype == dtype and y.is_contiguous(memory_format=layout)
    g = torch.rand(b, c, h, w, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert torch.equal(*(torch.autograd.grad(out, x, g, retain_graph=True)[0] for out in (y, plain)))


def test_offsets():
    many = offsets(2000, 2, 0, 0)
    assert sorted(set(many.flatten().tolist())) == [-2, -1, 0, 1, 2]
    assert many.float().mean(0).abs().max() < .15 and not torch.equal(many[:, 0], many[:, 1])
    assert torch.equal(many[:7], offsets(7, 2, 0, 0))
    assert len({tuple(offsets(9, 2, *key).flatten().tolist()) for key in itertools.product(range(3), repeat=2)}) == 9


def test_shift_of_a_process_is_its_part_of_the_whole():
    x = to_x(bank(8))
    halves = [shift(x[i:i + 4], 2, 0, 3, first=i) for i in (0, 4)]
    assert torch.equal(shift(x, 2, 0, 3), torch.cat(halves))


def test_shift_by_nothing_and_by_too_much():
    x = to_x(bank(3))
    assert shift(x, 0, 0, 0) is x
    for pixels in -1, 6:
        with pytest.raises(ValueError, match="expected 0 to 5"):
            shift(x, pixels, 0, 0)
