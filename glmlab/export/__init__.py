"""Export: what a study found, as files that production can use without glmlab's study."""

from glmlab.export.bundle import Bundle, export_bundle

__all__ = ["Bundle", "export_bundle"]
