"`make portable`: each setting gets its variables, and the cells that differ are listed."
import os
import subprocess
import sys

import pytest
from portable import differing, main, older_kernels, one_core_each, settings

FAKE = """
import os, sys
print("1 passed")
if os.environ["ATEN_CPU_CAPABILITY"] == "avx2" and os.environ["OMP_NUM_THREADS"] == "2":
    print("FAILED nbs/09_steps.ipynb::Cell 14 - Notebook cell execution failed")
    sys.exit(1)
"""


def test_settings_are_two_processors_by_one_thread_and_two():
    found = dict(settings())
    assert len(found) == 4 and all("ONEDNN_MAX_CPU_ISA" in variables for variables in found.values())
    kinds = {(variables["ATEN_CPU_CAPABILITY"], variables["OMP_NUM_THREADS"]) for variables in found.values()}
    assert kinds == {("default", "1"), ("default", "2"), ("avx2", "1"), ("avx2", "2")}


def test_cells_that_differ_are_listed(capsys):
    assert main([sys.executable, "-c", FAKE]) == 1
    table = capsys.readouterr().out.split("Cells that differ:\n")[1]
    assert table.splitlines()[-1].endswith(" nbs/09_steps.ipynb::Cell 14")
    assert table.count("none") == 3


@pytest.mark.parametrize(
    "program, status, said", [("print('2 passed')", 0, "none"), ("import sys; sys.exit(4)", 1, "status 4")]
)
def test_the_status_is_pytest_s(capsys, program, status, said):
    assert main([sys.executable, "-c", program]) == status
    assert capsys.readouterr().out.count(said) == 4


def test_what_pytest_prints_is_read():
    printed = "2 failed\nFAILED nbs/a.ipynb::Cell 3 - x\nERROR nbs/b.ipynb\nFAILED\n12 passed in 3.0s\n"
    assert differing(printed) == ["nbs/a.ipynb::Cell 3", "nbs/b.ipynb"]


def test_kernels_say_that_there_is_no_bf16(tmp_path):
    ask = "import torch; from dcgan.engine.devices import has_bf16; print(has_bf16(torch.device('cpu')), torch.cpu._is_amx_tile_supported.__name__)"
    env = os.environ | older_kernels(tmp_path) | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "-c", ask], env=env, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "<lambda>"], done.stderr


def test_each_thread_has_a_core():
    command = ["python", "-m", "pytest", "-n", "2", "nbs/a.ipynb"]
    assert one_core_each(command, 1) == command
    assert one_core_each(command, 2) == [*command[:4], "1", "nbs/a.ipynb"]
    assert one_core_each(["python", "-c", "1"], 2) == ["python", "-c", "1"]
