"""Fixtures of the node's tests: models that force faults, processes, and a client that talks to the node over DDS."""
