"""Keep what is made from the notebooks in step with them: package, links, README; and join torn outputs.

    python nbs/_sync.py [headers] [streams] [export] [index] [readme]    write them (no name: all five)
    python nbs/_sync.py --check                        write nothing else, fail if one was out of step
"""
import re
import subprocess
import sys
from configparser import ConfigParser
from copy import deepcopy
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
COLAB = "https://colab.research.google.com/github"
BESIDE = "museum.ipynb", "faq.ipynb", "capstone.ipynb"  # run like lessons, but have no number
SECOND = re.compile(r"#\|\s*export (\w+)\n")  # a cell for another module than its notebook's `#| default_exp`

BADGE = r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)"
ALONE = "00_first_gan.ipynb",  # imports nothing from the package, so it runs without
IN_COLAB = '''import sys
from glob import glob
from importlib.util import find_spec

if "google.colab" in sys.modules and not find_spec("dcgan"):  # acts on Colab only
    for source in '''
STOPS = '''
    if not find_spec("dcgan"):
        class Missing(Exception):
            def _render_traceback_(self):  # one sentence, and the run stops
                return [str(self)]
        raise Missing("The package dcgan is not here: upload the wheel that "
                      "`make wheel` makes in a clone of the course (the folder "
                      "on the left), then run this cell again.")'''


def settings():
    "The settings of the package, where the repository's address and whether it is published stand."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


def place():
    "The repository's address and branch, which stand in settings.ini and nowhere else."
    s = settings()
    return s["git_url"], f"{s['user']}/{s['repo']}", s["branch"]


def is_published():
    "Whether the address in settings.ini exists, so that badges and install lines may lead to it."
    return settings().getboolean("published")


def install_cell(published, name=""):
    """The second cell of the notebook `name`, relative to nbs: on Colab it installs the package, from a wheel that was
    uploaded or, once it is published, from its address. Where the package is still missing it stops the run."""
    address = f' or ["git+{place()[0]}"]' if published else ""
    source = f'{IN_COLAB}glob("dcgan-*.whl"){address}:\n        !pip install -q {{source}}'
    return source if name in ALONE else source + STOPS

def installs(source):
    "Whether this is a lesson's second cell, as it is written now or was once."
    return source.startswith("import sys\n") and 'if "google.colab" in sys.modules' in source


def with_links(source, name, published=None):
    "A cell's source with its badge, Colab links and install lines as settings.ini has them; `name` is relative to nbs."
    url, repo, branch = place()
    published = is_published() if published is None else published
    if installs(source):
        return install_cell(published, name)
    source = re.sub(rf"\n*{BADGE}", "", source)
    source = re.sub(r"^(pip install \. .*)(\npip install git\+.*)?$", r"\1", source, flags=re.M)
    if not published:
        return source
    if re.match(r"# \d\d · ", source) or name in BESIDE and source.startswith("# "):
        picture, target = COLAB.replace("github", "assets/colab-badge.svg"), f"{COLAB}/{repo}/blob/{branch}/nbs/{name}"
        source += f"\n\n[![Open in Colab]({picture})]({target})"
    source = re.sub(rf"({re.escape(COLAB)})/[^/\s]+/[^/\s]+/blob/[^/\s]+/", rf"\1/{repo}/blob/{branch}/", source)
    source = re.sub(r"^pip install \. .*$", rf"\g<0>\npip install git+{url}", source, flags=re.M)
    return re.sub(r"(pip install .*?)git\+https?://[^\s`\"'<>)]+", rf"\1git+{url}", source)


def rewritten(check, change):
    "Give every notebook, with its name in nbs, to `change`, and write it where that changed something; the names of those."
    changed = []
    for path in sorted(p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts):
        name = path.relative_to(ROOT / "nbs").as_posix()
        notebook = nbformat.read(path, as_version=4)
        before = deepcopy(notebook)
        change(notebook, name)
        if notebook != before:
            changed.append(f"nbs/{name}")
            if not check:
                nbformat.write(notebook, path)
    return changed


def headers(check):
    "Rewrite the links of every notebook; the names of those that changed."
    def change(notebook, name):
        for c in notebook.cells:
            c.source = with_links(c.source, name)
    return rewritten(check, change)


