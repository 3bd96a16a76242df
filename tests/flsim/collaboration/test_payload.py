"""What arrives of hidden states, and how many bytes it takes: numbers by hand, and laws on random states."""

import pytest
import torch

from flsim.collaboration.payload import SENT, Payload

ALL = [Payload("float32"), Payload("float16"), Payload("int8"), Payload("top", 3)]
SOME = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1, 50, 1, 0.1, 1, 1, 1])


def test_bytes_of_a_token() -> None:
    """Qwen2.5-0.5B has 896 channels; 200 of its tokens at 16 bits are 358,400 bytes, 0.478 s at 6 Mbit/s."""
    assert [Payload(sent).bytes(896) for sent in SENT[:3]] == [3584, 1792, 900]
    assert Payload("top", 64).bytes(896) == 64 * 4
    assert Payload("top", 1000).bytes(896) == 896 * 4
    whole = 200 * Payload("float16").bytes(896)
    assert whole == 358_400
    assert 8 * whole / 6e6 == pytest.approx(0.478, abs=5e-4)
    assert whole / (200 * 4) == 448  # of the same tokens as text


def test_eight_bits_by_hand() -> None:
    """The largest is 127 steps; a step of 2 takes 5 to 3 steps (half goes to the even number), so to 4 or 6."""
    states = torch.tensor([[254.0, -254.0, 2.0, 5.0, 0.9, 0.0]])
    assert Payload("int8").received(states).tolist() == [[254.0, -254.0, 2.0, 4.0, 0.0, 0.0]]
    assert (Payload("int8").received(torch.zeros(2, 3)) == 0).all()


def test_the_largest_channels_by_hand() -> None:
    """By magnitude, of equal ones the first, in 16 bits."""
    states = torch.tensor([[1.0, -3.0, 2.0, -2.0, 0.5], [0.0, 0.0, 0.0, 0.0, 1.0001]])
    got = Payload("top", 2).received(states)
    assert got.tolist() == [[0.0, -3.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, float(torch.tensor(1.0001).half())]]


@pytest.mark.parametrize("payload", ALL, ids=SENT)
def test_a_token_is_sent_by_itself(payload: Payload) -> None:
    whole = payload.received(SOME)
    assert whole.shape == SOME.shape
    assert torch.equal(whole, torch.cat([payload.received(row[None]) for row in SOME]))
    assert torch.equal(payload.received(SOME[None]), whole[None])


@pytest.mark.parametrize("payload", ALL, ids=SENT)
def test_what_has_arrived_arrives_again_as_it_is(payload: Payload) -> None:
    """To the rounding of float32, since the scale of 8 bits is worked out anew."""
    once = payload.received(SOME)
    torch.testing.assert_close(payload.received(once), once, rtol=1e-6, atol=0)


def test_errors_are_within_half_a_step() -> None:
    exact, half, eight, top = (payload.received(SOME) for payload in ALL)
    assert exact is SOME
    assert ((half - SOME).abs() <= SOME.abs() * 2**-11).all()
    step = SOME.abs().amax(-1, keepdim=True) / 127
    assert ((eight - SOME).abs() <= step * (0.5 + 1e-5)).all()
    assert ((top != 0).sum(-1) == 3).all()
    assert (eight != half).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("payload", ALL, ids=SENT)
def test_the_dtype_stays_and_nothing_overflows(payload: Payload, dtype: torch.dtype) -> None:
    states = torch.tensor([[1e6, -1e6, 1.0, 2.0]], dtype=dtype)
    got = payload.received(states)
    assert got.dtype == dtype
    assert torch.isfinite(got).all()
    if payload.sent == "float16":
        assert got[0, 0] == torch.tensor(65504.0, dtype=dtype)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("int4", None), r"sent='int4' must be one of: float32, float16, int8, top"),
        (("top", None), r"channels=None with sent=top: .* such as sent=top channels=64"),
        (("int8", 3), r"channels=3 with sent=int8"),
        (("top", 0), r"channels=0 must be at least 1"),
    ],
)
def test_what_is_no_payload_is_refused(settings: tuple[str, int | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Payload(*settings)
