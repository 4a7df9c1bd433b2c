"""What became of the text that the holder of a term wants its role to keep.

`Election` has a `Keeping`, and replaces it with each request and each result. It is a value, so a
copy of an election has its own.
"""

from __future__ import annotations

from typing import NamedTuple

from coord.core.operations import Failure, Operation, Release, Renew


class Keeping(NamedTuple):
    """The texts of a candidate, by number: each text that it wants to be kept has the next one.

    A text is whole: it replaces the one before. So a text with a higher number contains what the
    holder wanted to be kept before, and only the newest is sent.

    Attributes:
        text: The text that the next renewal or release carries; None if nothing is left to write.
        number: The number of the newest text.
        sent: The number of the text in the request that was sent last; 0 if it carried none.
        stored: The highest number that the store has acknowledged.
        unknown: The highest number that was sent and not acknowledged: the store may keep that
            text. A request that was not applied is one of them, because an earlier copy of it may
            have been.
        refused: The highest number that the store refuses to keep, from any candidate.
        refusal: Its refusal; None if there was none.
    """

    text: str | None = None
    number: int = 0
    sent: int = 0
    stored: int = 0
    unknown: int = 0
    refused: int = 0
    refusal: Failure | None = None

    def keep(self, text: str) -> Keeping:
        """The next request is to carry `text`."""
        return self._replace(text=text, number=self.number + 1)

    def sending(self, operation: Operation) -> Keeping:
        """A request is sent, with the newest text or with none."""
        carries = isinstance(operation, (Renew, Release)) and operation.keep is not None
        sent = self.number if carries else 0
        return self if sent == self.sent else self._replace(sent=sent)

    def answered(self, applied: bool) -> Keeping:
        """The request was answered: it was applied, or not."""
        if not self.sent:
            return self
        if not applied:
            return self._replace(unknown=self.sent)
        text = None if self.sent == self.number else self.text
        return self._replace(text=text, stored=self.sent)

    def failed(self, failure: Failure) -> Keeping:
        """The request had no answer, or the store refuses it.

        A refused text is not sent again, because the renewals that carry it would be refused, too.
        """
        if not self.sent:
            return self
        if failure.unknown:
            return self._replace(unknown=self.sent)
        if failure.permanent:
            text = None if self.sent == self.number else self.text
            return self._replace(text=text, refused=self.sent, refusal=failure)
        return self

    def ended(self) -> Keeping:
        """The term is over: no request of another term may carry its text."""
        return self if self.text is None else self._replace(text=None)
