"""Write the folder that Sphinx reads: lessons as the site shows them, pages of the package, the map.

    python site/pages.py FOLDER
"""
import ast
import re
import shutil
import sys
from pathlib import Path

import nbformat
from lessonmap import drawn
from reading import PARTS, framed, modules_of
from terms import with_terms

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "nbs"))
from _sync import BADGE, installs, is_published, place  # noqa: E402

BESIDE = "Beside the lessons", ["museum", "faq", "capstone"]
HOOD = "Under the hood"
FIG_ALT = re.compile(r"^#\|\s*fig-alt:\s*(.+)\n?", re.M)
ANY_ALT = "Picture made by the code above"  # of a picture whose cell has no `#| fig-alt:`
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
PLAYGROUND = '<a href="playground/index.html">**Open the playground**</a>'  # `make playground` writes it beside the pages
ABOUT = ["classroom/README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"]


# Which pages, in which order

def notebooks():
    "Every notebook but index (the README), by name: lessons by number, then those without one."
    found = [p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts and p.stem != "index"]
    return sorted(found, key=lambda p: p.name)


def docname(path):
    "As Sphinx calls a notebook's page: nbs/07_steps."
    return path.relative_to(ROOT).with_suffix("").as_posix()


def parts():
    "The lessons' pages in reading order: (caption, pages) for each part of the course."
    made = {caption: [] for _, caption in PARTS} | {BESIDE[0]: [], HOOD: []}
    for path in notebooks():
        if path.parent.name == "under_the_hood":
            made[HOOD].append(docname(path))
        elif re.match(r"\d\d_", path.name):
            made[[c for first, c in PARTS if first <= int(path.name[:2])][-1]].append(docname(path))
        else:
            made[BESIDE[0]].append(docname(path))
    made[BESIDE[0]].sort(key=lambda page: (*BESIDE[1], page.split("/")[-1]).index(page.split("/")[-1]))
    return [(caption, pages) for caption, pages in made.items() if pages]


def modules():
    "The package's modules as they are imported, in the order of their lessons: {module: path of its notebook}."
    found = {}
    for path in notebooks():
        for module in modules_of(nbformat.read(path, as_version=4).cells):
            found[module] = path
    return found


def title(path):
    "A notebook's title, and the line in italics below it, without its stars."
    first = nbformat.read(path, as_version=4).cells[0].source.splitlines()
    italic = [line.strip("*") for line in first[1:] if re.fullmatch(r"\*[^*].*\*", line)]
    return first[0].lstrip("# "), (italic or [""])[0]


def jupyter_slug(heading):
    "A heading's anchor as JupyterLab makes it, which is what links between lessons use."
    return re.sub(r"\s", "-", heading.strip())


# A notebook as the site shows it

def is_setup(cell):
    "Whether a cell only prepares: the install cell, `default_exp`, imports (with a constant or a setting beside them)."
    if cell.cell_type != "code" or cell.outputs or "exercise" in cell.metadata.get("tags", []):
        return False
    if installs(cell.source):
        return True
    body = ast.parse(re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.M)).body
    if not body:
        return re.search(r"^#\|\s*default_exp", cell.source, re.M) is not None
    imports = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in body]
    plain = all(isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)) for node in body)
    return imports[0] and plain and sum(imports) >= len(imports) / 2


def folded(cells):
    "The cells, neighbours that only prepare made one, folded behind `Show set-up`."
    shown, before = [], False
    for cell in cells:
        setup = is_setup(cell)
        if setup and before:
            shown[-1].source += f"\n\n{cell.source}"
        else:
            shown.append(cell)
        if setup and not before:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.metadata["mystnb"] = {"code_prompt_show": "Show set-up", "code_prompt_hide": "Hide set-up"}
        before = setup
    return shown


def with_alt(cell):
    "The cell with its `#| fig-alt:` line as alternative text of its pictures, no longer as a line of code."
    alt = FIG_ALT.search(cell.source)
    text = alt[1].strip() if alt else ANY_ALT
    cell.source = FIG_ALT.sub("", cell.source)
    cell.metadata.setdefault("mystnb", {})["image"] = {"alt": text}
    for output in cell.outputs:
        html = output.get("data", {}).get("text/html")
        if html:
            output["data"]["text/html"] = re.sub(r"<img (?![^>]*\balt=)", f'<img alt="{text.replace(chr(34), "&quot;")}" ', html)
    return cell


