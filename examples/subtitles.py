"""Label a long video and write its segments as subtitles.

python examples/subtitles.py 127.0.0.1:8000 examples/scenes.mp4 4 > scenes.srt

The number is the length of a window in seconds: about the length of an action. `blvnet timeline --srt` and
`--vtt` do the same from the command line.
"""

from __future__ import annotations

import sys

from blvnet_client import BlvnetClientError, Client, TimelineResult, WindowResult


def main(server: str, video: str, window_s: str) -> None:
    """Show the progress on the terminal, and print the segments as SRT."""
    with Client(server) as client:
        for line in client.timeline(video, window_s=float(window_s), top_k=1):
            match line:
                case WindowResult():
                    print(f"\r{line.window + 1} of {line.windows} windows", end="", file=sys.stderr)
                case TimelineResult():
                    print(file=sys.stderr)
                    # Neighbouring windows with the same label are one segment.
                    for number, segment in enumerate(line.summary.segments, 1):
                        print(number)
                        print(f"{srt_time(segment.start_s)} --> {srt_time(segment.end_s)}")
                        print(f"{segment.label}\n")


def srt_time(seconds: float) -> str:
    """Format a time for SRT, such as `00:00:04,000`."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BlvnetClientError as error:
        sys.exit(str(error))
