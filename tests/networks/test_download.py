"""Download of torchvision's weights: what is written into the cache, and what happens without a server."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision.models

from style_transfer.errors import WeightsError
from style_transfer.networks import download
from style_transfer.networks.loading import load_weights
from style_transfer.registry import NETWORKS
from style_transfer.settings import Settings

TORCHVISION = {
    "vgg19": "VGG19_Weights",
    "vgg16": "VGG16_Weights",
    "alexnet": "AlexNet_Weights",
    "squeezenet": "SqueezeNet1_1_Weights",
}
"""The enumeration in torchvision.models of each network's weights."""


class Handler(BaseHTTPRequestHandler):
    """Sends `content`, or half of it and then nothing until `release` is set; records the default time limit of sockets."""

    content = b"weights" * 1000
    stall = False
    release = threading.Event()
    default_timeouts: list[float | None]

    def do_GET(self) -> None:
        self.default_timeouts.append(socket.getdefaulttimeout())
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // 2])
        if self.stall:
            self.release.wait()
        else:
            self.wfile.write(self.content[len(self.content) // 2 :])

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a file on a local server; proxies are not used for it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Handler, "default_timeouts", [], raising=False)
    Handler.release.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/net.pth"
        Handler.release.set()
        server.shutdown()
        thread.join()


def sha256() -> str:
    return hashlib.sha256(Handler.content).hexdigest()


def test_a_download_is_complete_and_shows_a_bar(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoints" / "net.pth"
    download._save(url, path, sha256()[:8], progress=True)
    assert path.read_bytes() == Handler.content and list(path.parent.iterdir()) == [path]
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err
    download._save(url, tmp_path / "quiet.pth", sha256()[:8], progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_download_leaves_the_default_time_limit_of_sockets_alone(url: str, tmp_path: Path) -> None:
    download._save(url, tmp_path / "net.pth", sha256()[:8], progress=False)
    assert Handler.default_timeouts == [None] * len(Handler.default_timeouts) != []


def test_a_file_with_another_hash_is_not_kept(url: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"begins with {sha256()[:8]}, not 00000000"):
        download._save(url, tmp_path / "net.pth", "00000000", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_download_that_stalls_is_given_up(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "stall", True)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.2)
    with pytest.raises(TimeoutError):
        download._save(url, tmp_path / "net.pth", sha256()[:8], progress=False)
    assert not list(tmp_path.iterdir())


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "START_SECONDS", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts the connection and sends nothing
        port = server.getsockname()[1]
        with pytest.raises(TimeoutError, match=r"no answer within 0\.2 seconds"):
            download._open(f"http://127.0.0.1:{port}/vgg19.pth")
    with pytest.raises(OSError, match="refused"):
        download._open(f"http://127.0.0.1:{port}/vgg19.pth")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of torch on a machine without a network connection."""

    def fail(url: str) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(download, "_open", fail)
    return tmp_path


@pytest.mark.parametrize("network", TORCHVISION)
def test_a_failed_download_names_url_path_and_option(network: str, offline: Path) -> None:
    with pytest.raises(download.DownloadError) as caught:
        load_weights(Settings(network=network).resolve())
    url, path, prefix = download.cache_location(network)
    for word in (url, prefix, str(path), str(offline), "--weights", "Name or service not known"):
        assert word in str(caught.value)


def test_auto_uses_the_built_in_network_without_a_connection(offline: Path) -> None:
    warnings: list[str] = []
    weights = load_weights(Settings().resolve(), warn=warnings.append)
    assert weights.spec.name == "compact" and warnings == [weights.note]
    assert "built-in compact network" in warnings[0] and "Name or service not known" in warnings[0]


def test_urls_are_those_of_torchvision() -> None:
    assert set(TORCHVISION) == {name for name, entry in NETWORKS.items() if entry.download}
    for name, enumeration in TORCHVISION.items():
        url = getattr(torchvision.models, enumeration).IMAGENET1K_V1.url
        assert NETWORKS[name].download == url
        assert any(url.rsplit("/", 1)[1] in file for file in NETWORKS[name].files)


def test_a_damaged_file_in_the_cache_is_detected_by_its_hash(offline: Path) -> None:
    _, path, _ = download.cache_location("vgg19")
    path.parent.mkdir()
    path.write_bytes(b"half of it")
    with pytest.raises(WeightsError, match=r"is damaged .*not dcbb9e9d.*delete it"):
        download.download("vgg19")


def test_a_network_that_shares_its_name_with_another_names_that(offline: Path) -> None:
    with pytest.raises(download.DownloadError, match="or is it caffenet, which fzliu's post calls AlexNet"):
        load_weights(Settings(network="alexnet").resolve())
