"""The monitor: what it shows is what is in the folder, at once; who may not see it does not; and no run ever depends on it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from adaptycho.app.cli import main
from adaptycho.runs import orders
from adaptycho.runs.execution import execute
from adaptycho.runs.monitor import access, server, serving
from adaptycho.runs.monitor.watch import Watch
from adaptycho.runs.scans import Run
from adaptycho.settings import preset, update

COUNT, TOKEN = 4, "a-token-that-is-long-enough"
TINY = {
    "geometry": {"field": [8.0, 6.0], "object": "auto"},
    "scan": {"positions": 16, "subsequences": COUNT, "seed": 3, "policy": "random"},
    "reconstruct": {"iterations": 1, "reference_side": 3},
}
NOWHERE = [
    "/settings.toml",
    "/../settings.toml",
    "/%2e%2e/settings.toml",
    "/api/picture/..%2f..%2fsettings.toml/0/0.png",
    "/api/picture/../../settings.toml",
    "/api/picture/phase/0/..%2f..%2frun.json",
    "/api/picture/phase/0/-1.png",
    "/api/picture/phase/1/0.png",
    "/api/picture/phase/0/2.png",
    "/api/picture/phase/0/99999999999999999999.png",
    "/api/picture/states/0/0.png",
    "/api/specimen/..%2f0",
    "/api/specimen/7",
    "/page/index.html",
    "/%00",
    "//etc/passwd",
]
BROWSER = os.environ.get("ADAPTYCHO_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two of four sub-sequences, whose process is this one."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "half", update(preset("light"), TINY, "tiny"))
    (run.path / "monitor").mkdir()
    scan = execute(run)
    for _ in range(2):
        next(scan)
    scan.close()
    return run.path


@pytest.fixture
def folder(half: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(half, tmp_path / "half"))


@contextmanager
def browser(folder: Path, *, token: str | None = None, limit: float | None = None, peer: str = "127.0.0.1") -> Iterator[TestClient]:
    app = server.application(Watch(Run.open(folder), limit), token)
    with TestClient(app, base_url="http://127.0.0.1:8650", client=(peer, 50000)) as client:
        yield client


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server with a real socket, and its address."""
    running = serving.Server(serving.configuration(Watch(Run.open(folder))))
    running.config.port = 0
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.handle_exit(signal.SIGTERM, None)
        thread.join(20)


def test_facts_are_those_of_the_folder(half: Path) -> None:
    with browser(half, limit=1.0) as client:
        facts, found = client.get("/api/facts").json(), client.get("/api/specimen/0").json()
    assert (facts["done"], facts["subsequences"], facts["positions"], facts["positions_total"]) == (2, COUNT, 8, 16)
    assert (facts["doing"], facts["controlled"], facts["problem"]) == ("decides", True, "")
    assert [line["text"][:14] for line in facts["log"]] == ["the scan began", "sub-sequence 1", "sub-sequence 2"]
    with h5py.File(half / "subsequences" / "001.h5") as file:
        np.testing.assert_allclose(found["taken"][4:], file["positions"][0], atol=1e-5)
        sent = float(file["dose"][0].sum())
    assert found["counts"] == [4, 4]
    assert found["electrons"] == pytest.approx(2 * sent)
    assert found["electrons_left"] == pytest.approx(2 * sent)  # half of the positions are left
    assert found["mean_dose"] == pytest.approx(2 * sent / 48)  # 8 x 6 Å
    assert found["peak_dose"] > found["mean_dose"]
    assert found["above"]
    assert found["agreement"][0] is None
    with h5py.File(half / "states" / "000.h5") as a, h5py.File(half / "states" / "001.h5") as b:
        one, other = (f["phase_in_field"][0].ravel() for f in (a, b))
        assert found["agreement"][1] == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-4)
        assert found["scores"]["ssim"][1] == pytest.approx(float(b["scores/ssim"][0]))
        assert facts["seconds"][1][2] == float(b["seconds/reconstruct"][()])


def test_pictures_are_the_arrays(half: Path, tmp_path: Path) -> None:
    with browser(half) as client:
        most = float(client.get("/api/picture/dose/0/1.png").headers["x-high"])
    with browser(half, limit=most / 2) as client:
        phase, dose = (client.get(f"/api/picture/{kind}/0/1.png") for kind in ("phase", "dose"))
    with h5py.File(half / "states" / "001.h5") as file:
        values = file["phase_in_field"][0]
    (tmp_path / "phase.png").write_bytes(phase.content)
    grey = np.asarray(Image.open(tmp_path / "phase.png"))
    low, high = float(phase.headers["x-low"]), float(phase.headers["x-high"])
    wanted = (values - np.median(values)).clip(low, high)
    np.testing.assert_allclose(grey / 255 * (high - low) + low, wanted, atol=(high - low) / 255)
    (tmp_path / "dose.png").write_bytes(dose.content)
    colours = np.asarray(Image.open(tmp_path / "dose.png").convert("RGB"))
    assert (colours == (213, 94, 0)).all(-1).any()  # half of the most is exceeded
    assert not (colours == (213, 94, 0)).all(-1).all()


