"""The picture and the page; the page in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from newrelax import Registry, UserError
from newrelax.checks.jumps import jump_points
from newrelax.plot import EDGE, SPAN, STEP, draw, main, render_page, select
from tests.conftest import REPOSITORY

NAMES = ("CROWN", "hBox", "DeepZ-Box", "IBP-Round")
EXAMPLE = REPOSITORY / "experiments" / "example_relaxation.py"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def page(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "lines.html"
    path.write_text(render_page(select(registry, NAMES)), encoding="utf-8")
    return path


def data_of(page: Path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    return json.loads(text)


def floats(text: str) -> list[float]:
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def test_the_page_holds_the_lines_of_every_pair(page: Path, registry: Registry) -> None:
    data = data_of(page)
    assert [label for label, _ in data["menu"]] == ["CROWN", "hBox", "DeepZ-Box", "IBP-Round:omega=0.5,F=10"]
    assert [index for _, index in data["menu"]] == [0, 1, 1, 2], "the same lines are stored once"
    count = data["count"]
    values = torch.arange(count, dtype=torch.float64) * STEP - SPAN
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    for name, entry in zip(("CROWN", "hBox"), data["relaxations"], strict=False):
        lines = torch.tensor(floats(entry["lines"])).reshape(-1, 4)
        assert len(lines) == len(pairs)
        some = torch.arange(0, len(pairs), 97)
        first, second = torch.tensor(pairs)[some].T
        # On the grid l = 0 is exact, which cumulative steps would miss.
        lower, upper = (values[k].mul(20).round().div(20) for k in (first, second))
        expected = torch.stack(registry[name].relaxation(lower, upper), -1)
        torch.testing.assert_close(lines[some].double(), expected, rtol=1e-6, atol=1e-6)


def test_the_page_needs_no_network_and_no_markup_from_plugins(page: Path, registry: Registry) -> None:
    text = page.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//cdn|<link|src=|@import", text)
    hostile = registry["CROWN"].relaxation
    object.__setattr__(hostile, "__doc__", "</script><script>alert(1)</script>")
    try:
        assert "</script><script>alert" not in render_page(select(registry, ["CROWN"]))
    finally:
        object.__setattr__(hostile, "__doc__", hostile.function.__doc__)


def test_jump_points_lie_on_the_jump(registry: Registry) -> None:
    values = torch.arange(-10, 11, dtype=torch.float64) / 10
    crown = jump_points(registry["CROWN"].relaxation, values)
    # Every row and column of the half where u > 0 > l crosses -l = u once.
    assert len(crown) >= 18
    torch.testing.assert_close(crown[:, 0], -crown[:, 1], rtol=0, atol=1e-12)
    assert len(jump_points(registry["DeepZ"].relaxation, values)) == 0


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture, page = tmp_path / "lines.png", tmp_path / "page.html"
    arguments = ["Clamp:steep=4", "CROWN", "--plugin", str(EXAMPLE)]
    assert main([*arguments, "--out", str(picture), "--html", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {picture}", f"wrote {page}"]
    raw = picture.read_bytes()
    assert raw.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", raw[16:24])
    assert width > 1000
    assert height > 500
    assert [label for label, _ in data_of(page)["menu"]] == ["Clamp:steep=4", "CROWN"]


OTHERS = """
from newrelax import relaxation

@relaxation("TanhBox", activation="tanh", parallel=True)
def tanh_box(lower, upper):
    return 0.0, lower.tanh(), 0.0, upper.tanh()

@relaxation("LogBox", activation="log", parallel=True)
def log_box(lower, upper):
    return 0.0, lower.log(), 0.0, upper.log()
