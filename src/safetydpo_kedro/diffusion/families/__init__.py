"""One file per family of models. A new file here registers itself; nothing else needs a change."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
