"""What a check of `dispy doctor` says."""

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do where that is not well."""

    verdict: str  # OK; WARNING: something will not work, most will; PROBLEM
    subject: str
    finding: str
    advice: str = ""

    def line(self) -> str:
        """Return it as a person reads it."""
        advice = f". {self.advice}" if self.advice else ""
        return f"{self.verdict:<8} {self.subject}: {self.finding}{advice}"
