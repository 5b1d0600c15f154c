"""Tables and ratios of the inference benchmark."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from benchmarks.common.report import table
from benchmarks.common.verdict import Verdict
from benchmarks.inference.networks import EAGER, MAIN, PLAIN

MS = 1e3
MEGA = 1e6
SHOWN_OPERATORS = 8
ONE_CLIP = 1
APART = "Plain forms and packages were measured in separate groups because of their memory."

Network = Mapping[str, Any]
Entry = Mapping[str, Any]


def ratios(network: Network) -> list[Verdict]:
    """The goals for the 50-layer network, for one clip on all cores."""
    float32, int8 = ours(network, "cpu", "fp32"), ours(network, "cpu", "int8")
    plain, eager, best = named(network, PLAIN), named(network, EAGER), fastest(network)
    chosen = "fastest correct package" if best is None else f"fastest correct package ({best['contender']})"
    return [
        Verdict("fp32 graph in onnxruntime: rate over the matrix product's", multiple(float32), 0.92),
        Verdict("fp32 graph over the plain export, both in onnxruntime", faster(float32, plain), 1.35),
        Verdict("int8 graph in onnxruntime: rate over the matrix product's", multiple(int8), 1.9),
        Verdict(f"{chosen}: rate over the matrix product's", multiple(best), 3.0),
        Verdict(f"{chosen}: over eager PyTorch of the plain form", faster(best, eager), 7.0),
        Verdict(
            "fp32 graph in onnxruntime: load to first answer, s",
            load_s(float32),
            2.0,
            at_most=True,
        ),
    ]


def named(network: Network, name: str) -> Entry | None:
    """The workload with a given name and the most threads."""
    return _first(network, lambda entry: entry["contender"] == name)


def ours(network: Network, engine: str, precision: str) -> Entry | None:
    """The package of a precision on an engine, with the most threads."""
    return _first(network, lambda entry: entry["contender"] == f"{engine}, {precision} package")


def fastest(network: Network) -> Entry | None:
    """The fastest package whose difference is within its bound, which is what `auto` selects."""
    right = (
        entry
        for entry in _all_cores(network)
        if (entry["agreement"] or {}).get("agrees") and latency_s(entry) is not None
    )
    return min(right, key=lambda entry: latency_s(entry) or 0.0, default=None)


def latency_s(entry: Entry | None, batch: int = ONE_CLIP) -> float | None:
    """Median seconds of a batch."""
    row = _row(entry, batch)
    return None if row is None else float(row["latency_s"]["median"])


def load_s(entry: Entry | None) -> float | None:
    """Seconds from the graph to the first answer."""
    return None if entry is None else entry["load_s"]


def multiple(entry: Entry | None, batch: int = ONE_CLIP) -> float | None:
    """The rate as a multiple of the matrix product's rate."""
    row = _row(entry, batch)
    return None if row is None else row["times_matrix_product"]


def faster(entry: Entry | None, other: Entry | None) -> float | None:
    """The ratio of the latencies of one clip."""
    mine, its = latency_s(entry), latency_s(other)
    return None if mine is None or its is None else its / mine


def markdown(document: Mapping[str, Any], *, full: bool = True) -> str:
    """All tables; without `full`, one clip on all cores in detail and only clips/s for the rest."""
    networks: Mapping[str, Network] = document["networks"]
    parts = []
    if MAIN in networks:
        parts.append(f"### Goals: {MAIN}, one clip\n\n{ratio_table(ratios(networks[MAIN]))}")
        parts.append(f"### Time per operator: {MAIN}, one clip\n\n{operator_table(networks[MAIN])}")
    parts += [f"### {name}\n\n{network_text(network, full=full)}" for name, network in networks.items()]
    return "\n".join(parts)


