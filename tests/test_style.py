"Small pieces: the length of functions, modules and cells, and a comment beside every parameter."
import ast
import io
import tokenize

import pytest

from notebooks import MODULES, NOTEBOOKS, code_cells, python

FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_short(path):
    for i, cell in enumerate(code_cells(path)):
        body = ast.parse(python(cell)).body
        limit = 50
        if any(isinstance(n, ast.ClassDef) for n in body):
            limit = 180  # a class can't be cut in two (`Trainer` is the longest); its functions stay under 40 all the same
        lines = len(cell["source"].strip().splitlines())
        assert lines <= limit, f"code cell {i} has {lines} lines: {cell['source'][:60]!r}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_modules_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    long = {n.name: n.end_lineno - n.lineno + 1 for n in ast.walk(ast.parse(source)) if isinstance(n, FUNCTIONS)}
    assert not {k: v for k, v in long.items() if v > 40}


def undocumented(source):
    "Public functions' parameters and public classes' fields that share a line, or have no comment on theirs."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {t.start[0] for t in tokens if t.type == tokenize.COMMENT}
    body = ast.parse(source).body
    public = [
        ast.literal_eval(n.value)
        for n in body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    ]
    for node in body:
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.name not in sum(public, []):
            continue
        yield from () if ast.get_docstring(node) else [f"{node.name} (docstring)"]
        functions, lines = [node] if isinstance(node, FUNCTIONS) else [], []
        if isinstance(node, ast.ClassDef):
            functions = [
                f
                for f in node.body
                if isinstance(f, FUNCTIONS) and (f.name == "__init__" or f.name[0] != "_")
            ]
            lines = [(ast.unparse(f.target), f.lineno) for f in node.body if isinstance(f, ast.AnnAssign)]
        for f in functions:
            given = [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
            own = [(f"{f.name}({p.arg})", p.lineno) for p in given if p.arg not in ("self", "cls")]
            lines += own + [(n, 0) for i, (n, line) in enumerate(own) if line in [other for _, other in own[:i]]]
        missing = dict.fromkeys(n for n, line in lines if line not in commented)
        yield from (n if n.startswith(f"{node.name}(") else f"{node.name}.{n}" for n in missing)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_parameters_are_explained(path):
    found = list(undocumented(path.read_text(encoding="utf-8")))
    assert not found, f"dcgan/{path.name}: one a line, with a comment: {', '.join(found)}"


def test_a_missing_comment_is_seen():
    good = '__all__ = ["f", "C"]\ndef f(a,  # one\n      b,  # two\n     ):\n    "Doc."\n'
    assert not list(undocumented(good))
    for bad in (good.replace("  # two", ""), good.replace("  # one\n     ", ""), good.replace('"Doc."', "pass")):
        assert list(undocumented(bad))
    assert list(undocumented('__all__ = ["C"]\nclass C:\n    "Doc."\n    size: int = 3\n'))
    assert list(undocumented('__all__ = ["C"]\nclass C:\n    "Doc."\n    def f(self, x): pass\n'))
