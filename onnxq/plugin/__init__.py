"""The seams: what plugins may provide, and how they are found.

`contracts` has the three interfaces, `hookspecs` the hooks a plugin implements, `registry` finds,
checks and calls them.
"""
