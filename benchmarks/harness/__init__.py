"""Roles of the ruler, one module each: cells, environment, load, history, checker, statistics, records, report."""
