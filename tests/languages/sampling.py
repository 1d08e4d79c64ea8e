#!/usr/bin/env python3
"""The Python of docs/sampling.md gives what its tables say, which are those that the Rust tests read."""

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sampling.md").read_text()


def rows(first):
    table = PAGE.split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip("`") for cell in line[2:-2].split(" | ")] for line in table.splitlines()[2:]]


documented = {}
exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], documented)
rv, th, is_sampled = (documented[name] for name in ("rv", "th", "is_sampled"))

sessions, ratios = rows("session id"), rows("ratio")
assert len(sessions) == 16 and len(ratios) == 11
for session_id, expected, *decisions in sessions:
    assert rv(session_id) == expected, (session_id, rv(session_id))
    decided = ["sampled" if is_sampled(ratio, session_id) else "dropped" for ratio in (0.5, 0.1, 0.001)]
    assert decided == decisions, (session_id, decided)
for ratio, expected in ratios:
    assert th(float(ratio)) == expected, (ratio, th(float(ratio)))
print(f"{len(sessions)} sessions and {len(ratios)} ratios are as documented")
