"""Lesson 20: what a function does with an argument before it uses it."""
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from dcgan.values import check_memory, counted, home, known, library, must_be, plain, shown, whole


def test_whole_numbers_of_any_library_become_python_s_own():
    found = whole(1, a=np.int64(3), b=torch.tensor(4), c=5)
    assert found == (3, 4, 5) and {type(n) for n in found} == {int}
    assert whole(0, n=0) == 0


@pytest.mark.parametrize("value", [True, 3.0, "3", None, np.bool_(True), torch.tensor([1, 2]), Decimal(3), -1, [1]])
def test_what_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^columns is .*; it must be a whole number from 0\.$"):
        whole(0, rows=1, columns=value)


def test_the_least_is_allowed_and_one_below_is_not():
    assert whole(2, batch=2) == 2
    with pytest.raises(ValueError, match="batch is 1; it must be a whole number from 2"):
        whole(2, batch=1)


def test_a_long_value_is_shown_by_its_class():
    assert shown("word") == "'word'" and shown(list(range(100))) == "a list" and shown(torch.zeros(3, 3)) == "a Tensor"


def test_another_class_is_refused_by_name():
    must_be(str, name="a", other="b")
    with pytest.raises(ValueError, match="^name is 3; it must be a str"):
        must_be(str, name=3)
    with pytest.raises(ValueError, match="^name is 'a'; it must be an int"):
        must_be(int, name="a")


def test_plain_values():
    values = [plain(v) for v in (np.float32(0.5), np.array([2]), torch.tensor(True), Decimal("0.1"), np.str_("w"))]
    assert values == [0.5, 2, True, 0.1, "w"] and [type(v) for v in values] == [float, int, bool, float, str]
    many = torch.ones(2)
    assert plain(many) is many


def test_the_nearest_name():
    assert known("net", "paper", ["paper"]) == "paper"
    with pytest.raises(ValueError, match="no net 'papr'; did you mean 'paper'"):
        known("net", "papr", ["paper", "digits"])


def test_more_memory_than_there_is():
    check_memory(1, "A byte")
    with pytest.raises(ValueError, match="^A book would need .* MiB of memory, and [0-9,]+ MiB are free; ask for less"):
        check_memory(10**18, "A book")
    assert counted(12345) == "12,345" and counted(10**20) == counted(9 * 10**20) == "10^20"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home("~/a/b") == tmp_path / "a/b" and home("a/~") == Path("a/~") and home(Path("~")) == tmp_path
    assert home("./~x") == Path("~x") and home("") == Path()
    with pytest.raises(ValueError, match="~nobody_here is no home folder"):
        home("~nobody_here/x")
    with pytest.raises(ValueError, match="~nobody_here is no home folder"):
        home(Path("./~nobody_here"))  # a Path has dropped the "./" already


def test_a_library_that_is_missing_is_named_with_its_command():
    assert library("json", "The test").loads("1") == 1
    with pytest.raises(ImportError, match="^The picture needs no_such_library: pip install no_such_library$"):
        library("no_such_library", "The picture")
