"""Raskrank in the frameworks that applications use already. Each module needs its framework; none is imported by `raskrank`."""
