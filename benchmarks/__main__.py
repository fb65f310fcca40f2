"""Runs the command line. asv imports this module too, so importing it does nothing.

So does each Dask worker that the harness starts: multiprocessing imports its parent's main module first. The command
line and all that it needs would cost each of them two seconds of a core.
"""

if __name__ == "__main__":
    from benchmarks.harness.cli import app

    app(prog_name="python -m benchmarks")
