"""Command line, run store, registry, artifacts, figures and reports."""
