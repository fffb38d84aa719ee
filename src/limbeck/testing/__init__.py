"""Suites that every objective and every student of Limbeck passes, for those of your own.

A suite is a class of tests. Derive from it in a test file of yours, say what is to be tested, and
run pytest:

    from limbeck.testing import ObjectiveSuite

    class TestMine(ObjectiveSuite):
        def make(self):
            return MyObjective(sharpness=2.0)
"""

from limbeck.testing.objectives import ObjectiveSuite
from limbeck.testing.searches import SearchSuite
from limbeck.testing.selectors import SelectorSuite
from limbeck.testing.students import StudentSuite

__all__ = ["ObjectiveSuite", "SearchSuite", "SelectorSuite", "StudentSuite"]
