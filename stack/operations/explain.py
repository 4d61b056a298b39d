"""`explain`: why the numbers are what they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stack.errors import UsageError
from stack.limits import Chain
from stack.operations.prepare import Prepared
from stack.plan import chains

__all__ = ["TOPICS", "Explained", "explain", "known"]

TOPICS = ("limits",)


@dataclass(frozen=True, slots=True)
class Explained:
    """A chain, and for each of its limits what decided the setting that it comes from; "" without a setting."""

    chain: Chain
    decided_by: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """The chain as JSON types, as docs/commands.md describes them."""
        rows = zip(self.chain.limits, self.decided_by, strict=True)
        return {
            "topic": self.chain.topic,
            "of": self.chain.of,
            "rule": self.chain.rule,
            "holds": self.chain.holds,
            "limits": [{**dataclasses.asdict(limit), "decided_by": decided} for limit, decided in rows],
        }


def known(topic: str) -> str:
    """The topic.

    Raises:
        UsageError: there is none of that name.
    """
    if topic not in TOPICS:
        raise UsageError(f"explain {topic}: there is no such topic", f"There is: {', '.join(TOPICS)}.")
    return topic


def explain(prepared: Prepared) -> list[Explained]:
    """Every chain of limits, of these settings on this machine."""
    loaded = prepared.loaded
    return [
        Explained(chain, tuple(loaded.origin(*each.keys) if each.keys else "" for each in chain.limits))
        for chain in chains(loaded.config, prepared.facts)
    ]
