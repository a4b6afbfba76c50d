"""What was measured of drawing, as a table."""

import statistics


def median(runs: list[dict], of) -> float | None:
    values = [value for value in map(of, runs) if value is not None]
    return statistics.median(values) if values else None


def share_of_bound(run: dict) -> float | None:
    """The part of a plain read's rate at which a run read what it had to."""
    if "bytes" not in run:
        return None
    return run["bytes"] / run["seconds"] / run["read_bytes_per_second"]


def number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def line(found: dict, peers: list[str]) -> str:
    runs = {name: found["runs"].get(name, []) for name in ("expo", *peers)}
    cells = [found["shape"], found["dtype"], found["workload"]]
    rate = {name: median(own, lambda run: run["counted"] / run["seconds"]) for name, own in runs.items()}
    held = {name: median(own, lambda run: run["peak_memory_bytes"] / 1e6) for name, own in runs.items()}
    for values in (rate, held):
        own = values["expo"]
        cells.append(number(own))
        for peer in peers:
            both = own is not None and values[peer] is not None
            cells += [number(values[peer]), number(own / values[peer] if both else None, 2)]
    bound = median(runs["expo"], share_of_bound)
    cells.append("-" if bound is None else f"{100 * bound:.0f}%")
    return "| " + " | ".join(cells) + " |"


def markdown(all_found: list[dict], peers: list[str]) -> str:
    head = ["shape", "dtype", "workload"]
    for unit in ("tokens/s", "MB"):
        head.append(f"expo {unit}")
        for peer in peers:
            head += [peer, "ratio"]
    head.append("of the bound")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(line(found, peers) for found in all_found)]) + "\n"
