"""Measurements of Foretide beside its peers; each writes one file under ``benchmarks/results``."""
