"""What a finished run gives back."""

import json
from dataclasses import dataclass
from pathlib import Path

from limbeck.distill.folder import RunFolder
from limbeck.report.purchase import Purchase
from limbeck.report.record import RunRecord
from limbeck.report.results import Decision, Evaluation, Verdict
from limbeck.teachers import Money


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a finished run gives.

    Args:
        record: Every number of the report.
        student: Folder of the student that ships.
        report: The HTML file.
    """

    record: RunRecord
    student: Path
    report: Path

    @property
    def verdict(self) -> Verdict:
        """What the evidence says."""
        return self.record.verdict

    @property
    def evaluation(self) -> Evaluation:
        """Every arm on the test rows."""
        return self.record.evaluation

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values: the record and the two paths."""
        return {
            "student": str(self.student),
            "report": str(self.report),
            **self.record.to_dict(),
        }

    def text(self) -> str:
        """The verdict, one table, and what to do next."""
        found = self.evaluation
        rows = [*found.arms, *((found.teacher,) if found.teacher else ())]
        width = max(len(row.title) for row in rows)
        lines = [self.verdict.title.upper(), *self.verdict.sentences, ""]
        ranked = "" if found.positive is None else "  ROC area"
        lines.append(f"{'':{width}}  accuracy  95 % interval     macro-F1    NLL{ranked}")
        for row in rows:
            a = row.accuracy
            area = "" if row.roc_auc is None else f"  {row.roc_auc.estimate:8.3f}"
            mark = "  <- ships" if row.chosen else ""
            lines.append(
                f"{row.title:{width}}  {a.estimate:7.1%}   {a.low:6.1%} to {a.high:6.1%}  "
                f"{row.macro_f1:8.3f}  {row.nll:5.3f}{area}{mark}"
            )
        if self.record.decision is not None:
            lines += ["", _decided(self.record.decision)]
        cost = self.record.cost
        lines += [""] if cost is None or not cost.short else ["", f"answers  {cost.short}"]
        if self.record.purchase is not None:
            lines += [_in_rounds(self.record.purchase, cost.currency if cost else "USD")]
        lines += [f"student  {self.student}", f"report   {self.report}"]
        lines.append(f"next     limbeck predict {self.student} YOUR_DATA")
        return "\n".join(lines)


def _in_rounds(found: Purchase, currency: str) -> str:
    count = len(found.batches)
    rounds = "1 round" if count == 1 else f"{count} rounds"
    line = f"bought   {found.rule} chose {found.bought:,} pool rows in {rounds}"
    if not found.stopped:
        return line
    saved = f" and {Money(found.saved, currency)}" if found.saved else ""
    return f"{line}; {found.unbought:,} answers{saved} saved: {found.stopped}"


def _decided(found: Decision) -> str:
    mine, plain = found.ways[0].cost, found.ways[1].cost
    return (
        f"a false positive costs {found.cost_false_positive:g}, a false negative costs "
        f"{found.cost_false_negative:g}: the student says {found.positive!r} from probability "
        f"{found.threshold:.4g} on\n1,000 test rows cost {mine.estimate:.4g} ({mine.low:.4g} to "
        f"{mine.high:.4g}); naming the more probable class they would cost {plain.estimate:.4g}"
    )


def read_outcome(folder: RunFolder) -> Outcome:
    """What a finished run has left in its folder."""
    record = RunRecord.from_dict(json.loads(folder.metrics.read_text()))
    return Outcome(record, folder.student, folder.report)
