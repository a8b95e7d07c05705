"""The page at ``/`` without a browser: routes, policy, files, and its arithmetic run by Node.js."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import polyvec.serve
from polyvec.serve.pages import FILES, PAGE_PATHS, PAGES
from polyvec.spec import INSTRUCT_PREFIX
from tests.live import Live, serving

WEB = Path(polyvec.serve.__file__).parent / "web"
ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(WEB.glob("*.js"))
KEY = "k" * 24
MODULES: list[Path] = []


def _node() -> str | None:
    """Return Node.js if it is one with ``fetch`` (18)."""
    found = shutil.which("node")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.search(r"\d+", said)
    return found if major is not None and int(major[0]) >= 18 else None


NODE = _node()
needs_node = pytest.mark.skipif(
    NODE is None, reason="the page's modules are run by Node.js 18 or newer; none is here"
)


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Copy the page's modules to where Node.js takes them for modules, whatever is around us."""
    folder = tmp_path_factory.mktemp("modules")
    for path in SCRIPTS:
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    MODULES.append(folder)
    yield
    MODULES.clear()


TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def path_of(name: str) -> str:
    return PAGES.get(name, f"/web/{name}")


# --- Routes -----------------------------------------------------------------------------------


def test_every_file_of_the_folder_is_served_and_no_other() -> None:
    assert sorted(FILES) == sorted(path.name for path in WEB.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_files_come_as_they_are_with_their_type(live: Live, name: str) -> None:
    answer = live.get(path_of(name))
    assert answer.status_code == 200
    assert answer.content == (WEB / name).read_bytes()
    assert answer.headers["Content-Type"] == TYPES[name.rpartition(".")[2]]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = live.http.head(path_of(name))
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("path", [path_of(name) for name in FILES])
def test_the_policy_allows_this_server_only(live: Live, path: str) -> None:
    parts = live.get(path).headers["Content-Security-Policy"].split("; ")
    policy = {name: value for name, _, value in (part.partition(" ") for part in parts)}
    assert policy["default-src"] == "'none'"
    sources = {name: value for name, value in policy.items() if name.endswith("-src")}
    assert set(sources.values()) == {"'none'", "'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


def test_the_docs_page_has_a_policy_that_fits_its_style(live: Live) -> None:
    import base64
    import hashlib

    answer = live.get("/docs")
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    assert "script-src" not in answer.headers["Content-Security-Policy"]


def test_who_has_a_file_is_told_so(live: Live) -> None:
    tag = live.get("/web/app.js").headers["ETag"]
    for known, status in ((tag, 304), (f'"other", W/{tag}', 304), ('"other"', 200)):
        answer = live.http.get("/web/app.js", headers={"If-None-Match": known})
        assert answer.status_code == status
        assert bool(answer.content) == (status == 200)


@pytest.mark.parametrize(
    "path",
    ["/web/", "/web/nothing.js", "/web/../pages.py", "/web/%2e%2e/pages.py", "/web/index.html"],
)
def test_nothing_else_is_there(live: Live, path: str) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    import http.client

    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", path)  # as it is: httpx would take the dots out
    assert connection.getresponse().status == 404
    connection.close()


def test_post_is_still_teis(live: Live) -> None:
    assert len(live.post("/", {"inputs": "fox"}).json()) == 1


def test_the_page_needs_no_key_and_what_it_asks_does(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    with serving(
        f"tiny={tiny_folder}", api_key_file=str(tmp_path / "keys"), host="0.0.0.0"
    ) as locked:
        for path in PAGE_PATHS:
            answer = locked.get(path)
            assert answer.status_code == 200
            assert KEY not in answer.text
            assert "tiny" not in answer.text or path == "/openapi.json"
        for path in ("/v1/models", "/info", "/metrics"):
            assert locked.get(path).status_code == 401


# --- Files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_server(name: str) -> None:
    text = (WEB / name).read_text(encoding="utf-8")
    for address in re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"')]*""", text):
        assert address == "http://www.w3.org/2000/svg", "SVG's name, which nobody fetches"
    assert not re.search(r"@import|url\(\s*['\"]?(?:http|//|data:)", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_write_text_as_text(path: Path) -> None:
    unsafe = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|"
        r"setHTML|createContextualFragment|srcdoc|javascript:"
    )
    assert not re.search(unsafe, path.read_text(encoding="utf-8"))


def test_only_the_theme_outlives_a_tab() -> None:
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r'localStorage\.\w+\("([^"]+)"', text)) <= {"polyvec-theme"}
        assert "document.cookie" not in text
        assert "indexedDB" not in text


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.labels: set[str | None] = set()
        self.open_labels = 0
        self.unlabelled: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "label":
            self.open_labels += 1
            self.labels.add(attributes.get("for"))
        if tag in ("input", "select", "textarea") and not self.open_labels:
            self.unlabelled.append(attributes)

    def handle_endtag(self, tag: str) -> None:
        self.open_labels -= tag == "label"


