"""The process that decodes uploads: `python -m unispeech.serving.decoding_process`.

Audio decoders are written in C and read what strangers send. Here a crash, an endless loop or a flood of
memory costs one upload and not the server. A request is a line of JSON on standard input (`audio`,
`samples`, `max_seconds`), the answer one on standard output: `num_samples`, or `error` and `is_long`. Samples
are written to the file named `samples`, float32 at 16 kHz, mono.
"""

import json
import resource
import sys
from pathlib import Path

from unispeech.audio import audio_info, read_blocks
from unispeech.frames import SAMPLE_RATE, Seconds

MEMORY = 4 * 2**30
"""Most bytes of address space; decoding takes some hundred megabytes."""


def decode(audio: Path, samples: Path, max_seconds: Seconds) -> dict[str, object]:
    """Decode one upload.

    Args:
        audio: The upload.
        samples: File to write.
        max_seconds: Longest recording that is taken.

    Returns:
        The answer.
    """
    too_long = {"is_long": True, "error": f"must last at most {max_seconds:g} s"}
    try:
        # Headers may lie, and some files state no length: the samples are counted too.
        duration = audio_info(audio).duration
        if duration > max_seconds + 0.1:
            return {
                **too_long,
                "error": f"{too_long['error']}, but lasts {duration:.1f} s; send parts of it.",
            }
        num_samples = 0
        with samples.open("wb") as file:
            for block in read_blocks(audio):
                num_samples += len(block)
                if num_samples > (max_seconds + 0.1) * SAMPLE_RATE:
                    return {**too_long, "error": f"{too_long['error']}, but lasts longer; send parts of it."}
                file.write(block.tobytes())
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        message = str(error).removeprefix(f"{audio}: ").replace(str(audio), "the file")
        return {"is_long": False, "error": message or f"cannot be decoded ({type(error).__name__})."}
    return {"num_samples": num_samples}


def main() -> None:
    """Answer requests until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        answer = decode(Path(request["audio"]), Path(request["samples"]), request["max_seconds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
