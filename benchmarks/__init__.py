"""The ruler: measures what `strategies` holds. `python -m benchmarks`, asv and pytest are its three front doors."""
