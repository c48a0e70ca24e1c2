"Reading order is import order: what a cell or module may import, and what an import may cost."
import ast
import io
import json
import os
import subprocess
import sys

import pytest
from notebooks import MODULES, NOTEBOOKS, ROOT, code_cells, module_numbers, number, python, tags, written_by
from pyflakes import api, reporter

HEAVY = ["pandas", "sklearn", "scipy", "mlxtend", "torchmetrics", "torchvision", "torch._dynamo", "accelerate", "IPython"]


def imports(source, package="dcgan"):
    "The package's modules that `source` imports, as (module, names), names None for `import dcgan.x`."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if a.name.split(".")[0] == package)
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module
            if module.split(".")[0] == package:
                yield module, [a.name for a in node.names]


def faults(source, below, own=()):
    "Sentences about imports of the package that are not by name from lessons before place `below`, or from `own`."
    numbers = module_numbers()
    for module, names in imports(source):
        name = module.removeprefix("dcgan").lstrip(".")
        if names is None:
            yield f"`import {module}`: import what you need by name, from its module"
        elif not name:
            if set(names) - {"__version__"}:
                yield f"`from dcgan import {', '.join(names)}`: import by name, from its module"
        elif name not in numbers:
            yield f"`from {module} import …`: no lesson writes this module"
        elif numbers[name] >= below and name not in own:
            yield f"`from {module} import …`: {written_by()[name]} comes later than this place"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            yield f"`from {node.module} import *`: no star imports"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_import_from_earlier_lessons(path):
    here = number(path.name)
    own = [m for m, n in module_numbers().items() if n == here]
    found = []
    for i, cell in enumerate(code_cells(path)):
        # An exercise stands alone, as its student sees it: it may import what its own lesson exported.
        found += [f"code cell {i}: {f}" for f in faults(python(cell), here, own if "exercise" in tags(cell) else ())]
    assert not found, f"{path.name}: " + "; ".join(found)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_modules_import_from_earlier_modules(path):
    here = module_numbers()[path.stem]
    own = [m for m, n in module_numbers().items() if n == here and m != path.stem]
    found = list(faults(path.read_text(encoding="utf-8"), here, own))
    assert not found, f"dcgan/{path.name}: " + "; ".join(found)


def test_the_rules_are_seen_broken():
    numbers = {m: n for m, n in module_numbers().items() if m != "__main__"}
    first, last = min(numbers.values()), max(numbers, key=numbers.get)
    for source in ("import dcgan", f"import dcgan.{last}", "from dcgan import plots", "from dcgan.nothing import x",
                   f"from dcgan.{last} import x", f"def f():\n    from .{last} import x", "from torch import *"):
        assert list(faults(source, first)), f"not noticed: {source}"
    assert not list(faults(f"from dcgan.{last} import x\nfrom dcgan import __version__\nimport torch", 99))


def test_every_module_has_its_notebook():
    "All but `__main__`, which nbdev can't name; a module whose notebook is gone is left over."
    for module, notebook in written_by().items():
        if module != "__main__":
            assert notebook, f"dcgan/{module}.py was not written by nbdev_export: the package is made from the notebooks"
            assert (ROOT / "nbs" / notebook).exists(), f"nbs/{notebook} is gone: delete dcgan/{module}.py"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_exported_code_stands_alone(path):
    "No name that lives only in the notebook, no import that nothing uses."
    out = io.StringIO()
    api.check(path.read_text(encoding="utf-8"), f"dcgan/{path.name}", reporter.Reporter(out, out))
    assert not out.getvalue()


def test_each_module_imports_alone():
    "Each in a process of its own, forked from one that has loaded torch, numpy and nothing else of ours."
    program = f"""
import json, os, sys, traceback
import torch
for name in {[p.stem for p in MODULES if p.stem != "__main__"]}:
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            __import__("dcgan." + name)
        except BaseException:
            print(name, "does not import:", traceback.format_exc(), flush=True)
        os._exit(0)
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not done.stdout, done.stdout


def loaded(module, names):
    "Which of the libraries a fresh process has loaded after importing `module`."
    program = f"import json, sys, {module}; print(json.dumps([name for name in {names} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
    return json.loads(done.stdout)


@pytest.mark.parametrize("module, more", [("dcgan.networks", ["matplotlib", "PIL", "tyro", "psutil"]), ("dcgan.training", ["tyro"]),
                                          ("dcgan.cli", [])])
def test_imports_are_light(module, more):
    "By what they load; how long that takes is printed by bench/overheads.py."
    assert not loaded(module, HEAVY + more)


def test_what_an_import_loads_is_seen():
    assert loaded("dcgan.plots", ["PIL", "pandas"]) == ["PIL"]
