"""Which rented instance this machine is: from its firmware's tables, and from the cloud's metadata service where a person asks for that."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import InputError

ASK_VARIABLE = "LIFTGATE_ASK_METADATA"
# Every cloud answers at this link-local address, which no router forwards.
METADATA = "http://169.254.169.254"
_PATIENCE_S = 1.0
_LONGEST_ANSWER = 200
# The tag that tells Azure from any other machine under Hyper-V (systemd-detect-virt reads the same).
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"

Cloud = Literal["aws", "azure", "gcp"]


class Recognised(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of a cloud; `instance` is its type where it is known, and `how` says from what, or why it is not."""

    cloud: Cloud
    instance: str | None
    how: str


def recognise(*, ask: bool | None = None) -> Recognised | None:
    """This machine, or None where nothing says that it is rented.

    `ask` lets it question the metadata service, where the firmware does not tell the type; by default LIFTGATE_ASK_METADATA decides.
    Raises InputError for a value of that variable that is neither yes nor no.
    """
    return _recognise_once(_wants_to_ask() if ask is None else ask)


@cache
def _recognise_once(ask: bool) -> Recognised | None:
    return recognise_at(Path("/"), METADATA if ask else None)


def recognise_at(root: Path, metadata: str | None) -> Recognised | None:
    """The same for the firmware's tables below `root` and a metadata service at `metadata`, which is not asked when None."""
    dmi = root / "sys/class/dmi/id"
    vendor, product = _word(dmi / "sys_vendor"), _word(dmi / "product_name")
    if vendor == "Amazon EC2":
        return Recognised(cloud="aws", instance=product, how="its firmware says so: DMI product name")
    cloud: Cloud
    if vendor == "Xen" and "amazon" in _word(dmi / "bios_version").lower():
        cloud, ask = "aws", _ask_aws
    elif vendor == "Microsoft Corporation" and _word(dmi / "chassis_asset_tag") == _AZURE_TAG:
        cloud, ask = "azure", _ask_azure
    elif vendor == "Google" and product == "Google Compute Engine":
        cloud, ask = "gcp", _ask_gcp
    else:
        return None
    if metadata is None:
        how = f"its firmware says {cloud}, not which instance; --ask-metadata or {ASK_VARIABLE}=1 asks the metadata service"
        return Recognised(cloud=cloud, instance=None, how=how)
    return _asked(cloud, ask, metadata)


def _asked(cloud: Cloud, ask: Callable[[str], str], metadata: str) -> Recognised:
    try:
        name = ask(metadata)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors; ValueError is an answer that is no text
        reason = getattr(error, "reason", None) or error
        return Recognised(cloud=cloud, instance=None, how=f"its firmware says {cloud}; the metadata service did not tell: {reason}")
    if not name or len(name) >= _LONGEST_ANSWER:
        return Recognised(cloud=cloud, instance=None, how=f"its firmware says {cloud}; the metadata service gave no instance type")
    return Recognised(cloud=cloud, instance=name, how="the metadata service says so")


def _ask_aws(service: str) -> str:
    """IMDSv2: a token first, which lives for a minute."""
    token = _fetch(f"{service}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    return _fetch(f"{service}/latest/meta-data/instance-type", {"X-aws-ec2-metadata-token": token})


def _ask_azure(service: str) -> str:
    """Azure says `Standard_F4s_v2`, profiles are named without the tier."""
    path = "/metadata/instance/compute/vmSize?api-version=2021-02-01&format=text"
    return _fetch(service + path, {"Metadata": "true"}).removeprefix("Standard_")


def _ask_gcp(service: str) -> str:
    """Google says `projects/123/machineTypes/n2-standard-4`."""
    return _fetch(f"{service}/computeMetadata/v1/instance/machine-type", {"Metadata-Flavor": "Google"}).rpartition("/")[2]


def _fetch(url: str, headers: dict[str, str], *, method: str = "GET") -> str:
    """One short answer, past any proxy: metadata must not leave the machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=_PATIENCE_S) as answer:
        return str(answer.read(_LONGEST_ANSWER).decode("ascii")).strip()


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _wants_to_ask() -> bool:
    value = os.environ.get(ASK_VARIABLE, "0").strip().lower()
    if value in ("1", "yes", "true", "on"):
        return True
    if value in ("", "0", "no", "false", "off"):
        return False
    raise InputError.mismatch(ASK_VARIABLE, expected="1 or 0", found=repr(value))
