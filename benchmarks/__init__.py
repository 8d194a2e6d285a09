"""Raskrank measured: beside its peers, and in studies of single questions. Commands run from the repository's root."""
