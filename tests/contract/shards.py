"""Shards of the tables of PostgreSQL within one server, and what each statement touches of them.

`edge/postgres/distribute.sql` distributes the tables by Citus. Here its function `create_distributed_table` makes
partitions by the hash of the same column. As in Citus, every unique key must contain that column, and a statement
touches one shard only if it names the value. PostgreSQL counts the accesses to each partition, also those of triggers,
functions and foreign keys.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from tests.postgres import Server

SHARDS = 4
GROUPS = {
    "sessions": "session",
    "turns": "session",
    "messages": "session",
    "turn_words": "session",
    "claims": "account",
    "cached_answers": "answer",
}
DISTRIBUTE = Path(__file__).parents[2] / "edge" / "postgres" / "distribute.sql"
_STAND_IN = f"""
CREATE TABLE IF NOT EXISTS public.pg_dist_partition (logicalrelid regclass);
CREATE OR REPLACE FUNCTION public.create_distributed_table(whole regclass, key text, colocate_with text DEFAULT '')
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  name text := (SELECT relname FROM pg_class WHERE oid = whole);
BEGIN
  EXECUTE format('CREATE SCHEMA IF NOT EXISTS whole');
  EXECUTE format('ALTER TABLE %s SET SCHEMA whole', whole);
  EXECUTE format('CREATE TABLE parley.%I (LIKE whole.%I INCLUDING ALL) PARTITION BY HASH (%I)', name, name, key);
  FOR shard IN 0..{SHARDS - 1} LOOP
    EXECUTE format('CREATE TABLE parley.%I PARTITION OF parley.%I FOR VALUES WITH (MODULUS {SHARDS}, REMAINDER %s)',
      name || '_shard' || shard, name, shard);
  END LOOP;
  EXECUTE format('INSERT INTO parley.%I SELECT * FROM whole.%I', name, name);
  EXECUTE format('DROP TABLE whole.%I', name);
  INSERT INTO public.pg_dist_partition VALUES (format('parley.%I', name)::regclass);
END $$;
"""
_COUNTS = """
SELECT relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del AS accesses
FROM pg_stat_xact_user_tables WHERE schemaname = 'parley' AND relname LIKE '%\\_shard%'
"""


class Touched(NamedTuple):
    """A statement and the shards that it touched, by the group of tables that are distributed alike."""

    statement: str
    shards: dict[str, set[int]]
    tables: set[str]

    @property
    def is_local(self) -> bool:
        """Whether the statement touched at most one shard."""
        return sum(map(len, self.shards.values())) <= 1


class Recording:
    """The statements of all connections that were opened while they were recorded."""

    def __init__(self) -> None:
        self.statements: list[Touched] = []

    def connection_class(self) -> type[Any]:
        """Returns a class of connections that records their statements."""
        recorded = self.statements

        class Connection(asyncpg.Connection):
            async def _execute(self, query: str, *args: Any, **options: Any) -> Any:
                execute = super()._execute  # type: ignore[misc]
                if "parley." not in query or "parley.migrations" in query or "set_config('jit'" in query:
                    return await execute(query, *args, **options)
                async with self.transaction():  # the counts are of one transaction
                    before: dict[str, int] = dict(map(tuple, await super().fetch(_COUNTS)))
                    result = await execute(query, *args, **options)
                    after: dict[str, int] = dict(map(tuple, await super().fetch(_COUNTS)))
                recorded.append(_touched(query, {name for name in after if after[name] != before.get(name, 0)}))
                return result

        return Connection


def distribute(server: Server, database: str = "parley", *, without: Sequence[str] = ()) -> None:
    """Distributes the tables over partitions; `without` are tables that do not exist yet."""
    script = DISTRIBUTE.read_text()
    for table in without:
        script = re.sub(rf"[^;]*\b{table}\b[^;]*;", "", script)
    server.sql(_STAND_IN, database)
    server.sql(script, database)


def _touched(statement: str, partitions: set[str]) -> Touched:
    shards: dict[str, set[int]] = defaultdict(set)
    tables = set()
    for partition in partitions:
        match = re.fullmatch(r"(\w+)_shard(\d+)", partition)
        assert match is not None
        tables.add(match[1])
        shards[GROUPS[match[1]]].add(int(match[2]))
    return Touched(statement, dict(shards), tables)