def modules_of(script: str) -> set[str]:
    """Return a module and all that it imports."""
    found, new = set[str](), {script}
    while new:
        name = new.pop()
        found.add(name)
        imported = re.findall(r'from "\./([\w-]+\.js)"', (WEB / name).read_text(encoding="utf-8"))
        new |= set(imported) - found
    return found


@pytest.mark.parametrize(
    ("name", "script"), [("index.html", "app.js"), ("search.html", "search.js")]
)
def test_a_page_is_put_together_right(name: str, script: str) -> None:
    page = _Page()
    page.feed((WEB / name).read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.tags]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for landmark in ("header", "nav", "main", "form", "noscript"):
        assert tags.count(landmark) == 1
    for field in page.unlabelled:
        assert field.get("aria-label") or field["id"] in page.labels
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("aria-labelledby", "aria-describedby", "for"):
            for target in (attributes.get(name) or "").split():
                assert target in ids
        for link in filter(None, (attributes.get("src"), attributes.get("href"))):
            assert link.startswith("#") or "/" + link.removeprefix(".") in PAGE_PATHS
    modules = [(WEB / module).read_text(encoding="utf-8") for module in modules_of(script)]
    used = {i for text in modules for i in re.findall(r'\b(?:byId|on)\("([\w-]+)"[,)]', text)}
    assert used <= set(ids)
    assert len(used) > 10


def test_modules_import_only_what_is_served() -> None:
    for path in SCRIPTS:
        for name in re.findall(r'(?:from|import|new URL\()\s*"([^"]+)"', path.read_text()):
            assert name in (".",) or (WEB / name).is_file()


