"""Data: catalogue, readers, quality checks, splits, scaling and windows.

This folder is the import package ``datasets`` of Foretide. Hugging Face publishes a distribution of the same
name; the two cannot share an environment, so importing this one beside it is an error rather than a lottery.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    version("datasets")
except PackageNotFoundError:
    pass
else:
    raise ImportError(
        "the distribution 'datasets' (Hugging Face) is installed in this environment and hides Foretide's own "
        "'datasets' package; give Foretide an environment of its own, or run: pip uninstall datasets"
    )