def test_what_a_proposal_would_cost_is_said_before_it_is_taken(folder: Path) -> None:
    positions = [[[0.5, 0.5]] * 4]
    orders.write_status(folder, {"doing": "waits", "number": 2, "attempt": 0, "positions": positions, "random": False})
    with browser(folder) as client:
        facts, found = client.get("/api/facts").json(), client.get("/api/specimen/0").json()
    assert facts["doing"] == "waits"
    assert found["proposed"] == positions[0]
    assert found["peak_proposed"] > found["peak_dose"]


def test_everything_on_the_page_is_served_here(half: Path) -> None:
    with browser(half) as client:
        answers = [client.get(path) for path in server.PAGES]
    assert [answer.status_code for answer in answers] == [200] * 3
    for answer in answers:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "")
        assert "innerHTML" not in text
        assert " style=" not in text and "onclick" not in text  # which the policy would not allow


def test_no_address_leads_to_a_file(half: Path) -> None:
    with browser(half) as client:
        answers = {path: client.get(path) for path in NOWHERE}
    assert {path for path, answer in answers.items() if answer.status_code != 404 or "[scan]" in answer.text} == set()


def test_who_is_not_on_this_machine_sees_nothing(half: Path) -> None:
    with browser(half, peer="192.0.2.7") as client:
        for path in (*server.PAGES, "/api/facts", "/api/events", "/api/specimen/0"):
            assert client.get(path).status_code == 403
        assert client.post("/api/orders", json={"word": "stop"}).status_code == 403
    with browser(half) as client:
        assert client.get("/api/facts", headers={"host": "evil.example:8650"}).status_code == 403
        assert client.get("/api/facts", headers={"host": "127.0.0.1.evil.example"}).status_code == 403
        assert client.get("/api/facts", headers={"x-forwarded-for": "127.0.0.1", "host": "evil.example"}).status_code == 403
        assert client.get("/api/facts", headers={"host": ""}).status_code == 403
        for host in ("localhost:8650", "localhost", "[::1]:8650", "127.8.9.1:8650"):
            assert client.get("/api/facts", headers={"host": host}).status_code == 200


