"""Places where a Dask program can keep state that changes, behind one account interface.

Every module directly in this package is one strategy; its file name is its name everywhere.
`strategies.interface` says what a strategy must do, `strategies.support` holds what several share.
"""