def ratio_table(found: list[Verdict]) -> str:
    """The goals as a table."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [ratio.row(_number(ratio.value, ".2f"), words) for ratio in found]
    return table(("", "measured", "goal", "reached"), rows)


def operator_table(network: Network) -> str:
    """Milliseconds by operator as a table, with one column per graph."""
    profiles: Mapping[str, Mapping[str, float]] = network["operators"]
    rows = [
        (operator, *(_number(shown.get(operator, 0.0) * MS, ".1f") for shown in profiles.values()))
        for operator in most_costly(profiles, SHOWN_OPERATORS)
    ]
    rest = [sum(shown.values()) - sum(shown.get(row[0], 0.0) for row in rows) for shown in profiles.values()]
    rows.append(("others", *(_number(seconds * MS, ".1f") for seconds in rest)))
    rows.append(("total", *(_number(sum(shown.values()) * MS, ".1f") for shown in profiles.values())))
    heads = ("plain export, ms" if name == "plain" else f"{name} graph, ms" for name in profiles)
    return table(("operator", *heads), rows)


def most_costly(profiles: Mapping[str, Mapping[str, float]], count: int) -> list[str]:
    """The operators that take the most time in any graph."""
    worst: dict[str, float] = {}
    for profile in profiles.values():
        for operator, seconds in profile.items():
            worst[operator] = max(worst.get(operator, 0.0), seconds)
    return sorted(worst, key=lambda operator: -worst[operator])[:count]


def network_text(network: Network, *, full: bool = True) -> str:
    """The results of one network; see `markdown`."""
    head: tuple[str, ...] = ("", "threads", "batch", "ms", "quartiles", "clips/s", "GFLOP/s", "x product")
    head += ("first answer, s", "peak MB", "difference")
    measured = f"{network['gmacs']:.2f} GMACs per clip; on {_place(network['machine'])}. {_products(network)}"
    if network.get("apart"):
        measured += f" {APART}"
    entries = network["results"] if full else _all_cores(network)
    batches = None if full else (ONE_CLIP,)
    lines = [
        measured,
        "",
        table(head, (row for entry in entries for row in _rows(entry, batches))),
    ]
    if not full and len(_ways(network)) > 1:
        lines += ["Clips per second by threads and batch size:", "", throughput_table(network)]
    lines += [
        f"- {entry['contender']}, {_threads(entry['threads'])}: {entry['error']}\n"
        for entry in network["results"]
        if entry["error"]
    ]
    lines += [f"- {precision} package: {reason}\n" for precision, reason in network["not_exported"].items()]
    return "\n".join(lines)


def _products(network: Network) -> str:
    """The rates of the matrix product in each group."""
    rates: dict[int, list[str]] = {}
    for product in network["matrix_product"]:
        if product["gflops"]:
            rates.setdefault(product["threads"], []).append(f"{product['gflops']['median']:.0f}")
    rates_by_threads = (
        f"{' and '.join(found)} GFLOP/s with {_threads(threads)}" for threads, found in rates.items()
    )
    return f"Matrix product: {', '.join(rates_by_threads)}."


def throughput_table(network: Network) -> str:
    """Clips per second of each workload, with one column per number of threads and batch size."""
    ways = _ways(network)
    found: dict[str, dict[tuple[int, int], float]] = {}
    for entry in network["results"]:
        rates = found.setdefault(entry["contender"], {})
        rates.update({(entry["threads"], row["batch"]): row["clips_per_s"] for row in entry["batches"]})
    heads = (f"{_threads(threads)}, {batch}" for threads, batch in ways)
    rows = (
        (name, *(_number(rates.get(way), ".1f") for way in ways)) for name, rates in found.items() if rates
    )
    return table(("", *heads), rows)


def _ways(network: Network) -> list[tuple[int, int]]:
    """Measured combinations of threads and batch size, with the most threads first."""
    ways = {(entry["threads"], row["batch"]) for entry in network["results"] for row in entry["batches"]}
    return sorted(ways, key=lambda way: (-way[0], way[1]))


def _rows(entry: Entry, batches: Collection[int] | None) -> Iterator[tuple[str, ...]]:
    """One row per batch size in `batches`, or for all."""
    difference = (entry["agreement"] or {}).get("difference")
    for row in entry["batches"]:
        if batches and row["batch"] not in batches:
            continue
        latency = row["latency_s"]
        yield (
            entry["contender"],
            str(entry["threads"]),
            str(row["batch"]),
            f"{latency['median'] * MS:.1f}",
            f"{latency['lower_quartile'] * MS:.1f} to {latency['upper_quartile'] * MS:.1f}",
            f"{row['clips_per_s']:.1f}",
            _number(row["gflops"], ".0f"),
            _number(row["times_matrix_product"], ".2f"),
            _number(entry["load_s"], ".2f"),
            f"{row['peak_memory_bytes'] / MEGA:.0f}",
            _number(difference, ".0e"),
        )


def _first(network: Network, wanted: Callable[[Entry], bool]) -> Entry | None:
    return next((entry for entry in _all_cores(network) if wanted(entry)), None)


def _all_cores(network: Network) -> Iterator[Entry]:
    """Entries with the most threads."""
    most = max(entry["threads"] for entry in network["results"])
    return (entry for entry in network["results"] if entry["threads"] == most)


def _row(entry: Entry | None, batch: int) -> Mapping[str, Any] | None:
    if entry is None:
        return None
    return next((row for row in entry["batches"] if row["batch"] == batch), None)


def _place(machine: Mapping[str, Any]) -> str:
    """A description of the machine."""
    return f"{machine['cores']} cores of {machine['cpu']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
