"""python tests/storage/faulty_proxy.py http://127.0.0.1:8333

A proxy in front of an object store that fails by a script, so that no fault needs a hook in the product. It prints its
address. It passes the Host header on as it was signed, so that the store's check of signatures holds. It is a process
of its own because a client may hold Python's lock while it waits. `PUT /-/script` takes a list of faults, `GET
/-/requests` answers with the (method, path) of every request since.
"""

import http.client
import json
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import boto3

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>Another write is at it.</Message></Error>"


@dataclass
class Fault:
    """What happens to the first `times` requests of `method` whose path matches, after `skip` ones that pass.

    Kinds: `slow_down` (503, not forwarded), `conflict` (409, not forwarded), `reset` (closed, not forwarded),
    `lost_answer` (forwarded, then closed), `late_slow_down` (forwarded, then 503), `half_answer` (closed in the middle
    of the body), `delay` (forwarded after `seconds`), `overwrite` (the precondition is ignored).
    """

    kind: str
    method: str = "PUT"
    path: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    seen: int = 0

    def applies(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.path, path):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


class FaultyProxy:
    """What the proxy is to do and what it was asked."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.client = boto3.Session().client("s3", endpoint_url=upstream)
        self.lock = threading.Lock()
        self.script: list[Fault] = []
        self.requests: list[tuple[str, str]] = []

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            return next((fault for fault in self.script if fault.applies(method, path)), None)

    def control(self, path: str, body: bytes) -> bytes:
        with self.lock:
            if path == "/-/script":
                self.script, self.requests = [Fault(**fault) for fault in json.loads(body)], []
            return json.dumps(self.requests).encode()

    def overwrite(self, path: str, body: bytes) -> None:
        bucket, _, key = unquote(path.partition("?")[0]).lstrip("/").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def log_message(self, *message: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        if self.path.startswith("/-/"):
            return self._answer(200, [], self.proxy.control(self.path, body))
        fault = self.proxy.fault(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == "reset":
            return self._break_off()
        if kind == "slow_down":
            return self._answer(503, [], SLOW_DOWN)
        if kind == "conflict":
            return self._answer(409, [], CONFLICT)
        if kind == "delay":
            time.sleep(fault.seconds)
        if kind == "overwrite" and "If-None-Match" in self.headers:
            self.proxy.overwrite(self.path, body)
            return self._answer(200, [("ETag", '"0"')], b"")
        status, headers, content = self._forward(body)
        if kind == "lost_answer":
            return self._break_off()
        if kind == "late_slow_down":
            return self._answer(503, [], SLOW_DOWN)
        self._answer(status, headers, content, half=kind == "half_answer")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect", "transfer-encoding", "content-length"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value if self.command == "HEAD" else length
            elif name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self._break_off()

    def _break_off(self) -> None:
        self.wfile.flush()
        # Closing with nothing to linger for sends a reset, as a broken connection does.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    _Handler.proxy = FaultyProxy(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
