"""A test session has a ROS domain of its own, whatever the shell has set; each test has the marker of its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from isolation import DOMAINS, LEFTOVERS, SHELL_DOMAIN, isolate

SHELL = {
    "ROS_DOMAIN_ID": "7",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
    **dict.fromkeys(LEFTOVERS, "as the user has it"),
}


def test_this_session_has_a_domain_of_its_own_on_this_machine_alone():
    names = ["ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"]
    print(json.dumps({"environment": {name: os.environ.get(name) for name in [*names, *LEFTOVERS]}}))
    assert int(os.environ["ROS_DOMAIN_ID"]) in DOMAINS
    assert os.environ["ROS_DOMAIN_ID"] != os.environ[SHELL_DOMAIN]
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_a_session_that_is_started_in_the_user_s_domain_leaves_it():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", SHELL_DOMAIN))}
    test = f"{__file__}::{test_this_session_has_a_domain_of_its_own_on_this_machine_alone.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:xdist", test]
    run = subprocess.run(
        command, env={**environment, **SHELL}, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    line = next(line for line in run.stdout.splitlines() if '"environment"' in line)
    seen = json.loads(line[line.index("{") : line.rindex("}") + 1])["environment"]
    assert seen.pop("ROS_DOMAIN_ID") != SHELL["ROS_DOMAIN_ID"]
    assert seen.pop("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    assert set(seen.values()) == {None}


def test_worker_processes_of_one_session_never_share_a_domain():
    for _ in range(50):
        domains = set()
        for worker in range(4):
            environment = {**SHELL, "PYTEST_XDIST_WORKER": f"gw{worker}", "PYTEST_XDIST_WORKER_COUNT": "4"}
            isolate(environment)
            domains.add(environment["ROS_DOMAIN_ID"])
        assert len(domains) == 4
        assert SHELL["ROS_DOMAIN_ID"] not in domains


def test_each_test_has_the_marker_of_its_folder(request: pytest.FixtureRequest):
    layers = {"unit", "ros", "models", "gpu"}
    assert {mark.name for mark in request.node.iter_markers()} & layers == {Path(__file__).parent.name} == {"unit"}
