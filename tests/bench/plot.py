#!/usr/bin/env python3
"""Draws what `cargo bench --bench wire -- --json FILE` has measured, and writes it as a table.

  plot.py FIGURES.json FIGURES.svg           the plot
  plot.py FIGURES.json FIGURES.svg README    and the table in README, between <!-- figures --> and <!-- /figures -->

The peer is the first further server of each transport; without one only the curves are drawn.
"""
import json, math, statistics, sys
from xml.sax.saxutils import escape

# Case, its title there, what it is called here, whether it is drawn as a bar.
MAIN = [
    ("start", "start to initialized, best of 8", "start to answering `initialize`, best of 8", True),
    ("idle", "resident memory, idle", "resident memory, idle", True),
    ("true", "/bin/true, start to closed, p50", "`/bin/true`, start to closed, median", True),
    ("true", "/bin/true, start to closed, p99", "the same, 99 of 100", False),
    ("spawn", "/bin/true, 32 at a time", "`/bin/true`, 32 at a time", True),
    ("echo", "6 bytes through cat, write to output, p50", "write to echo through `cat`, median", True),
    ("echo", "6 bytes through cat, write to output, p99", "the same, 99 of 100", False),
    ("poll", "a write to the answer of a waiting process/read, p50", "a write to the answer of a waiting `process/read`, median", True),
    ("output", "output on a pipe, 256 MiB", "output on a pipe", True),
    ("output", "the same, CPU seconds of the server per GiB", "the same, CPU of the server per GiB", True),
    ("lines", "lines of 64 bytes", "lines of 64 bytes", True),
    ("writes", "writes of 64 bytes", "writes of 64 bytes", True),
    ("terminal", "output on a terminal, lines of 80 bytes", "output on a terminal", True),
    ("fanout", "100 processes at once, 2 MiB each", "output of 100 processes at once", True),
    ("fanout", "the same, first byte of a process, p99", "the same, first byte of a process, 99 of 100", False),
    ("replay", "process/read of what is retained", "`process/read` of what is retained", True),
    ("metadata", "fs/getMetadata, 32 at a time", "`fs/getMetadata`, 32 at a time", True),
    ("metadata", "fs/getMetadata, one at a time, p50", "`fs/getMetadata`, one at a time, median", False),
    ("read", "fs/readFile of 32 MiB", "`fs/readFile`, 32 MiB", True),
    ("write", "fs/writeFile of 32 MiB (ws: 8 MiB)", "`fs/writeFile`, 32 MiB (WebSocket: 8 MiB, as the peer takes no more)", True),
    ("slow", "peak with a client that reads nothing for 3 s, then 512 MiB", "peak memory with a client that reads nothing for 3 s, then 512 MiB", True),
    ("sleepers", "resident memory for a sleeping process", "memory for a sleeping process, of up to {x}", False),
    ("ended", "resident memory for an ended process that can still be read", "memory for an ended process that can still be read", False),
    ("connections", "resident memory for a connection", "memory for a connection, of {x}", False),
    ("ended", "resident memory, new", "resident memory after one process", False),
    ("ended", "resident memory after 10000 processes, none of which can be read", "the same after 10 000 processes, once they are forgotten", False),
]
CURVES = [
    ("curve", "output as fast as it can, CPU of the server per MB", "CPU of the server per MB, the same output", "processes that write", "µs"),
    ("curve", "an event each millisecond, CPU of the server per event", "CPU of the server per event, one a millisecond", "processes that write", "µs"),
    ("sleepers", "to start a sleeping process", "To start one of so many processes", "sleeping processes", "µs"),
    ("sleepers", "to end a sleeping process", "To end one of so many processes", "sleeping processes", "µs"),
]
LATENCIES = [
    ("echo through cat", "echo through cat"),
    ("signal to what it makes a process write", "signal to its effect"),
    ("answer to environment/status", "answer to a call"),
]
HOW = ["idle, p50", "under load, p50", "idle, p99", "under load, p99"]
UNITS = {"us": "µs"}

