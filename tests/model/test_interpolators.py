"""Properties that every interpolator has, for hidden states of any values that hypothesis comes up with."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm_model.interpolators import MERGE_METHODS, Interpolator, MoE, Slerp, blend, build_interpolator
from tests.model.reference import merge

HIDDEN = 6
FACTORS = st.sampled_from([-3.0, 0.0, 0.4, 5.0])
SEEDS = st.integers(0, 2**16)
ROWS = ("random", "parallel", "opposite", "equal", "zero", "half zero", "nearly parallel", "large", "small")
KINDS = st.lists(st.sampled_from(ROWS), min_size=1, max_size=5)

every_method = pytest.mark.parametrize("method", MERGE_METHODS)


def interpolator(method: str, factor: float, seed: int) -> Interpolator:
    """One whose parameters are as after training, not fresh."""
    found = build_interpolator(method, HIDDEN, factor)
    generator = torch.Generator().manual_seed(seed)
    for parameter in found.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return found


def states(kinds: list[str], seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Hidden states x, hp and he, (B, 3, H), with one kind of pair for each sequence."""
    generator = torch.Generator().manual_seed(seed)
    x, hp, he = (torch.randn(len(kinds), 3, HIDDEN, generator=generator) for _ in range(3))
    for i, kind in enumerate(kinds):
        if kind == "parallel":
            he[i] = 2.5 * hp[i]
        elif kind == "opposite":
            he[i] = -hp[i]
        elif kind == "equal":
            he[i] = hp[i]
        elif kind == "zero":
            x[i], hp[i], he[i] = 0, 0, 0
        elif kind == "half zero":
            he[i] = 0
        elif kind == "nearly parallel":
            he[i] = hp[i] + 1e-4 * he[i]
        elif kind == "large":
            x[i], hp[i], he[i] = 1e4 * x[i], 1e4 * hp[i], 1e4 * he[i]
        elif kind == "small":
            x[i], hp[i], he[i] = 1e-4 * x[i], 1e-4 * hp[i], 1e-4 * he[i]
    return x.to(dtype), hp.to(dtype), he.to(dtype)


def run(module: Interpolator, x: torch.Tensor, hp: torch.Tensor, he: torch.Tensor, scale: object) -> torch.Tensor:
    s = torch.as_tensor(scale, dtype=torch.float32).reshape(-1, 1, 1)
    return module(hp, he, module.weight(x, hp, he), s)


def close(found: torch.Tensor, wanted: torch.Tensor, like: torch.Tensor) -> None:
    """Equal up to fp32 rounding, token by token: the size of a token's states says what its rounding is."""
    size = torch.maximum(like.abs().amax(-1, keepdim=True), wanted.abs().amax(-1, keepdim=True)).clamp(min=1e-12)
    torch.testing.assert_close(found / size, wanted / size, rtol=0, atol=2e-5)


def own(module: Interpolator) -> dict[str, torch.Tensor]:
    """The parameters under the names of the published format."""
    names = {"factor": "interpolation_factor", "fc": "interp_weight.fc", "gate": "gating.gate_network.0"}
    found = {}
    for name, parameter in module.named_parameters():
        head, dot, rest = name.partition(".")
        found[names.get(head, head) + dot + rest] = parameter.detach()
    return found


@every_method
@settings(max_examples=30)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS)
def test_scale_0_is_the_pretrained_branch_exactly(method, kinds, factor, seed):
    x, hp, he = states(kinds, seed)
    module = interpolator(method, factor, seed)
    assert torch.equal(run(module, x, hp, he, 0.0), hp)
    assert torch.equal(run(module, x, hp, torch.full_like(he, torch.inf), 0.0), hp)
    assert torch.equal(run(module, x, hp, torch.full_like(he, torch.nan), 0.0), hp)


@every_method
@settings(max_examples=30)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS, scale=st.floats(0.01, 2))
def test_the_dial_and_the_formula(method, kinds, factor, seed, scale):
    """Scale 1 is the merge, and any other follows ``hp + s (merge - hp)``; the formulas are those of `reference`."""
    if method == "slerp":  # an arc of its own; where there is none, see below
        kinds = [kind for kind in kinds if kind in ("random", "large", "small")] or ["random"]
    x, hp, he = states(kinds, seed)
    module = interpolator(method, factor, seed)
    wanted = merge(method, own(module), x, hp, he)
    close(run(module, x, hp, he, 1.0), wanted, hp)
    close(run(module, x, hp, he, scale), hp + scale * (wanted - hp), hp)


@every_method
@settings(max_examples=30)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS, order=st.randoms(use_true_random=False))
def test_the_order_of_a_batch_changes_nothing(method, kinds, factor, seed, order):
    x, hp, he = states(kinds, seed)
    module = interpolator(method, factor, seed)
    rows = list(range(len(kinds)))
    order.shuffle(rows)
    scales = torch.rand(len(kinds), generator=torch.Generator().manual_seed(seed))
    whole = run(module, x, hp, he, scales)
    close(run(module, x[rows], hp[rows], he[rows], scales[rows]), whole[rows], hp[rows])


