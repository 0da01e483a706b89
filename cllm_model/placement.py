"""Where an expansion puts its layers: from the base's layers that are copied, to the layers of the expanded model."""

from collections.abc import Sequence


def regular_sites(num_layers: int, num_sites: int) -> tuple[int, ...]:
    """Return evenly spaced layers of a base by the published rule: i is copied iff ``(i + 1) % (L // n) == 0``.

    Raises:
        ValueError: The rule would not give exactly `num_sites` layers.
    """
    divisors = [n for n in range(1, num_layers + 1) if num_layers % n == 0]
    if num_sites not in divisors:
        raise ValueError(
            f"layers: {num_sites} does not divide the base's {num_layers} layers; "
            f"allowed: {', '.join(map(str, divisors))}"
        )
    stride = num_layers // num_sites
    return tuple(range(stride - 1, num_layers, stride))


def choose_sites(layers: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Return the layers of a base to copy, given as a number of evenly spaced ones or as a list.

    Raises:
        ValueError: See `regular_sites`; or the list is empty, not ascending, or names a layer that the base has not.
    """
    if isinstance(layers, int):
        return regular_sites(num_layers, layers)
    if not layers or list(layers) != sorted(set(layers)):
        raise ValueError(f"layers: {list(layers)} is not an ascending list of layers")
    if outside := [layer for layer in layers if not 0 <= layer < num_layers]:
        raise ValueError(f"layers: {outside[0]} is out of range; the base has layers 0 to {num_layers - 1}")
    return tuple(layers)


def place(kind: str, sites: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the dual-branch and the stacked layers of the expanded model, for the layers of the base to copy.

    A stacked layer stands directly behind its source, so layers behind it move up by one. A hybrid expansion takes
    the two in turn, a stacked one first.

    Raises:
        ValueError: The expansion is hybrid and the number of layers is odd.
    """
    if kind == "hybrid" and len(sites) % 2:
        raise ValueError(f"layers: {len(sites)} is odd; a hybrid expansion stacks and doubles layers in turn")
    expanded: list[int] = []
    stacked: list[int] = []
    for turn, site in enumerate(sites):
        if kind == "stack" or (kind == "hybrid" and turn % 2 == 0):
            stacked.append(site + len(stacked) + 1)
        else:
            expanded.append(site + len(stacked))
    return tuple(expanded), tuple(stacked)
