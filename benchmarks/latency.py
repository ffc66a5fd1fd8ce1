"""Wait between 50 new patterns and the next 50 positions: one JSON line (`adaptycho bench latency`)."""

import json

from adaptycho.app import bench

if __name__ == "__main__":
    print(json.dumps(bench.latency()))
