"""GPUs to judge a recipe for: this machine's first, then those of the catalog, and how many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as W

from glmlab.gpus import Gpu, find_gpu, gpu_of_device, list_gpus
from glmlab.hardware import Machine, machine
from glmlab.memory import MOST_GPUS, check_count
from glmlab.widgets.look import look
from glmlab.widgets.notice import Notice
from glmlab.widgets.style import framed, html, stylesheet

_NONE = "none"


class MachinePicker(W.VBox):
    """A GPU and a number of them.

    Parameters
    ----------
    gpu : Gpu or str, optional
        What is picked at first; this machine's by default, and none where it has none that is known.
    count : int, optional
        How many; by default as many as this machine has of it, and 1 of another.
    notice : Notice, optional
        Where errors are shown; a place of its own by default.
    here : Machine, optional
        This machine; looked at by default.
    """

    def __init__(
        self,
        gpu: Gpu | str | None = None,
        count: int | None = None,
        *,
        notice: Notice | None = None,
        here: Machine | None = None,
    ) -> None:
        self.notice = notice or Notice()
        self._callbacks: list[Callable[[], None]] = []
        self._showing = False
        self._here = here or machine()
        self._gpus = self._offered()
        self._present = Counter(each.name for each in self._known_devices())
        shared: dict[str, Any] = {"style": {"description_width": "90px"}, "layout": look(width="auto")}
        self.choice = W.Dropdown(
            description="GPU",
            options=self._options(),
            value=None,
            tooltip="What the recipe is judged for: this machine's GPUs come first",
            **shared,
        )
        self.number = W.BoundedIntText(
            description="How many",
            min=1,
            max=MOST_GPUS,
            value=1,
            tooltip=f"GPUs of this kind, 1 to {MOST_GPUS}",
            style={"description_width": "90px"},
            layout=look(width="190px"),
        )
        self._about = html()
        children = [stylesheet(), self.choice, self.number, self._about]
        super().__init__([*children, self.notice] if notice is None else children)
        self._begin(gpu, count)
        self.choice.observe(self.notice.guarded(self._chosen), names="value")
        self.number.observe(self.notice.guarded(self._counted), names="value")

    # ------------------------------------------------------------------ what is picked
    @property
    def gpu(self) -> Gpu | None:
        """The kind; None where none is picked."""
        return self._gpus.get(self.choice.value)

    @property
    def count(self) -> int:
        """How many of it."""
        return int(self.number.value)

    @count.setter
    def count(self, count: int) -> None:
        check_count(count)
        self._quietly(self.choice.value, count)

    def pick(self, gpu: Gpu | str | None, count: int | None = None) -> None:
        """Show another choice, without calling anybody back.

        Parameters
        ----------
        gpu : Gpu, str or None
            A kind, its name, or none.
        count : int, optional
            How many; see the class.
        """
        if count is not None:
            check_count(count)
        self._begin(gpu, count, by_default=False)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back when the user picked something else."""
        self._callbacks.append(callback)

    # ------------------------------------------------------------------ inside
    def _known_devices(self) -> list[Gpu]:
        found = [gpu_of_device(device) for device in self._here.gpus]
        return [gpu for gpu in found if gpu is not None]

    def _offered(self) -> dict[str, Gpu]:
        """Key of an option -> GPU: those here as their driver tells them, then all of the catalog."""
        here: dict[str, Gpu] = {}
        for gpu in self._known_devices():
            known = here.get(f"here:{gpu.name}")
            # Of several alike the one with the least memory decides, since every rank must fit.
            if known is None or gpu.usable_memory_bytes < known.usable_memory_bytes:
                here[f"here:{gpu.name}"] = gpu
        return here | {name: find_gpu(name) for name in list_gpus()}

    def _options(self) -> list[tuple[str, str]]:
        lines = [(self._line(key, gpu), key) for key, gpu in self._gpus.items()]
        none = (f"no GPU ({self._without()})", _NONE)
        here = [each for each in lines if each[1].startswith("here:")]
        return [*lines, none] if here else [none, *lines]

    def _line(self, key: str, gpu: Gpu) -> str:
        what = f"{gpu.name}, {gpu.usable_memory_bytes / 1e9:.0f} GB usable, {gpu.architecture}"
        return f"this machine: {self._present[gpu.name]} x {what}" if key.startswith("here:") else what

    def _without(self) -> str:
        if not self._here.gpus:
            return "this machine has none"
        unknown = ", ".join(dict.fromkeys(device.name for device in self._here.gpus))
        return (
            f"the catalog has no {unknown}"
            if not self._known_devices()
            else "memory and GPU rules are left out"
        )

    def _begin(self, gpu: Gpu | str | None, count: int | None, *, by_default: bool = True) -> None:
        key = _NONE
        if gpu is not None:
            key = self._key(gpu)
        elif by_default and self._present:
            key = f"here:{self._present.most_common(1)[0][0]}"
        self._quietly(key, count or self._count_of(key))

    def _key(self, gpu: Gpu | str) -> str:
        found = gpu if isinstance(gpu, Gpu) else find_gpu(gpu)
        for key, known in self._gpus.items():
            if known == found:
                return key
        # One that the user computed: a row of its own.
        self._gpus[found.name] = found
        self._showing = True
        try:
            self.choice.options = self._options()
        finally:
            self._showing = False
        return found.name

    def _count_of(self, key: str) -> int:
        return self._present[key.removeprefix("here:")] if key.startswith("here:") else 1

    def _quietly(self, key: str | None, count: int) -> None:
        self._showing = True
        try:
            self.choice.value, self.number.value = key, count
        finally:
            self._showing = False
        self._describe()

    def _describe(self) -> None:
        gpu = self.gpu
        self.number.disabled = gpu is None
        if gpu is None:
            note = self._here.gpu_note or self._without()
            text = f"{escape(note)}. Without a GPU neither memory nor what depends on the GPU is judged."
        else:
            link = (
                f"NVLink {gpu.nvlink_gb_s:,.0f} GB/s"
                if gpu.nvlink_gb_s
                else f"PCIe {gpu.pcie_generation} x{gpu.pcie_lanes}"
            )
            told = (
                "as this machine's driver tells"
                if str(self.choice.value).startswith("here:")
                else "from the catalog"
            )
            text = (
                f"{escape(gpu.title)}, {gpu.bandwidth_gb_s:,.0f} GB/s, {link}, {gpu.power_w:.0f} W ({told})."
                f" Card to card: {escape(gpu.peer_access)}"
            )
        self._about.value = framed(f'<div class="glmlab-card">{text}</div>')

    def _chosen(self, change: Any) -> None:
        if self._showing:
            return
        self._quietly(
            change["new"], self._count_of(change["new"]) if change["new"].startswith("here:") else self.count
        )
        self._told()

    def _counted(self, _: Any) -> None:
        if not self._showing:
            self._told()

    def _told(self) -> None:
        self.notice.clear()
        for callback in self._callbacks:
            callback()
