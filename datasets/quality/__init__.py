"""Quality: a report on a table, then an explicit policy that makes it canonical."""

from datasets.quality.inspection import inspect
from datasets.quality.repairs import repair
from datasets.quality.report import Finding, QualityOptions, QualityReport

__all__ = ["Finding", "QualityOptions", "QualityReport", "inspect", "repair"]
