"""What can go wrong with learning.

LearningError
|-- UnknownDecision    no decision of this organisation has the id (404)
|-- UnknownRefit       no refit of this name (404)
|-- RefitBusy          another refit is running (409)
|-- RefitTaken         the name is in use (409)
|-- RefitNotReady      it runs still, failed, its artefact cannot be used, or it is active and to
|                      be deleted (409)
|-- NothingToRollBack  no other artefact was active before (409)
|-- NoBase             the active router is no artefact that could be refitted (409)
`-- BadRows            rows that cannot be learnt from (422)
"""

from __future__ import annotations


class LearningError(Exception):
    """Any refusal of this package."""


class UnknownDecision(LearningError):
    """Also for a decision of another organisation: nobody learns which ids exist."""


class UnknownRefit(LearningError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no refit named {name!r}")


class RefitBusy(LearningError):
    def __init__(self) -> None:
        super().__init__("another refit is running; one runs at a time")


class RefitTaken(LearningError):
    def __init__(self, name: str) -> None:
        super().__init__(f"a refit named {name!r} exists already")


class RefitNotReady(LearningError):
    pass


class NothingToRollBack(LearningError):
    def __init__(self) -> None:
        super().__init__("no other artefact was active before this one")


class NoBase(LearningError):
    def __init__(self, name: str) -> None:
        super().__init__(f"the active router ({name}) is no artefact that could be refitted")


class BadRows(LearningError):
    pass
