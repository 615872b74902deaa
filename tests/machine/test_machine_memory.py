"""The memory planner: placements are legal, overflow only when nothing fits, and cost stays linear."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.machine import placement, sweep
from nkilite.machine.memory import Overflow, Plan, Request, Reservation, peak, plan
from nkilite.machine.placement import Occupied

POLICIES = st.sampled_from(["spread", "reuse"])


@st.composite
def workloads(draw, max_size: int = 64, max_count: int = 40) -> list[Request]:
    """Requests in instruction order with sizes and lifetimes of mixed lengths."""
    requests, now = [], 0
    for _ in range(draw(st.integers(1, max_count))):
        now += draw(st.integers(0, 3))
        life = draw(st.one_of(st.integers(0, 4), st.integers(0, 60)))
        requests.append(Request(draw(st.integers(0, max_size)), now, now + life))
    return requests


def alive_together(a, b) -> bool:
    return a.start <= b.end and b.start <= a.end


def check(requests, result: Plan, *, capacity=None, align=1, bank=None, reserved=()) -> None:
    """Every promise of a `Plan`, checked pair by pair."""
    assert len(result.offsets) == len(requests)
    for i, (request, low) in enumerate(zip(requests, result.offsets)):
        high = low + request.size
        if not request.size:
            continue
        assert low >= 0 and low % align == 0
        assert high <= result.extent and (capacity is None or high <= capacity)
        if bank is not None:
            assert low // bank == (high - 1) // bank if request.size <= bank else low % bank == 0
            if request.size > bank:
                high = -(-high // bank) * bank  # whole banks
        for other, other_low in zip(requests[i + 1 :], result.offsets[i + 1 :]):
            if other.size and alive_together(request, other):
                assert high <= other_low or other_low + other.size <= low
        for taken in reserved:
            if taken.size and alive_together(request, taken):
                assert high <= taken.offset or taken.offset + taken.size <= low


# --- placements are legal


@settings(deadline=None)
@given(workloads(), st.sampled_from([1, 4, 32]), POLICIES, st.floats(1.0, 3.0))
def test_plan_is_legal_or_accounts_for_itself(requests, align, policy, slack) -> None:
    capacity = int(peak(requests, align=align) * slack)
    result = plan(requests, capacity=capacity, align=align, policy=policy)
    if isinstance(result, Plan):
        check(requests, result, capacity=capacity, align=align)
        assert result.peak == peak(requests, align=align) <= result.extent
    else:
        assert result.fragmented  # at or above the peak only scattering can be to blame
        check_account(requests, result, align=align)


@settings(deadline=None)
@given(workloads(), st.sampled_from([1, 64]))
def test_unbounded_arena_always_holds_everything(requests, align) -> None:
    result = plan(requests, capacity=None, align=align, policy="reuse")
    assert isinstance(result, Plan)
    check(requests, result, align=align)
    assert result.extent <= sum(-(-r.size // align) * align for r in requests)


@settings(deadline=None)
@given(workloads(max_size=5000), st.integers(1, 16), POLICIES)
def test_psum_tiles_stay_in_their_banks(requests, banks, policy) -> None:
    result = plan(requests, capacity=banks * 2048, align=4, bank=2048, policy=policy)
    if isinstance(result, Plan):
        check(requests, result, capacity=banks * 2048, align=4, bank=2048)
    else:
        check_account(requests, result, align=4, bank=2048)


@st.composite
def reservations(draw) -> list[Reservation]:
    count = draw(st.integers(1, 25))
    made = []
    for _ in range(count):
        start = draw(st.integers(0, 80))
        offset, size = draw(st.integers(0, 300)), draw(st.integers(0, 80))
        made.append(Reservation(offset, size, start, start + draw(st.integers(0, 40))))
    return made


@settings(deadline=None)
@given(workloads(), reservations(), st.sampled_from([1, 4, 32]), POLICIES)
def test_automatic_tiles_avoid_explicit_ones(requests, reserved, align, policy) -> None:
    result = plan(requests, capacity=512, align=align, policy=policy, reserved=reserved)
    if isinstance(result, Plan):
        check(requests, result, capacity=512, align=align, reserved=reserved)
    else:
        check_account(requests, result, align=align, reserved=reserved)


@settings(deadline=None)
@given(workloads(), reservations())
def test_largest_first_keeps_the_same_promises(requests, reserved) -> None:
    occupied = Occupied()
    for r in reserved:
        if r.size:
            occupied.add(r.offset, r.offset + r.size, r.start, r.end)
    rules = placement.Rules(capacity=900, align=4, bank=None)
    offsets = placement.place_by_size(requests, rules, occupied)
    if offsets is not None:
        check(requests, Plan(offsets, 0, 900, "by_size"), capacity=900, align=4, reserved=reserved)


def test_reserved_addresses_are_free_before_and_after() -> None:
    reserved = [Reservation(0, 64, 10, 20)]
    early, late, across = Request(64, 0, 9), Request(64, 21, 30), Request(64, 5, 25)
    assert plan([early, late], capacity=64, reserved=reserved).offsets == [0, 0]
    result = plan([across], capacity=64, reserved=reserved)
    assert isinstance(result, Overflow)
    assert result.reservations == (0,)
    assert (result.reserved_bytes, result.missing) == (64, 64)


def test_aliasing_reservations_count_once() -> None:
    reserved = [Reservation(0, 48, 0, 9), Reservation(16, 48, 0, 9), Reservation(0, 48, 2, 3)]
    result = plan([Request(80, 0, 9)], capacity=128, reserved=reserved)
    assert isinstance(result, Overflow)
    assert result.reserved_bytes == 64
    assert result.missing == 16


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 50), st.integers(0, 90), st.integers(0, 70))))
def test_occupied_finds_what_a_full_search_finds(entries) -> None:
    occupied = Occupied()
    for low, size, start, life in entries:
        occupied.add(low, low + size, start, start + life)
    for start, end in ((0, 200), (17, 17), (30, 45), (90, 91)):
        expected = {
            byte
            for low, size, begins, life in entries
            if begins <= end and begins + life >= start
            for byte in range(low, low + size)
        }
        found = occupied.during(start, end)
        assert {byte for low, high in found for byte in range(low, high)} == expected
        assert all(a[1] < b[0] for a, b in zip(found, found[1:]))


# --- overflow is declared only when it must be, and says what is in the way


def check_account(requests, result: Overflow, *, align=1, bank=None, reserved=()) -> None:
    failed = requests[result.index]
    rules = placement.Rules(result.capacity, align, bank)
    live = [requests[i] for i in result.live]
    assert result.index not in result.live
    assert all(r.start <= failed.start <= r.end for r in live)
    earlier = [r for i, r in enumerate(requests) if (r.start, i) < (failed.start, result.index)]
    assert len(live) == sum(r.end >= failed.start for r in earlier)
    assert result.live_bytes == sum(rules.rounded(r.size) for r in live)
    assert {i for i, r in enumerate(reserved) if r.size and alive_together(r, failed)} == set(
        result.reservations
    )
    assert result.missing > 0
    if not result.fragmented and not reserved and bank is None:
        usable = result.capacity // align * align
        assert result.missing == result.live_bytes + rules.rounded(failed.size) - usable


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), POLICIES, st.data())
def test_equal_sizes_never_overflow_below_capacity(slots, size, policy, data) -> None:
    """Tiles of one size cannot fragment a memory: they fit whenever their number does."""
    requests, now, live = [], 0, []
    for _ in range(data.draw(st.integers(1, 60))):
        now += 1
        live = [end for end in live if end >= now]
        if len(live) < slots:
            live.append(now + data.draw(st.integers(0, 12)))
            requests.append(Request(size, now, live[-1]))
    result = plan(requests, capacity=slots * size, policy=policy)
    assert isinstance(result, Plan)
    check(requests, result, capacity=slots * size)


def test_overflow_by_sheer_size() -> None:
    requests = [Request(100, 0, 9), Request(30, 1, 1), Request(60, 2, 9), Request(50, 3, 9)]
    result = plan(requests, capacity=160)
    assert isinstance(result, Overflow)
    assert (result.index, result.live, result.live_bytes) == (3, (0, 2), 160)
    assert (result.missing, result.peak, result.capacity, result.fragmented) == (50, 210, 160, False)


def test_largest_first_rescues_a_program_that_sweeps_fragment() -> None:
    """A short-lived tile below a long-lived one leaves two holes that the last tile needs as one."""
    requests = [Request(32, 0, 1), Request(32, 0, 9), Request(64, 2, 9)]
    for policy in ("spread", "reuse", "tight"):
        sweep = placement.Sweep(requests, placement.Rules(96, 1, None), None, policy)
        assert sweep.run() == 2
    result = plan(requests, capacity=96)
    assert isinstance(result, Plan)
    assert result.policy == "by_size"
    check(requests, result, capacity=96)


def test_fragmentation_says_by_how_much_the_largest_piece_is_short() -> None:
    requests = [Request(16, t, 20) for t in range(1, 4)]
    reserved = [Reservation(32, 16, 0, 30)]  # cuts 64 + 16 bytes into 32 and 32
    result = plan([*requests, Request(32, 5, 20)], capacity=80, reserved=reserved)
    assert isinstance(result, Overflow)
    assert not result.fragmented and result.missing == 16
    result = plan([Request(48, 5, 20)], capacity=80, reserved=reserved)
    assert isinstance(result, Overflow)
    assert result.fragmented and result.missing == 16


def test_a_bank_cannot_be_shared_by_tiles_that_do_not_fit_it_together() -> None:
    requests = [Request(1200, 0, 9), Request(1200, 1, 9), Request(1200, 2, 9)]
    result = plan(requests, capacity=2 * 2048, align=4, bank=2048)
    assert isinstance(result, Overflow)
    assert (result.index, result.fragmented) == (2, True)
    assert result.missing == 1200 - (2048 - 1200)


# --- policies


def test_spread_goes_round_the_ring() -> None:
    """Tiles that die at once still get different storage until the memory has been round once."""
    requests = [Request(16, t, t) for t in range(20)]
    assert plan(requests, capacity=64).offsets == [0, 16, 32, 48] * 5


def test_spread_passes_over_long_lived_tiles() -> None:
    requests = [Request(16, 0, 0), Request(16, 1, 99), *(Request(16, t, t) for t in range(2, 10))]
    assert plan(requests, capacity=64).offsets == [0, 16, 32, 48, 0, 32, 48, 0, 32, 48]


def test_spread_rotates_psum_banks() -> None:
    requests = [Request(512, t, t) for t in range(10)]
    banks = [offset // 2048 for offset in plan(requests, capacity=8 * 2048, align=4, bank=2048).offsets]
    assert banks == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]


def test_spread_fills_banks_once_each_holds_a_tile() -> None:
    requests = [Request(512, t, 99) for t in range(32)]
    result = plan(requests, capacity=8 * 2048, align=4, bank=2048)
    assert isinstance(result, Plan)
    assert sorted(result.offsets) == list(range(0, 8 * 2048, 512))


def test_reuse_takes_the_storage_freed_last() -> None:
    requests = [Request(16, 0, 3), Request(16, 1, 9), Request(16, 2, 5), Request(16, 4, 9), Request(16, 6, 9)]
    result = plan(requests, capacity=None, policy="reuse")
    assert result.offsets == [0, 16, 32, 0, 32]
    assert result.extent == 48


def test_reuse_keeps_one_slot_hot() -> None:
    result = plan([Request(16, t, t) for t in range(50)], capacity=None, policy="reuse")
    assert set(result.offsets) == {0}
    assert result.extent == 16


# --- peak


@settings(deadline=None)
@given(workloads(max_size=5000), st.sampled_from([1, 4]), st.sampled_from([None, 2048]))
def test_peak_is_the_most_crowded_instruction(requests, align, bank) -> None:
    rounded = placement.Rules(1, align, bank).rounded
    expected = max(sum(rounded(r.size) for r in requests if r.start <= t <= r.end) for t in range(300))
    assert peak(requests, align=align, bank=bank) == expected


def test_nothing_to_place() -> None:
    assert peak([]) == 0
    assert plan([], capacity=0) == Plan([], 0, 0, "spread")


# --- cost


@pytest.mark.parametrize("policy", ["spread", "reuse"])
def test_work_per_request_does_not_grow_with_the_program(policy, calls_of) -> None:
    """Holes examined per request, counted: the same for a program ten times as long."""

    def per_request(count: int) -> float:
        requests = [Request(64 << (t * 7 % 5), t, t + t * 13 % 40) for t in range(count)]

        def placed() -> None:
            result = plan(requests, capacity=64 * 1024, align=64, policy=policy)
            assert isinstance(result, Plan) and result.policy == policy

        return calls_of(sweep, ("_fit",), placed) / count

    short, long = per_request(1_000), per_request(10_000)
    assert 1 <= short < 4
    assert long <= 1.1 * short


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_long_programs_are_planned_whole(seed) -> None:
    requests = [Request(64 << ((t * 7 + seed) % 6), t, t + (t * 13 + seed) % 30) for t in range(5_000)]
    result = plan(requests, capacity=1 << 16, align=64)
    assert isinstance(result, Plan)
    assert len(result.offsets) == 5_000
    check(requests[-200:], Plan(result.offsets[-200:], 0, 1 << 16, ""), capacity=1 << 16, align=64)


# --- malformed arguments


@pytest.mark.parametrize(
    ("requests", "options"),
    [
        ([(-1, 0, 0)], {}),
        ([(1, 5, 4)], {}),
        ([], {"align": 0}),
        ([], {"bank": 30, "align": 4}),
        ([], {"policy": "first"}),
        ([], {"capacity": None}),
        ([], {"reserved": [(-4, 4, 0, 0)]}),
        ([], {"reserved": [(0, 4, 1, 0)]}),
    ],
)
def test_malformed_arguments_are_refused(requests, options) -> None:
    with pytest.raises(ValueError):
        plan(requests, **{"capacity": 64, **options})
