"""Live limits of vLLM's scheduler. They live where the engine core is, not in the workers."""

from __future__ import annotations

from typing import Any

KNOBS = ("max_num_seqs", "max_num_batched_tokens", "long_prefill_token_threshold")


class SchedulerLimits:
    """The three limits of one engine core.

    Buffers of the workers have the size of the limits at start, so two of them only go down from
    there. All three are read by ``Scheduler.schedule`` at every step.

    Parameters
    ----------
    scheduler : vllm.v1.core.sched.scheduler.Scheduler
        The running one.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._config = scheduler.scheduler_config
        # Admission moved to a limit of its own in 0.30; until then the slot count was read.
        self._seqs = (
            "max_num_active_reqs" if hasattr(scheduler, "max_num_active_reqs") else "max_num_running_reqs"
        )
        self._ceiling = {
            "max_num_seqs": getattr(scheduler, self._seqs, 0),
            "max_num_batched_tokens": getattr(scheduler, "max_num_scheduled_tokens", 0),
        }

    def probe(self) -> dict[str, dict[str, Any]]:
        """Knob -> fields of a KnobStatus."""
        chunked = bool(getattr(self._config, "enable_chunked_prefill", True))
        values = self.values()
        found: dict[str, dict[str, Any]] = {}
        for name in KNOBS:
            if values[name] is None:
                found[name] = {"live": False, "why": "this vLLM's scheduler holds no such limit"}
            elif not chunked and name != "max_num_seqs":
                found[name] = {
                    "live": False,
                    "why": "this engine has chunked prefill off: a prompt must fit one step whole",
                    "value": values[name],
                }
            else:
                found[name] = {"live": True, "value": values[name]}
        found["max_num_seqs"] |= {"low": 1, "high": self._ceiling["max_num_seqs"]}
        found["max_num_batched_tokens"] |= {
            "low": 1,
            "high": self._ceiling["max_num_batched_tokens"],
        }
        found["long_prefill_token_threshold"] |= {"low": 0, "high": self._scheduler.max_model_len}
        return found

    def values(self) -> dict[str, int | None]:
        """The limits in force."""
        return {
            "max_num_seqs": getattr(self._scheduler, self._seqs, None),
            "max_num_batched_tokens": getattr(self._scheduler, "max_num_scheduled_tokens", None),
            "long_prefill_token_threshold": getattr(self._config, "long_prefill_token_threshold", None),
        }

    def set(self, name: str, value: int) -> None:
        """Change one limit; the next step obeys it."""
        if name == "max_num_seqs":
            setattr(self._scheduler, self._seqs, value)
        elif name == "max_num_batched_tokens":
            self._scheduler.max_num_scheduled_tokens = value
        else:
            self._config.long_prefill_token_threshold = value
