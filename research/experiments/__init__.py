"""The studies; each is run(config, workdir) -> summary."""
