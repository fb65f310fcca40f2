"""Runs the command line. asv imports this module too, so importing it does nothing."""

from benchmarks.harness.cli import app

if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
