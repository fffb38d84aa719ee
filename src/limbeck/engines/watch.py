"""Watches what a server answers, and says when no more should be paid for."""

import warnings
from collections.abc import Iterable

from limbeck.engines.asker import Question
from limbeck.errors import LimbeckWarning

UNANSWERED_IN_A_ROW = 8
"""Questions in a row without any reply, all tries spent, after which the run ends."""
UNREADABLE_IN_A_ROW = 32
"""Replies in a row that cannot be read, after which the run ends."""
_VERSIONS_TOLD = 3
_KEPT = "what was answered is kept"


class Watch:
    """What a purchase has seen of a server.

    Args:
        versions: What the server called itself before, oldest first.
    """

    def __init__(self, versions: Iterable[str] = ()) -> None:
        self._versions = list(versions)
        self._unanswered = 0
        self._unreadable = 0

    def reply(self, question: Question, unread: str | None) -> str:
        """Look at a question that got replies.

        Args:
            question: It.
            unread: Why they cannot be read, or None.

        Returns:
            Why the purchase must end, or an empty string.
        """
        self._unanswered = 0
        self._unreadable = 0 if unread is None else self._unreadable + 1
        self._look_at_version(question.version)
        if question.price > question.worst:
            return (
                f"the server billed {question.price} millionths for a question that was taken to "
                f"cost {question.worst} at most, so a budget could be passed and the run stops; "
                f"raise teacher.endpoint.prompt_overhead, or correct its prices, and run the same "
                f"command again ({_KEPT})."
            )
        if self._unreadable >= UNREADABLE_IN_A_ROW:
            return (
                f"{self._unreadable} replies in a row could not be read, the last because "
                f"{unread}; mend the prompt before more is paid for ({_KEPT})."
            )
        return ""

    def no_reply(self, why: str) -> str:
        """Look at a question that will get no reply; why the purchase must end, or nothing."""
        self._unanswered += 1
        if self._unanswered < UNANSWERED_IN_A_ROW:
            return ""
        return (
            f"{self._unanswered} questions in a row got no reply, the last because {why}; see to "
            f"the server or the settings and run the same command again ({_KEPT})."
        )

    def denied(self, why: str) -> str:
        """Why the purchase must end when the server answers nobody."""
        return (
            f"{why}; correct the key, the model's name or the address, or see to your account, and "
            f"run the same command again ({_KEPT})."
        )

    def broken(self, why: str) -> str:
        """Why the purchase must end when the teacher has a bug."""
        return f"the teacher broke on a question ({why}); repair it ({_KEPT})."

    def _look_at_version(self, version: str | None) -> None:
        """Warn of a server that calls itself otherwise than before."""
        if version is None or version in self._versions:
            return
        if self._versions and len(self._versions) <= _VERSIONS_TOLD:
            warnings.warn(
                f"the server answers as {version!r} now but answered as {self._versions[-1]!r} "
                f"before, and answers of the two may differ; name a fixed version of the model if "
                f"the server has one.",
                LimbeckWarning,
                stacklevel=2,
            )
        self._versions.append(version)
