"""Records that are written once: nothing rewrites them, and only a named command takes them away.

Two locks. The model refuses `save` of a kept record, `update` and `delete`; the database refuses the same to everybody
who comes past the model, by triggers that are put back after every `migrate` (SQLite loses them when a later
migration builds the table anew). To which transaction an event is filed may change, what was told may not.
`taking_away` opens the second lock for one database transaction; only the retention command uses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, connections, models, transaction

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

OPENING = "csms_ledger_opening"
"""While a row stands here, within its own database transaction, records may be taken away."""

_REFUSED = "the ledger is append-only"


class WrittenOnce(TypeError):
    """Somebody tried to rewrite the ledger."""

    def __init__(self, model: type[models.Model]) -> None:
        super().__init__(f"{model.__name__} is written once; retention is `manage.py forget_transactions`")


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Reads and adds; `file_under` is the one thing that may change."""

    def update(self, **changes: Any) -> int:
        raise WrittenOnce(self.model)

    update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        raise WrittenOnce(self.model)

    delete.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(self, *args: Any, **kwargs: Any) -> int:
        raise WrittenOnce(self.model)

    def file_under(self, transaction_pk: int | None) -> int:
        """Say to which transaction these records belong."""
        return super().update(transaction_id=transaction_pk)


class AppendOnly(models.Model):
    """Mixed into a record that is written once."""

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise WrittenOnce(type(self))
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise WrittenOnce(type(self))


def guarded() -> list[type[AppendOnly]]:
    """Every model that is written once."""
    return sorted(AppendOnly.__subclasses__(), key=lambda m: m._meta.db_table)


@contextmanager
def taking_away(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Within this block, in one database transaction, records may be deleted. For retention only."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(f"INSERT INTO {OPENING} (reason) VALUES ('retention')")  # noqa: S608 - a name of ours
        yield
        cursor.execute(f"DELETE FROM {OPENING} WHERE reason = 'retention'")  # noqa: S608


def install(sender: Any = None, using: str = DEFAULT_DB_ALIAS, **more: Any) -> None:
    """Put the triggers in place; a second time changes nothing. Called after every `migrate`."""
    connection = connections[using]
    present = set(connection.introspection.table_names())
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {OPENING} (reason varchar(40) NOT NULL)")
        for model in guarded():
            table = model._meta.db_table
            if table not in present:
                continue
            fixed = [f.column or f.name for f in model._meta.concrete_fields if f.name != "transaction"]
            mark = hashlib.sha256(",".join(fixed).encode()).hexdigest()[:8]
            wanted = {f"{table}_stays_{mark}", f"{table}_fixed_{mark}"}
            found = _triggers(connection, table)
            if found >= wanted:
                continue
            for name in found:
                cursor.execute(f"DROP TRIGGER {name}" + (f" ON {table}" if connection.vendor == "postgresql" else ""))
            for statement in _statements(connection, table, fixed, mark):
                cursor.execute(statement)


def _triggers(connection: BaseDatabaseWrapper, table: str) -> set[str]:
    """Ours on this table."""
    if connection.vendor == "postgresql":
        question = "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
    else:
        question = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s"
    with connection.cursor() as cursor:
        cursor.execute(question, [table])
        return {name for (name,) in cursor.fetchall() if name.startswith((f"{table}_stays_", f"{table}_fixed_"))}


def _statements(connection: BaseDatabaseWrapper, table: str, fixed: list[str], mark: str) -> list[str]:
    if connection.vendor == "postgresql":
        changed = " OR ".join(f'OLD."{c}" IS DISTINCT FROM NEW."{c}"' for c in fixed)
        return [
            f"""CREATE OR REPLACE FUNCTION csms_written_once() RETURNS trigger AS $$ BEGIN
                IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM {OPENING}) THEN RETURN OLD; END IF;
                RAISE EXCEPTION '{_REFUSED}' USING ERRCODE = 'restrict_violation';
            END $$ LANGUAGE plpgsql""",  # noqa: S608 - names of ours
            f"""CREATE TRIGGER {table}_stays_{mark} BEFORE DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION csms_written_once()""",
            f"""CREATE TRIGGER {table}_fixed_{mark} BEFORE UPDATE ON {table}
                FOR EACH ROW WHEN ({changed}) EXECUTE FUNCTION csms_written_once()""",
        ]
    changed = " OR ".join(f'OLD."{c}" IS NOT NEW."{c}"' for c in fixed)
    return [
        f"""CREATE TRIGGER {table}_stays_{mark} BEFORE DELETE ON {table}
            WHEN NOT EXISTS (SELECT 1 FROM {OPENING})
            BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END""",  # noqa: S608
        f"""CREATE TRIGGER {table}_fixed_{mark} BEFORE UPDATE ON {table} WHEN {changed}
            BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END""",
    ]
