"""What is measured: sections, configurations, and the figures one H200 is expected to reach."""

from __future__ import annotations

from dataclasses import dataclass

TRANSFORMS = ("stft", "istft", "stft-backward", "istft-backward", "round-trip-backward")
SECTIONS = (*TRANSFORMS, "separator", "frontends", "features", "cqt")
TITLES = {
    "stft": "stft",
    "istft": "istft",
    "stft-backward": "stft, forward and backward",
    "istft-backward": "istft, forward and backward",
    "round-trip-backward": "stft and istft, forward and backward",
    "separator": "Separators: stereo at 44.1 kHz, 195 s and 267 s",
    "frontends": "Front ends: from the signal to scaled bands",
    "features": "Features: six spectral descriptors of one spectrum",
    "cqt": "Hybrid constant-Q transform",
    "recording": "The recording",
}


@dataclass(frozen=True)
class Target:
    """Least ratio to torch (of "gpu" or "wall" time) and least share of the device's elementwise bandwidth."""

    ratio: float
    share: float | None = None
    clock: str = "gpu"


@dataclass(frozen=True)
class Case:
    """One row. `work` is what runs; `layout` is how the spectrum given to istft lies in memory.

    `layout` "frames" has the bins of a frame adjacent, as torch.stft returns them; "bins" is contiguous. `bands` is
    how many values a front end gives for each frame, 0 for a spectrum. `n_fft` 0 stands for several sizes.
    """

    section: str
    work: str
    batch: int
    length: int
    n_fft: int
    hop: int
    layout: str = "frames"
    note: str = ""
    target: Target | None = None
    quick: bool = False
    bands: int = 0

    @property
    def name(self) -> str:
        """Stable: baselines are compared by it."""
        parts = [f"{self.section}/{self.work}" if self.section != self.work else self.section]
        parts.append(f"B{self.batch} T{self.length} {sizes(self.n_fft, self.hop, self.bands)}")
        parts += ["bins-major"] if self.layout == "bins" else []
        return " ".join(parts)

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def frames(self) -> int:
        return 1 + (self.length + 2 * (self.n_fft // 2) - self.n_fft) // self.hop

    @property
    def signal_bytes(self) -> int:
        return 4 * self.batch * self.length

    @property
    def spectrum_bytes(self) -> int:
        return 8 * self.batch * self.bins * self.frames

    @property
    def floor_bytes(self) -> int:
        """What any implementation must move: signal and spectrum (or bands) once for each transform in the work."""
        bands = 4 * self.batch * self.bands * self.frames
        return (self.signal_bytes + (bands or self.spectrum_bytes)) * transforms(self.work)


def sizes(n_fft: int, hop: int, bands: int) -> str:
    """In a row's name and label."""
    return f"{n_fft}/{hop}" if n_fft else f"{bands} bands/{hop}"


def transforms(work: str) -> int:
    """Transforms in one call: a backward pass is one too."""
    return 4 if work == "round-trip-backward" else 2 if work.endswith("backward") else 1


_16K, _160K, _480K, _1M3, _11M8 = 16_000, 160_000, 480_000, 1_300_000, 11_800_000

# batch, length, n_fft, hop; a target makes a row one of the quick ones
_Row = tuple[int, int, int, int, "Target | None"]
_STFT: tuple[_Row, ...] = (
    (1, _16K, 512, 128, Target(1.0, clock="wall")),
    (1, _16K, 1024, 256, Target(1.0, clock="wall")),
    (4, _160K, 1024, 256, None),
    (4, _160K, 2048, 512, None),
    (8, _160K, 1024, 256, None),
    (8, _480K, 1024, 256, None),
    (4, _1M3, 1024, 256, None),
    (32, _1M3, 512, 128, Target(4.0, 0.75)),
    (32, _1M3, 1024, 256, Target(3.5, 0.75)),
    (32, _1M3, 2048, 512, Target(3.0, 0.65)),
    (32, _1M3, 4096, 1024, Target(2.8, 0.60)),
    (32, _1M3, 8192, 2048, None),
    (32, _480K, 256, 64, None),
    (32, _480K, 400, 160, Target(3.0)),
    (32, _480K, 20, 5, Target(3.0)),
    (32, _480K, 321, 160, Target(2.0)),
    (32, _480K, 1218, 160, Target(2.0)),
    (32, _480K, 7680, 1024, Target(2.0)),
    (1, _11M8, 2048, 512, None),
    (8, _11M8, 1024, 256, None),
)
_ISTFT: tuple[_Row, ...] = (
    (1, _16K, 512, 128, Target(2.5, clock="wall")),
    (1, _16K, 1024, 256, Target(2.5, clock="wall")),
    (4, _160K, 1024, 256, Target(12.0, clock="wall")),
    (8, _480K, 1024, 256, None),
    (4, _1M3, 1024, 256, None),
    (32, _1M3, 512, 128, None),
    (32, _1M3, 1024, 256, Target(6.0, 0.65)),
    (32, _1M3, 2048, 512, None),
    (32, _1M3, 4096, 1024, None),
    (32, _480K, 20, 5, None),
    (32, _480K, 321, 160, None),
    (32, _480K, 400, 160, None),
    (32, _480K, 1218, 160, None),
    (32, _480K, 7680, 1024, None),
    (8, _11M8, 1024, 256, None),
)
_BACKWARD = (
    (4, _160K, 1024, 256),
    (8, _480K, 1024, 256),
    (8, _480K, 400, 160),
    (32, _1M3, 1024, 256),
    (32, _1M3, 2048, 512),
)
_BACKWARD_RATIO = {"stft-backward": 4.0, "istft-backward": 6.0, "round-trip-backward": 5.0}
_SEPARATOR = (("MDX, Roformer", 2048, 512), ("Demucs", 4096, 1024))
_SEPARATOR_LENGTHS = (195 * 44_100, 267 * 44_100)
# work, bands, batch, length, n_fft, hop, quick; each forward, and forward and backward
_FrontEnd = tuple[str, int, int, int, int, int, bool]
_FRONT_ENDS: tuple[_FrontEnd, ...] = (
    ("log-mel", 128, 32, _1M3, 1024, 256, True),
    ("log-mel", 128, 32, _1M3, 2048, 512, False),
    ("log-mel", 128, 4, _160K, 1024, 256, False),
    ("log-mel", 128, 1, _16K, 1024, 256, True),
    ("whisper", 80, 32, _480K, 400, 160, True),
    ("whisper", 80, 1, _480K, 400, 160, False),
    ("rmvpe", 128, 1, _160K, 1024, 160, True),
    ("fcpe", 128, 1, _160K, 1024, 160, False),
    ("rmvpe-keyshift-3", 128, 1, _160K, 1218, 160, False),
    ("rmvpe-keyshift-3", 128, 32, _480K, 1218, 160, True),
)
# batch, length, quick; at 22,050 Hz
_FEATURES = ((1, _160K, False), (4, _160K, True), (32, _480K, False))
_CQT = ((1, 5 * 22_050, True), (1, 15 * 22_050, False), (4, 5 * 22_050, False))
# for the shaders on the CPU, which run a thousand times slower than on a GPU
_SMALL = ((1, _16K, 512, 128), (1, _16K, 1024, 256), (1, _16K, 400, 160), (1, 4_000, 20, 5), (1, _16K, 321, 160))
_SMALL_FRONT_ENDS: tuple[_FrontEnd, ...] = (
    ("log-mel", 128, 1, _16K, 1024, 256, True),
    ("whisper", 80, 1, _16K, 400, 160, False),
    ("rmvpe", 128, 1, _16K, 1024, 160, False),
    ("fcpe", 128, 1, _16K, 1024, 160, False),
    ("rmvpe-keyshift-3", 128, 1, 4_000, 1218, 160, False),
)
_SMALL_FEATURES, _SMALL_CQT = ((1, _16K, True),), ((1, 3 * 22_050, True),)


def cases(small: bool = False) -> list[Case]:
    """Every row of a default run; `small`: those that the host runtime can do."""
    if small:
        rows = [Case(work, work, *shape, quick=index == 0) for work in TRANSFORMS for index, shape in enumerate(_SMALL)]
        return rows + _front_ends(_SMALL_FRONT_ENDS) + _features(_SMALL_FEATURES) + _cqt(_SMALL_CQT)
    rows = [
        Case(work, work, *row[:4], target=row[4], quick=row[4] is not None)
        for work, shapes in (("stft", _STFT), ("istft", _ISTFT))
        for row in shapes
    ]
    rows.append(Case("istft", "istft", 32, _1M3, 1024, 256, layout="bins", target=Target(4.0), quick=True))
    rows.append(Case("istft", "istft", 8, _480K, 2048, 512, layout="bins"))
    for work, ratio in _BACKWARD_RATIO.items():
        for shape in _BACKWARD:
            target = Target(ratio) if shape == (8, _480K, 1024, 256) else None
            rows.append(Case(work, work, *shape, target=target, quick=target is not None))
    for note, n_fft, hop in _SEPARATOR:
        for length in _SEPARATOR_LENGTHS:
            for work in ("stft", "istft"):
                rows.append(Case("separator", work, 2, length, n_fft, hop, note=note))
    return rows + _front_ends(_FRONT_ENDS) + _features(_FEATURES) + _cqt(_CQT)


def _front_ends(rows: tuple[_FrontEnd, ...]) -> list[Case]:
    return [
        Case("frontends", work + backward, batch, length, n_fft, hop, quick=quick, bands=bands)
        for work, bands, batch, length, n_fft, hop, quick in rows
        for backward in ("", "-backward")
    ]


_Signals = tuple[tuple[int, int, bool], ...]


def _features(rows: _Signals) -> list[Case]:
    bands = 12 + 1 + 1 + 7 + 20 + 1
    return [Case("features", "bundle", *row[:2], 2048, 512, quick=row[2], bands=bands) for row in rows]


def _cqt(rows: _Signals) -> list[Case]:
    return [Case("cqt", "hybrid-cqt", *row[:2], 0, 512, quick=row[2], bands=288) for row in rows]


def recording_cases(channels: int, length: int) -> list[Case]:
    """Rows for a recording that the user gives."""
    shapes = ((1024, 256), (2048, 512), (4096, 1024))
    return [
        Case("recording", work, channels, length, n_fft, hop)
        for n_fft, hop in shapes
        if length > n_fft
        for work in ("stft", "istft", "round-trip-backward")
    ]
