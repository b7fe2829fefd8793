"""Continuity, sensitivity and tightness of a relaxation, measured blind: no name is looked at.

`continuity`, `sensitivity`, `landscape` and `tightness`, each in the file of its name, are functions of closures and
parameters; they do not need this project's trainer. `measure` makes them on a network.
"""
