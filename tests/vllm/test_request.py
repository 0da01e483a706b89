"""The salt keeps KV caches of different scales apart; a scale is written over what a client sent."""

import itertools

from cllm_model.vllm.request import asked_scale, cache_salt, with_scale


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


def test_a_scale_takes_the_place_of_one_that_a_client_sent():
    sent = {"other": 1, "control_scale": 2.0}
    assert with_scale(sent, 0.5) == {"other": 1, "control_scale": 0.5} and sent["control_scale"] == 2.0
    assert asked_scale(with_scale(None, 0.5)) == 0.5
    assert asked_scale({"other": 1}) is asked_scale(None) is None
