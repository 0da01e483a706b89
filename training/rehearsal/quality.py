"""Whether what a model wrote for its rehearsal is fit for it: a model that cannot write requests writes noise.

A base trained on answers only never learned to write a request: it answers nothing, runs on, repeats itself or is
always the same, and rehearsing it protects nothing. Measured on 512 sequences and more, at temperature 1: two bases
that learned requests too, the demo's and one of the retention study's, gave ended 1.00 and 1.00, distinct 1.00 and .95,
repeated .04 and .02; one that learned answers only gave .02, .60 and .19.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from training.rehearsal.sampling import Sampled

NGRAM = 4
FEWEST_ENDED = 0.5
FEWEST_DISTINCT = 0.5
MOST_REPEATED = 0.3


@dataclass(frozen=True)
class Quality:
    """Measures of sampled sequences, each a share from 0 to 1.

    Attributes:
        ended: Sequences that ended by themselves; in a chat, with an answer.
        distinct: Different sequences among all of them.
        repeated: Runs of four tokens that stood in the same sequence before, of all such runs of all sequences.
    """

    ended: float
    distinct: float
    repeated: float

    @classmethod
    def of(cls, sequences: Sequence[Sampled]) -> "Quality":
        """Measure what was written; the requests that a model was given are left out."""
        written = [tuple(s.tokens[len(s.tokens) - s.written :]) for s in sequences]
        runs = [[text[i : i + NGRAM] for i in range(len(text) - NGRAM + 1)] for text in written]
        total = sum(map(len, runs))
        return cls(
            ended=sum(s.ended for s in sequences) / len(sequences),
            distinct=len({tuple(s.tokens) for s in sequences}) / len(sequences),
            repeated=1 - sum(len(set(found)) for found in runs) / total if total else 0.0,
        )

    def warnings(self) -> list[str]:
        """What speaks against rehearsing these sequences, in sentences; nothing if they are fit."""
        found = []
        if self.ended < FEWEST_ENDED:
            found.append(f"only {self.ended:.0%} of the sequences are whole (expected {FEWEST_ENDED:.0%} or more)")
        if self.distinct < FEWEST_DISTINCT:
            found.append(f"only {self.distinct:.0%} of them differ (expected {FEWEST_DISTINCT:.0%} or more)")
        if self.repeated > MOST_REPEATED:
            found.append(
                f"{self.repeated:.0%} of their {NGRAM}-token runs repeat earlier ones (expected {MOST_REPEATED:.0%} or "
                "less)"
            )
        return found
