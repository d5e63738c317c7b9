"""One file per model; the registry in this package names them."""
