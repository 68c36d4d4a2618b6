"""Helpers of the node's tests: fakes that force faults, processes, and a client that talks to the node over DDS."""

import os
import random
import zlib

# A domain of this test session's own, on this machine only: tests of others on the same network must not be heard.
# Fast DDS then ignores FASTDDS_BUILTIN_TRANSPORTS, so pictures stay small here unless they are sent reliably.
# The workers of one run of pytest-xdist count on from the same random number, so that none meets another.
_RUN = zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(random.SystemRandom().random())).encode())
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + (_RUN + _WORKER) % 40))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
