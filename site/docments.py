"A Sphinx extension for the package's pages: the comment beside or above each parameter and field becomes its description."
import ast
import inspect
import io
import re
import textwrap
import tokenize
import warnings

from fastcore.docments import docments


def to_rst(text):
    "Plain text with Markdown's code marks, as reStructuredText."
    pieces = re.split(r"`([^`]+)`", text)  # every second piece is code
    return "".join(f"``{p}``" if i % 2 else re.sub(r"([\\*_|`])", r"\\\1", p) for i, p in enumerate(pieces))


def field_comments(cls):
    "The comment beside or above each annotated field of a class (dataclass, NamedTuple), those of its parents first."
    found = {}
    for parent in reversed(cls.__mro__):
        if not parent.__module__.startswith("dcgan"):
            continue
        source = textwrap.dedent(inspect.getsource(parent))
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
        comments, above = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.line[:t.start[1]].strip()}, {}
        for t in tokens:
            if t.start[0] not in comments:  # alone on its line: of the next
                above[t.start[0] + 1] = f"{above.pop(t.start[0], '')} {t.string.lstrip('# ')}".strip()
        comments = above | comments
        fields = [n for n in ast.parse(source).body[0].body if isinstance(n, ast.AnnAssign)]
        found |= {ast.unparse(n.target): comments.get(n.lineno, "") for n in fields}
    return found


def own_init(cls):
    "The `__init__` that is written in the package, None if a decorator or a library made it."
    init = inspect.unwrap(cls.__init__)
    written = getattr(init, "__module__", "") == cls.__module__ and getattr(init, "__code__", None)
    return init if written and init.__code__.co_filename != "<string>" else None


def beside(function):
    "The comments beside a function's parameters; fastcore warns of sections in a docstring that a library handed down."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return docments(function, returns=True)


def comments(obj):
    "The comments beside an object's parameters or fields, by name; under `return` that of its result."
    if inspect.isclass(obj):
        init = own_init(obj)
        found = beside(init) if init else field_comments(obj)
    elif inspect.isroutine(obj):
        found = beside(inspect.unwrap(obj))
    else:
        return {}
    return {name: text for name, text in found.items() if text and name not in ("self", "cls")}


def describe(app, what, name, obj, options, lines):
    "Mend the docstring's marks, and put the comments below it."
    lines[:] = [to_rst(line) for line in lines]
    found = {} if what in ("module", "data", "attribute", "property") else comments(obj)
    if found:
        lines.append("")
    for parameter, text in found.items():
        text = to_rst(" ".join(text.split()))
        lines.append(f":returns: {text}" if parameter == "return" else f":param {parameter}: {text}")


def skip(app, what, name, obj, skipped, options):
    "Leave out a NamedTuple's fields, which are described as parameters."
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    app.connect("autodoc-process-docstring", describe)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