"""


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with lines of several activations, one of them not defined everywhere."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "others.py").write_text(OTHERS)
    registry = Registry.load([folder / "others.py"])
    path = folder / "page.html"
    path.write_text(render_page(select(registry, ("TanhBox", "LogBox", "CROWN"))), encoding="utf-8")
    draw(select(registry, ("TanhBox", "LogBox", "CROWN"))).savefig(folder / "lines.png")
    return path


def test_the_page_draws_other_activations(others: Path) -> None:
    tanh, log, relu = data_of(others)["relaxations"]
    assert [entry["activation"] for entry in (tanh, log, relu)] == ["tanh", "log", "ReLU"]
    places = torch.linspace(-EDGE, EDGE, len(floats(tanh["curve"])), dtype=torch.float64)
    torch.testing.assert_close(torch.tensor(floats(tanh["curve"])).double(), places.tanh(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.tensor(floats(relu["curve"])).double(), places.relu(), rtol=1e-6, atol=1e-6)
    drawn = torch.tensor(floats(log["curve"]))
    assert torch.equal(drawn.isfinite(), places > 0)
    assert relu["height"] == [-3.3, 4.3]
    assert tanh["height"][1] < 2
    assert tanh["counterexample"] is None
    assert log["counterexample"] is None
    assert log["jumps"] == []
    assert not jump_points(Registry.load()["DeepZ"].relaxation, torch.arange(-10, 11, dtype=torch.float64)).any()


# Just enough of a browser to run the page's script: no layout, only elements with attributes.
PAGE_RUNNER = """
const html = require("fs").readFileSync(process.argv[2], "utf8");
const json = /id="data">([^]*?)<\\/script>/.exec(html)[1], code = /<script>\\n([^]*?)<\\/script>/.exec(html)[1];
class Part {
  constructor() { this.own = {}; this.parts = []; this.style = {}; this.heard = {}; }
  setAttribute(key, value) { this.own[key] = String(value); }
  append(...parts) { this.parts.push(...parts); }
  replaceChildren(...parts) { this.parts = parts; }
  addEventListener(name, call) { this.heard[name] = call; }
  getContext() {
    const createImageData = (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) });
    return { createImageData, putImageData: image => { this.image = image; } };
  }
}
const made = [], known = {};
const make = () => { made.push(new Part()); return made[made.length - 1]; };
const byId = id => known[id] ??= Object.assign(make(), { textContent: id === "data" ? json : "" });
const page = { getElementById: byId, createElementNS: make, createElement: make };
new Function("document", "Option", "atob", code)(page, function () {}, text => Buffer.from(text, "base64").toString("binary"));
const shown = [];
for (let which = 0; which < JSON.parse(json).relaxations.length; which++) {
  byId("menu").heard.change({ target: { value: which } });
  for (const [l, u] of [[-2, 1], [0.5, 2]]) {
    for (const [id, value] of [["slider-l", l], ["slider-u", u], ["slider-l", l]]) byId(id).heard.input({ target: { value } });
    for (const shade of ["0", "2", "area"]) byId("shade").heard.change({ target: { value: shade } });
    const text = id => byId(id).textContent;
    shown.push([text("activation"), text("lower-text"), text("upper-text"), text("area-text"), text("here")]);
  }
}
if (made.some(part => Object.values(part.own).some(value => value.includes("NaN") || value.includes("Infinity")))) throw "NaN";
console.log(JSON.stringify(shown));
"""


def test_the_script_shows_other_activations(others: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    runner = tmp_path / "runner.js"
    runner.write_text(PAGE_RUNNER)
    done = subprocess.run([node, runner, others], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows[0] == ["tanh", "0.000 · x − 0.964", "0.000 · x + 0.762", "5.177", ""]
    assert rows[2] == ["log", "none", "none", "none", "No lines: log is not defined on all of [l, u]."]
    assert rows[3][:3] == ["log", "0.000 · x − 0.693", "0.000 · x + 0.693"]
    assert rows[4][:4] == ["ReLU", "0.000 · x + 0.000", "0.333 · x + 0.667", "1.500"]


def test_all_means_every_method_with_lines(registry: Registry) -> None:
    labels = [label for drawing in select(registry, ["all"]) for label in drawing.labels]
    assert len(labels) == len(set(labels)) == len(registry) - 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CRWN"], "unknown method 'CRWN'"),
        (["PGD"], "PGD has no lines to draw"),
        (["CROWN", "--html", "absent/page.html"], "cannot write absent/page.html: No such file"),
        (["IBP", "--out", "lines.xyz"], "lines.xyz: Format 'xyz' is not supported"),
    ],
    ids=("unknown", "no lines", "folder", "format"),
)
def test_user_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(UserError):
        main([*arguments, "--debug"])


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator:
    """A headless Chromium with the page open."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1200,1000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def line_on_screen(browser, side: str) -> tuple[float, ...]:  # type: ignore[no-untyped-def]
    """x1, y1, x2, y2 of a drawn line in the coordinates of (x, ReLU(x))."""
    element = browser.find_element("id", f"{side}-line")
    x1, y1, x2, y2 = (float(element.get_attribute(key)) for key in ("x1", "y1", "x2", "y2"))
    to_x, to_y = (lambda p: p / 680 * 6.8 - 3.4), (lambda p: (560 - p) / 560 * 7.6 - 3.3)
    return to_x(x1), to_y(y1), to_x(x2), to_y(y2)


