"""`manage.py create_token <user>`: print the API token of a user, made when there is none yet."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError, transaction
from rest_framework.authtoken.models import Token

from webapp.preflight import NO_TABLES


class Command(BaseCommand):
    help = "Print the API token of a user; make it when there is none yet. It can do what the user can do."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="user name")
        parser.add_argument("--rotate", action="store_true", help="make a new one; the old one ends at once")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["user"]
        try:
            user = User.objects.get(username=name)
        except User.DoesNotExist as error:
            known = ", ".join(User.objects.order_by("username").values_list("username", flat=True)[:10]) or "nobody yet"
            raise CommandError(f"There is no user “{name}”. Known: {known}.") from error
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(NO_TABLES.format(error=error)) from error
        if not user.is_active:
            raise CommandError(f"“{name}” is not active: the token would open nothing.")
        with transaction.atomic():
            if options["rotate"]:
                Token.objects.filter(user=user).delete()
            token, _ = Token.objects.get_or_create(user=user)
        self.stdout.write(token.key)
