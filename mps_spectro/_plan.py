"""How a transform of n_fft samples is cut into radix passes, threads and groups. Pure Python, no device.

Three kinds (shaders/fft.h): `radix` has every size compiled in; `mixed` takes, at run time, any length with factors
2 .. 13 and one larger prime; `bluestein` takes any other length at run time, as a convolution of a power of two. One
frame of even length is one complex transform of half the length; two frames of odd length share one of the full length
(`pair`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

MAX_THREADS = 1024
MAX_MEMORY = 32768
MAX_POINTS = 4096
ELEMENTS = 16  # complex values a thread holds in registers
SIMD_WIDTH = 32
_MIXED_RADICES = (13, 11, 7, 5, 3, 8, 4, 2)
# One larger prime factor is cheaper as a plain sum than as a convolution up to about here; it takes a second buffer.
LARGEST_PRIME = 127
PRIME_TILE = 5  # pairs of results that a thread sums together, as in shaders/fft.h
_MOST_ABREAST = 16
_SLOT_SKEW = 5
_PRIMES = tuple(n for n in range(17, LARGEST_PRIME + 1) if all(n % d for d in range(2, 12)))
_COMPLEX_BYTES = 8

# Complex lengths whose pass structure is compiled in: what speech, music and vocoder projects use. Powers of two with a
# last radix of 8, and lengths with one of 10, are `mirrored`: bins k and length - k meet in one thread.
_RADIX_PASSES = {
    8: (8,),
    10: (5, 2),
    16: (4, 4),
    32: (8, 4),
    64: (8, 8),
    128: (16, 8),
    160: (8, 5, 4),
    200: (20, 10),
    256: (4, 8, 8),
    320: (8, 8, 5),
    480: (8, 5, 4, 3),
    512: (8, 8, 8),
    640: (16, 8, 5),
    960: (8, 8, 5, 3),
    1024: (16, 8, 8),
    2048: (16, 16, 8),
    3072: (16, 8, 8, 3),
    3840: (16, 16, 5, 3),
    4096: (8, 8, 8, 8),
}
# Convolution lengths of the chirp transform; first and last radix agree, so its product needs no exchange.
_BLUESTEIN_PASSES = {
    512: (8, 8, 8),
    1024: (8, 16, 8),
    2048: (16, 8, 16),
    4096: (16, 16, 16),
    8192: (8, 16, 8, 8),
}


@dataclass(frozen=True)
class Plan:
    """One way to run a transform; `defines` specialise the shader, the rest are its run-time arguments."""

    kind: str
    n_fft: int
    pair: bool
    points: int  # complex transform length
    fft_points: int  # length the passes work on: points, or the convolution's
    radices: tuple[int, ...]  # of the passes in order; `mixed` may begin with a prime above 13
    threads: int  # per frame
    slots: int  # frames (pairs) in a group at a time
    group: int  # threads in a group
    exchange: int  # float2 of threadgroup memory
    mirrored: int  # radix of the pass that pairs bins k and points - k in one thread, 0 where none does
    resident: int  # groups that should fit a multiprocessor, a bound on registers where a compiler takes one
    defines: tuple[tuple[str, int], ...]
    abreast: int = 0  # frames of one item that a group transforms at a time, see `abreast`

    @property
    def memory(self) -> int:
        """Bytes of threadgroup memory."""
        return self.exchange * _COMPLEX_BYTES

    @property
    def slot_stride(self) -> int:
        """float2 of threadgroup memory of a frame, SLOT_STRIDE of shaders/slots.h."""
        defines = dict(self.defines)
        return self.points * (defines["PING_PONG"] + 1) if self.kind == "mixed" else defines["SLOT_SIZE"]

    @property
    def prime(self) -> int:
        """The radix above 13 that the first pass of a mixed plan has, or 0."""
        return self.radices[0] if self.kind == "mixed" and self.radices and self.radices[0] > 13 else 0

    @property
    def frames_per_unit(self) -> int:
        return 2 if self.pair else 1


def factor(n: int) -> tuple[int, ...] | None:
    """Radices of the mixed kind whose product is n, one prime up to LARGEST_PRIME and then odd ones first, or None."""
    radices = [prime for prime in _PRIMES if n % prime == 0]
    if len(radices) > 1 or (radices and 2 * n > MAX_POINTS):
        return None
    n //= radices[0] if radices else 1
    for radix in _MIXED_RADICES:
        while n % radix == 0:
            radices.append(radix)
            n //= radix
    return tuple(radices) if n == 1 else None


def supported(n_fft: int) -> bool:
    """Whether the kernels cover this n_fft: even up to 8192, odd up to 4095."""
    return 1 <= n_fft <= 2 * MAX_POINTS and (n_fft % 2 == 0 or n_fft <= MAX_POINTS)


def _threads_for(points: int, radices: tuple[int, ...]) -> int:
    """The fewest threads that hold a transform with at most ELEMENTS values each."""
    return max([1, *(-(-(points // r) // (ELEMENTS // r)) for r in radices if r <= ELEMENTS)])


def _round_threads(threads: int) -> int:
    """To a divisor of a simdgroup or to whole simdgroups."""
    if threads <= SIMD_WIDTH:
        return 1 << (threads - 1).bit_length()
    return -(-threads // SIMD_WIDTH) * SIMD_WIDTH


def _ring(n_fft: int, threads: int) -> int:
    return -(-n_fft // threads)


def _together(frames: int) -> int:
    """Frames of a group whose bands a thread sums at a time."""
    return next(count for count in (4, 2, 1) if frames % count == 0)


def _resident_threads(op: str, group: int) -> int:
    """Threads that a multiprocessor should hold, tuned on an H200.

    Synthesis keeps its ring in registers, and with more threads they spill; bands takes more than it gains from.
    """
    if op in ("bands", "gains"):
        return 896
    return 384 if group <= 128 else 512 if op == "synthesis" else 768


def _static_plan(
    kind: str, op: str, n_fft: int, pair: bool, points: int, fft_points: int, radices: tuple[int, ...]
) -> Plan:
    power_of_two = points & (points - 1) == 0
    threads = _round_threads(_threads_for(fft_points, radices))
    mirrored = 0
    if kind == "radix" and len(radices) > 1 and (power_of_two and radices[-1] == 8 or radices[-1] == 10):
        mirrored = radices[-1]
        threads = points // mirrored // 2
    if op == "synthesis":
        radices = radices[::-1]
    split = fft_points > MAX_POINTS
    spread = fft_points + fft_points // 8
    swizzle = not split and spread * _COMPLEX_BYTES <= MAX_MEMORY
    slot_size = fft_points // 2 if split else spread if swizzle else fft_points
    # slots are whole in their simdgroup
    simd_slots = SIMD_WIDTH // threads if threads < SIMD_WIDTH and SIMD_WIDTH % threads else 0
    slots = max(1, min(128 // threads, 20480 // (slot_size * _COMPLEX_BYTES)))
    if simd_slots:
        slots = 4 * simd_slots
    if op == "synthesis" and threads > SIMD_WIDTH:
        slots = 1  # slots that share a barrier would have to meet the edges of their rows together
    group = slots // simd_slots * SIMD_WIDTH if simd_slots else slots * threads
    resident = max(1, _resident_threads(op, group) // group)
    per_thread = max(-(-(fft_points // r) // threads) * r for r in radices)
    # a run-time length must fit every length of its size class
    longest = n_fft if kind == "radix" else (fft_points + 1) // 2 * (1 if pair else 2)
    defines = {
        f"KIND_{kind.upper()}": 1,
        "PAIR": int(pair),
        "POINTS": fft_points,
        "PASSES": len(radices),
        **{f"RADIX_{i}": r for i, r in enumerate(radices)},
        "THREADS": threads,
        "SLOTS": slots,
        "GROUP": group,
        "ELEMENTS": per_thread,
        "EXCHANGE": slot_size * slots,
        "SLOT_SIZE": slot_size,
        "SWIZZLE": int(swizzle),
        "SPLIT": int(split),
        "PING_PONG": 0,
        "SIMD_BARRIER": int(simd_slots > 0 or SIMD_WIDTH % threads == 0),
        "SIMD_SLOTS": simd_slots,
        "RING": _ring(longest, threads),
        "MIRRORED": mirrored,
        "TOGETHER": _together(slots * (1 + pair)),
        "RESIDENT": resident,
    }
    return Plan(
        kind=kind,
        n_fft=n_fft,
        pair=pair,
        points=points,
        fft_points=fft_points,
        radices=radices,
        threads=threads,
        slots=slots,
        group=group,
        exchange=slot_size * slots,
        mirrored=mirrored,
        resident=resident,
        defines=tuple(defines.items()),
    )


# Size classes of even lengths that the threads of a simdgroup or two transform by themselves, without waiting for other
# frames: longest complex length, float2 of threadgroup memory, threads per frame, frames per group, groups that should
# fit a multiprocessor.
_SMALL_MIXED = ((320, 1280, 32, 2, 14), (512, 2048, 32, 2, 14), (640, 1280, 64, 1, 12))


def _mixed_plan(op: str, n_fft: int, pair: bool, points: int, radices: tuple[int, ...]) -> Plan:
    small = next((sizes for sizes in _SMALL_MIXED if points <= sizes[0] and not pair), None)
    if small is not None:
        longest, exchange, threads, slots, resident = small
        ping_pong, group = True, slots * threads
        if op == "synthesis":
            resident = 512 // group  # its ring is in registers
        ring = 2 * longest // threads
    elif 2 * points <= MAX_POINTS:
        ping_pong, group, exchange = True, *((128, 2048) if points <= 1024 else (256, MAX_POINTS))
        fewest = -(-points // (ELEMENTS // 2))
        slots = min(exchange // (2 * points), group // fewest)
        threads = group // slots
        resident = 768 // group
        ring = ELEMENTS // 2 * (1 if pair else 2)
    else:
        ping_pong, group, exchange, slots, threads = False, 384, MAX_POINTS, 1, 384
        resident = 1
        ring = 11 * (1 if pair else 2)
    defines = {
        "KIND_MIXED": 1,
        "PAIR": int(pair),
        "GROUP": group,
        "EXCHANGE": exchange,
        "SWIZZLE": 0,
        "SPLIT": 0,
        "SIMD_BARRIER": int(small is not None and SIMD_WIDTH % threads == 0),
        "PING_PONG": int(ping_pong),
        "SIMD_SLOTS": 0,
        "RING": ring,
        "MIRRORED": 0,
        "TOGETHER": _together(slots if small is not None else 1 + pair),
        "RESIDENT": resident,
    }
    return Plan(
        kind="mixed",
        n_fft=n_fft,
        pair=pair,
        points=points,
        fft_points=points,
        radices=radices,
        threads=threads,
        slots=slots,
        group=group,
        exchange=exchange,
        mirrored=0,
        resident=resident,
        defines=tuple(defines.items()),
    )


def segments(plan: Plan, hop_length: int) -> int:
    """Rows of the last pass in a hop where the synthesis ring can stay in the registers that compute it, else 0."""
    if not plan.mirrored or hop_length > plan.n_fft or hop_length * plan.radices[-1] % plan.n_fft:
        return 0
    return hop_length * plan.radices[-1] // plan.n_fft


@functools.lru_cache(maxsize=64)
def abreast(plan: Plan, frames_contiguous: bool) -> Plan | None:
    """The plan of a synthesis whose slots work on one item together, or None where few frames would fit.

    `frames_contiguous`: frames lie side by side, and are fetched together, which takes more registers.
    """
    # the slots lie an odd number of pairs of memory banks apart
    slot_size = dict(plan.defines)["SLOT_SIZE"] + _SLOT_SKEW
    frames = min(_MOST_ABREAST, MAX_MEMORY // (slot_size * _COMPLEX_BYTES))
    if not plan.mirrored or frames < 3 or dict(plan.defines)["SIMD_SLOTS"]:
        return None
    group = frames * plan.threads
    # threads that a multiprocessor should hold, tuned on an H200
    most = (896 if plan.threads < SIMD_WIDTH else 672) - (224 if frames_contiguous else 0)
    resident = max(1, most // group)
    changed = {
        "SLOTS": frames,
        "ABREAST": frames,
        "STAGED": int(frames_contiguous),
        "GROUP": group,
        "SLOT_SIZE": slot_size,
        "EXCHANGE": frames * slot_size,
        "RESIDENT": resident,
    }
    return replace(
        plan,
        slots=frames,
        group=group,
        exchange=frames * slot_size,
        resident=resident,
        defines=tuple({**dict(plan.defines), **changed}.items()),
        abreast=frames,
    )


@functools.lru_cache(maxsize=512)
def make_plan(n_fft: int, op: str = "analysis", run_time_size: bool = False) -> Plan:
    """The plan for n_fft.

    Args:
        n_fft: transform length in samples.
        op: "analysis", "synthesis", "bands" or "gains".
        run_time_size: take only kernels that are shared by many sizes, for callers that sweep n_fft.

    Raises:
        ValueError: a length the kernels do not cover.
    """
    if not supported(n_fft):
        raise ValueError(f"no kernel for n_fft={n_fft}: even lengths up to 8192 and odd ones up to 4095 have one")
    pair = n_fft % 2 == 1
    points = n_fft if pair else n_fft // 2
    if not pair and not run_time_size and points in _RADIX_PASSES:
        plan = _static_plan("radix", op, n_fft, pair, points, points, _RADIX_PASSES[points])
    else:
        radices = factor(points)
        if radices is not None:
            plan = _mixed_plan(op, n_fft, pair, points, radices)
        else:
            length = next(length for length in _BLUESTEIN_PASSES if length >= 2 * points - 1)
            plan = _static_plan("bluestein", op, n_fft, pair, points, length, _BLUESTEIN_PASSES[length])
    if plan.memory > MAX_MEMORY or plan.group > MAX_THREADS or plan.slots < 1:
        raise AssertionError(f"plan beyond the limits of a threadgroup: {plan}")
    return plan
