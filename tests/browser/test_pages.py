# SPDX-License-Identifier: Apache-2.0
"""The chat page and the dashboard in headless Chromium."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import RunningServer
from support import wait_until

THINGS = ("the sea", "a lighthouse", "two dogs", "the moon", "a clock", "an old map")
REPOSITORY = Path(__file__).parents[2]
PAGES = REPOSITORY / "python/manymind/server/pages"
PICTURES = REPOSITORY / "examples/pictures"


def until(browser: Chrome, condition: Callable[[], Any], seconds: float = 20) -> Any:
    return WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def find(browser: Chrome, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def fill(browser: Chrome, name: str, value: object) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input'));", name, str(value),
    )  # fmt: skip


def assert_clean(browser: Chrome, server: RunningServer, refused: int = 0) -> None:
    """No errors in the console but ``refused`` answers, and nothing asked of other hosts."""
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert len([e for e in errors if "the server responded with a status of" in e["message"]]) == (
        refused
    )
    assert len(errors) == refused, errors
    sent = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = [
        item["params"]["request"]["url"]
        for item in sent
        if item["method"] == "Network.requestWillBeSent"
    ]
    assert urls
    assert [url for url in urls if not url.startswith((server.url, "data:", "chrome:"))] == []


def sent_messages(browser: Chrome) -> list[Any]:
    """The messages of each chat completion asked for since the log was last read."""
    sent = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [item["params"]["request"] for item in sent if "request" in item["params"]]
    return [json.loads(item["postData"])["messages"] for item in asked if "postData" in item]


def screenshot(browser: Chrome, name: str) -> None:
    """For the docs, when SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def ask(browser: Chrome, text: str) -> None:
    box = find(browser, "#text")
    box.send_keys(text)
    box.send_keys(Keys.ENTER)


def answered(browser: Chrome) -> str:
    until(browser, lambda: not find(browser, "#stop").is_enabled() and browser.execute_script(
        "return document.getElementById('log').getAttribute('aria-busy')") == "false")  # fmt: skip
    text: str = browser.find_elements(By.CSS_SELECTOR, "article.assistant .what")[-1].text
    return text


def test_a_conversation(browser: Chrome, server: RunningServer) -> None:
    browser.get(server.url)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    fill(browser, "temperature", 0)
    ask(browser, "What is the capital of Japan?")
    assert "Tokyo" in answered(browser)
    assert re.match(
        r"[\d.]+ tokens/s, \d+ tokens, first after \d+ ms", find(browser, "#speed").text
    )
    # The second question makes sense with the first alone.
    ask(browser, "And of France?")
    assert "Paris" in answered(browser)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#log article")) == 4
    screenshot(browser, "chat")
    assert_clean(browser, server)
    find(browser, "#clear").click()
    assert not browser.find_elements(By.CSS_SELECTOR, "#log article")


def test_parameters_are_sent(browser: Chrome, server: RunningServer) -> None:
    browser.get(server.url)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    texts = []
    for seed in (1, 1, 2):
        find(browser, "#clear").click()
        for name, value in (("temperature", 1.5), ("max_tokens", 12), ("seed", seed)):
            fill(browser, name, value)
        fill(browser, "system", "You are a poet.")
        ask(browser, "Say something about rivers.")
        texts.append(answered(browser))
        assert "12 tokens" in find(browser, "#speed").text
    assert texts[0] == texts[1] != texts[2]


def test_text_streams_and_stop_cancels(browser: Chrome, server: RunningServer) -> None:
    before = server.service.runtime.engine.stats()["requests_cancelled"]
    browser.get(server.url)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    for name, value in (("max_tokens", 1500), ("temperature", 0), ("repetition_penalty", 1.1)):
        fill(browser, name, value)
    ask(browser, "Tell me a very long story about the sea.")
    until(browser, lambda: len(find(browser, "article.assistant .what").text) > 20)
    assert find(browser, "#stop").is_enabled()
    assert not find(browser, "#send").is_enabled()
    find(browser, "#stop").click()
    text = answered(browser)
    wait_until(lambda: server.service.active == 0, 5)
    stats = server.service.runtime.engine.stats()
    assert stats["requests_cancelled"] == before + 1
    assert find(browser, "article.assistant .what").text == text
    assert_clean(browser, server)


