"""The page in a real browser: every screen, against runs that go on.

Chromium is the distribution's. Where it is not there, these tests are skipped and say so. With
`MARS_SCREENSHOTS` set to a folder, the screenshots are kept there.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

LIMIT_MS = 60_000
"""How long anything may take on a machine that does much else."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield one
        one.close()


def model(number: int, folder: str) -> int:
    """A call that says what it does; one fails, one goes on until it is told."""
    print(f"model {number}: begins <b>not bold</b> \x1b[31mred\x1b[0m", flush=True)
    if number == 7:
        raise ValueError("model 7 diverged: loss is nan")
    if number >= 30:
        go = Path(folder, "go")
        step = 0
        while not go.exists():
            step += 1
            if step % 20 == 0:
                print(f"model {number}: epoch {step // 20}", flush=True)
            threading.Event().wait(0.01)
    return number


def collect(values: list[int]) -> int:
    """Reads all models."""
    return sum(values)


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true in the page, whose policy forbids `wait_for_function`."""
    deadline = time.monotonic() + LIMIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


class Live:
    """A session with a run that goes on until `go`, and the browser's view of it."""

    def __init__(self, session: Any, folder: Path) -> None:
        self.session, self.folder = session, folder
        self.models = [mr.spawn(model, args=(n, str(folder)), name=f"model {n}") for n in range(40)]
        self.sum = mr.spawn(collect, args=(self.models[:7],), name="collect")
        self.run = session.execute(
            *self.models, self.sum, wait=False, on_error="continue", show_progress=False
        )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    with mars.new_session(n_cpu=2, web=True, default=False) as session:
        table = session.put(bytearray(2_000_000))
        small = mr.map(abs, range(-2000, 0))
        session.execute(small, show_progress=False)
        found = Live(session, folder)
        yield found
        (folder / "go").touch()
        del table


class Window:
    """A window of the browser that notes what must not happen."""

    def __init__(self, browser: Any, session: Any, **more: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **more})
        self.page = self.context.new_page()
        self.page.set_default_timeout(LIMIT_MS)
        self.origin = session.page.address
        self.wrong: list[str] = []
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.on("request", self._asked)
        self.page.goto(session.get_web_endpoint())
        self.page.get_by_text("● live").wait_for()

    def _told(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(self.origin):
            self.wrong.append(request.url)

    def open(self, screen: str) -> None:
        self.page.locator("#nav").get_by_text(screen, exact=True).click()
        self.page.get_by_role("heading", level=1).filter(has_text=screen).wait_for()

    def keep(self, name: str) -> None:
        folder = os.environ.get("MARS_SCREENSHOTS")
        if folder:
            self.page.wait_for_timeout(600)  # for people only: the meter has come to rest
            self.page.screenshot(path=f"{folder}/{name}.png")

    def check(self) -> None:
        """No barrier for anybody (WCAG AA), nothing cut off, no error."""
        from axe_playwright_python.sync_playwright import Axe

        results = Axe().run(self.page)
        told = [
            f"{one['id']}: {one['nodes'][0]['html']} {one['nodes'][0]['failureSummary']}"
            for one in results.response["violations"]
        ]
        assert not told, "\n".join(told)
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not self.wrong

    def close(self) -> None:
        self.context.close()
        assert not self.wrong


@pytest.fixture
def window(browser: Any, live: Live) -> Iterator[Window]:
    one = Window(browser, live.session)
    yield one
    one.close()


THEMES = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.mark.parametrize("theme", THEMES)
def test_every_screen_is_whole_and_without_barriers(browser: Any, live: Live, theme: str) -> None:
    one = Window(browser, live.session, bypass_csp=True, **THEMES[theme])  # axe is put in
    page = one.page
    page.get_by_role("link", name="model 7", exact=True).first.wait_for()
    page.get_by_role("link", name="model 30", exact=True).first.wait_for()
    assert "ValueError: model 7 diverged" in page.locator("main").inner_text()
    one.keep(f"page-overview-{theme}")
    one.check()
    one.open("Calls")
    page.get_by_role("row").filter(has_text="model 31").first.wait_for()
    one.keep(f"page-calls-{theme}")
    one.check()
    one.open("Graph")
    page.get_by_role("link", name=re.compile(r"^collect: .*reads model")).wait_for()
    until(page, "document.querySelectorAll('.node').length === 2")  # 40 models would not fit
    until(page, "/\\d+ of 40.*✕ 1/.test(document.querySelector('.node').textContent)")
    one.keep(f"page-graph-{theme}")
    one.check()
    one.open("Objects")
    page.get_by_text("value of put()").wait_for()
    one.keep(f"page-objects-{theme}")
    one.check()
    one.open("Timeline")
    until(page, "document.querySelector('canvas').height > 60")
    one.keep(f"page-timeline-{theme}")
    one.check()
    one.open("Workers")
    page.get_by_role("button", name="Stack of worker 1").click()
    page.locator("pre.log").get_by_text("in model").wait_for()
    one.keep(f"page-workers-{theme}")
    one.check()
    one.open("Report")
    page.get_by_role("heading", name="Where the core time went").wait_for()
    one.keep(f"page-report-{theme}")
    one.check()
    page.goto(f"{one.origin}#/call/{live.models[7].call.key}")
    page.locator("pre.bad").get_by_text("model 7 diverged").wait_for()
    page.locator("pre.log").get_by_text("begins <b>not bold</b> \\x1b[31mred").wait_for()
    one.keep(f"page-call-{theme}")
    one.check()
    one.close()


def test_a_log_grows_while_one_looks_and_a_reload_catches_up(window: Window, live: Live) -> None:
    page = window.page
    page.get_by_role("link", name="model 30", exact=True).first.click()
    log = page.locator("pre.log")
    log.get_by_text("begins").wait_for()
    before = log.inner_text().count("epoch")
    until(
        page, f"document.querySelector('pre.log').textContent.split('epoch').length > {before + 3}"
    )
    page.reload()
    page.get_by_text("● live").wait_for()
    until(
        page, f"document.querySelector('pre.log').textContent.split('epoch').length > {before + 3}"
    )
    text = page.locator("pre.log").inner_text()
    epochs = [int(n) for n in re.findall(r"epoch (\d+)", text)]
    assert epochs == list(range(1, len(epochs) + 1))


def test_calls_are_found_sorted_and_opened_by_keyboard(window: Window, live: Live) -> None:
    page = window.page
    window.open("Calls")
    grid = page.get_by_role("grid")
    page.get_by_label("Find").fill("model 7")
    until(page, "document.querySelectorAll('.body [role=row]').length === 1")
    page.get_by_label("State").select_option("failed")
    assert (
        "✕"
        in page.locator(".body .mark").first.evaluate(
            "one => getComputedStyle(one, '::before').content"
        )
        or page.locator(".body .mark").first.get_attribute("data-shape") == "✕"
    )
    grid.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="model 7").wait_for()
    page.get_by_text("← All calls").click()
    assert page.get_by_label("Find").input_value() == "model 7"
    page.get_by_label("Find").fill("")
    page.get_by_label("State").select_option("all")
    page.get_by_role("button", name="took").click()
    until(page, "document.querySelector('[aria-sort=ascending]').textContent.startsWith('took')")


