"""`manage.py make_certificates`: the authority of this installation and the gateway's own certificates, in one step."""

from __future__ import annotations

import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from csms import authority


class Command(BaseCommand):
    help = "Make the authority that signs stations' certificates (once), and certificates for the gateway under a name."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("hosts", nargs="*", help="names or addresses stations use; default: this machine's name")
        parser.add_argument("--name", default="Laadplein", help="of the authority")
        parser.add_argument("--days", type=int, default=authority.SERVER_DAYS, help="how long the gateway's are valid")

    def handle(self, *args: Any, **options: Any) -> None:
        hosts = options["hosts"] or list(dict.fromkeys((socket.getfqdn(), "localhost", "127.0.0.1")))
        if not 1 <= options["days"] <= 3650:
            raise CommandError("--days: 1 to 3650")
        now = timezone.now()
        try:
            if not authority.exists():
                self.stdout.write(f"authority: {authority.make_authority(options['name'], now)}")
            for path in authority.make_server(hosts, now, options["days"]):
                self.stdout.write(f"gateway:   {path}")
        except (OSError, authority.NoAuthority, UnicodeError) as error:
            raise CommandError(f"the certificates could not be made: {error}") from error
        self.stdout.write(f"for {', '.join(hosts)}, {options['days']} days")
        if "tls://" not in settings.OCPP_LISTENERS:
            self.stdout.write(
                f"Now set OCPP_LISTENERS to tls://0.0.0.0:{settings.OCPP_PORT}, and give stations ca.pem."
            )
