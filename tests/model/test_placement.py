"""Where an expansion puts its layers, against lists written by hand."""

import pytest

from cllm_model.placement import choose_sites, place, regular_sites


@pytest.mark.parametrize(
    ("layers", "sites", "wanted"),
    [
        (8, 1, [7]),
        (8, 2, [3, 7]),
        (8, 4, [1, 3, 5, 7]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (6, 2, [2, 5]),
        (28, 7, [3, 7, 11, 15, 19, 23, 27]),
    ],
)
def test_regular_sites(layers, sites, wanted):
    assert list(regular_sites(layers, sites)) == list(choose_sites(sites, layers)) == wanted


@pytest.mark.parametrize("sites", [3, 5, 6, 7, 9, 0, -1])
def test_a_number_that_cannot_be_placed_exactly_is_refused(sites):
    """The authors' rule gives 4 layers for "3 of 8"."""
    with pytest.raises(ValueError, match=f"layers: {sites} does not divide .* 8 layers; allowed: 1, 2, 4, 8"):
        regular_sites(8, sites)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], r"\[\] is not an ascending list"),
        ([3, 1], r"\[3, 1\] is not an ascending list"),
        ([1, 1], r"\[1, 1\] is not an ascending list"),
        ([1, 8], "8 is out of range; the base has layers 0 to 7"),
        ([-1, 2], "-1 is out of range"),
    ],
)
def test_a_bad_list_is_refused(layers, said):
    with pytest.raises(ValueError, match=f"layers: {said}"):
        choose_sites(layers, 8)


@pytest.mark.parametrize(
    ("kind", "sites", "expanded", "stacked"),
    [
        ("concat", [0, 5], [0, 5], []),
        ("stack", [1, 3, 5, 7], [], [2, 5, 8, 11]),
        ("stack", [0, 1, 2], [], [1, 3, 5]),
        ("hybrid", [1, 3, 5, 7], [4, 9], [2, 7]),  # as in the authors' data
        ("hybrid", [0, 1], [2], [1]),
        ("hybrid", [2, 7], [8], [3]),
    ],
)
def test_place(kind, sites, expanded, stacked):
    assert place(kind, sites) == (tuple(expanded), tuple(stacked))


def test_an_odd_hybrid_is_refused():
    with pytest.raises(ValueError, match="layers: 3 is odd"):
        place("hybrid", [1, 3, 5])
