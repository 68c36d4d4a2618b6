"""One minute of three cameras; `python benchmarks/node_soak.py --seconds 600` is the long run of the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from loading import BENCHMARKS, load_script
from node_fixtures.processes import FAKE_NODE

from activeo3_ros.presets import load_preset

SOAK = BENCHMARKS / "node_soak.py"


@pytest.mark.timeout(420)
def test_one_minute_of_three_cameras():
    """With the embedded preset where its models have been fetched, else with fakes of the same shape.

    What is asked is what the long run asks: counts that add up exactly, 20 % of a fair share, no result older than
    `max_frame_age` plus one inference. Only memory may grow by a frame of 6 MB for each camera more than 1 %: in a
    minute nobody can tell frames that wait at the end, and did not at the beginning, from growth.
    """
    try:
        load_preset("embedded").build()
        options = ["--preset", "embedded"]
    except Exception as error:
        print(f"without the embedded preset: {error}")
        options = ["--preset", "fake,step_s=0.03", "--node", *FAKE_NODE]
    command = [sys.executable, str(SOAK), "--seconds", "60", *options]
    run = subprocess.run(command, env=os.environ, cwd="/", capture_output=True, text=True, timeout=400, check=False)
    print(run.stdout, run.stderr)
    assert run.returncode == 0


STEADY_MB = [380.0, 374.0, 386.0, 380.0, 392.0] * 60
"""As a busy machine shows it: frames of 6 MB come and go."""


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, ""),
        # One frame in 50 of the 30 that come in a second stays for good; diagnostics come five times a second.
        ({"memory_mb": [mb + 0.6 * 6.2 / 5 * at for at, mb in enumerate(STEADY_MB)]}, "memory"),
        ({"failed": 1}, "no frame failed"),
        ({"ages_ms": [300.0, 1300.0]}, "no result is older"),
        ({"results": {"front": 30, "left": 50, "right": 50}}, "every camera within"),
        ({"counts": {"front": {"received": 9, "processed": 8, "pending": 0}}}, "counts"),
    ],
)
def test_the_judgement_of_a_minute_finds_each_broken_promise(change, broken, capsys):
    soak = load_script(SOAK)
    fine = {
        "results": dict.fromkeys(soak.CAMERAS, 50),
        "ages_ms": [300.0, 400.0],
        "inferences_ms": [200.0, 250.0],
        "memory_mb": STEADY_MB,
        "counts": {"front": {"received": 9, "processed": 8, "pending": 1}},
    }
    assert soak.judge(soak.Observed(**{**fine, **change}), 60.0) == int(bool(broken))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BROKEN")]
    assert len(lines) == int(bool(broken)) and all(broken in line for line in lines)


@pytest.mark.parametrize(("sent", "broken"), [(12, ""), (13, "every frame that was sent is accounted for")])
def test_the_account_of_ordinary_drivers_is_exact(sent, broken, capsys):
    soak = load_script(SOAK)
    observed = soak.Observed(
        dict.fromkeys(soak.CAMERAS, 50),
        ages_ms=[300.0],
        inferences_ms=[200.0],
        memory_mb=STEADY_MB,
        counts={"front": {"received": 9, "processed": 6, "replaced": 2, "pending": 1}},
        lost={"front": 3},
        sent={"front": sent},
    )
    assert soak.judge(observed, 60.0, ordinary=True) == int(bool(broken))
    said = capsys.readouterr().out
    assert f"account of all: sent {sent}, processed 6, replaced 2, pending 1, lost 3, unaccounted {sent - 12}" in said
    assert f"{3 / sent:.2%} lost" in said
    assert [line for line in said.splitlines() if line.startswith("BROKEN")] == ([f"BROKEN {broken}"] if broken else [])