def bounds_on_screen(browser) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    return tuple(float(browser.find_element("id", f"slider-{end}").get_attribute("value")) for end in "lu")  # type: ignore[return-value]


def assert_drawn(browser, relaxation) -> None:  # type: ignore[no-untyped-def]
    """The two drawn lines are the function's own at the sliders' l and u."""
    lower, upper = bounds_on_screen(browser)
    four = [float(part) for part in relaxation(torch.tensor([lower]).double(), torch.tensor([upper]).double())]
    for side, slope, offset in (("lower", *four[:2]), ("upper", *four[2:])):
        expected = (lower, slope * lower + offset, upper, slope * upper + offset)
        assert line_on_screen(browser, side) == pytest.approx(expected, abs=1e-4)


def choose(browser, label: str) -> None:  # type: ignore[no-untyped-def]
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", "menu")).select_by_visible_text(label)


def test_the_sliders_move_the_lines(browser, registry: Registry) -> None:  # type: ignore[no-untyped-def]
    from selenium.webdriver.common.keys import Keys

    choose(browser, "CROWN")
    crown = registry["CROWN"].relaxation
    assert_drawn(browser, crown)
    before, picture = line_on_screen(browser, "upper"), browser.find_element("id", "plot").screenshot_as_png
    browser.find_element("id", "slider-u").send_keys(Keys.ARROW_RIGHT * 10)
    assert bounds_on_screen(browser) == pytest.approx((-2, 1.5))
    assert line_on_screen(browser, "upper") != before
    assert browser.find_element("id", "plot").screenshot_as_png != picture
    assert_drawn(browser, crown)
    # Across -l = u the lower slope jumps, and the page says so next to it.
    assert line_on_screen(browser, "lower")[1] == pytest.approx(0, abs=1e-6)
    assert browser.find_element("id", "here").text == ""
    browser.find_element("id", "slider-u").send_keys(Keys.ARROW_RIGHT * 10)
    assert line_on_screen(browser, "lower")[1] == pytest.approx(-2)
    assert "the lines jump" in browser.find_element("id", "here").text
    assert_drawn(browser, crown)
    # l pushes u ahead of itself: l <= u always.
    browser.find_element("id", "slider-l").send_keys(Keys.END)
    assert bounds_on_screen(browser) == pytest.approx((3, 3))
    browser.find_element("id", "slider-l").send_keys(Keys.HOME)
    assert bounds_on_screen(browser) == pytest.approx((-3, 3))


def test_another_relaxation_changes_the_picture(browser, registry: Registry) -> None:  # type: ignore[no-untyped-def]
    choose(browser, "CROWN")
    pictures = [browser.find_element("id", "plot").screenshot_as_png]
    maps = [browser.find_element("id", "map").screenshot_as_png]
    for label, jumps in (("DeepZ-Box", "l = 0"), ("IBP-Round:omega=0.5,F=10", "10 per unit")):
        choose(browser, label)
        assert_drawn(browser, registry.get_method(label).relaxation)
        assert jumps in browser.find_element("id", "jumps").text
        assert label.split(":")[0] in browser.find_element("id", "doc").text
        pictures.append(browser.find_element("id", "plot").screenshot_as_png)
        maps.append(browser.find_element("id", "map").screenshot_as_png)
    assert len(set(maps)) == 3
    assert len(set(pictures)) >= 2
    assert browser.find_element("id", "verdict").text.startswith("✓")


def test_a_click_on_the_map_moves_the_sliders(browser, registry: Registry) -> None:  # type: ignore[no-untyped-def]
    from selenium.webdriver.common.action_chains import ActionChains

    choose(browser, "hBox")
    place = browser.find_element("id", "map")
    # A quarter from the left and a quarter from the top: l = -1.5, u = 1.5.
    width, height = place.size["width"], place.size["height"]
    ActionChains(browser).move_to_element_with_offset(place, -width // 4, -height // 4).click().perform()
    assert bounds_on_screen(browser) == pytest.approx((-1.5, 1.5), abs=0.1)
    assert_drawn(browser, registry["hBox"].relaxation)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