def test_a_picture_is_attached_and_a_refusal_is_shown(
    browser: Chrome, server: RunningServer, tmp_path: Path
) -> None:
    """The model of this test cannot see, so the server's own words must reach the reader."""
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(path)
    browser.get(server.url)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    find(browser, "#file").send_keys(str(path))
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#pictures img"))
    ask(browser, "What is this?")
    assert find(browser, "article.user img").get_attribute("src").startswith("data:image/png;")
    alert = until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "[role=alert]"))[0]
    assert "messages" in alert.text
    assert not browser.find_elements(By.CSS_SELECTOR, "#pictures img")
    assert_clean(browser, server, refused=1)
    # A question that got no answer is not asked again with the next.
    fill(browser, "max_tokens", 2)
    ask(browser, "Hello")
    answered(browser)
    assert sent_messages(browser) == [[{"role": "user", "content": "Hello"}]]


def test_a_picture_is_answered(browser: Chrome, seeing: RunningServer) -> None:
    browser.get(seeing.url)
    until(browser, lambda: "tiny-vlm" in find(browser, "#model").text)
    fill(browser, "temperature", 0)
    for name, question, answer in (
        ("word.png", "What does it say?", 'It says "HELLO".'),
        (
            "shapes.png",
            "Describe the picture.",
            "The picture shows three yellow stars and two red hearts.",
        ),
    ):
        find(browser, "#file").send_keys(str(PICTURES / name))
        until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#pictures img"))
        ask(browser, question)
        assert answered(browser) == answer
        shown = browser.find_elements(By.CSS_SELECTOR, "article.user img")[-1]
        assert browser.execute_script("return arguments[0].naturalWidth", shown) > 0
        find(browser, "#clear").click()
    assert_clean(browser, seeing)


def test_a_new_conversation_forgets_the_answer_being_written(
    browser: Chrome, server: RunningServer
) -> None:
    browser.get(server.url)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    fill(browser, "max_tokens", 1500)
    ask(browser, "Tell me a very long story about the sea.")
    until(browser, lambda: len(find(browser, "article.assistant .what").text) > 20)
    find(browser, "#clear").click()
    assert find(browser, "#send").is_enabled()
    wait_until(lambda: server.service.active == 0, 5)
    fill(browser, "max_tokens", 2)
    ask(browser, "Hello")
    answered(browser)
    assert sent_messages(browser)[-1] == [{"role": "user", "content": "Hello"}]
    assert len(browser.find_elements(By.CSS_SELECTOR, "#log article")) == 2


def test_html_in_an_answer_is_text(browser: Chrome, server: RunningServer) -> None:
    browser.get(server.url)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    fill(browser, "max_tokens", 1)
    ask(browser, "<img src=x onerror=document.title='run'><b>bold</b>")
    answered(browser)
    assert "<b>bold</b>" in find(browser, "article.user .what").text
    assert browser.title == "manymind chat"
    assert_clean(browser, server)


def test_the_dashboard_shows_what_runs(browser: Chrome, server: RunningServer) -> None:
    browser.get(f"{server.url}/dashboard")
    browser.execute_script(
        "const e = document.getElementById('period'); e.add(new Option('fast', '150'));"
        "e.value = '150'; e.dispatchEvent(new Event('change'));"
    )
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Tell me a story about the sea. " * 8}],
        "ignore_eos": True,
        "max_tokens": 60,
    }
    for _ in range(5):
        server.post("/v1/chat/completions", body)

    def value(title: str) -> str:
        label = find(browser, f'svg[aria-label^="{title}:"]').get_attribute("aria-label")
        return str(label.partition(": ")[2])

    def known(title: str) -> bool:
        return bool(re.search(r"\d", value(title).replace("p50", "").replace("p99", "")))

    latencies = ("Time to first token", "Time per output token", "Whole answers")
    until(browser, lambda: all(known(title) for title in latencies))
    # All but the first of equal prompts.
    until(browser, lambda: float(value("Prefix cache hits").split()[-2]) > 90)
    assert re.match(r"generated [\d.,]+, prompt [\d.,]+", value("Tokens per second"))
    assert "Live" in find(browser, "#state").text
    curves = browser.execute_script(
        "return [...document.querySelectorAll('path.curve')].map((e) => e.getAttribute('d'))"
    )
    assert len(curves) == 17
    assert sum("L" in curve for curve in curves) >= 8
    # The time below the curves, once there is room for it.
    until(browser, lambda: re.search(r"\d+ s ago\s*now", find(browser, "#cards figure").text))
    find(browser, "#pause").click()
    assert find(browser, "#pause").get_attribute("aria-pressed") == "true"
    assert_clean(browser, server)


