"""Audio files to tensors and back: `load`, `batch_load`, `stream`, `info`, `save`.

Needs `pip install 'mps-spectro[audio]'`: soundfile (libsndfile) and, to resample, soxr; without them the first call
raises an ImportError that says so. MPEG-4 files go through the programs ffmpeg and ffprobe, where they are on the PATH.

| | load, stream, info | save |
|---|---|---|
| WAV, AIFF, CAF | libsndfile | float32, pcm16, pcm24 |
| FLAC | libsndfile | pcm16, pcm24 |
| MP3 | libsndfile | variable or constant bitrate |
| Ogg Vorbis, Opus and whatever else libsndfile reads | libsndfile | |
| M4A (AAC, ALAC) | ffmpeg | AAC, ALAC of 24 bits |
| AAC without a container, CAF with a codec that libsndfile lacks | ffmpeg | |

The kind of a file is found from what it holds, not from its name; `save` goes by the extension. A file that is damaged,
or shorter than it says, is an `AudioFileError` as far as its format lets that be seen, never a shorter result.
"""

from ._errors import AudioFileError
from ._libraries import backends
from ._open import AudioInfo, info
from ._read import batch_load, load, stream
from ._write import save

__all__ = ["AudioFileError", "AudioInfo", "backends", "batch_load", "info", "load", "save", "stream"]
