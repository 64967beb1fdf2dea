"""SafetyDPO as a Kedro project: make text-to-image models safe at scale."""

__version__ = "0.1.0"
