"""What can go wrong with the durable records.

RecordsError
|-- RecordsUnavailable   the database does not answer, is locked or full: try again
|-- RecordsRejected      the database refuses the data: a row that is there, a value it cannot hold
`-- SchemaMismatch       the tables were made by a later version of this program
"""

from __future__ import annotations


class RecordsError(Exception):
    """Any failure of the durable records."""


class RecordsUnavailable(RecordsError):
    """The database cannot do it now."""


class RecordsRejected(RecordsError):
    """The database refuses the data."""


class SchemaMismatch(RecordsError):
    """The database holds another version of the schema."""
