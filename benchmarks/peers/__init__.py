"""Who is measured, a file for each; `python -m benchmarks.peers` measures all of them.

A file here is a peer. It holds `contenders(setup)`, which says what is measured and how, and the functions that load the peer
and make the files it needs. The harness imports it for the first; the peer's own environment, where there is no Raskrank, for
the rest. So a file imports at its top nothing but the standard library, the contract (benchmarks.harness.contender, batches)
and other peers; whatever else it needs is imported in the function that needs it.

Adding a peer is adding a file. A package that no environment has yet is a line in benchmarks/environments/NAME.txt.
"""
