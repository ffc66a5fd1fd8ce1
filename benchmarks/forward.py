"""Simulated patterns per second: one JSON line (`adaptycho bench forward`)."""

import json

from adaptycho.app import bench

if __name__ == "__main__":
    print(json.dumps(bench.forward()))
