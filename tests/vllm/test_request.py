"""The salt keeps KV caches of different scales apart; the mark keeps clients from setting a scale."""

import itertools

from cllm_model.vllm.request import cache_salt, mark, marked_scale


def test_salts_differ_for_different_scales_and_clients():
    scales = [i / 10_000 for i in range(20_001)]
    assert len({cache_salt(scale) for scale in scales}) == len(scales)
    clients = [None, "a", "b", "cllm-0", "cllm-10000-" + "0" * 64]
    pairs = list(itertools.product([0.0, 0.0001, 0.5, 1.0, 2.0], clients))
    assert len({cache_salt(*pair) for pair in pairs}) == len(pairs)
    assert cache_salt(1.0, None) == cache_salt(1.0, "") == cache_salt(1.0)


def test_salts_are_what_vllm_allows():
    for client in (None, "x" * 1000, "@/\\\0", "é"):
        salt = cache_salt(2.0, client)
        assert len(salt) <= 128 and not set(salt) & set("@/\\\0")


def test_marked_scales_are_read_back():
    arguments = mark({"other": 1}, 0.5)
    assert marked_scale(arguments) == 0.5 and arguments["other"] == 1
    assert marked_scale(arguments | {"control_mark": "guessed"}) == 1.0
    assert marked_scale({"control_scale": 0.5}) == marked_scale(None) == 1.0