INK, FAINT, GRID, CARD = "#24292f", "#59636e", "#d8dee4", "#fbfcfd"
# Of this server and of the peer, by transport: told apart by hue, by lightness and by dashes.
COLORS = {"stdio": ("#0b63b5", "#7fb2e0"), "ws": ("#b6460e", "#efa77c")}
TRANSPORTS = {"stdio": "stdio", "ws": "WebSocket"}
WIDTH = 1000


class Figures:
    def __init__(self, data):
        self.rows = data["rows"]
        self.machine = data["machine"]
        self.columns = {}
        for i, server in enumerate(data["servers"]):
            who = "this" if i < 2 else "peer"
            self.columns.setdefault((who, server["transport"]), i)

    def has_peer(self):
        return any(who == "peer" for who, _ in self.columns)

    def unit(self, case, title):
        return next((row["unit"] for row in self.rows if (row["case"], row["title"]) == (case, title)), None)

    def points(self, case, title, who, transport):
        """The medians, by where they are on a curve."""
        column = self.columns.get((who, transport))
        found = {}
        for row in self.rows:
            if (row["case"], row["title"]) == (case, title) and column is not None and row["values"][column]:
                found[row["x"]] = statistics.median(row["values"][column])
        return found

    def value(self, case, title, who, transport):
        """The one median, or the last of a curve with where it is."""
        found = self.points(case, title, who, transport)
        x = max(found, key=lambda x: x or 0, default=None)
        return x, found.get(x)


def number(value, unit):
    if value is None:
        return "–"
    if unit == "1/s" and value >= 1e6:
        return f"{value / 1e6:.1f} M/s"
    if unit == "KiB" and value >= 10_000:
        value, unit = value / 1024, "MiB"
    if unit == "us" and value >= 10_000:
        value, unit = value / 1000, "ms"
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}".replace(",", " ") + ("/s" if unit == "1/s" else f" {UNITS.get(unit, unit)}")


class Svg:
    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, text, size=13, anchor="start", fill=INK, weight="normal"):
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, stroke=GRID, width=1, more=""):
        self.add(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}" {more}/>')

    def rect(self, x, y, width, height, fill):
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" fill="{fill}"/>')

    def dot(self, x, y, fill, radius=3.5, stroke="none"):
        self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>')

    def document(self, height):
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'font-family="system-ui, -apple-system, \'Segoe UI\', \'DejaVu Sans\', sans-serif">\n'
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" fill="{CARD}" stroke="{GRID}"/>\n{body}\n</svg>\n'
        )


class Log:
    """A logarithmic axis from `low` to `high`, on `start` to `end`."""

    def __init__(self, low, high, start, end):
        self.low, self.high, self.start, self.end = math.log10(low), math.log10(high), start, end

    def at(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        span = self.high - self.low
        steps = (1, 2, 5) if span <= 3.2 else (1,)
        for power in range(math.floor(self.low), math.ceil(self.high) + 1):
            for step in steps:
                value = step * 10.0**power
                if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9:
                    yield value


def around(values):
    """The next 1, 2 or 5 below and above all values."""
    steps = [step * 10.0**power for power in range(-4, 9) for step in (1, 2, 5)]
    low, high = min(values), max(values)
    return max(step for step in steps if step <= low * 1.0001), min(step for step in steps if step >= high * 0.9999)


def label(value):
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}".replace(",", " ") if value >= 1 else f"{value:g}"


def legend(svg, y, peer):
    x = 24
    for who, name in [("this", "this server"), ("peer", "the peer")][: 2 if peer else 1]:
        for transport, (own, other) in COLORS.items():
            svg.rect(x, y - 10, 22, 10, own if who == "this" else other)
            text = f"{name}, {TRANSPORTS[transport]}"
            svg.text(x + 28, y - 1, text, 12.5)
            x += 46 + 7.2 * len(text)


