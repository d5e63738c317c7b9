"""Command line, run store, registry, artifacts, figures and reports."""

from importlib.metadata import PackageNotFoundError, version

# Hugging Face publishes distributions with these names. Where one is installed it hides ours, and every import would
# end in a puzzle; so the command says what is the matter first.
for _name in ("datasets", "kernels"):
    try:
        version(_name)
    except PackageNotFoundError:
        continue
    raise ImportError(
        f"the distribution {_name!r} (Hugging Face) is installed in this environment and hides Foretide's own "
        f"package {_name!r}; give Foretide an environment of its own, or run: pip uninstall {_name}"
    )
