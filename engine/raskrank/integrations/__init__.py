"""Raskrank in other frameworks. Each module needs its framework installed; see the extras."""
