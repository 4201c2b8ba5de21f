"""What a demo keeps in the data directory, so that two of them run side by side: ports, passwords, registers.

demo-ports.json    the Modbus port of each simulated device
demo-secret        from which the passwords of the stations are derived
demo-logins.json   the people's passwords, in the clear, for their owner only: it is a demo
demo-state.json    what a real site would not forget when the power goes: registers, charges, the battery
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from smartcharging.sitefile import SiteFile, parse

log = logging.getLogger(__name__)

SITE_FILE = Path(__file__).parent / "site.toml"
HOST = "127.0.0.1"

MODBUS_NAMES = {"main meter": "main", "hall meter": "hall", "PV roof": "pv", "battery": "battery"}
"""The simulated device behind each device of the site file."""


def write_private(path: Path, body: str) -> None:
    """Replace a file as a whole; its owner alone may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(body)
    part.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What was kept; empty when there is nothing, or nothing that can be read."""
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read and is made anew: %s", path.name, error)
        return {}
    return kept if isinstance(kept, dict) else {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def ports(data_dir: Path) -> dict[str, int]:
    """The remembered Modbus port of each device of the site file; free ones the first time."""
    kept = read_json(data_dir / "demo-ports.json")
    chosen = {name: kept[name] for name in MODBUS_NAMES if isinstance(kept.get(name), int)}
    for name in MODBUS_NAMES:
        while name not in chosen:
            port = free_port()
            if port not in chosen.values():
                chosen[name] = port
    if chosen != kept:
        keep_ports(data_dir, chosen)
    return chosen


def keep_ports(data_dir: Path, chosen: dict[str, int]) -> None:
    write_private(data_dir / "demo-ports.json", json.dumps(chosen, indent=1))


def station_password(data_dir: Path, identity: str) -> str:
    """A station's password in this installation: the same each time, another in every other one."""
    path = data_dir / "demo-secret"
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    secret = path.read_text().strip()
    return hmac.new(secret.encode(), identity.encode(), hashlib.sha256).hexdigest()[:24]


def logins(data_dir: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The people of the demo and their passwords; drawn the first time."""
    path = data_dir / "demo-logins.json"
    kept = read_json(path)
    chosen = {name: str(kept.get(name) or secrets.token_urlsafe(12)) for name in names}
    if chosen != kept:
        write_private(path, json.dumps(chosen, indent=1))
    return chosen


def state(data_dir: Path) -> dict[str, Any]:
    return read_json(data_dir / "demo-state.json")


def keep_state(data_dir: Path, what: dict[str, Any]) -> None:
    write_private(data_dir / "demo-state.json", json.dumps(what))


def connect_to(text: str, port: int) -> str:
    """The same connection at another port."""
    parts = urlsplit(text)
    return parts._replace(netloc=f"{parts.hostname}:{port}").geturl()


def site_file(data_dir: Path) -> SiteFile:
    """The demo site with this installation's ports and passwords."""
    plain = parse(SITE_FILE.read_bytes())
    chosen = ports(data_dir)
    return replace(
        plain,
        devices=tuple(
            replace(d, connect=connect_to(d.connect, chosen[d.name])) if d.name in chosen else d for d in plain.devices
        ),
        stations=tuple(replace(s, password=station_password(data_dir, s.identity)) for s in plain.stations),
    )
