"""What is checked before anything starts, so that what is wrong is said in one clear line."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.utils import DatabaseError, OperationalError

OUR_ROOMS = ("meters", "csms", "smartcharging", "webapp")

NO_TABLES = (
    "The database is not in order ({error}). Give the DATA_DIR (and DATABASE_URL) that “manage.py up” runs with; "
    "where it never ran, start it once, or run “manage.py migrate”."
)


class NotReady(Exception):
    """Something outside the program stands in the way; the message says what, and the way out."""


def check_data_dir(path: Path) -> None:
    """The data directory exists and can be written. Raises `NotReady`."""
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise NotReady(
            f"The data directory {path} cannot be written ({error.strerror}). "
            "Give this user the right to write there, or choose another with DATA_DIR=/path."
        ) from error


def lock(path: Path) -> IO[str]:
    """Hold the data directory for this process; keep the returned file open. Raises `NotReady` when it is held."""
    file = (path / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise NotReady(
            f"Laadplein already runs on {path} (process {pid}). Stop it, or choose another with DATA_DIR=/path."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def check_port(host: str, port: int, variable: str) -> None:
    """The port is free to listen on. Raises `NotReady`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what = f"Port {port} is in use"
                way = f"Stop the program that listens there, or choose another port: {variable}={port + 1} make run."
            elif error.errno == errno.EACCES:
                what = f"Port {port} needs more rights than this user has"
                way = f"Choose one above 1023: {variable}={port + 8000} make run."
            else:
                what = f"Cannot listen on {host}:{port} ({error.strerror})"
                way = f"Check BIND and {variable}."
            raise NotReady(f"{what}. {way}") from error


def check_database_version() -> None:
    """The database was not written by a newer version. Raises `NotReady`, also when it cannot be reached."""
    try:
        loader = MigrationLoader(connection)
    except (OperationalError, DatabaseError) as error:
        raise NotReady(
            f"The database cannot be opened: {str(error).strip()}. Check DATABASE_URL and DATA_DIR."
        ) from error
    known = set(loader.disk_migrations)
    unknown = sorted(
        f"{app}.{name}" for app, name in loader.applied_migrations if app in OUR_ROOMS and (app, name) not in known
    )
    if unknown:
        raise NotReady(
            f"The data was written by a newer version of Laadplein (it knows {unknown[0]}). "
            "Update the program, or choose another data directory with DATA_DIR=/path."
        )