def joined(outputs):
    "A cell's outputs, where a kernel tore one printed text into several: joined again."
    whole = []
    for out in outputs:
        if whole and out["output_type"] == whole[-1]["output_type"] == "stream" and out["name"] == whole[-1]["name"]:
            whole[-1] = type(out)(whole[-1], text=whole[-1]["text"] + out["text"])
        else:
            whole.append(out)
    return whole


def streams(check):
    "Join the torn outputs of every notebook; the names of those that changed."
    def change(notebook, name):
        for c in notebook.cells:
            if "outputs" in c:
                c.outputs = joined(c.outputs)
    return rewritten(check, change)


def second_modules():
    "The modules that cells name by `#| export NAME`, and their heads: nbdev writes those of `#| default_exp` only."
    heads = {}
    for path in ROOT.glob("nbs/*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if match := SECOND.match(cell.source):
                head = f"# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/{path.name}.\n\n# %% auto #0\n__all__ = []\n"
                heads[ROOT / f"dcgan/{match[1]}.py"] = head
    return heads


def export(check):
    "Write dcgan/ from the notebooks by nbdev_export; the names of the modules that changed."
    def read():
        return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in ROOT.glob("dcgan/**/*.py")}

    before, heads = read(), second_modules()
    for module, head in heads.items():
        module.write_text(head, encoding="utf-8")
    subprocess.run([Path(sys.executable).with_name("nbdev_export")], cwd=ROOT, check=True)
    for module in heads:
        with open(module, "a", encoding="utf-8") as file:
            file.write("\n")  # which nbdev leaves out where it appends
    after = read()
    return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))


def index(check):
    "Write the tables of index.ipynb and the map of the lessons; the names of the files that changed."
    sys.path.insert(0, str(ROOT / "site"))
    from lessonmap import picture
    from reading import filled
    path, drawing = ROOT / "nbs/index.ipynb", ROOT / "images/lessons.svg"
    if not path.exists():
        return []
    notebook, changed, svg = nbformat.read(path, as_version=4), [], picture()
    before = [c.source for c in notebook.cells]
    for c in notebook.cells:
        c.source = filled(c.source)
    if before != [c.source for c in notebook.cells]:
        changed.append("nbs/index.ipynb")
        if not check:
            nbformat.write(notebook, path)
    if not drawing.exists() or drawing.read_text(encoding="utf-8") != svg:
        changed.append("images/lessons.svg")
        if not check:
            drawing.write_text(svg, encoding="utf-8")
    return changed


def readme(check):
    "Write README.md from index.ipynb, whose links start in nbs/; the name, if it changed."
    index, path = ROOT / "nbs/index.ipynb", ROOT / "README.md"
    if not index.exists():
        return []
    text, _ = MarkdownExporter().from_filename(str(index))

    def from_root(match):
        before, target = match.groups()
        if re.match(r"[a-z]+:|#|/", target):
            return match.group()
        return before + (target[3:] if target.startswith("../") else f"nbs/{target}")

    text = re.sub(r"(\]\(|(?:src|href)=\")([^)\s\"]+)", from_root, text).strip()
    text = f"<!-- Made from nbs/index.ipynb by `make readme`: edit it there. -->\n\n{text}\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    if not check:
        path.write_text(text, encoding="utf-8")
    return ["README.md"]


def main(args):
    "Run the named jobs, or all; with --check, exit 1 if one found work to do."
    check, names = "--check" in args, [a for a in args if a != "--check"]
    jobs = {"headers": headers, "streams": streams, "export": export, "index": index, "readme": readme}
    if unknown := [n for n in names if n not in jobs]:
        sys.exit(f"_sync.py knows {', '.join(jobs)} and --check, not {' '.join(unknown)}.")
    changed = sum((jobs[n](check) for n in names or jobs), [])
    if check and changed:
        sys.exit(f"Out of step with the notebooks or settings.ini: {', '.join(changed)}. Type `make export`, then look at the change.")
    print("\n".join(f"wrote {n}" for n in changed) or "Package, links and README are in step with the notebooks.")


if __name__ == "__main__":
    main(sys.argv[1:])
