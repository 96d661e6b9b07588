"""A real browser for tests: Chromium without a window, spoken to through a pipe."""

import itertools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE_S = 90.0


class Browser:
    """One page of a running Chromium, by its DevTools protocol: JSON messages, NUL between."""

    def __init__(self, chromium: str, home: Path) -> None:
        read_end, self._out = os.pipe()
        self._in, write_end = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        command = ["bash", "-c", f'exec "$@" 3<&{read_end} 4>&{write_end}', "bash", chromium]
        self._process = subprocess.Popen(
            [*command, *FLAGS, f"--user-data-dir={home / 'profile'}", "about:blank"],
            pass_fds=(read_end, write_end),
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._rest = b""
        self._session: dict[str, str] = {}
        self._numbers = itertools.count(1)
        # A browser that stands still is ended; what waits for it then sees the end of the pipe.
        self._alarm = threading.Timer(PATIENCE_S, self._process.kill)
        self._alarm.start()
        pages = self._call("Target.getTargets")["targetInfos"]
        (page,) = [one["targetId"] for one in pages if one["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                data = os.read(self._in, 1 << 16)
                if not data:
                    raise AssertionError(f"the browser ended, or did not answer {method}")
                self._rest += data
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, address: str, width: int = 1100, height: int = 900) -> None:
        """Load a page in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._call("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        self._call("Page.navigate", url=address)
        self.wait("document.readyState == 'complete' && location.href != 'about:blank'")

    def value(self, script: str) -> Any:
        """What an expression, or what it promises, comes to."""
        result = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true, as long as the browser is given."""
        while not self.value(condition):
            self.value("new Promise((done) => setTimeout(done, 20))")

    def drag(self, selector: str, start: float, end: float) -> None:
        """Press the mouse at a part of an element's width and let it go at another."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.left, b.top + b.height / 2, b.width]; })()"
        )
        left, y, width = box
        steps = (("mouseMoved", start), ("mousePressed", start), ("mouseMoved", end))
        for kind, part in (*steps, ("mouseReleased", end)):
            button = "none" if kind == "mouseMoved" and part == start else "left"
            place = {"x": left + part * width, "y": y}
            self._call(
                "Input.dispatchMouseEvent", type=kind, button=button, clickCount=1, **place
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._alarm.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser; skips the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with Browser(chromium, tmp_path) as running:
        yield running
