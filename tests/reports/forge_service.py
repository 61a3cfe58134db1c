"""Comments of one pull request, as GitHub and GitLab serve them on the loopback interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Service(ThreadingHTTPServer):
    """Comments of one pull request as GitHub and GitLab serve them, 100 a page; `refusals` are answered first, one per request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, object]] = []
        self.seen: list[str] = []
        self.tokens: set[str | None] = set()
        self.refusals: list[tuple[str, int]] = []
        self.foreign: set[int] = set()
        self.redirect = ""
        self.mute = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fill(self, count: int) -> None:
        self.comments = [{"id": i, "body": f"comment {i}", "user": {"login": "someone"}} for i in range(1, count + 1)]


class Handler(BaseHTTPRequestHandler):
    server: Service

    def answer(self, code: int, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def refused(self) -> bool:
        self.server.seen.append(f"{self.command} {urlsplit(self.path).path}")
        self.server.tokens |= {self.headers.get("Authorization"), self.headers.get("PRIVATE-TOKEN")}
        if self.server.refusals and self.server.refusals[0][0] in (self.command, "*"):
            code = self.server.refusals.pop(0)[1]
            self.answer(code, {"message": "Resource not accessible by integration"})
            return True
        return False

    def do_GET(self) -> None:
        if not self.refused():
            self.page()

    def page(self) -> None:
        if self.server.redirect:
            self.answer(302, {}, Location=self.server.redirect + self.path)
            return
        page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
        found = self.server.comments[(page - 1) * 100 : page * 100]
        more = page * 100 < len(self.server.comments)
        link = f'<{self.server.url}{urlsplit(self.path).path}?per_page=100&page={page + 1}>; rel="next"' if more else ""
        self.answer(200, found, Link=link, X_Next_Page=str(page + 1) if more else "")

    def do_POST(self) -> None:
        body = self.body()
        if not self.refused():
            self.server.comments.append({"id": len(self.server.comments) + 1, "body": body})
            self.answer(201, {} if self.server.mute else self.server.comments[-1])

    def do_PATCH(self) -> None:
        body, number = self.body(), int(self.path.rsplit("/", 1)[1])
        if self.refused():
            return
        if number in self.server.foreign:
            self.answer(403, {"message": "not yours"})
            return
        self.server.comments[number - 1]["body"] = body
        self.answer(200, self.server.comments[number - 1])

    def do_PUT(self) -> None:
        self.do_PATCH()

    def body(self) -> str:
        return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving() -> Iterator[Service]:
    """A service that answers until the block ends."""
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
