"""Everything that glmlab raises on purpose.

GlmlabError
├── InputError                  the caller's to mend; the CLI exits with 2
│   ├── RecipeError             a recipe or a model that cannot be
│   ├── GpuError                a GPU that the catalog has not, or a file of one that is wrong
│   ├── RuleError               a rule file that is wrong, or contradicts itself
│   ├── KnobError               a knob, a value or a space that cannot be
│   ├── WorkloadError           contexts, batches or token counts that cannot be
│   ├── StudyError              a study file, or a study that changed between runs
│   ├── StorageError            unreachable, unwritable, locked or newer storage
│   ├── ExportError             a bundle that cannot be written
│   ├── RecordingError          a recording that cannot be read, or does not hold what is asked
│   ├── SessionError            a session that is asked for what it cannot do now
│   └── InstallError            vLLM missing, doubled or too old
├── AbortedError                a run was ended from outside, in the middle
└── EngineError                 the engine's failing; inside a study it is data
    ├── EngineStartError        it never came up
    ├── EngineDiedError         it was there and is gone, or no longer answers
    ├── ApplyError              a knob could not be applied; former state restored
    │   └── GraphsLostError     nor could the former state: the engine must be built anew
    └── MeasureError            the workload could not be run on this engine

Each message is one line: the name, the value, what is allowed, how to mend it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class GlmlabError(Exception):
    """Root of the tree; catch it to catch all that glmlab raises on purpose."""


class InputError(GlmlabError):
    """Bad input: nothing was started and nothing was written."""

    @classmethod
    def from_validation(cls, error: ValidationError, where: str) -> InputError:
        """Fold pydantic's report into one line: each field, its value, what is wrong.

        Parameters
        ----------
        error : pydantic.ValidationError
            The report to fold.
        where : str
            What was being read, e.g. a file name.
        """
        parts = []
        for item in error.errors(include_url=False):
            path = ".".join(str(step) for step in item["loc"] if not _is_branch(step))
            message = item["msg"].removeprefix("Value error, ")
            shown = repr(item.get("input"))
            if item["type"] == "extra_forbidden":
                message = "unknown key"
            elif item["type"] == "missing":
                message, shown = "missing", ""
            whole = isinstance(item.get("input"), dict) or not path
            value = f" = {_short(shown)}" if shown and not whole else ""
            parts.append(f"{path}{value}: {message}" if path else message)
        seen = dict.fromkeys(parts)
        return cls(f"{where}: " + "; ".join(seen))


def _is_branch(step: int | str) -> bool:
    """Whether a location step names a branch of a union, which no user wrote."""
    return isinstance(step, str) and ("[" in step or step in {"int", "float", "str", "bool"})


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


class RecipeError(InputError):
    """A recipe, or the model it names, cannot be."""


class GpuError(InputError):
    """A GPU is not in the catalog, or the file of one is wrong."""


class RuleError(InputError):
    """A rule file is wrong, or contradicts itself."""


class KnobError(InputError):
    """A knob, one of its values, or a space of knobs cannot be."""


class WorkloadError(InputError):
    """Contexts, batch sizes or token counts cannot be."""


class StudyError(InputError):
    """A study file is wrong, or a stored study is not the one asked for."""


class StorageError(InputError):
    """The storage cannot be reached or written, is locked, or is of a newer schema."""


class ExportError(InputError):
    """A bundle cannot be written."""


class RecordingError(InputError):
    """A recording cannot be read or written, or does not hold what is asked of it."""


class SessionError(InputError):
    """A session is asked for what it cannot do now."""


class InstallError(InputError):
    """The installation cannot run an engine."""


class AbortedError(GlmlabError):
    """A run was ended from outside, in the middle of what it did; the engine is gone."""


class EngineError(GlmlabError):
    """The engine failed.

    Parameters
    ----------
    message : str
        One line.
    log_tail : str
        The last lines of the engine's own log, empty where there is none.
    """

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail


class EngineStartError(EngineError):
    """The engine did not come up."""


class EngineDiedError(EngineError):
    """The engine was there and is gone, or no longer answers; it has been killed."""


class ApplyError(EngineError):
    """A knob could not be applied; the engine still runs with its former state."""


class GraphsLostError(ApplyError):
    """CUDA graphs could not be captured again, with the former state neither: build a new engine."""


class MeasureError(EngineError):
    """The workload could not be run; the engine still serves."""
