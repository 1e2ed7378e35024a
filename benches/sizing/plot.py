"""The plot of a day: panels over the same hours."""

from typing import List, Sequence, Tuple

WIDTH, PANEL, GAP, LEFT, RIGHT, TOP = 900, 130, 46, 56, 16, 30


def path(points: Sequence[Tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def nice(top: float) -> float:
    """The next number that is easy to read."""
    for step in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 1000):
        if top <= step:
            return step
    return top


def panel(number: int, title: str, hours: Sequence[float], lines: List[Tuple[str, str, Sequence[float]]], percent: bool) -> str:
    """One panel; lines have a name, a colour, and values."""
    above = TOP + number * (PANEL + GAP)
    bottom = above + PANEL
    top = nice(max(1e-9, *(max(values) for _, _, values in lines)))
    wide = (WIDTH - LEFT - RIGHT) / (hours[-1] - hours[0])
    shown = [f'<text x="{LEFT}" y="{above - 10}" font-weight="bold">{title}</text>']
    place = WIDTH - RIGHT
    for name, colour, _ in reversed(lines):
        shown.append(f'<text x="{place}" y="{above - 10}" text-anchor="end" fill="{colour}">{name}</text>')
        place -= 8 * len(name) + 14
    for part in (0, 0.5, 1):
        y = bottom - part * PANEL
        label = f"{100 * part * top:g} %" if percent else f"{part * top:g}"
        shown.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    for _, colour, values in lines:
        points = [(LEFT + (hour - hours[0]) * wide, bottom - value / top * PANEL) for hour, value in zip(hours, values)]
        shown.append(f'<path d="{path(points)}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    for hour in range(0, int(hours[-1]) + 2, max(1, round(hours[-1] / 8))):
        x = LEFT + (hour - hours[0]) * wide
        if LEFT - 5 <= x <= WIDTH - RIGHT + 1:
            shown.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{hour}</text>')
    return "".join(shown)


def drawing(minutes: Sequence, cores: float) -> str:
    """SVG of the minutes of a day."""
    hours = [minute.hour for minute in minutes]
    panels = [
        ("jobs that run", [("jobs", "#555", [minute.jobs for minute in minutes])], False),
        ("cores", [("there", "#1f77b4", [minute.replicas * cores for minute in minutes]),
                   ("wanted", "#d62728", [minute.wanted_cores for minute in minutes]),
                   ("busy", "#2ca02c", [minute.busy_cores for minute in minutes])], False),
        ("replicas", [("wanted", "#1f77b4", [minute.replicas for minute in minutes]),
                      ("ready", "#ff7f0e", [minute.ready for minute in minutes])], False),
        ("share of time that streams wait", [("waited", "#9467bd", [minute.waited for minute in minutes])], True),
    ]
    height = TOP + len(panels) * (PANEL + GAP)
    inside = "".join(panel(number, title, hours, lines, percent) for number, (title, lines, percent) in enumerate(panels))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">'
            f'<title>A day of jobs: cores, replicas and time waited</title><rect width="100%" height="100%" fill="white"/>{inside}'
            f'<text x="{WIDTH / 2}" y="{height - 6}" text-anchor="middle">hour of the day</text></svg>\n')