def test_a_call_is_cancelled_and_inputs_and_readers_are_shown(window: Window, live: Live) -> None:
    page = window.page
    page.goto(f"{window.origin}#/call/{live.models[39].call.key}")
    page.get_by_role("button", name="Cancel this call").click()
    page.get_by_text("Cancelled.").wait_for()
    page.locator(".title .mark").get_by_text("cancelled").wait_for()
    page.goto(f"{window.origin}#/call/{live.sum.call.key}")
    page.get_by_role("heading", name="Inputs (7)").wait_for()
    page.locator("#main").get_by_role("link", name="model 3", exact=True).click()
    page.get_by_role("heading", name="model 3", exact=True).wait_for()


def test_the_graph_is_of_calls_or_functions_and_leads_to_them(window: Window, live: Live) -> None:
    page = window.page
    window.open("Graph")
    page.get_by_label("A box is").select_option("each call")
    until(page, "document.querySelectorAll('.node').length === 41")
    until(page, "document.querySelectorAll('.graph svg .arrow').length === 7")
    # Arrows lead to the right, and no two boxes lie on each other.
    assert page.evaluate(
        """() => { const boxes = [...document.querySelectorAll(".node")].map(n =>
             n.getBoundingClientRect());
           return boxes.every((a, n) => boxes.slice(n + 1).every(b => a.right <= b.left
             || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top)); }"""
    )
    link = page.get_by_role("link", name=re.compile("^collect: "))
    link.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="What it reads, and what reads it").wait_for()
    page.get_by_role("region", name="Inputs and readers").get_by_role("link").first.click()
    page.get_by_role("heading", name="model 0", exact=True).wait_for()
    page.get_by_role("heading", name="Read by (1)").wait_for()
    window.open("Graph")
    page.locator("#run").select_option("run 1")
    page.get_by_label("A box is").select_option("each function")
    until(page, "document.querySelector('.node').getAttribute('href') === '#/calls/abs'")
    page.get_by_role("link", name=re.compile("^abs: 2,000 done")).click()
    assert page.get_by_label("Find").input_value() == "abs"


def test_a_window_without_the_key_asks_for_it(browser: Any, live: Live) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    page.goto(live.session.page.address)
    page.get_by_role("heading", name="This page needs its key").wait_for()
    assert "model" not in page.content()
    page.get_by_label("Key").fill(live.session.get_web_endpoint())
    page.get_by_role("button", name="Open").click()
    page.get_by_text("● live").wait_for()
    assert live.session.page.token not in page.url
    context.close()


