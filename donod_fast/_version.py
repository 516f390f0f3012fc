"""Version of the package. It stands here only: packaging, the command line and manifests read it from here."""

__version__ = "0.9.0"