def bars(svg, figures, top):
    """How many times better than the peer, a pair of bars for each case."""
    svg.text(24, top, "How many times better than the peer", 16, weight="600")
    svg.text(24, top + 20, "faster, more a second, or less memory and CPU; behind it what was measured, here and with the peer", 12.5, fill=FAINT)
    cases = []
    for case, title, name, is_bar in MAIN:
        unit, pair = figures.unit(case, title), []
        for transport in COLORS:
            own, other = (figures.value(case, title, who, transport)[1] for who in ("this", "peer"))
            if own and other:
                pair.append((transport, own / other if unit.endswith("/s") else other / own, number(own, unit), number(other, unit)))
        if is_bar and pair:
            cases.append((name.replace("`", "").replace(" (WebSocket: 8 MiB, as the peer takes no more)", "").replace(", then 512 MiB", ""), pair))
    ratios = [ratio for _, pair in cases for _, ratio, *_ in pair]
    low, high = around([*ratios, 1.0])
    row, left, right = 40, 316, WIDTH - 190
    y = top + 56
    bottom = y + row * len(cases)
    axis = Log(min(low, 0.5), high, left, right)
    for tick in axis.ticks():
        svg.line(axis.at(tick), y - 8, axis.at(tick), bottom, *((FAINT, 1.4) if tick == 1 else (GRID, 1)))
        svg.text(axis.at(tick), y - 13, f"{label(tick)}×", 11.5, "middle", FAINT)
    for name, pair in cases:
        words, lines = name.split(" "), [""]
        for word in words:
            if len(lines[-1]) + len(word) > 40:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        for i, text in enumerate(lines):
            svg.text(left - 12, y + 19 - 7.5 * (len(lines) - 1) + 15 * i, text, 13, "end")
        for i, (transport, ratio, own, other) in enumerate(pair):
            a, b, mid = axis.at(1), axis.at(ratio), y + 3 + 15 * i
            svg.rect(min(a, b), mid, abs(b - a), 12, COLORS[transport][0])
            svg.text(max(a, b) + 6, mid + 10, f"{own} / {other}", 11.5, fill=FAINT)
        y += row
    return bottom


def panel(svg, x, y, width, height, title, across, up):
    svg.text(x, y, title, 14, weight="600")
    svg.text(x, y + 17, up, 11.5, fill=FAINT)
    svg.text(x + width, y + height + 36, across, 11.5, "end", FAINT)


