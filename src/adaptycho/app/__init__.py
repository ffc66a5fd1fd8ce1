"""The program that people use: command line, demonstration, benchmarks."""