@every_method
@settings(max_examples=30)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS)
def test_neighbours_change_nothing(method, kinds, factor, seed):
    """A token alone gives what it gives among others, parallel ones too; the authors' slerp looks at all of them."""
    x, hp, he = states([*kinds, "parallel", "random"], seed)
    module = interpolator(method, factor, seed)
    whole = run(module, x, hp, he, 1.0)
    for row in range(len(whole)):
        for token in range(whole.shape[1]):
            here = slice(row, row + 1), slice(token, token + 1)
            alone = run(module, x[here], hp[here], he[here], 1.0)
            close(whole[here], alone, hp[here])


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@settings(max_examples=30)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS, scale=st.floats(0, 2))
def test_outputs_and_gradients_stay_finite(method, dtype, kinds, factor, seed, scale):
    x, hp, he = (tensor.requires_grad_() for tensor in states(kinds, seed, dtype))
    module = interpolator(method, factor, seed).to(dtype)
    out = run(module, x, hp, he, scale)
    assert out.dtype is dtype
    assert out.isfinite().all()
    out.float().sum().backward()
    for tensor in (x, hp, he, *module.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()
    assert hp.grad is not None


@every_method
@settings(max_examples=30)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS)
def test_weights_are_weights(method, kinds, factor, seed):
    x, hp, he = states(kinds, seed, torch.bfloat16)
    module = interpolator(method, factor, seed).bfloat16()
    weight = module.weight(x, hp, he)
    assert weight.dtype is torch.float32
    assert ((weight >= 0) & (weight <= 1)).all()
    assert torch.broadcast_shapes(weight.shape, (*hp.shape[:-1], 1)) == (*hp.shape[:-1], 1)
    assert set(module.applied(weight).unique().tolist()) <= {0.0, 1.0} or module.applied(weight) is weight
    assert 0 <= module.factor_weight() <= 1


@settings(max_examples=50)
@given(kinds=KINDS, factor=FACTORS, seed=SEEDS)
def test_a_choice_is_one_branch_or_the_other(kinds, factor, seed):
    x, hp, he = states(kinds, seed)
    module = interpolator("moe", factor, seed)
    assert isinstance(module, MoE)
    chosen = (torch.softmax(module.gate(x), dim=-1).argmax(dim=-1, keepdim=True) == 1).float()
    assert torch.equal(run(module, x, hp, he, 1.0), torch.where(chosen == 1, he, hp))
    assert torch.equal(module.counted(module.weight(x, hp, he)), chosen)


@settings(max_examples=50)
@given(seed=SEEDS, factor=FACTORS)
def test_slerp_keeps_the_length_of_unit_vectors(seed, factor):
    """Between two vectors of length 1 the arc runs on the sphere; the line does not."""
    x, hp, he = (torch.nn.functional.normalize(tensor, dim=-1) for tensor in states(["random"], seed))
    out = run(interpolator("slerp", factor, seed), x, hp, he, 1.0)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(out.shape[:-1]), rtol=0, atol=1e-4)


@settings(max_examples=50)
@given(
    kinds=st.lists(st.sampled_from(["parallel", "opposite", "equal", "nearly parallel"]), min_size=1, max_size=4),
    factor=FACTORS,
    seed=SEEDS,
)
def test_slerp_is_the_line_where_there_is_no_arc(kinds, factor, seed):
    """The published formula divides there by a sine that is all rounding, and shrinks the token."""
    x, hp, he = states(kinds, seed)
    module = interpolator("slerp", factor, seed)
    w = module.factor_weight()
    close(run(module, x, hp, he, 1.0), (1 - w) * hp + w * he, torch.maximum(hp.abs(), he.abs()))


def test_slerp_of_nothing_turns_by_a_right_angle():
    hp = torch.randn(1, 4, HIDDEN, generator=torch.Generator().manual_seed(0))
    module = Slerp(HIDDEN, 0.4)
    turned = torch.cos(torch.sigmoid(torch.tensor(0.4)) * torch.pi / 2) * hp
    torch.testing.assert_close(run(module, hp, hp, torch.zeros_like(hp), 1.0), turned, rtol=1e-5, atol=1e-6)


@every_method
def test_a_fresh_interpolator_gives_what_the_base_gives(method):
    x, hp, _ = states(["random", "large"], 0)
    for factor in (-1.0, 0.3):
        module = build_interpolator(method, HIDDEN, factor)
        weight = torch.sigmoid(torch.tensor(factor)).item()
        assert module.factor_weight() == pytest.approx(weight, abs=1e-6)
        if method != "moe":  # whose fresh gate chooses at random
            assert module.weight(x, hp, hp).mean().item() == pytest.approx(weight, abs=1e-6)
        torch.testing.assert_close(run(module, x, hp, hp, 1.0), hp, rtol=1e-6, atol=0)
        torch.testing.assert_close(module.divergence_target(hp), hp, rtol=0, atol=0)


def test_a_fresh_choice_takes_both_branches():
    """A branch that no token takes would learn nothing."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, HIDDEN)
    for factor in (-0.5, 0.0, 0.5):
        module = build_interpolator("moe", HIDDEN, factor)
        taken = module.applied(module.weight(x, x, x)).mean().item()
        assert 0.05 < taken < 0.95


def test_no_factor_is_the_expanded_branch_alone():
    x, hp, he = states(["random"], 0)
    module = build_interpolator("lerp", HIDDEN, None)
    assert (list(module.parameters()), module.factor_parameter(), module.factor_weight()) == ([], None, 1.0)
    assert torch.equal(run(module, x, hp, he, 1.0), he)
    for method in set(MERGE_METHODS) - {"lerp"}:
        with pytest.raises(ValueError, match=f"null is not allowed with merge_method '{method}', only with 'lerp'"):
            build_interpolator(method, HIDDEN, None)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'mean' is not one of lerp, slerp, dlerp, dlerpin, moe, proj, prog"):
        build_interpolator("mean", HIDDEN)


def test_blend_rounds_once():
    hp, he = (torch.randn(2, 3, HIDDEN, generator=torch.Generator().manual_seed(i)).bfloat16() for i in (0, 1))
    wanted = (0.7 * hp.double() + 0.3 * he.double()).float()
    given_ = blend(hp, he, 0.6, torch.full((1, 1, 1), 0.5))
    assert torch.equal(given_, wanted.bfloat16())
