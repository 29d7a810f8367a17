# SPDX-License-Identifier: Apache-2.0
"""How the pages are served; ``tests/browser`` looks at what they do."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from serving import RunningServer, running_server

from manymind import Pipeline
from manymind.server.config import ServerConfig
from manymind.server.keys import api_key

PATHS = ("/", "/dashboard", "/pages/chat.js", "/pages/dashboard.js", "/pages/metrics.js",
         "/pages/style.css", "/pages/icon.svg")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_pages_load_nothing_from_elsewhere(server: RunningServer, path: str) -> None:
    answer = server.get(path)
    assert answer.status_code == 200
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy.pop("default-src") == "'none'"
    assert {word for words in policy.values() for word in words.split()} == {
        "'self'", "'none'", "data:"
    }  # fmt: skip
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    names = r"https?://(?!www\.w3\.org/)|\burl\(|@import|<style|<script>|\sstyle=|\son\w+="
    assert re.findall(names, answer.text) == []
    for link in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert server.get(link).status_code == 200, link


def test_every_file_of_the_folder_has_a_route() -> None:
    folder = files("manymind.server") / "pages"
    names = {item.name for item in folder.iterdir()}
    served = {path.rpartition("/")[2] for path in PATHS} - {"", "dashboard"}
    assert names == served | {"index.html", "dashboard.html"}


def test_other_files_are_not_there(server: RunningServer) -> None:
    for path in ("/pages/", "/pages/index.html", "/pages/../app.py", "/pages/%2e%2e/app.py"):
        assert server.raw(
            f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
        ).startswith(b"HTTP/1.1 404")


def test_pages_want_a_key_where_there_are_keys(smollm2: Pipeline) -> None:
    """Browsers ask for it as a password."""
    config = ServerConfig("smollm2", port=0, keys=[api_key("me", "secret-of-mine")])
    with running_server(smollm2, config) as server:
        for path in PATHS:
            refused = server.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic ")
            assert server.get(path, auth=("any", "secret-of-mine")).status_code == 200