MANY = int(os.environ.get("MARS_PAGE_CALLS", "20000"))
"""`make test-page` sets 100 000, which take half a minute."""


class Stutter:
    """Counts the processor time that the window's main thread has had, also on a busy machine."""

    def __init__(self, window: Window) -> None:
        self._ask = window.context.new_cdp_session(window.page)
        self._ask.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._page = window.page

    def _had_s(self) -> float:
        found = self._ask.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    def of(self, steps: int, do: Callable[[int], object]) -> float:
        """Seconds that one of so many steps takes, drawing among them."""
        before = self._had_s()
        for step in range(steps):
            do(step)
            self._page.evaluate("new Promise(done => requestAnimationFrame(() => done()))")
        return (self._had_s() - before) / steps


def test_many_calls_are_all_there_and_nothing_stutters(browser: Any) -> None:
    with mars.new_session(n_cpu=2, web=True, default=False) as session:
        calls = [mr.spawn(abs, args=(n,)) for n in range(MANY)]
        session.execute(*calls, show_progress=False)
        one = Window(browser, session)
        page, mouse = one.page, one.page.mouse
        one.open("Calls")
        page.get_by_text(f"{MANY:,} rows").wait_for()
        costs = Stutter(one)
        found = {
            "filter": costs.of(3, lambda n: page.get_by_label("Find").fill("abs"[: n + 1])),
            "sort": costs.of(4, lambda n: page.get_by_role("button", name="took").click()),
            "sort by name": costs.of(2, lambda n: page.get_by_role("button", name="call").click()),
        }
        grid = page.get_by_role("grid")
        place = grid.bounding_box()
        mouse.move(place["x"] + 100, place["y"] + 200)
        found["scroll"] = costs.of(30, lambda n: mouse.wheel(0, 400))
        assert grid.evaluate("one => one.scrollTop") > 0
        grid.focus()
        page.keyboard.press("End")
        page.locator(f".body [role=row][aria-rowindex='{MANY + 1}']").wait_for()
        assert page.locator(".body [role=row]").count() < 100
        one.open("Timeline")
        until(page, "document.querySelector('canvas').height > 60")
        canvas = page.get_by_role("img", name=re.compile("^Timeline"))
        place = canvas.bounding_box()
        x, y = place["x"] + 600, place["y"] + 40
        mouse.move(x, y)
        found["zoom"] = costs.of(10, lambda n: mouse.wheel(0, -100))
        mouse.down()
        found["pan"] = costs.of(20, lambda n: mouse.move(x - 5 * n, y))
        mouse.up()
        canvas.press("0")
        found["pan all"] = costs.of(10, lambda n: canvas.press("+" if n % 2 else "-"))
        one.open("Graph")
        page.get_by_role("link", name=f"abs: {MANY:,} done").wait_for()
        one.close()
        del calls
    print(found)
    # What is done once may take as long as nobody notices, what follows a hand or a wheel less.
    limits_s = {"filter": 0.3, "sort": 0.4, "sort by name": 0.4, "scroll": 0.05, "zoom": 0.1,
                "pan": 0.1, "pan all": 0.15}  # fmt: skip
    assert {name: cost for name, cost in found.items() if cost > limits_s[name]} == {}


def outer(number: int) -> Any:
    """Makes calls inside itself."""
    some = [mr.spawn(abs, args=(-number - n,)) for n in range(2)]
    return sum(mr.ExecutableTuple(some).execute().fetch())


def test_calls_inside_calls_hang_on_the_call_that_made_them(browser: Any) -> None:
    with mars.new_session(n_cpu=2, web=True, default=False) as session:
        kept = [mr.spawn(outer, args=(n,), name=f"outer {n}") for n in range(2)]
        session.execute(*kept, show_progress=False)
        one = Window(browser, session, bypass_csp=True)  # axe is put in
        one.open("Graph")
        until(one.page, "document.querySelectorAll('.node').length === 6")
        until(one.page, "document.querySelectorAll('.graph svg .arrow.made').length === 4")
        one.page.get_by_role(
            "link", name=re.compile("^abs: done .*; made by outer 1$")
        ).first.hover()
        one.page.get_by_text("leads from a call to the calls that it makes").wait_for()
        one.keep("page-graph-nested-light")
        one.check()
        one.page.get_by_label("A box is").select_option("each function")
        one.page.get_by_role("link", name=re.compile("^abs: 4 done.*; made by outer$")).wait_for()
        one.close()
        del kept


def test_a_page_that_was_away_says_so(browser: Any) -> None:
    session = mars.new_session(engine="inline", web=True, default=False)
    one = Window(browser, session)
    session.close()
    one.page.get_by_text("○ not connected").wait_for()
    one.context.close()  # the failed requests stand in its console
