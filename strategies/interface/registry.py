"""Finds strategies: by walking the package, or in a file of the user's own. There is no list to keep."""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import strategies
from strategies.interface.account import Accounts


class UnknownStrategy(LookupError):
    """No strategy has this name."""


def names() -> list[str]:
    """Every strategy's name, sorted. Imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(strategies.__path__) if not module.ispkg)


def load(name: str) -> type[Accounts]:
    """The class of the strategy of this name, or of `path/to/file.py:ClassName`.

    Raises:
        UnknownStrategy: with the nearest names that exist.
    """
    path, colon, class_name = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _load_from_file(Path(path).resolve(), class_name)
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise UnknownStrategy(f"no strategy is called {name!r}; {hint}")
    return _only_strategy_in(importlib.import_module(f"{strategies.__name__}.{name}"))


def _only_strategy_in(module: ModuleType) -> type[Accounts]:
    found = [
        value
        for value_name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Accounts)
        and value.__module__ == module.__name__
        and not value_name.startswith("_")
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define one public subclass of Accounts, it defines {len(found)}")
    return found[0]


def _load_from_file(path: Path, class_name: str) -> type[Accounts]:
    if not path.is_file():
        raise UnknownStrategy(f"there is no file {path}")
    module_name = path.stem
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise UnknownStrategy(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
        # Dask workers cannot import the user's file: its classes travel by value.
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    elif getattr(module, "__file__", None) != str(path):
        raise UnknownStrategy(f"{path} has the name of a module that is loaded already; rename the file")
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Accounts)):
        raise UnknownStrategy(f"{path} has no subclass of Accounts called {class_name}")
    return found
