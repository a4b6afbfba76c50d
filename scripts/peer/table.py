"""From the steps of several rounds to the figures of a table."""

import math
from statistics import fmean, median

LEFT = ("shape", "batch", "dtype", "program")
HEADERS = {
    "cpu": ("{unit}/s", "s/step", "CPU-s/{unit}", "MB"),
    "cuda": ("{unit}/s", "s/step", "TFLOP/s", "GPU MB", "reserved", "at once"),
}
RATIOS = ("expo's speed", "on line", "expo's memory")
MEMORY = {"cpu": "peak_memory_bytes", "cuda": "peak_gpu_memory_bytes"}
PEAKS = (*MEMORY.values(), "reserved_gpu_memory_bytes")
GPU_NOTE = """
GPU MB: the most that tensors took, torch.cuda.max_memory_allocated and expo's peak_gpu_memory_bytes,
which expo's memory is the ratio of; reserved: torch.cuda.max_memory_reserved.
TFLOP/s: of the operations that expo plan counts, forward and backward, recomputing left out.
"""


def summarize(runs: list[dict], warmup: int, units: list[float], online: bool) -> dict:
    """Medians over the steps after warm-up of all runs; `units` is a step's work, pairs or thousands
    of tokens. Where the reference is on line, each step has its share of the scoring pass."""
    seconds, cpu, work = [], [], []
    for run in runs:
        share = run["scoring"] if online else {"seconds": 0.0, "cpu_seconds": 0.0}
        count = len(run["seconds"])
        more = share["seconds"] / count, (share.get("cpu_seconds") or 0.0) / count
        seconds += [step + more[0] for step in run["seconds"][warmup:]]
        cpu += [None if step is None else step + more[1] for step in run["cpu_seconds"][warmup:]]
        work += units[warmup:count]
    first = runs[0]
    return {
        "rate": median(unit / step for unit, step in zip(work, seconds)),
        "seconds": median(seconds),
        "cpu_seconds": None if None in cpu else sum(cpu) / sum(work),
        "at_once": first["at_once"],
        "operations_per_second": None,
        **{key: most(runs, key) for key in PEAKS},
        "first_loss": first["losses"][0],
        "tokens_per_step": fmean(first["tokens"]),
        "positions_per_step": fmean(first["positions"]) if "positions" in first else None,
        "runs": runs,
    }


def most(runs: list[dict], key: str) -> int | None:
    known = [run[key] for run in runs if run.get(key)]
    return max(known) if known else None


def add_operations(result: dict, planned: dict, size: int, units: list[float], online: bool) -> None:
    """Adds the useful operations a second of expo, which takes `size` rows a step."""
    of_row = planned["operations"] + (planned["scoring"] if online else 0.0)
    result["operations_per_second"] = result["rate"] * of_row * size / fmean(units)


def ratios(cell: dict[str, dict], device: str = "cpu") -> None:
    """Adds expo's rate, with the reference cached and on line, and its memory, over those of each
    program of a cell."""
    compared = [
        ("speed", "expo", "rate"),
        ("speed_on_line", "expo-online", "rate"),
        ("memory", "expo", MEMORY[device]),
    ]
    for result in cell.values():
        for name, program, key in compared:
            own, theirs = cell.get(program, {}).get(key), result.get(key)
            result[name] = own / theirs if own and theirs else None


def markdown(cells: list[tuple[dict, dict[str, dict]]], unit: str, device: str = "cpu") -> str:
    """All cells as one table, and a line for each program that could not run."""
    unable = []
    headers = [*LEFT, *(header.format(unit=unit) for header in HEADERS[device]), *RATIOS]
    rows = [headers, ["---"] * len(LEFT) + ["--:"] * (len(headers) - len(LEFT))]
    for where, cell in cells:
        for name, result in cell.items():
            if "reason" in result:
                unable.append(f"{title(where)}: {name} cannot run: {result['reason']}\n")
                continue
            rows.append(
                [where["shape"], str(where["batch"]), where["dtype"], name]
                + [figure(result["rate"]), figure(result["seconds"])]
                + (gpu_figures(result) if device == "cuda" else cpu_figures(result))
                + [figure(result[name]) for name in ("speed", "speed_on_line", "memory")]
            )
    text = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    text = "\n".join([text, "".join(unable)]) if unable else text
    return text + (GPU_NOTE if device == "cuda" else "")


def cpu_figures(result: dict) -> list[str]:
    return [figure(result["cpu_seconds"]), megabytes(result["peak_memory_bytes"])]


def gpu_figures(result: dict) -> list[str]:
    rate = result["operations_per_second"]
    memory = (result[key] for key in ("peak_gpu_memory_bytes", "reserved_gpu_memory_bytes"))
    return [figure(rate and rate / 1e12), *map(megabytes, memory), result["at_once"]]


def megabytes(memory: int | None) -> str:
    return "-" if memory is None else f"{memory / 1e6:.0f}"


def checks(where: dict, cell: dict[str, dict], task: str) -> list[str]:
    """Whether the programs of a cell did the same work, a line each."""
    ran = {name: result for name, result in cell.items() if "reason" not in result}
    said = []
    for name, result in ran.items():
        computed = result["positions_per_step"]
        computed = "" if computed is None else f" in {computed:.0f} positions"
        loss = result["first_loss"]
        off = task == "dpo" and abs(loss - math.log(2)) > 2e-3
        said.append(
            f"{title(where)}: {name}: {result['tokens_per_step']:.1f} tokens a step{computed}, "
            f"first loss {loss:.5f}{', NOT log 2' if off else ''}"
        )
    counts = {result["tokens_per_step"] for result in ran.values()}
    if task == "dpo" and len(counts) > 1:
        said.append(f"{title(where)}: the programs did NOT have the same tokens")
    if task == "dpo" and len(ran) > 1:
        steps = zip(*(result["runs"][0]["losses"] for result in ran.values()))
        apart = max(max(losses) - min(losses) for losses in steps)
        said.append(f"{title(where)}: no loss of a step differs by more than {apart:.1e}")
    return said


def title(where: dict) -> str:
    return f"{where['shape']}, batch {where['batch']}, {where['dtype']}"


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
