"""Families that are added while a program runs, by itself or by packages that are installed."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from transformer_lens.errors import ConfigurationError, nearest
from transformer_lens.specs.reading import UnsupportedModelError
from transformer_lens.specs.spec import Spec
from transformer_lens.specs.table import ADDED, FAMILIES

GROUP = "transformer_lens.architectures"


class HasArchitecture(Protocol):
    """A configuration that names a class of transformers'."""

    architecture: str | None


class ArchitectureAdapterFactory:
    """Families by the name of transformers' class. What adapts a model to this library is a Spec.

    A package can bring some, in its pyproject.toml:

        [project.entry-points."transformer_lens.architectures"]
        MyModelForCausalLM = "my_package.families:MY_SPEC"
    """

    @classmethod
    def register_adapter(cls, architecture_name: str, adapter_class: Spec) -> None:
        """Let models of this class load by this spec, from now on, also where another spec fits them.

        Args:
            architecture_name: the class, as the `architectures` of a configuration name it.
            adapter_class: the spec (docs/add-a-family.md).

        Raises:
            ConfigurationError: something else than a Spec.
        """
        if not isinstance(adapter_class, Spec):
            raise ConfigurationError(
                f"A family is described by a transformer_lens.specs.Spec, and this is {adapter_class!r}: see "
                "docs/add-a-family.md. A model without one boots too, if its parts can be found by looking."
            )
        ADDED[architecture_name] = adapter_class

    @classmethod
    def discover_entry_points(cls) -> None:
        """Register what installed packages bring as entry points of the group "transformer_lens.architectures"."""
        for point in entry_points(group=GROUP):
            cls.register_adapter(point.name, point.load())

    @classmethod
    def select_architecture_adapter(cls, cfg: HasArchitecture) -> Spec:
        """The spec for the class that `cfg.architecture` names.

        Raises:
            UnsupportedModelError: no spec is for this class; says the nearest ones that are.

        Example:
            >>> from transformer_lens.config import TransformerBridgeConfig
            >>> cfg = TransformerBridgeConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, architecture="GPTJForCausalLM")
            >>> ArchitectureAdapterFactory.select_architecture_adapter(cfg).name
            'GPT-J'
        """
        known = {spec.architecture: spec for spec in FAMILIES if spec.architecture is not None} | ADDED
        if cfg.architecture not in known:
            near = nearest(str(cfg.architecture), known)
            raise UnsupportedModelError(f"No spec is for models of class {cfg.architecture!r}.{near}")
        return known[cfg.architecture]