def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    # No compiler: the kernels are not what is looked at, and take a while.
    environment = os.environ | {"CXX": "false"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            assert archive.read(f"polyvec/serve/web/{name}") == (WEB / name).read_bytes()


def test_the_family_prefix_is_the_librarys() -> None:
    written = re.search(r'const INSTRUCT_PREFIX = ("[^\n]*");', (WEB / "form.js").read_text())
    assert written is not None
    assert json.loads(written[1]) == INSTRUCT_PREFIX


# --- Arithmetic -------------------------------------------------------------------------------


def node(module: str, code: str, given: object) -> Any:
    """Run code over ``given`` with a module's names in scope; gives what it returns."""
    assert NODE is not None
    script = (
        f"const all = await import({json.dumps((MODULES[0] / module).as_uri())});"
        "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"const result = ((m, given) => {{ {code} }})(all, given);"
        "const plain = (_, value) => (ArrayBuffer.isView(value) ? [...value] : value);"
        "process.stdout.write(JSON.stringify(result, plain));"
    )
    done = subprocess.run(
        [NODE, "--no-warnings", "--input-type=module", "-e",
         "import { createRequire } from 'module'; const require = createRequire('/');" + script],
        input=json.dumps(given), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    spread = random.standard_normal((count, dimension)) * np.linspace(3, 0.1, dimension)
    return (spread + random.standard_normal(dimension)).astype(np.float32)


@needs_node
def test_cosines_and_nearest_are_numpys() -> None:
    rows = vectors(23, 48)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = unit @ unit.T
    got = node(
        "geometry.js",
        "const c = m.cosines(Float32Array.from(given.flat()), 23, 48);"
        "return {c, near: m.nearest(c, 23, 3), range: m.range([c], 23)};",
        rows.tolist(),
    )
    assert np.allclose(np.reshape(got["c"], (23, 23)), expected, atol=1e-5)
    off = expected - 4 * np.eye(23)
    assert got["near"] == np.argsort(-off, axis=1)[:, :3].tolist()
    pairs = expected[np.triu_indices(23, 1)]
    assert got["range"] == pytest.approx({"low": pairs.min(), "high": pairs.max()}, abs=1e-5)


@needs_node
@pytest.mark.parametrize(
    ("count", "dimension"), [(2, 48), (3, 48), (7, 5), (40, 16), (300, 96), (30, 2)]
)
def test_the_map_is_numpys_pca(count: int, dimension: int) -> None:
    rows = vectors(count, dimension, seed=count)
    got = node(
        "geometry.js",
        f"return m.pca(Float32Array.from(given.flat()), {count}, {dimension});",
        rows.tolist(),
    )
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    shares = values**2 / (values**2).sum()
    assert np.allclose(got["shares"], shares[:2], atol=1e-6)
    for axis, name in enumerate("xy"):
        direction = directions[axis] * np.sign(directions[axis][np.abs(directions[axis]).argmax()])
        expected = centred @ direction
        if values[axis] > 1e-6 * values[0]:
            assert np.allclose(got[name], expected, atol=2e-3 * values[0])


@needs_node
@pytest.mark.parametrize("count", [1, 2, 5])
def test_texts_that_are_all_the_same_have_a_map_of_one_point(count: int) -> None:
    got = node(
        "geometry.js",
        "return m.pca(Float32Array.from(given), given.length / 4, 4);",
        [0.5] * 4 * count,
    )
    assert got == {"x": [0] * count, "y": [0] * count, "shares": [0, 0]}


@needs_node
def test_what_changed_most_is_found() -> None:
    before, after = (np.round(vectors(12, 12, seed), 3) for seed in (1, 2))
    got = node(
        "geometry.js", "return m.changes(given[0], given[1], 12, 4);",
        [before.ravel().tolist(), after.ravel().tolist()],
    )  # fmt: skip
    difference = np.triu(np.abs(after - before), 1)
    order = np.argsort(-difference, axis=None)[:4]
    assert [pair["i"] * 12 + pair["j"] for pair in got] == order.tolist()


@needs_node
def test_the_ink_on_every_colour_can_be_read() -> None:
    colours = node("heatmap.js", "return given.map((share) => m.colour(share));",
                   np.linspace(-0.1, 1.1, 500).tolist())  # fmt: skip
    for each in colours:
        rgb = np.array([int(part) for part in re.findall(r"\d+", each["fill"])]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = float(linear @ [0.2126, 0.7152, 0.0722])
        ink = 0.0 if each["ink"] == "#000" else 1.0
        bright, dark = max(luminance, ink), min(luminance, ink)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


# --- Files that are dropped -------------------------------------------------------------------


@needs_node
@pytest.mark.parametrize(
    ("name", "content", "chosen", "columns"),
    [
        ("a.txt", "one\n\n  \r\ntwo\rthree", "text", {"text": ["one", "two", "three"]}),
        ("A.CSV", "one\ntwo\n", "text", {"text": ["one", "two"]}),
        ("a.csv", "text\none\n", "text", {"text": ["one"]}),
        ("a.csv", 'id,text\n1,"a, ""b""\nc"\n2,d\n', "text",
         {"id": ["1", "2"], "text": ['a, "b"\nc', "d"]}),
        ("a.csv", "id;body\r\n1;a,b\r\n", "body", {"id": ["1"], "body": ["a,b"]}),
        ("a.tsv", "k\tlong\nx\tmuch longer, this\n", "long",
         {"k": ["x"], "long": ["much longer, this"]}),
        ("a.csv", "1,a b c.\n2,d e f!\n", "column 2",
         {"column 1": ["1", "2"], "column 2": ["a b c.", "d e f!"]}),
        ("a.jsonl", '"one"\n\n{"text": "two"}\n', "text", {"text": ["one", "two"]}),
        ("a.jsonl", '{"id": 7, "query": "q", "title": "t"}', "query",
         {"query": ["q"], "title": ["t"]}),
    ],
)  # fmt: skip
def test_files_are_read(
    name: str, content: str, chosen: str, columns: dict[str, list[str]]
) -> None:
    got = node("files.js", "return m.readFile(given[0], given[1]);", [name, content])
    assert got == {"columns": columns, "chosen": chosen}


@needs_node
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", "x", "a.pdf cannot be read here; these can: .txt, .csv, .tsv, .jsonl, .ndjson."),
        ("a.txt", " \n\n", "a.txt has no text in it."),
        ("a.jsonl", '{"a": 1}\n', "a.jsonl has no text in it."),
        ("a.jsonl", '"x"\n{"a"', "a.jsonl, line 2 is no JSON"),
        ("a.jsonl", "[1]", "a.jsonl, line 1 is neither a string nor an object."),
        ("a.csv", 'a,"b\n', "a.csv ends inside quotes"),
    ],
)
def test_files_that_cannot_be_read_say_why(name: str, content: str, said: str) -> None:
    code = (
        "try { m.readFile(given[0], given[1]); }"
        "catch (error) { return [error instanceof m.FileError, error.message]; }"
    )
    ours, message = node("files.js", code, [name, content])
    assert ours
    assert said in message


@needs_node
def test_bytes_that_are_no_utf8_say_so() -> None:
    code = "try { m.decode('a.txt', Uint8Array.from(given)); } catch (e) { return e.message; }"
    assert "a.txt is not UTF-8" in node("files.js", code, [0xFF, 0xFE, 0x41])
    assert node("files.js", "return m.decode('a', Uint8Array.from(given));",
                [0xEF, 0xBB, 0xBF, 0x41]) == "A"  # fmt: skip


@needs_node
def test_line_breaks_inside_a_text_are_counted() -> None:
    got = node("files.js", "return m.oneLineEach(given);", ["a\n b", "c", "d\n", " \n"])
    assert got == {"texts": ["a b", "c", "d"], "joined": 1}


# --- Snippets ---------------------------------------------------------------------------------


@contextmanager
def recording() -> Iterator[tuple[str, list[tuple[str, dict[str, str], Any]]]]:
    """A server that writes down what it is asked."""
    received: list[tuple[str, dict[str, str], Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, dict(self.headers), json.loads(raw)))
            item = {"object": "embedding", "index": 0, "embedding": [1.0, 2.0]}
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            answer = {"object": "list", "data": [item], "model": "m", "usage": usage}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


REQUEST: dict[str, Any] = {
    "body": {
        "model": "it's",
        "input": [
            "quotes \" ' `",
            "back\\slash $HOME ${x} $(id) %",
            "JSON",
            "最近的 🦊 \u2028",
            "\ttab",
        ],
        "encoding_format": "float",
        "dimensions": 16,
    },
    "headers": {
        "X-Polyvec-Role": "query",
        "X-Polyvec-Long-Input": "end",
        "X-Polyvec-Instruction": "It%27s%20%22quoted%22",
    },
}
RUN: dict[str, list[str | None]] = {
    "curl": [shutil.which("sh"), "-s"],
    "Python": [sys.executable, "-"],
    "JavaScript": [NODE, "--input-type=module", "-"],
}


@needs_node
@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("language", RUN)
def test_a_snippet_sends_exactly_the_request(language: str, with_key: bool) -> None:
    if RUN[language][0] is None or (language == "curl" and shutil.which("curl") is None):
        pytest.skip(f"{language} is not on this machine")
    with recording() as (url, received):
        code = node(
            "snippets.js", "return m.snippet(...given);", [language, url, REQUEST, with_key]
        )
        assert KEY not in code
        environment = os.environ | {"POLYVEC_API_KEY": KEY, "NO_PROXY": "*", "no_proxy": "*"}
        done = subprocess.run(
            RUN[language],  # type: ignore[arg-type]
            input=code, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ((path, headers, body),) = received
    assert path == "/v1/embeddings"
    assert body == REQUEST["body"]
    lower = {name.lower(): value for name, value in headers.items()}
    for name, value in REQUEST["headers"].items():
        assert lower[name.lower()] == value
    if with_key:
        assert lower["authorization"] == f"Bearer {KEY}"
    else:
        assert lower.get("authorization") in (None, "Bearer none")


@needs_node
def test_snippets_work_with_the_real_server(live: Live) -> None:
    body = {"model": "nested", "input": ["fox", "dog"], "encoding_format": "float"}
    request: dict[str, Any] = {
        "body": body | {"dimensions": 16},
        "headers": {"X-Polyvec-Role": "query"},
    }
    code = node("snippets.js", "return m.snippet(...given);", ["Python", live.url, request, False])
    done = subprocess.run(
        [sys.executable, "-"], input=code + "import json; print(json.dumps(vectors))",
        env=os.environ | {"NO_PROXY": "*", "no_proxy": "*"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shape, printed = done.stdout.splitlines()
    assert shape == "2 16"
    direct = httpx.post(
        f"{live.url}/v1/embeddings",
        json=request["body"],
        headers=request["headers"],
        trust_env=False,
    ).json()
    assert json.loads(printed) == [item["embedding"] for item in direct["data"]]
