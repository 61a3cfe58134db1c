from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.reports.forge import Api, Forge, GitHub, GitLab, NotAllowed, check_repository, post

from .forge_service import Service, serving

MARKER = "<!-- liftgate-gate ranker -->"


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as server:
        yield server


def github(service: Service) -> GitHub:
    api = Api(url=service.url, token="s3cret", token_header="Authorization", token_prefix="Bearer ", pause=lambda _: None)
    return GitHub(api=api, repository="acme/ranker", number=7)


def gitlab(service: Service) -> GitLab:
    api = Api(url=service.url, token="s3cret", token_header="PRIVATE-TOKEN", pause=lambda _: None)
    return GitLab(api=api, project="acme/ranker", iid=7)


@pytest.mark.parametrize("forge", [github, gitlab])
def test_the_first_run_writes_a_comment_and_the_second_updates_it(service: Service, forge: Callable[[Service], Forge]) -> None:
    service.fill(3)
    assert post(forge(service), f"{MARKER}\nFAIL", MARKER).what == "created"
    assert post(forge(service), f"{MARKER}\nPASS", MARKER).what == "updated"
    assert [c["body"] for c in service.comments[3:]] == [f"{MARKER}\nPASS"]


@pytest.mark.parametrize("forge", [github, gitlab])
def test_the_comment_is_found_on_the_last_of_many_pages(service: Service, forge: Callable[[Service], Forge]) -> None:
    service.fill(250)
    service.comments[248]["body"] = f"{MARKER}\nold"
    assert post(forge(service), f"{MARKER}\nnew", MARKER).id == 249
    assert len(service.comments) == 250
    assert sum(line.startswith("GET") for line in service.seen) == 3


def test_the_addresses_are_those_of_the_two_services(service: Service) -> None:
    post(github(service), MARKER, MARKER)
    post(gitlab(service), f"{MARKER}\nnew", MARKER)
    assert service.seen == [
        "GET /repos/acme/ranker/issues/7/comments",
        "POST /repos/acme/ranker/issues/7/comments",
        "GET /projects/acme%2Franker/merge_requests/7/notes",
        "PUT /projects/acme%2Franker/merge_requests/7/notes/1",
    ]
    assert service.tokens == {"Bearer s3cret", "s3cret", None}


def test_gates_with_other_keys_keep_their_comments(service: Service) -> None:
    post(github(service), f"{MARKER}\nFAIL", MARKER)
    other = MARKER.replace("ranker", "ranker-2")
    post(github(service), f"{other}\nPASS", other)
    assert [c["body"] for c in service.comments] == [f"{MARKER}\nFAIL", f"{other}\nPASS"]


def test_a_quoted_comment_is_not_ours(service: Service) -> None:
    service.fill(1)
    service.comments[0]["body"] = f"> {MARKER}\n> FAIL\n\nwhy?"
    assert post(github(service), f"{MARKER}\nPASS", MARKER).what == "created"


def test_somebody_elses_comment_with_our_marker_is_left_alone(service: Service) -> None:
    service.fill(1)
    service.comments[0]["body"] = f"{MARKER}\nmine"
    service.foreign = {1}
    assert post(github(service), f"{MARKER}\nPASS", MARKER).what == "created"


def test_an_equal_comment_is_not_written_again(service: Service) -> None:
    post(github(service), f"{MARKER}\nPASS\n", MARKER)
    service.comments[0]["body"] = f"{MARKER}\nPASS"  # services trim
    assert post(github(service), f"{MARKER}\nPASS\n", MARKER).what == "unchanged"


def test_a_fork_without_permission_is_told_what_to_grant(service: Service) -> None:
    service.refusals = [("POST", 403)]
    with pytest.raises(NotAllowed, match="403 Resource not accessible by integration; the token may not write comments here") as error:
        post(github(service), MARKER, MARKER)
    assert "s3cret" not in str(error.value)


def test_what_fails_in_passing_is_tried_again_but_a_post_only_once(service: Service) -> None:
    service.refusals = [("GET", 502), ("GET", 429), ("POST", 503)]
    with pytest.raises(RunFailed, match=r"POST .* answered 503"):
        post(github(service), MARKER, MARKER)
    assert [line.split()[0] for line in service.seen] == ["GET", "GET", "GET", "POST"]


def test_the_token_does_not_follow_a_redirect_to_another_host(service: Service) -> None:
    with serving() as elsewhere:
        service.redirect = elsewhere.url
        list(github(service).notes())
    assert elsewhere.tokens == {None}


def test_a_next_page_on_another_host_is_not_asked(service: Service) -> None:
    api = Api(url="http://127.0.0.1:1/api", token="s3cret", token_header="Authorization", pause=lambda _: None)
    with pytest.raises(RunFailed, match="is not an address of"):
        api.get(f"{service.url}/repos")
    assert service.seen == []


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    api = Api(url="http://127.0.0.1:1", token="t", token_header="Authorization", pause=lambda _: None)
    with pytest.raises(RunFailed, match=re.compile("no answer .*refused", re.IGNORECASE)):
        list(GitHub(api=api, repository="a/b", number=1).notes())


def test_a_server_that_answers_something_else_is_said(service: Service) -> None:
    service.comments = [{"body": "no id"}]
    with pytest.raises(RunFailed, match="did not answer with a list of comments"):
        list(github(service).notes())
    service.comments, service.mute = [], True
    with pytest.raises(RunFailed, match="did not answer with a comment"):
        post(github(service), MARKER, MARKER)


@pytest.mark.parametrize("name", ["ranker", "a/b/c", "../x", "a/..", "a b/c", "a/b?x=1"])
def test_a_repository_is_owner_and_name(name: str) -> None:
    with pytest.raises(InputError, match="--repo"):
        check_repository(name)
