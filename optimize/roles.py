"""Which inputs belong to the request: as the user says, as the requests' columns say, or as the archive says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..core.errors import UnknownName
from ..core.requests import Requests
from ..core.signature import Role, Signature


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """A signature whose inputs have roles; `origin` says who said so, `suggestion` what the requests hint at beyond that."""

    signature: Signature
    origin: str
    suggestion: str | None = None


def with_roles(
    signature: Signature, requests: Requests | None, request_inputs: Sequence[str] | None, saved: Mapping[str, Role], where: str
) -> Roles:
    """`signature` with the roles that `request_inputs`, else the columns of `requests`, else the archive (`saved`) give its inputs.

    Raises UnknownName for a request input that does not exist, InputError when the requests do not fit.
    """
    names = [s.name for s in signature.inputs]
    if request_inputs is not None:
        for name in request_inputs:
            if name not in names:
                raise UnknownName(where, "input", name, names, fix="see --request-inputs")
        roles: Mapping[str, Role] = {name: "request" if name in request_inputs else "candidate" for name in names}
        origin = "roles as given"
    elif requests is not None:
        requests.check_columns(names)
        roles = requests.roles({s.name: len(s.shape) for s in signature.inputs})
        origin = "roles from the columns of the requests"
    elif saved:
        roles, origin = saved, "roles as saved with the model"
    else:
        roles, origin = {}, "roles unknown, every input taken as a candidate input (always right in layout rows)"
    inputs = tuple(msgspec.structs.replace(s, role=roles.get(s.name, "candidate")) for s in signature.inputs)
    known = msgspec.structs.replace(signature, inputs=inputs)
    if requests is None:
        return Roles(signature=known, origin=origin)
    requests.check(known)
    return Roles(signature=known, origin=origin, suggestion=_suggestion(known, requests))


def _suggestion(signature: Signature, requests: Requests) -> str | None:
    """Candidate inputs whose values never vary inside a request are probably request inputs."""
    found, seen = requests.never_varying([s.name for s in signature.inputs if s.role == "candidate"], signature)
    if not found or len(found) == len(signature.inputs):
        return None
    listed = ", ".join(f"'{name}'" for name in found)
    asked = ",".join([*(s.name for s in signature.inputs if s.role == "request"), *found])
    verb = "varies" if len(found) == 1 else "vary"
    return f"{listed} never {verb} inside a request (in {seen} requests): if that is no accident, export with --request-inputs {asked}"