def curve(svg, figures, case, title, name, across, unit, x, y, width, height):
    series = []
    for transport in COLORS:
        for who in ("this", "peer"):
            points = sorted(figures.points(case, title, who, transport).items())
            if points:
                series.append((who, transport, points))
    panel(svg, x, y, width, height, name, across, f"{unit}, logarithmic")
    if not series:
        return
    left, top, bottom = x + 46, y + 30, y + height
    xs = sorted({point[0] for _, _, points in series for point in points})
    low, high = around([value for _, _, points in series for _, value in points])
    if high / low < 10:
        low, high = low / 2, high * 2
    horizontal = Log(xs[0], xs[-1], left + 8, x + width - 10)
    vertical = Log(low, high, bottom, top)
    for tick in vertical.ticks():
        svg.line(left, vertical.at(tick), x + width, vertical.at(tick))
        svg.text(left - 7, vertical.at(tick) + 4, label(tick), 11.5, "end", FAINT)
    last = -99
    for value in xs:
        svg.line(horizontal.at(value), bottom, horizontal.at(value), bottom + 4, FAINT)
        if horizontal.at(value) - last > 34:
            svg.text(horizontal.at(value), bottom + 18, label(value), 11.5, "middle", FAINT)
            last = horizontal.at(value)
    svg.line(left, bottom, x + width, bottom, FAINT)
    for who, transport, points in series:
        color = COLORS[transport][who == "peer"]
        path = " ".join(f"{horizontal.at(at):.1f},{vertical.at(value):.1f}" for at, value in points)
        dashes = ' stroke-dasharray="6 4"' if who == "peer" else ""
        svg.add(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.2"{dashes}/>')
        for at, value in points:
            svg.dot(horizontal.at(at), vertical.at(value), color)


def latency(svg, figures, x, y, width):
    """From the time when idle to that under load, a line for each kind, transport and server."""
    svg.text(x, y, "What a flood of output does to others on the same connection", 16, weight="600")
    svg.text(x, y + 20, "median (small) and 99 of 100 (large), idle (hollow) and while another process writes all it can (filled)", 12.5, fill=FAINT)
    lines, values = [], []
    bare = [figures.value("load", f"echo through cat on bare pipes, {how}", "this", "stdio")[1] for how in HOW]
    if None not in bare:
        lines.append(("echo through cat", "none", "no server, bare pipes", bare))
        values += bare
    for title, name in LATENCIES:
        for who in ("this", "peer"):
            for transport in COLORS:
                found = [figures.value("load", f"{title}, {how}", who, transport)[1] for how in HOW]
                if None not in found:
                    lines.append((name, who, transport, found))
                    values += found
    if not lines:
        return y
    low, high = around(values)
    left, top = x + 282, y + 56
    axis = Log(low, high, left, x + width - 20)
    bottom = top + 17 * len(lines) + 10 * (len({name for name, *_ in lines}) - 1)
    for tick in axis.ticks():
        svg.line(axis.at(tick), top - 8, axis.at(tick), bottom)
        text = f"{label(tick / 1000)} ms" if tick >= 1000 else f"{label(tick)} µs"
        svg.text(axis.at(tick), top - 13, text, 11.5, "middle", FAINT)
    before, row = lines[0][0], top
    for i, (name, who, transport, (idle, loaded, idle_tail, loaded_tail)) in enumerate(lines):
        if name != before:
            row += 10
        if i == 0 or name != before:
            svg.text(x, row + 9, name, 13)
        before = name
        color, middle = FAINT if who == "none" else COLORS[transport][who == "peer"], row + 5
        svg.text(left - 12, row + 9, transport if who == "none" else f"{who}, {TRANSPORTS[transport]}", 11.5, "end", FAINT)
        svg.line(axis.at(idle_tail), middle, axis.at(loaded_tail), middle, color, 2.4)
        svg.dot(axis.at(idle), middle, CARD, 2.6, color)
        svg.dot(axis.at(idle_tail), middle, CARD, 4.6, color)
        svg.dot(axis.at(loaded), middle, color, 3)
        svg.dot(axis.at(loaded_tail), middle, color, 5)
        row += 17
    return bottom


def plot(figures):
    svg, peer = Svg(), figures.has_peer()
    legend(svg, 36, peer)
    y = 76
    if peer:
        y = bars(svg, figures, y) + 52
    y = latency(svg, figures, 24, y, WIDTH - 48) + 52
    width, height = (WIDTH - 48 - 40) / 2, 230
    svg.text(24, y, "From few to many", 16, weight="600")
    y += 34
    curves = [curve_ for curve_ in CURVES if figures.unit(*curve_[:2])]
    for i, curve_ in enumerate(curves):
        column, row = i % 2, i // 2
        curve(svg, figures, *curve_, 24 + column * (width + 40), y + row * (height + 76), width, height)
    y += math.ceil(len(curves) / 2) * (height + 76)
    machine = figures.machine
    svg.text(24, y, f"{machine['cpus']} CPUs, {machine['cpu']}, Linux {machine['kernel']}", 11.5, fill=FAINT)
    return svg.document(y + 20)


def table(figures):
    heads, columns = [""], []
    for who, name in [("this", "this"), ("peer", "the peer")]:
        for transport in COLORS:
            if (who, transport) in figures.columns:
                heads.append(f"{name}, {TRANSPORTS[transport]}")
                columns.append((who, transport))
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for case, title, name, _ in MAIN:
        found = [figures.value(case, title, *column) for column in columns]
        x = max((x for x, _ in found if x), default=None)
        if any(value is not None for _, value in found):
            cells = [number(value, figures.unit(case, title)) for _, value in found]
            lines.append(f"| {name.replace('{x}', label(x) if x else '')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    with open(sys.argv[1]) as file:
        figures = Figures(json.load(file))
    with open(sys.argv[2], "w") as file:
        file.write(plot(figures))
    if len(sys.argv) == 4:
        with open(sys.argv[3]) as file:
            text = file.read()
        before, mark, rest = text.partition("<!-- figures -->\n")
        _, end, after = rest.partition("<!-- /figures -->")
        if not mark or not end:
            sys.exit(f"{sys.argv[3]} has no place for the table")
        with open(sys.argv[3], "w") as file:
            file.write(f"{before}{mark}\n{table(figures)}\n\n{end}{after}")


main()