def test_beyond_this_machine_everything_takes_the_token(half: Path) -> None:
    with browser(half, token=TOKEN, peer="192.0.2.7") as client:
        for path in (*server.PAGES, "/api/facts", "/api/events", "/api/specimen/0", f"/api/facts?token={TOKEN}", "/?token=", "/?token=ä"):
            assert client.get(path, follow_redirects=False).status_code == 401
        for headers in ({"authorization": "Bearer x"}, {"authorization": "Bearer "}, {"cookie": f"{access.COOKIE}="}, {"cookie": "\x01"}):
            assert client.post("/api/orders", json={"word": "stop"}, headers=headers).status_code == 401
        assert client.get("/api/facts", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        answer = client.get(f"/?token={TOKEN}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=strict" in answer.headers["set-cookie"]
        assert client.get("/api/facts").status_code == 200  # the cookie
        assert client.get("/api/facts", headers={"origin": "http://evil.example"}).status_code == 403
    with browser(half, token=TOKEN) as client:
        assert client.get("/api/facts").status_code == 401  # from this machine too: a proxy may stand there
    assert orders.numbers(half) == []


def test_orders_are_taken_and_others_refused(folder: Path) -> None:
    with browser(folder) as client:
        assert client.post("/api/orders", json={"word": "pause"}).json() == {"order": 1}
        assert client.post("/api/orders", json={"word": "approve", "number": 2, "attempt": 0}).status_code == 409  # nothing waits
        orders.write_status(folder, {"doing": "waits", "number": 2, "attempt": 0, "positions": [[[0.5, 0.5]]], "random": False})
        assert client.post("/api/orders", json={"word": "approve", "number": 2, "attempt": 1}).status_code == 409
        assert client.post("/api/orders", json={"word": "approve", "number": 2, "attempt": 0}).status_code == 202
        refused = {
            413: [{"content": b'{"word": "' + b"x" * 2000 + b'"}'}, {"content": iter([b" " * 600] * 100)}],
            422: [
                {"content": c} for c in (b"", b"[]", b'{"word": "rm"}', b'{"word": "pause", "by": "x"}', b'{"word": "reject"}', b"\xff{")
            ],
        }
        for code, requests in refused.items():
            for request in requests:
                assert client.post("/api/orders", headers={"content-type": "application/json"}, **request).status_code == code
        assert client.post("/api/orders", content=b'{"word": "stop"}', headers={"content-type": "text/plain"}).status_code == 415
        assert client.post("/api/orders", json={"word": "stop"}, headers={"origin": "http://localhost:1"}).status_code == 403
        assert client.get("/api/orders").status_code == client.delete("/").status_code == 405
    assert [orders.read(folder, n).word for n in sorted(orders.numbers(folder))] == ["pause", "approve"]


def test_a_scan_that_has_ended_takes_no_orders(folder: Path) -> None:
    text = json.loads((folder / "monitor" / "status.json").read_text())
    gone = subprocess.Popen(["true"])
    gone.wait()
    (folder / "monitor" / "status.json").write_text(json.dumps({**text, "pid": gone.pid}))
    with browser(folder) as client:
        assert client.get("/api/facts").json()["doing"] == "ended"
        assert client.post("/api/orders", json={"word": "pause"}).status_code == 409


def test_a_scan_that_nobody_watched_and_that_writes_no_more_may_have_ended(folder: Path) -> None:
    (folder / "monitor" / "status.json").unlink()
    watch = Watch(Run.open(folder))
    assert watch.look()
    assert watch.facts()["doing"] == "decides"
    for path in (folder, folder / "states", folder / "subsequences"):
        os.utime(path, (1e9, 1e9))
    assert watch.look()
    assert watch.facts()["doing"] == "silent"


def test_a_damaged_file_is_said_and_shown_up_to_there(folder: Path) -> None:
    (folder / "states" / "001.h5").write_bytes(b"no HDF5")
    with browser(folder) as client:
        facts = client.get("/api/facts").json()
        assert client.get("/api/specimen/0").json()["counts"] == [4]
    assert (facts["doing"], facts["done"]) == ("problem", 1)
    assert "001.h5: expected" in facts["problem"]


def test_news_arrives_within_a_second_at_five_browsers(half: Path, tmp_path: Path) -> None:
    """Here each has its own connection to a real server, and a file appears as the scan would write it."""
    folder, held = Path(shutil.copytree(half, tmp_path / "half")), tmp_path / "001.h5"
    (folder / "states" / "001.h5").rename(held)
    told: list[float] = []

    def listen(address: str) -> None:
        with httpx2.stream("GET", f"{address}/api/events", timeout=10) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["done"] == 2:
                    told.append(time.monotonic())
                    return

    with served(folder) as address:
        threads = [threading.Thread(target=listen, args=(address,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert told == []
        written = time.monotonic()
        held.rename(folder / "states" / "001.h5")
        for thread in threads:
            thread.join(10)
    assert len(told) == 5
    assert max(told) - written < 1


def test_a_monitor_that_is_killed_leaves_the_run_as_it_was(folder: Path) -> None:
    """As a process of its own, told by the command line, which also says where the page is."""
    command = [sys.executable, "-m", "adaptycho.app.cli", "monitor", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[0]
            with httpx2.Client(base_url=address, timeout=60) as client:
                assert client.get("/api/facts").json()["done"] == 2
                assert client.post("/api/orders", json={"word": "trust"}).status_code == 202
        finally:
            process.kill()
    assert len(list(execute(Run.open(folder)))) == COUNT


def test_a_monitor_that_ends_lets_go_of_its_browsers(half: Path) -> None:
    with served(half) as address:
        answer = threading.Thread(target=httpx2.get, args=(f"{address}/api/events",), kwargs={"timeout": 60})
        answer.start()
        time.sleep(0.3)
        assert answer.is_alive()
    answer.join(5)  # whole, or it would raise, which is an error here
    assert not answer.is_alive()


def test_an_address_that_is_taken_is_a_sentence(half: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lowered: list[int] = []
    monkeypatch.setattr(os, "nice", lowered.append)  # or all tests after this one would stand back
    with served(half) as address:
        port = address.rpartition(":")[2]
        assert main(["monitor", str(half), "--port", port]) == 2
    assert lowered == [19]  # the scan goes first
    assert capsys.readouterr().err.startswith(f"adaptycho: --host, --port: expected an address to listen on, found 127.0.0.1, {port}")


def test_without_its_extra_it_says_which(half: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("adaptycho.runs.monitor.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["monitor", str(half)]) == 2
    assert "pip install 'adaptycho[monitor]'" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.8.9.1"])
def test_loopback_is_known(host: str) -> None:
    assert access.loopback(host)
    assert not any(map(access.loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "")))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH or in ADAPTYCHO_BROWSER")
def test_a_browser_shows_it_and_its_buttons_give_orders(folder: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser and is not installed")
    orders.write_status(folder, {"doing": "waits", "number": 2, "attempt": 0, "positions": [[[0.5, 0.5]]], "random": False})
    with served(folder) as address, sync.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=os.environ.get("ADAPTYCHO_BROWSER_ARGS", "").split())
        page, wrong = chromium.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(address)
        page.wait_for_selector("body[data-version]")
        assert page.inner_text("#doing") == "waits for your verdict"
        drawn = "id => new Set(document.getElementById(id).getContext('2d').getImageData(0, 0, 300, 300).data).size"
        assert all(page.evaluate(drawn, name) > 20 for name in ("phase", "dose"))
        page.click("[data-word=approve]")
        page.wait_for_selector("#log li:has-text('approve sub-sequence 3')")
        chromium.close()
    assert wrong == []
    found = orders.read(folder, 1)
    assert (found.word, found.number, found.attempt) == ("approve", 2, 0)
