"""The inputs of a run as they are now, beside those that were planned: any number of them in little memory.

They are kept in a temporary file, which SQLite removes. That sorts listings too: each store has an order
of its own.
"""

import sqlite3
from collections.abc import Iterable, Iterator

from genre_ray.errors import InputError
from genre_ray.storage.files import StoredFile

PAGE = 1000
_TABLES = """
PRAGMA journal_mode = OFF;
CREATE TABLE listed (uri BLOB PRIMARY KEY, name BLOB, size INTEGER, version TEXT) WITHOUT ROWID;
CREATE TABLE planned (uri BLOB PRIMARY KEY, size INTEGER, version TEXT, is_part INTEGER) WITHOUT ROWID;
"""
_PAGE = "SELECT * FROM listed WHERE uri > ? AND {} ORDER BY uri LIMIT ?"
_NEW = "uri NOT IN (SELECT uri FROM planned)"
_CHANGED = """
FROM listed JOIN planned USING (uri)
WHERE planned.version IS NOT NULL AND (listed.size, listed.version) != (planned.size, planned.version)
"""
_REWRITTEN = "FROM planned WHERE is_part AND uri NOT IN (SELECT uri FROM listed)"


class Inventory:
    """Files as listed, each address once, in the order of their addresses.

    Args:
        listed: is read to its end here; of two files with one address the last counts.
    """

    def __init__(self, listed: Iterable[StoredFile]) -> None:
        # Without a name it is a file of this connection alone, in memory as far as a small cache goes.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)
        rows = ((_key(file.uri), _key(file.name), file.size, file.version) for file in listed)
        self._write("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)", rows)

    def __enter__(self) -> "Inventory":
        return self

    def __exit__(self, *_: object) -> None:
        # The file goes with its connection.
        self._database.close()

    def __iter__(self) -> Iterator[StoredFile]:
        return self._pages("TRUE")

    def new(self) -> Iterator[StoredFile]:
        """The files that nobody planned or left out by the time they are given."""
        return self._pages(_NEW)

    def forget_plans(self) -> None:
        """Take note of plans anew."""
        self._database.execute("DELETE FROM planned")

    def add_planned(self, files: Iterable[StoredFile], *, parts: bool = False) -> None:
        """Take note of planned files; `parts` are those of a table, which must not be rewritten."""
        rows = ((_key(file.uri), file.size, file.version, parts) for file in files)
        self._write("INSERT OR REPLACE INTO planned VALUES (?, ?, ?, ?)", rows)

    def add_left_out(self, uris: Iterable[str]) -> None:
        """Take note of files that are known, and whose content does not matter."""
        self._write("INSERT OR REPLACE INTO planned VALUES (?, NULL, NULL, FALSE)", ((_key(uri),) for uri in uris))

    def refuse_changes(self) -> None:
        """Make sure that the planned files are as they were.

        Raises:
            InputError: one changed under its name, or a table's parts were rewritten.
        """
        count, first = self._find(_CHANGED)
        if count:
            raise InputError(
                f"{count} inputs changed since this run was planned, the first is {first}; "
                "restore them, or start a new run with another --output"
            )
        count, first = self._find(_REWRITTEN)
        if count:
            # Rows of new parts that stand for old ones would come out a second time.
            raise InputError(
                f"{count} parts of the input table were rewritten since this run was planned (rows were erased, "
                f"or it was compacted), the first is {first}; start a new run with another --output"
            )

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")

    def _pages(self, condition: str) -> Iterator[StoredFile]:
        last = b""
        while page := self._database.execute(_PAGE.format(condition), (last, PAGE)).fetchall():
            for last, name, size, version in page:
                yield StoredFile(_text(last), _text(name), size, version)

    def _find(self, what: str) -> tuple[int, str]:
        count, first = self._database.execute(f"SELECT count(*), min(uri) {what}").fetchone()
        return count, _text(first or b"")


def _key(text: str) -> bytes:
    """Sorts as the text does; names of local files need not be valid Unicode."""
    return text.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
