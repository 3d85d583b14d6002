"""Live cameras over real sockets: MPEG-TS over TCP, and RTSP from a small server of the test's own."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import pytest
from av.error import FFmpegError
from roadside.bus.errors import VideoError
from roadside.datasets import live
from roadside.datasets.live import LiveCamera
from roadside.datasets.sources import without_password

PATIENCE_S = 20.0
FRAMES_PER_S = 20

Script = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def quick_to_connect_again(monkeypatch):
    monkeypatch.setattr(live, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(live, "_LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(live, "_CONNECT_TIMEOUT_S", 1.0)


@contextmanager
def station(*scripts: Script, port: int = 0) -> Iterator[int]:
    """A server on loopback: its port. The first visitor gets the first script, all later ones the last."""
    with socket.create_server(("127.0.0.1", port)) as server:
        visitors: list[socket.socket] = []

        def serve(visitor: socket.socket, script: Script) -> None:
            # The visitor may go at any time.
            with visitor, suppress(OSError, FFmpegError):
                script(visitor)

        def listen() -> None:
            for number in itertools.count():
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                visitors.append(visitor)
                script = scripts[min(number, len(scripts) - 1)]
                threading.Thread(target=serve, args=(visitor, script), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for visitor in visitors:
            visitor.close()


class Packets:
    """Numbered pictures, encoded one by one; every one is a key frame."""

    def __init__(self, film) -> None:
        self._film = film
        self._encoder = av.CodecContext.create("mpeg4", "w")
        self._encoder.width, self._encoder.height, self._encoder.pix_fmt = 320, 192, "yuv420p"
        self._encoder.time_base = Fraction(1, FRAMES_PER_S)
        self._encoder.gop_size = 1

    def encode(self, number: int) -> bytes:
        frame = av.VideoFrame.from_image(self._film.picture(number % 256))
        frame.pts, frame.time_base = number, self._encoder.time_base
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))


def stream_ts(film, *, first: int, count: int, at_once: int = 40, slowed: int = 1, hold: bool = False) -> Script:
    """Send pictures at their pace over MPEG-TS, the first of them at once; then end, or fall silent.

    slowed: time stamps that run so many times slower than the clock.
    """

    class Pipe:
        def __init__(self, visitor: socket.socket) -> None:
            self.write = lambda data: visitor.sendall(data) or len(data)

    def script(visitor: socket.socket) -> None:
        with av.open(Pipe(visitor), "w", format="mpegts", options={"flush_packets": "1"}) as container:
            stream = container.add_stream("mpeg4", rate=FRAMES_PER_S)
            stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
            stream.codec_context.gop_size = 1
            for number in range(first, first + count):
                frame = av.VideoFrame.from_image(film.picture(number % 256))
                frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
                container.mux(stream.encode(frame))
                if number - first >= at_once:
                    time.sleep(slowed / FRAMES_PER_S)
            if hold:
                visitor.recv(1)  # until the visitor goes

    return script


def wait_for(what: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < give_up_s, "it did not come about"
        time.sleep(0.02)


def shows(film, camera: LiveCamera) -> int | None:
    """The number of the picture that the camera shows; None where it shows none."""
    try:
        return film.number(camera.view(0.0).picture)
    except VideoError:
        return None


def mute(visitor: socket.socket) -> None:
    visitor.recv(1)


@contextmanager
def watching(url: str, *, stale_after_s: float = 5.0) -> Iterator[LiveCamera]:
    camera = LiveCamera(url, stale_after_s=stale_after_s)
    try:
        yield camera
    finally:
        camera.close()


def test_the_newest_picture_wins(film):
    with (
        station(stream_ts(film, first=0, count=10_000)) as port,
        watching(f"tcp://127.0.0.1:{port}") as camera,
    ):
        camera.wait_for_picture(PATIENCE_S)
        # Nobody looks while pictures come: none of them waits.
        wait_for(lambda: (shows(film, camera) or 0) >= 45)
        views = []
        for _ in range(5):
            views.append(camera.view(0.0))
            time.sleep(0.1)
        numbers = [film.number(view.picture) for view in views]
        assert numbers == sorted(numbers)
        assert numbers[0] < numbers[-1]
        assert views[0].moment_s < views[-1].moment_s
        assert all((view.telemetry, view.truth) == ({}, None) for view in views)
        assert {view.clip for view in views} == {f"tcp://127.0.0.1:{port}"}
        assert camera.losses == {}


def test_a_stream_that_falls_silent_is_not_asked_about_and_is_connected_anew(film):
    silent = stream_ts(film, first=0, count=60, hold=True)
    again = stream_ts(film, first=200, count=10_000)
    with (
        station(silent, mute, again) as port,
        watching(f"tcp://127.0.0.1:{port}", stale_after_s=0.5) as camera,
    ):
        camera.wait_for_picture(PATIENCE_S)
        # The second connection says nothing for a second.
        wait_for(lambda: shows(film, camera) is None)
        with pytest.raises(VideoError, match=r"has shown nothing new for \d") as caught:
            camera.view(0.0)
        assert caught.value.reason == "camera silent"
        wait_for(lambda: (shows(film, camera) or 0) >= 200)
        assert camera.losses["camera not readable"] >= 2


def test_a_stream_that_ends_is_connected_anew(film):
    short = stream_ts(film, first=0, count=60)
    again = stream_ts(film, first=200, count=10_000)
    with station(short, again) as port, watching(f"tcp://127.0.0.1:{port}") as camera:
        wait_for(lambda: (shows(film, camera) or 0) >= 200)
        assert camera.losses.total() >= 1


def test_a_camera_may_come_later(film):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with watching(f"tcp://127.0.0.1:{port}") as camera:
        wait_for(lambda: camera.losses.total() >= 2)
        with pytest.raises(VideoError, match=r"has shown nothing yet .*: check the URL") as caught:
            camera.view(0.0)
        assert caught.value.reason == "camera without a picture"
        with station(stream_ts(film, first=0, count=500), port=port):
            camera.wait_for_picture(PATIENCE_S)


def test_pictures_that_come_too_fast_are_not_shown_ever_later(film):
    with (
        station(stream_ts(film, first=0, count=10_000, at_once=10, slowed=5)) as port,
        watching(f"tcp://127.0.0.1:{port}", stale_after_s=1.0) as camera,
    ):
        wait_for(lambda: camera.losses["camera too fast to follow"] >= 1)


def test_what_is_no_stream_never_shows_anything():
    def chatter(visitor: socket.socket) -> None:
        visitor.sendall(b"this is no video\n" * 2000)

    with station(chatter) as port, watching(f"tcp://127.0.0.1:{port}") as camera:
        wait_for(lambda: camera.losses.total() >= 3)
        with pytest.raises(VideoError):
            camera.view(0.0)


def test_closing_does_not_wait_for_a_camera_that_says_nothing():
    with station(mute) as port:
        camera = LiveCamera(f"tcp://127.0.0.1:{port}", stale_after_s=0.3)
        camera.close()
        wait_for(lambda: not camera._reader.is_alive())


def test_no_password_is_told():
    with (
        watching("rtsp://driver:s3cret@127.0.0.1:1/cam?key=s3cret") as camera,
        pytest.raises(VideoError) as caught,
    ):
        camera.wait_for_picture(0.3)
    assert "s3cret" not in str(caught.value)
    assert "rtsp://127.0.0.1:1/cam" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rtsp://u:p@host/a", "rtsp://host/a"),
        ("rtsp://u:p@ss@host:1/a@b", "rtsp://host:1/a@b"),
        ("--broker=mqtt://u:p@host", "--broker=mqtt://host"),
        ("http://host/a?user=u&pwd=p", "http://host/a?..."),
        ("clip?.mp4", "clip?.mp4"),
        ("u@host", "u@host"),
    ],
)
def test_without_password(text, told):
    assert without_password(text) == told


@pytest.mark.skipif("v4l2" in av.formats_available, reason="this PyAV reads video devices: the refusal is untested")
def test_a_device_needs_a_pyav_that_reads_devices():
    with watching("/dev/video0") as camera:
        wait_for(lambda: camera.losses.total() >= 1)
        with pytest.raises(VideoError, match="reads no video devices"):
            camera.view(0.0)


def rtsp(film) -> Script:
    """A server of RTSP over TCP (RFC 2326) for MPEG-4 in RTP (RFC 6416), as far as a client that plays needs it."""
    sdp = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
        f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 MP4V-ES/90000\r\na=framerate:{FRAMES_PER_S}\r\na=control:picture\r\n"
    )

    def answer(visitor: socket.socket, sequence: str, head: str = "", body: str = "") -> None:
        length = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n" if body else ""
        visitor.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{head}{length}\r\n{body}".encode())

    def play(visitor: socket.socket) -> None:
        packets, sequence = Packets(film), itertools.count()
        for number in itertools.count():
            data = packets.encode(number)
            for at in range(0, len(data), 1200):
                last = at + 1200 >= len(data)
                time_stamp = number * 90_000 // FRAMES_PER_S
                header = struct.pack("!BBHII", 0x80, 96 | last << 7, next(sequence) % 2**16, time_stamp, 7)
                payload = header + data[at : at + 1200]
                visitor.sendall(b"$\0" + struct.pack("!H", len(payload)) + payload)
            if number > 2 * FRAMES_PER_S:
                time.sleep(1 / FRAMES_PER_S)

    def script(visitor: socket.socket) -> None:
        asked = visitor.makefile("r", newline="\r\n")
        while line := asked.readline():
            method = line.split(" ")[0]
            fields = dict(field.strip().split(": ", 1) for field in iter(asked.readline, "\r\n"))
            sequence = fields["CSeq"]
            if method == "DESCRIBE":
                answer(visitor, sequence, body=sdp)
            elif method == "SETUP":
                assert "interleaved" in fields["Transport"], "the picture comes over TCP"
                answer(visitor, sequence, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7\r\n")
            elif method == "PLAY":
                answer(visitor, sequence, "Session: 7\r\n")
                play(visitor)
            else:
                answer(visitor, sequence, "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n")

    return script


def test_rtsp(film):
    with station(rtsp(film)) as port, watching(f"rtsp://127.0.0.1:{port}/camera") as camera:
        camera.wait_for_picture(PATIENCE_S)
        first = shows(film, camera)
        assert first is not None
        wait_for(lambda: (shows(film, camera) or 0) > first)
        assert camera.view(0.0).picture.size == (320, 192)
        assert camera.losses == {}
