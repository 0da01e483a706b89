"""What is known of the training data, for reports and for people."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """A source in numbers; those of rows and tokens are of what is trained on.

    Attributes:
        source: Its name.
        format: Its format.
        detected: Whether its fields told the format, not the recipe.
        unused: Fields of its first record that the format does not know.
        digest: SHA-256 of the files, or the Hub dataset's fingerprint.
        examples: Records read.
        rows: Rows made of them: one each, or more where messages or pieces have rows of their own.
        overlong: Documents longer than a row.
        treated: What was done to those: truncated, dropped or split.
        empty: Rows left out because nothing in them is learned.
        tokens: Tokens in the rows.
        learned: How many of them are learned.
        share: How often it is drawn from, 0 to 1.
    """

    source: str
    format: str
    detected: bool
    unused: tuple[str, ...]
    digest: str
    examples: int
    rows: int
    overlong: int
    treated: str
    empty: int
    tokens: int
    learned: int
    share: float


def describe(facts: Facts) -> str:
    """Return a source's facts as a line of text."""
    told = "told by its fields" if facts.detected else "as the recipe says"
    parts = [
        f"{facts.source}: {facts.format} ({told}), {facts.share:.1%} of the draws",
        f"{facts.examples:,} examples, {facts.rows:,} rows, {facts.tokens:,} tokens, {facts.learned:,} learned",
    ]
    if facts.overlong:
        parts.append(f"{facts.overlong:,} too long: {facts.treated}")
    if facts.empty:
        parts.append(f"{facts.empty:,} rows left out, nothing to learn in them")
    if facts.unused:
        parts.append(f"fields not used: {', '.join(facts.unused)}")
    return "; ".join(parts)
