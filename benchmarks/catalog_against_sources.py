"""Print what the catalog computes beside what was published or read, for every full-size model.

Parameters come from config.json, bytes from how the weights are written; what others say, with its
source, from each model's facts. A size that may be GB or GiB is compared in both.
"""

from __future__ import annotations

from glmlab.catalog import Model, find_model, list_models
from glmlab.ranks.weights import rank_weights
from glmlab.recipe import Recipe

GIB = 2**30


def main() -> None:
    print("| model | total, B | with MTP, B | active, B | advertised | measured: ours against theirs |")
    print("|---|---|---|---|---|---|")
    for name in list_models():
        model = find_model(name)
        if name.startswith("tiny/"):
            continue
        total, active = model.total_params / 1e9, model.active_params / 1e9
        said = model.facts.advertised
        claims = f"{said.total_b or '-'} total, {said.active_b or '-'} active" if said else ""
        measured = "; ".join(compared(model))
        print(
            f"| {name} | {total:.1f} | {total + model.mtp_params / 1e9:.1f} | {active:.1f} | {claims}"
            f" | {measured} |"
        )


def compared(model: Model) -> list[str]:
    """Each measured size of bytes beside the computed one."""
    lines = []
    for each in model.facts.measured:
        ours = computed_bytes(model, each.what, each.tensor_parallel)
        if ours is None or not each.gb:
            continue
        theirs = " to ".join(f"{size:g}" for size in each.gb)
        gib = "" if each.unit == "GB" else f" ({ours / GIB:.1f} GiB)"
        unit = "GB or GiB" if each.unit == "unclear" else each.unit
        lines.append(f"{each.what}: {ours / 1e9:.1f} GB{gib} against {theirs} {unit}")
    return lines


def computed_bytes(model: Model, what: str, ranks: int | None) -> int | None:
    if what == "on disk":
        return model.disk_bytes
    if what.startswith("weights per rank"):
        recipe = Recipe(name="rank", model=model.name, tensor_parallel=ranks or 1)
        return rank_weights(recipe).bytes
    return None


if __name__ == "__main__":
    main()
