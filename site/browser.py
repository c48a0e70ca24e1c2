"""What `make site-test` checks: the built site as a browser sees it.

A small server hands out _site/html and forbids other hosts; a headless browser opens one page that reads all the others
in frames, at the width of a phone, and sends back what it found.
"""
import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from pages import ANY_ALT, FIG_ALT, docname, modules, notebooks, parts  # noqa: E402

HTML = HERE.parent / "_site/html"
PHONE = 390  # pixels
BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"
LESSONS = [page for _, pages in parts() for page in pages]
SEARCHES = "softplus", "BatchNorm", "checkpoint", "d_step"
PROBE = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:%dpx;height:800px;border:0"></iframe><script>
const frame = document.getElementById("f"), wait = ms => new Promise(done => setTimeout(done, ms));
function wraps(cell) {
  const text = document.createRange();
  text.selectNodeContents(cell);
  return new Set([...text.getClientRects()].map(box => Math.round(box.top))).size > 1;
}
async function read(page) {
  await new Promise(done => { frame.onload = done; frame.src = page; });
  for (let i = 0; i < 150; i++) {  // until MathJax and the search are done, 15 s at most
    await wait(100);
    const inside = frame.contentDocument, math = inside.querySelectorAll(".math").length;
    const set = inside.querySelectorAll("mjx-container").length;
    const search = inside.getElementById("search-results");
    if (search ? search.querySelectorAll("li").length : set >= math) break;
  }
  if (page.startsWith("/search")) await wait(1000);  // for the excerpts
  const inside = frame.contentDocument, root = inside.documentElement;
  const scrolls = [root, ...inside.querySelectorAll(".bd-article-container, .bd-content, .bd-main")];
  return {page, client: root.clientWidth, beyond: Math.max(...scrolls.map(e => e.scrollWidth - e.clientWidth)),
          math: inside.querySelectorAll(".math").length, set: inside.querySelectorAll("mjx-container").length,
          hits: inside.querySelectorAll("#search-results li").length, fields: inside.querySelectorAll("form.bd-search").length,
          wraps: [...inside.querySelectorAll('.cell_output td[style*="right"]')].filter(wraps).map(e => e.textContent),
          raw: [...inside.querySelectorAll(".cell_output p")].map(e => e.textContent).filter(t => /\\|\\s*(---|—)/.test(t)),
          alts: [...inside.querySelectorAll("article img")].map(i => [i.getAttribute("alt"), i.naturalWidth])};
}
(async () => {
  const found = [];
  for (const page of %s) found.push(await read(page));
  await wait(500);
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""
PLAYGROUND = HTML / "playground"


class Handler(SimpleHTTPRequestHandler):
    "The built files, the probing page, pages that break a rule or lack something, and what the browser sends back."
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def page(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/probe":
            self.page(self.server.probe)
        elif self.path == "/guilty":
            self.page('<!doctype html><title>guilty</title><img src="https://elsewhere.invalid/x.png">')
        elif self.path.startswith(("/nowasm/index.html", "/gone/index.html")):  # the playground without something
            text = (PLAYGROUND / "index.html").read_text(encoding="utf-8")
            lost = "<script>WebAssembly = undefined</script>" if self.path.startswith("/nowasm/") else ""
            self.page(text.replace("<script", f"{lost}<script", 1))
        elif self.path.startswith("/gone/") and self.path.endswith(".onnx"):
            self.send_error(404)
        else:
            self.path = re.sub("^/(nowasm|gone)/", "/playground/", self.path)
            super().do_GET()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        if self.path == "/found":
            self.server.found = body
            self.server.done.set()
        else:
            self.server.refused.append(body["csp-report"])

    def end_headers(self):
        self.send_header("Content-Security-Policy", "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; report-uri /refused")
        super().end_headers()

    def log_message(self, *args):
        pass


def browse(probe, folder):
    "What the probing page sent back, and what the browser refused to fetch from another host."
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if not browser:
        pytest.fail(f"make site-test needs one of these browsers: {', '.join(BROWSERS)}. Install one.")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(HTML)))
    server.probe, server.refused, server.done = probe, [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
               "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
               f"--user-data-dir={folder}", "--window-size=1000,900", f"http://127.0.0.1:{server.server_port}/probe"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert server.done.wait(570), "the browser did not come to the end of its pages"
    finally:
        process.terminate()
        process.wait(30)
        server.shutdown()
    return server.found, server.refused


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    assert (HTML / "index.html").exists(), "there is no site: make site"
    names = ["index", "map", "glossary", "nbs/index", "CONTRIBUTING", "CHANGELOG", *LESSONS, *(f"api/{m}" for m in modules())]
    pages = ["/guilty", *(f"/{name}.html" for name in names), *(f"/search.html?q={word}" for word in SEARCHES)]
    found, refused = browse(PROBE % (PHONE, json.dumps(pages)), tmp_path_factory.mktemp("browser"))
    return {row["page"]: row for row in found}, refused


def test_no_request_to_another_host(seen):
    found, refused = seen
    by_page = [(r["document-uri"].split("/", 3)[-1], r["blocked-uri"]) for r in refused]
    assert ("guilty", "https://elsewhere.invalid/x.png") in by_page, "a request would be seen"
    assert [r for r in by_page if r[0] != "guilty"] == []


def test_no_page_scrolls_sideways_on_a_phone(seen):
    pages = {name: row for name, row in seen[0].items() if name != "/guilty"}
    assert {row["client"] for row in pages.values()} == {PHONE}
    assert {name: row["beyond"] for name, row in pages.items() if row["beyond"] > 0} == {}


def test_shapes_and_numbers_stay_in_one_line(seen):
    assert {name: row["wraps"] for name, row in seen[0].items() if row["wraps"]} == {}


def test_tables_in_outputs_are_tables(seen):
    assert {name: row["raw"] for name, row in seen[0].items() if row["raw"]} == {}


def test_equations_are_set(seen):
    found = seen[0]
    assert found["/nbs/01_game.html"]["math"] > 50
    assert {name: (row["set"], row["math"]) for name, row in found.items() if row["set"] < row["math"]} == {}


@pytest.mark.parametrize("word", SEARCHES)
def test_the_search_finds(seen, word):
    assert seen[0][f"/search.html?q={word}"]["hits"] > 0


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_pictures_have_alternative_text(seen, path):
    alts = [alt for alt, _ in seen[0][f"/{docname(path)}.html"]["alts"]]
    assert all(alts) and not [alt for alt in alts if re.search(r"\.(png|gif)$", alt)], "a text, not a file's name"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        drawn = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        wanted = FIG_ALT.search("".join(cell["source"]))
        if drawn and wanted:
            assert wanted[1].strip() in alts
    assert ANY_ALT in alts or all(FIG_ALT.search("".join(c["source"])) for c in cells if any("image/png" in o.get("data", {})
                                                                                           for o in c.get("outputs", [])))


def test_every_picture_is_there(seen):
    assert [(name, alt) for name, row in seen[0].items() for alt, width in row["alts"] if not width and name != "/guilty"] == []


def test_every_module_has_its_page():
    for module in modules():
        text = (HTML / f"api/{module}.html").read_text(encoding="utf-8")
        assert "Parameters" in text or 'class="sig' not in text, f"{module}: no parameter is described"
    assert "noise (b, z_dim) for the fakes" in (HTML / "api/steps.html").read_text(encoding="utf-8")
