"""Adversarial prompt search: what an aligned model can still be talked into.

An attack is a *problem* (which tokens are free, which words may stand there, and what a prompt is
worth) and a *solver* that looks for words within a budget. One file each; importing the package
makes all of them known to :mod:`~safetydpo_kedro.attacks.registry`.
"""

from importlib import import_module
from pkgutil import iter_modules

from safetydpo_kedro.attacks.registry import Attack, available_attacks, find_attack, parse_attack

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Attack", "available_attacks", "find_attack", "parse_attack"]
