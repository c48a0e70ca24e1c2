"Small pieces: the length of functions and cells, and a comment beside or above every parameter."
import ast
import io
import tokenize

import pytest

from notebooks import MODULES, NOTEBOOKS, code_cells, python

FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef


def statements(tree):
    "How many a tree holds: a measure of length that does not depend on where lines are broken."
    return sum(isinstance(n, ast.stmt) for n in ast.walk(tree))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_short(path):
    for i, cell in enumerate(code_cells(path)):
        tree = ast.parse(python(cell))
        limit = 32
        if any(isinstance(n, ast.ClassDef) for n in tree.body):
            limit = 155  # a class can't be cut in two (`Trainer` is the longest); its functions are short all the same
        n = statements(tree)
        assert n <= limit, f"code cell {i} has {n} statements: {cell['source'][:60]!r}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    long = {n.name: statements(n) - 1 for n in ast.walk(ast.parse(source)) if isinstance(n, FUNCTIONS)}
    assert not {k: v for k, v in long.items() if v > 30}


def undocumented(source):
    "Public functions' parameters and public classes' fields that share a line, or have no comment on it or above it."
    comments = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    commented = {t.start[0] + (not t.line[:t.start[1]].strip()) for t in comments}  # one alone on its line: of the next
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
    assert not list(undocumented(good.replace("b,  # two", "# two\n      b,")))
    for bad in (good.replace("  # two", ""), good.replace("  # one\n     ", ""), good.replace('"Doc."', "pass")):
        assert list(undocumented(bad))
    assert list(undocumented('__all__ = ["C"]\nclass C:\n    "Doc."\n    size: int = 3\n'))
    assert list(undocumented('__all__ = ["C"]\nclass C:\n    "Doc."\n    def f(self, x): pass\n'))
