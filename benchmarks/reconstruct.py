"""Reconstruction beside the bare Fourier transforms, growth with positions, memory: one JSON line (`adaptycho bench reconstruct`)."""

import json

from adaptycho.app import bench

if __name__ == "__main__":  # memory is measured in a new process, which imports this file
    print(json.dumps(bench.reconstruct()))