def draw_the_dashboard_of_a_busy_server(browser: Chrome, server: RunningServer) -> None:
    """The picture of the docs."""
    browser.set_window_size(1280, 960)
    browser.get(f"{server.url}/dashboard")
    fill(browser, "period", 1000)
    browser.execute_script("document.getElementById('period').dispatchEvent(new Event('change'))")
    end = time.monotonic() + 95

    def client(place: int) -> None:
        chosen = random.Random(place)
        time.sleep(4 * place)
        while time.monotonic() < end:
            story = {
                "role": "user",
                "content": f"A story about {chosen.choice(THINGS)}, please. " * 6,
            }
            length = chosen.randint(20, 160)
            body = {"model": "smollm2", "messages": [story], "max_tokens": length}
            server.post("/v1/chat/completions", {**body, "ignore_eos": True})
            time.sleep(chosen.expovariate(1))

    threads = [threading.Thread(target=client, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(92)
    screenshot(browser, "dashboard")
    for thread in threads:
        thread.join()


if "SCREENSHOTS" in os.environ:
    test_the_dashboard_of_a_busy_server = draw_the_dashboard_of_a_busy_server


def test_quantiles_are_prometheus(browser: Chrome, server: RunningServer) -> None:
    """Ranks 1..10 in buckets of 1: the share's rank, interpolated inside its bucket."""
    browser.get(f"{server.url}/dashboard")
    script = """
        const done = arguments[0];
        import('/pages/metrics.js').then(({ parse, quantile }) => {
          const lines = [];
          for (let i = 1; i <= 10; i++) lines.push(`h_bucket{le="${i}.0",m="a"} ${i + 5}`);
          lines.push('h_bucket{le="+Inf",m="a"} 16', 'c_total{a="x, y"} 2', 'c_total{a="z"} 3e1');
          const { values, buckets } = parse(lines.join("\\n"));
          const before = buckets.get("h").map(([edge]) => [edge, 5]);
          const at = (share) => quantile(share, before, buckets.get("h"));
          const none = quantile(0.5, buckets.get("h"), buckets.get("h"));
          done([values.get("c_total"), at(0.5), at(0.05), at(1), none]);
        });"""
    total, median, low, high, none = browser.execute_async_script(script)
    assert total == 32
    assert median == pytest.approx(5.5)  # 11 observations
    assert low == pytest.approx(0.55)
    assert high == 10  # the last edge that is known
    assert none is None


@pytest.mark.parametrize("path", ["/", "/dashboard"])
def test_everything_to_press_has_a_name(browser: Chrome, server: RunningServer, path: str) -> None:
    """By the browser's own accessibility tree, and there is one heading and one main part."""
    browser.get(server.url + path)
    until(browser, lambda: "smollm2" in find(browser, "#model").text)
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {}
    for node in nodes:
        if not node.get("ignored"):
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value"))
    roles = ("button", "link", "textbox", "slider", "spinbutton", "combobox", "image")
    for role in roles:
        assert "" not in named.get(role, []), (role, named[role])
        assert None not in named.get(role, []), role
    assert len(named["heading"]) == len(named["main"]) == len(named["navigation"]) == 1
    assert browser.execute_script("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(scheme: str) -> None:
    """WCAG 2.2: a contrast of 4.5 for text."""
    css = (PAGES / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[scheme == "dark"]))

    def luminance(name: str) -> float:
        code = colours[name].lstrip("#")
        code = "".join(2 * c for c in code) if len(code) == 3 else code
        parts = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    pairs = [
        (ink, paper) for ink in ("ink", "muted", "accent", "bad") for paper in ("paper", "card")
    ]
    pairs += [("ink", "mine"), ("on-accent", "accent")]
    pairs += [(f"line-{i}", "card") for i in (1, 2, 3)]
    for front, back in pairs:
        low, high = sorted((luminance(front), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)
