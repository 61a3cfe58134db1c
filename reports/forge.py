"""Posting a comment that is updated in place, to GitHub and GitLab: pages are read until the marker is found, then PATCH or POST.

The token travels in a header that is not repeated to another host when a server redirects, and no message ever holds it.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Protocol
from urllib.parse import quote, urlsplit

import msgspec

from ..core.errors import InputError, RunFailed

PAGE_SIZE = 100
_MOST_PAGES = 200
_TIMEOUT_S = 20.0
_PAUSES_S = (1.0, 4.0)
_PASSING = (429, 500, 502, 503, 504)
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


class NotAllowed(RunFailed):
    """The token may not do this, as for pull requests from forks."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A comment as both services tell it; other fields are not looked at."""

    id: int
    body: str | None = None


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the comment."""

    what: str
    id: int


class Forge(Protocol):
    """Where the comments of one pull or merge request are read and written."""

    def notes(self) -> Iterator[Note]: ...

    def create(self, body: str) -> Note: ...

    def update(self, note: Note, body: str) -> Note: ...


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """JSON over HTTP with a token; what fails in passing is tried again, but never a POST: it may have been carried out."""

    url: str
    token: str
    token_header: str
    token_prefix: str = ""
    pause: Callable[[float], None] = time.sleep

    def get(self, url: str) -> tuple[bytes, dict[str, str]]:
        return self._send("GET", url, None)

    def write(self, method: str, url: str, body: str) -> Note:
        answer = self._send(method, url, msgspec.json.encode({"body": body}))[0]
        try:
            return msgspec.json.decode(answer, type=Note)
        except msgspec.DecodeError as error:
            raise RunFailed(f"{method} {url}", f"the server did not answer with a comment ({error})") from None

    def _send(self, method: str, url: str, body: bytes | None) -> tuple[bytes, dict[str, str]]:
        pauses = _PAUSES_S if method != "POST" else ()
        for pause in (*pauses, None):
            try:
                with urllib.request.urlopen(self._request(method, url, body), timeout=_TIMEOUT_S) as answer:
                    return answer.read(), {k.lower(): v for k, v in answer.headers.items()}
            except urllib.error.HTTPError as error:
                if pause is None or error.code not in _PASSING:
                    raise _refusal(f"{method} {url}", error) from None
            except (OSError, HTTPException, ValueError) as error:
                if pause is None:
                    raise RunFailed(f"{method} {url}", f"no answer ({getattr(error, 'reason', error)})", fix="check the address") from None
            self.pause(pause)
        raise AssertionError("the last attempt returns or raises")

    def _request(self, method: str, url: str, body: bytes | None) -> urllib.request.Request:
        if urlsplit(url).scheme not in ("https", "http") or urlsplit(url).netloc != urlsplit(self.url).netloc:
            raise RunFailed(f"{method} {url}", f"is not an address of {self.url}", fix="check the address of the API")
        request = urllib.request.Request(url, data=body, method=method, headers={"User-Agent": "liftgate", "Accept": "application/json"})
        request.add_unredirected_header(self.token_header, self.token_prefix + self.token)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        return request


def _refusal(where: str, error: urllib.error.HTTPError) -> RunFailed:
    """The server's own words, and what they usually mean."""
    with error:
        said = error.read(2000).decode(errors="replace")
    words = re.search(r'"(?:message|error)"\s*:\s*"([^"]+)"', said)
    problem = f"answered {error.code} {words[1] if words else error.reason}"
    if error.code == 401:
        return NotAllowed(where, problem, fix="the token is missing, expired or for another server")
    if error.code in (403, 404):
        fix = (
            "the token may not write comments here, as for a pull request from a fork: grant `pull-requests: write`, or pass --best-effort"
        )
        return NotAllowed(where, problem, fix=fix)
    return RunFailed(where, problem)


class GitHub(msgspec.Struct, frozen=True, kw_only=True):
    """Comments of pull request `number` of `repository` (owner/name)."""

    api: Api
    repository: str
    number: int

    def notes(self) -> Iterator[Note]:
        url: str | None = f"{self.api.url}/repos/{self.repository}/issues/{self.number}/comments?per_page={PAGE_SIZE}"
        for _ in range(_MOST_PAGES):
            if url is None:
                return
            body, headers = self.api.get(url)
            yield from _decode(body)
            following = _NEXT.search(headers.get("link", ""))
            url = following[1] if following else None

    def create(self, body: str) -> Note:
        return self.api.write("POST", f"{self.api.url}/repos/{self.repository}/issues/{self.number}/comments", body)

    def update(self, note: Note, body: str) -> Note:
        return self.api.write("PATCH", f"{self.api.url}/repos/{self.repository}/issues/comments/{note.id}", body)


class GitLab(msgspec.Struct, frozen=True, kw_only=True):
    """Notes of merge request `iid` of `project` (its number or group/name)."""

    api: Api
    project: str
    iid: int

    @property
    def _url(self) -> str:
        return f"{self.api.url}/projects/{quote(self.project, safe='')}/merge_requests/{self.iid}/notes"

    def notes(self) -> Iterator[Note]:
        page = "1"
        for _ in range(_MOST_PAGES):
            body, headers = self.api.get(f"{self._url}?per_page={PAGE_SIZE}&page={page}")
            yield from _decode(body)
            page = headers.get("x-next-page", "").strip()
            if not page:
                return

    def create(self, body: str) -> Note:
        return self.api.write("POST", self._url, body)

    def update(self, note: Note, body: str) -> Note:
        return self.api.write("PUT", f"{self._url}/{note.id}", body)


def _decode(body: bytes) -> list[Note]:
    try:
        return msgspec.json.decode(body, type=list[Note])
    except msgspec.DecodeError as error:
        raise RunFailed("reading comments", f"the server did not answer with a list of comments ({error})") from None


def check_repository(repository: str) -> str:
    """`owner/name`; raises InputError for anything else, as it becomes part of an address."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", repository) or ".." in repository:
        raise InputError.mismatch("--repo", expected="owner/name", found=repr(repository))
    return repository


def post(forge: Forge, body: str, marker: str) -> Posted:
    """Put `body` where the comment with `marker` is, or write a new one.

    A comment of somebody else that merely starts with the marker cannot be written: the next one is tried, then a new one is made.
    """
    refused: NotAllowed | None = None
    for note in [n for n in forge.notes() if (n.body or "").startswith(marker)]:
        if (note.body or "").rstrip() == body.rstrip():
            return Posted(what="unchanged", id=note.id)
        try:
            return Posted(what="updated", id=forge.update(note, body).id)
        except NotAllowed as error:
            refused = error
    try:
        return Posted(what="created", id=forge.create(body).id)
    except NotAllowed as error:
        raise refused or error from None
