"""A real Chromium, driven; and servers for it to look at."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from nshot import sketchbook

SHAPES = ("circle", "star", "heart", "fish", "tree")
LABELS = "circle, star, heart"
WINDOW = (1600, 900)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="make browser installs selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(chromedriver))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 drawings (NSHOT_BROWSER_IMAGES), one of them twice, and one broken file."""
    folder = tmp_path_factory.mktemp("browser") / "photos"
    folder.mkdir()
    for number in range(int(os.environ.get("NSHOT_BROWSER_IMAGES", "200"))):
        shape = SHAPES[number % 5]
        pairs = [pair for pair in sketchbook.PAIRS if pair[1] == shape]
        scene = sketchbook.sample(8_500_000 + number, pairs=pairs, several=0)
        sketchbook.draw(scene, 96).save(folder / f"{number:03}-{shape}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 torn")
    shutil.copy(folder / "000-circle.jpg", folder / "zz-copy.jpg")
    return folder


class Server:
    """`nshot serve` in a process of its own, which can be killed and started again."""

    def __init__(self, photos: Path, cache: Path, *options: str) -> None:
        self.options = options
        self.asks = ["--labels", LABELS, "--template", "a drawing of a {}"]
        self.photos = photos
        self.cache = cache
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        command = [sys.executable, "-m", "nshot", "serve", str(self.photos), "--model", "sketchbook"]
        command += [*self.asks, "--no-open", "-q", *self.options]
        environment = os.environ | {"NSHOT_CACHE": str(self.cache)}
        self.process = subprocess.Popen([*command, "--port", str(self.port)], env=environment)
        while True:
            assert self.process.poll() is None, "the server has stopped"
            try:
                with urlopen(f"{self.address}api/state", timeout=5) as answer:
                    if b'"ready"' in answer.read():
                        return
            except OSError:
                pass
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def server(drawings: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    photos = tmp_path / "photos"
    shutil.copytree(drawings, photos)
    made = Server(photos, tmp_path_factory.getbasetemp() / "cache")
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


class Page:
    """The page as a person has it: keys, words, what can be read."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        self.address = address

    def size(self, width: int, height: int = 900, scheme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self) -> None:
        self.browser.get("about:blank")
        self.size(*WINDOW)
        self.browser.get(self.address)
        self.until(
            "return nshotPage.app.answer !== null && nshotPage.app.state.phase === 'ready' &&"
            " nshotPage.app.answer.rows === nshotPage.app.state.rows && nshotPage.grid.ids.length > 0"
        )

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str, what: str = "") -> Any:
        """Waits as long as it takes, within reason, for a script to give something true."""
        for _ in range(600):
            try:
                if found := self.run(f"if (!globalThis.nshotPage) return null; {script}"):
                    return found
            except Exception as error:  # a page that is just being loaded
                if "javascript error" in str(error):
                    raise
            time.sleep(0.05)
        raise AssertionError(what or script)

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def text(self, part: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", part))

    def saved(self) -> None:
        self.until("return nshotPage.journal.queue.length === 0 && !nshotPage.journal.sending")

    def said(self) -> dict[str, str]:
        """Name of an image -> what the page holds to be said of it."""
        script = """const p = nshotPage, out = {};
            for (const [digest] of p.journal.of) {
              const e = p.journal.last(digest, "say"), row = p.rows.of.get(digest);
              if (!e || row === undefined || !p.rows.said[row]) continue;
              out[p.rows.names[row].split("/").at(-1)] = p.rows.said[row];
            } return out;"""
        return dict(self.run(script))

    def errors(self) -> list[str]:
        """What the browser complains about, refused requests of a stopped server apart."""
        lines = [entry["message"] for entry in self.browser.get_log("browser")]
        network = ("net::ERR", "Failed to load resource")
        return [line for line in lines if not any(word in line for word in network)]


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Page]:
    made = Page(browser, server.address)
    made.open()
    yield made
    errors = made.errors()
    assert errors == [], errors


@pytest.fixture
def open_page(browser: Any) -> Callable[[str], Page]:
    return lambda address: Page(browser, address)
