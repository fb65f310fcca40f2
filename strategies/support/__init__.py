"""What several strategies share. Not a strategy, so it is a package and not a module of `strategies`."""