def with_site_links(text, path):
    "Markdown whose badge is a plain link, and whose links lead to what the site has, else to the repository, else nowhere."
    def kept(match):
        words, target, anchor = match.groups()
        file = (path.parent / target).resolve()
        name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else ""
        if file.exists() and (name in ABOUT or name.startswith(("nbs/", "images/")) and file.suffix in (".ipynb", ".png")):
            return match.group()
        return f"[{words}]({place()[0]}/blob/{place()[2]}/{name})" if is_published() and file.exists() else words

    text = re.sub(BADGE, lambda badge: "[Open in Colab](" + badge.group().rpartition("](")[2], text)
    code = re.split(r"(```.*?```|`[^`\n]+`)", text, flags=re.S)  # every second piece is code
    return "".join(piece if i % 2 else LINK.sub(kept, piece) for i, piece in enumerate(code))


def prepared(notebook, path):
    "The notebook as the site shows it: set-up folded, alternative texts, links; outputs as they are stored."
    notebook.cells = [with_alt(c) if c.cell_type == "code" else c for c in folded(notebook.cells)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_site_links(cell.source, path)
    return notebook


# The other pages

def toctree(caption, pages):
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def contents():
    "The home page's list of lessons, as tables, and the hidden trees from which the side bar is made."
    text = []
    for caption, pages in parts():
        rows = [(f"[{title(ROOT / f'{p}.ipynb')[0]}]({p}.ipynb)", title(ROOT / f"{p}.ipynb")[1]) for p in pages]
        text += [f"### {caption}\n", "| lesson | what it is about |", "|---|---|", *[f"| {a} | {b} |" for a, b in rows], ""]
    trees = [toctree(caption, pages) for caption, pages in parts()]
    trees += [toctree("Looking up", ["map", "glossary", "playground"]), toctree("The package dcgan", [f"{m} <api/{m}>" for m in modules()])]
    project = ["About <nbs/index>", "Teaching <classroom/README>", "Contributing <CONTRIBUTING>", "Changes <CHANGELOG>"]
    trees += [toctree("The project", project)]
    return "\n".join(text), "\n".join(trees)


def api_page(module, path):
    "The page of one module, in reStructuredText."
    name = f"dcgan.{module}"
    head = f"{name}\n{'=' * len(name)}\n\nWritten in lesson :doc:`{title(path)[0]} </{docname(path)}>`.\n\n"
    return head + f".. automodule:: {name}\n   :members:\n   :member-order: bysource\n"


def own(name):
    "A page that is written in site/, whose links then start one folder higher."
    return (HERE / name).read_text(encoding="utf-8").replace("](../", "](")


def pages():
    "Every page by its place in the folder."
    lists, trees = contents()
    made = {"index.md": own("index.md").replace("<!-- lessons -->", lists) + "\n" + trees, "glossary.md": own("glossary.md"),
            "playground.md": own("playground.md").replace("<!-- open -->", PLAYGROUND)}
    made["map.md"] = own("map.md").replace("<!-- map -->", drawn(notebooks()))
    for path in [*notebooks(), ROOT / "nbs/index.ipynb"]:
        notebook = prepared(nbformat.read(path, as_version=4), path)
        if path.stem != "index":
            notebook.cells = with_terms(notebook.cells, path.stem)
            notebook = framed(notebook, path)
        made[f"{docname(path)}.ipynb"] = nbformat.writes(notebook)
    for name in ABOUT:
        text = (ROOT / name).read_text(encoding="utf-8")
        made[name] = with_site_links(text, ROOT / name) if name.endswith(".md") else text
    return made | {f"api/{module}.rst": api_page(module, path) for module, path in modules().items()}


def write(folder):
    "Write what changed, and remove what no longer belongs, so that Sphinx builds only that anew."
    made = pages()
    for name, text in made.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for file in [p for p in folder.rglob("*") if p.is_file() and p.suffix in (".md", ".rst", ".ipynb")]:
        if file.relative_to(folder).as_posix() not in made:
            file.unlink()
    shutil.copytree(ROOT / "images", folder / "images", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
