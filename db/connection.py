"""The way to PostgreSQL: one connection, its transactions, driver errors made our own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import parse_dsn, register_adapter

from db.arrays import ArrayLiteral

DatabaseError = psycopg2.Error
register_adapter(list, ArrayLiteral)

# A dead or unreachable server is noticed within these, so that a stop or a retry is never far away.
CONNECT_TIMEOUT_SECONDS = 5
TCP_USER_TIMEOUT_MS = 10_000
# A client that was stopped in the middle of a transaction must not hold its row locks for long.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 5_000
# What is locked for longer is tried again later.
LOCK_TIMEOUT_MS = 5_000


class DatabaseUnavailable(Exception):
    """PostgreSQL did not do it now and may later: down, restarting, read-only, full, deadlocked."""


class UnsuitableDatabase(Exception):
    """The database cannot be worked with as it is; only a person can help, the text says how."""


class StaleCheckpoint(Exception):
    """What is stored is not what this process last read or wrote: another has moved it."""


class RowExists(Exception):
    """A row to be inserted exists: another process has stored the same message. Rolled back."""


# What these have in common: nothing was committed, and the same work can be tried again as it is.
_RETRYABLE = (
    psycopg2.OperationalError,  # connection lost or refused, disk full, deadlock, shutdown
    psycopg2.InterfaceError,  # the connection is already closed
    psycopg2.errors.ReadOnlySqlTransaction,  # a standby, or default_transaction_read_only
    psycopg2.errors.InFailedSqlTransaction,
    psycopg2.errors.IdleInTransactionSessionTimeout,
    psycopg2.errors.CheckViolation,  # no partition for today: upkeep makes it (db/partitions.py)
    # Dropped and created anew, or a role that lost a right: somebody mends it, or prepare_database.
    psycopg2.errors.UndefinedTable,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.InvalidSchemaName,
    psycopg2.errors.ForeignKeyViolation,
    psycopg2.errors.InsufficientPrivilege,
    psycopg2.errors.InternalError_,  # what is dropped while it is being used
)


class Database:
    """One lazily opened connection; reopened by itself after it was lost.

    Parameters
    ----------
    url : str
        ``postgresql://user:password@host:port/database``.
    application_name : str
        Shown in ``pg_stat_activity``.
    read_only : bool
        Let PostgreSQL refuse every write.
    """

    def __init__(self, url: str, application_name: str, read_only: bool = False) -> None:
        self._url = url
        self._application_name = application_name
        self._read_only = read_only
        self._connection: Any = None
        # Of the transaction that is open: the server's process, and since when (monotonic seconds).
        self.open_transaction: tuple[int | None, float] = (None, 0.0)

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor; commit on leaving, roll back on an exception.

        Raises
        ------
        DatabaseUnavailable
            When nothing was committed, or, for a connection lost during COMMIT, nobody knows:
            callers find out by reading their offsets again.
        RowExists
            When a unique constraint refuses a row.
        """
        try:
            connection = self._connect()
            with connection, connection.cursor() as tx:
                if not self._read_only:
                    # Asked each time: behind a pooler it changes from transaction to transaction.
                    tx.execute("SELECT pg_backend_pid()")
                    self.open_transaction = (tx.fetchone()[0], time.monotonic())
                yield tx
        except psycopg2.errors.UniqueViolation as problem:
            raise RowExists(
                f"{problem.diag.table_name}: {problem.diag.message_detail}"
            ) from problem
        except _RETRYABLE as problem:
            self.close()
            raise DatabaseUnavailable(problem) from problem
        finally:
            self.open_transaction = (None, 0.0)

    def execute_alone(self, statement: str) -> None:
        """Execute a statement that takes no transaction.

        Raises
        ------
        DatabaseUnavailable
            When it was not, or only partly, done.
        """
        try:
            connection = self._connect()
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
            connection.autocommit = False
        except _RETRYABLE as problem:
            self.close()
            raise DatabaseUnavailable(problem) from problem

    def _connect(self) -> Any:
        if self._connection is None or self._connection.closed:
            mode = "on" if self._read_only else "off"
            self._connection = psycopg2.connect(
                self._url,
                application_name=self._application_name,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=2,
                tcp_user_timeout=TCP_USER_TIMEOUT_MS,
                options="-c timezone=UTC -c client_encoding=UTF8"
                f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS}"
                f" -c lock_timeout={LOCK_TIMEOUT_MS}"
                + (f" -c default_transaction_read_only={mode}" if self._read_only else ""),
            )
        return self._connection

    def create_if_missing(self) -> bool:
        """Create the database itself if the server has none of its name; return whether it did.

        Raises
        ------
        DatabaseUnavailable
            When the server cannot be asked, or the role may not create databases.
        """
        name = parse_dsn(self._url).get("dbname", "")
        try:
            connection = psycopg2.connect(
                self._url, dbname="postgres", connect_timeout=CONNECT_TIMEOUT_SECONDS
            )
            with closing(connection), connection.cursor() as cursor:
                connection.autocommit = True  # CREATE DATABASE takes no transaction
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
                if cursor.rowcount:
                    return False
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
            # Another service was first, or is at it this moment: that looks like the second.
            return False
        except psycopg2.errors.InsufficientPrivilege as problem:
            raise DatabaseUnavailable(f'no database "{name}", and {problem}') from problem
        except _RETRYABLE as problem:
            raise DatabaseUnavailable(problem) from problem
        return True

    def close(self) -> None:
        """Close the connection if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
