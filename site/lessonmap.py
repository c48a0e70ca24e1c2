"""The map of the lessons: which builds on which, read off titles and imports.

    python site/lessonmap.py > images/lessons.svg    (make export does it too)
"""
import html
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat

ROW, LEFT, WIDTH = 24, 185, 370  # height of a lesson's row, where the arcs begin, width of the picture
HOOD = "under_the_hood"
STYLE = (".lesson-map text{font:13px sans-serif;fill:currentColor}.lesson-map .part{font-weight:bold}"
         ".lesson-map path{fill:none;stroke:currentColor;opacity:.6}.lesson-map .across{stroke-dasharray:3 3;opacity:.45}"
         ".lesson-map .head,.lesson-map circle{fill:currentColor;opacity:1}")
SHARED = "values", "weights"     # the lowest modules, on which nearly every other one stands: no arcs


def lessons(paths):
    "The numbered notebooks in order: {path: (title, module it writes or None, modules it imports)}."
    found = {}
    for path in paths:
        if not re.match(r"\d\d_", path.name):
            continue
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(c.source for c in cells if c.cell_type == "code" and "exercise" not in c.metadata.get("tags", []))
        module = re.search(r"^#\|\s*default_exp (\S+)", code, re.M)
        title = cells[0].source.splitlines()[0].lstrip("# ")
        found[path] = title, module and module[1], set(re.findall(r"^\s*from dcgan\.([\w.]+) import", code, re.M))
    return found


def needs(found):
    "Which lessons each one imports from: {path: set of paths}."
    writer = {module: path for path, (_, module, _) in found.items() if module}
    return {path: {writer[m] for m in imported if m in writer and m not in SHARED} - {path}
            for path, (_, _, imported) in found.items()}


def direct(graph):
    "The same without what another need already brings: its transitive reduction."
    behind = {}
    for path in TopologicalSorter(graph).static_order():
        behind[path] = set().union(*[{p} | behind[p] for p in graph[path]])
    return {path: {p for p in before if not any(p in behind[q] for q in before)} for path, before in graph.items()}


def arc(start, end, far):
    "An arc from one row's middle to another's, with a head at its end; dashed if it leads into the other half of the map."
    reach = min(WIDTH - LEFT - 24, 14 + 6 * abs(end - start) / ROW)
    bend = LEFT + 4 / 3 * reach
    path = f"M{LEFT + 4} {start} C{bend:.0f} {start} {bend:.0f} {end} {LEFT + 9} {end}"
    kind = "across" if far else "within"
    return f'<path class="{kind}" d="{path}"/><path class="head" d="M{LEFT + 4} {end} l7 -3.5 v7 z"/>'


def drawn(paths,                      # of the notebooks, in reading order
          link="nbs/{}.html".format,  # a lesson's place under nbs → where its title leads; None: nowhere
         ):
    "The map as SVG: one row a lesson, an arc from each that another one builds on directly."
    found = lessons(paths)
    hood = {p: p.parent.name == HOOD for p in found}
    y = {p: ROW * (i + 2 + 2 * hood[p]) for i, p in enumerate(found)}
    out = [f'<svg class="lesson-map" viewBox="0 0 {WIDTH} {max(y.values()) + ROW}" role="img" '
           'aria-label="The lessons, one a row, with arcs from each to those that import from it" '
           f'xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>']
    for half, words in (False, "The main path"), (True, "Under the hood"):
        out += [f'<text class="part" x="0" y="{y[p] - ROW + 4}">{words}</text>' for p in list(y) if hood[p] == half][:1]
    for path, before in direct(needs(found)).items():
        out += [arc(y[p], y[path], hood[p] != hood[path]) for p in sorted(before)]
    for path, (title, _, _) in found.items():
        text = f'<text x="0" y="{y[path] + 4}">{html.escape(title)}</text>'
        place = path.with_suffix("").as_posix().split("nbs/")[-1]
        out += [f'<a href="{link(place)}">{text}</a>' if link else text, f'<circle cx="{LEFT}" cy="{y[path]}" r="2.5"/>']
    return "".join([*out, "</svg>"])


def picture():
    "The map as a file of its own: black on white, wherever it is shown, in a size that can be read."
    here = Path(__file__).resolve().parent.parent
    svg = drawn(sorted(here.glob("nbs/**/[0-9]*.ipynb"), key=lambda p: p.name), link=None)
    height = re.search(rf'viewBox="0 0 {WIDTH} (\d+)"', svg)[1]
    svg = svg.replace("<svg ", f'<svg width="{WIDTH}" height="{height}" ', 1)
    return svg.replace("<style>", "<style>.lesson-map{background:white;color:black}", 1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(picture())
