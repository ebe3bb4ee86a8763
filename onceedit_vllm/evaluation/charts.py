"""The report's drawings, as SVG that stands in the page itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_BINS = 20
_LEFT, _TOP, _WIDTH, _HEIGHT = 44, 10, 420, 150
_COLOURS = ("#1f6fb2", "#c2571a", "#3c8d40", "#7a4fa3")


def histogram(values: Sequence[float], threshold: float) -> str:
    """How many values lie in each twentieth of 0 to 1, and where the gate opens.

    Args:
        values: Alphas.
        threshold: Drawn as a line.
    """
    counts = [0] * _BINS
    for value in values:
        counts[min(int(value * _BINS), _BINS - 1)] += 1
    highest = max(1, *counts)
    step = _WIDTH / _BINS
    bars = [
        f'<rect x="{_LEFT + at * step + 1:.1f}" y="{_TOP + _HEIGHT - height:.1f}" width="{step - 2:.1f}" '
        f'height="{height:.1f}" fill="{_COLOURS[0]}"><title>{count}</title></rect>'
        for at, count in enumerate(counts)
        if (height := _HEIGHT * count / highest)
    ]
    line = _upright(threshold, f"opens at {threshold:.2f}")
    return _framed([*bars, line], f"{len(values)} alphas", top=str(highest))


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], threshold: float) -> str:
    """Shares by threshold.

    Args:
        lines: Points (threshold, share) by the line's name; at most four.
        threshold: The one in use.
    """
    drawn = []
    for at, (name, points) in enumerate(lines.items()):
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        colour = _COLOURS[at % len(_COLOURS)]
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(
            f'<text x="{_LEFT + _WIDTH + 10}" y="{_TOP + 14 + 18 * at}" fill="{colour}">{escape(name)}</text>'
        )
    drawn.append(_upright(threshold, f"in use: {threshold:.2f}"))
    return _framed(drawn, "shares by threshold", top="1", right=260)


def _x(value: float) -> float:
    return _LEFT + _WIDTH * value


def _y(value: float) -> float:
    return _TOP + _HEIGHT * (1 - value)


def _upright(value: float, label: str) -> str:
    x = _x(value)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + _HEIGHT}" stroke="#888" '
        f'stroke-dasharray="4 3"><title>{escape(label)}</title></line>'
    )


def _framed(parts: Sequence[str], label: str, *, top: str, right: int = 10) -> str:
    """A drawing with its axes: 0 to 1 to the right, 0 to `top` upwards."""
    width, height = _LEFT + _WIDTH + right, _TOP + _HEIGHT + 24
    bottom = _TOP + _HEIGHT
    axes = (
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#888"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{escape(top)}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{bottom + 18}">0</text>'
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 18}" text-anchor="end">1</text>'
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{axes}{"".join(parts)}</svg>'
    )
