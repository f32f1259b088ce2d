"""The current inputs of a run and the planned ones, in a temporary SQLite database.

The database keeps memory small for any number of inputs. It also sorts them, because stores list files in different
orders. SQLite deletes its file.
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
    """The listed files, sorted by URI and without duplicates.

    Args:
        listed: the files. Of two files with the same URI the last one is kept.
    """

    def __init__(self, listed: Iterable[StoredFile]) -> None:
        # An empty name makes a temporary database, in memory up to a small cache and otherwise in a file.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)
        rows = ((_key(file.uri), _key(file.name), file.size, file.version) for file in listed)
        self._write("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)", rows)

    def __enter__(self) -> "Inventory":
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the connection deletes the file.
        self._database.close()

    def __iter__(self) -> Iterator[StoredFile]:
        return self._pages("TRUE")

    def new(self) -> Iterator[StoredFile]:
        """Yield the files that are neither planned nor left out at that time."""
        return self._pages(_NEW)

    def forget_plans(self) -> None:
        """Remove all planned files, before adding them again."""
        self._database.execute("DELETE FROM planned")

    def add_planned(self, files: Iterable[StoredFile], *, parts: bool = False) -> None:
        """Add planned files. `parts` says that they are parts of a table, which must not be rewritten."""
        rows = ((_key(file.uri), file.size, file.version, parts) for file in files)
        self._write("INSERT OR REPLACE INTO planned VALUES (?, ?, ?, ?)", rows)

    def add_left_out(self, uris: Iterable[str]) -> None:
        """Add files that a limit left out. Changes of their content do not matter."""
        self._write("INSERT OR REPLACE INTO planned VALUES (?, NULL, NULL, FALSE)", ((_key(uri),) for uri in uris))

    def refuse_changes(self) -> None:
        """Check that the planned files are unchanged.

        Raises:
            InputError: the content of a file changed, or parts of a table were rewritten.
        """
        count, first = self._find(_CHANGED)
        if count:
            raise InputError(
                f"{count} inputs changed since this run was planned, the first is {first}; "
                "restore them, or start a new run with another --output"
            )
        count, first = self._find(_REWRITTEN)
        if count:
            # The rows of the new parts would be processed a second time.
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
    """Encode a text, keeping its sort order. Names of local files may contain invalid Unicode."""
    return text.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
