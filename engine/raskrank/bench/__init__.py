"""`raskrank bench`: what a model does on this machine, beside others and beside its checkpoint."""
