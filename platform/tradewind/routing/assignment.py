"""Which variant a unit (a user, a session, a request) belongs to: weighted rendezvous hashing.

Every arm i with weight w_i > 0 draws its own number for the unit, and the best draw wins:

    u_i     = blake2b(salt, arm_i, unit) scaled into (0, 1)
    score_i = -w_i / ln(u_i)
    winner  = the arm with the largest score

**The shares are exact.** u_i is uniform, so -ln(u_i) is exponential with rate 1 and
1/score_i = -ln(u_i) / w_i is exponential with rate w_i. The smallest of independent exponentials
is the i-th with probability w_i / sum(w). Only ratios count: 8/2 and 80/20 assign alike.

**It is stateless.** The winner is a function of (salt, unit, arms): every gateway replica, today
and after a restart, and an analyst with the logs, comes to the same one. Nothing is stored.

**Little moves.** u_i does not depend on the weights or on the other arms. Whether j beats i is
settled by u_i, u_j and w_j / w_i alone, so a unit goes from i to j only if w_j / w_i has risen:

- one arm changes relative to all others (the only case there is with two arms): units move only
  into it when it grows, only out of it when it shrinks. 80/20 -> 70/30 moves 10 % of the units,
  all from the first arm to the second, which is the least any scheme can do;
- an arm is removed: its own units spread over the rest in proportion, no other unit moves;
- an arm is added: it takes its share, and nothing moves between the old ones;
- several arms change at once (50/30/20 -> 50/40/10): a few units more than the 10 % minimum move,
  here also from the third to the first. A table of ranges would move more, and in both directions.

**Salts are independent.** Another salt is another hash, so that two experiments on the same users
do not line up. Salt and arm are length-prefixed in the hashed bytes: no two (salt, arm, unit)
share an input.

The 64-bit digest is cut to 52 bits: n + 1/2 is then exact in a double and u never reaches 0 or 1,
where the logarithm would fail. Ties, once in 10^15 units, go to the smaller name, so that the order
in which the arms are listed never matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import isfinite, log

_DIGEST_BYTES = 8
_DROPPED_BITS = 12
_UNIT_SCALE = 2.0**-52


class Assignment:
    """Immutable assignment of units to named arms. `pick` costs one hash per arm of weight > 0."""

    __slots__ = ("_arms", "_only")

    def __init__(self, salt: str, weights: Mapping[str, float]) -> None:
        """`weights` by arm name: any finite numbers >= 0, in any scale.

        Raises ValueError for a negative or infinite weight, and when no weight is above zero.
        """
        bad = sorted(name for name, weight in weights.items() if weight < 0 or not isfinite(weight))
        if bad:
            raise ValueError(f"weights must be finite and not negative: {', '.join(bad)}")
        names = sorted(name for name, weight in weights.items() if weight > 0)
        if not names:
            raise ValueError("at least one weight must be above zero")
        self._arms = tuple((name, float(weights[name]), _prefix(salt, name)) for name in names)
        self._only = names[0] if len(names) == 1 else None

    def pick(self, unit: str) -> str:
        """Name of the arm that `unit` belongs to. Any text will do, lone surrogates included."""
        if self._only is not None:
            return self._only
        # JSON can carry a lone surrogate ("\ud800"); it must not turn into an encoding error.
        data = unit.encode("utf-8", "surrogatepass")
        winner = ""
        best = -1.0
        for name, weight, prefix in self._arms:
            digest = blake2b(prefix + data, digest_size=_DIGEST_BYTES).digest()
            draw = ((int.from_bytes(digest, "big") >> _DROPPED_BITS) + 0.5) * _UNIT_SCALE
            score = -weight / log(draw)
            if score > best:
                winner, best = name, score
        return winner


def _prefix(*parts: str) -> bytes:
    """The parts, each behind its length in 4 bytes: different parts never join to the same bytes."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
