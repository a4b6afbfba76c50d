"""What of the measurement of starting needs no program: `python3 scripts/peer/test_startup.py`."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import startup

ARGS = SimpleNamespace(expo="expo", python="python3", threads=2, rows=1100)


def order(folder: Path) -> dict:
    return {"model": "model", "few": str(folder / "few"), "data": str(folder / "data"), "threads": 2, "prompt": "a"}


class Startup(unittest.TestCase):
    def test_a_rate_of_rows_leaves_out_the_start(self):
        def timed(command, args, variables=None):
            config = Path(command[-1]).read_text()
            self.assertTrue(config.endswith('max_steps = 1\nlogging_steps = 1\nsave_model = false\noverwrite = true\n'))
            return (0.5 if 'few"' in config else 2.5), ""

        with tempfile.TemporaryDirectory() as name, mock.patch.object(startup, "timed", timed):
            folder = Path(name)
            self.assertEqual(startup.of_rows("expo", order(folder), ARGS, folder), 500)

    def test_steps_and_scoring_are_no_start(self):
        with tempfile.TemporaryDirectory() as name, mock.patch.object(startup, "timed", lambda *_: (9.0, "")):
            folder = Path(name)
            (folder / "run").mkdir()
            lines = [{"step": 0, "seconds": 3.0}, {"step": 1, "seconds": 1.5}]
            (folder / "run" / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            self.assertEqual(startup.of_step("expo", order(folder), ARGS, folder), 4.5)

    def test_a_line_is_of_medians(self):
        runs = {"expo": [1.0, 2.0, 9.0], "python": [8.0]}
        self.assertEqual(startup.line("70m", "token", runs), "| 70m | token | s | 2.00 | 8.00 | 4.0 |")
        self.assertEqual(startup.line("70m", "rows", runs), "| 70m | rows | rows/s | 2 | 8 | 0.2 |")
        runs["python"] = []
        self.assertEqual(startup.line("70m", "step", runs), "| 70m | step | s | 2.00 | - | - |")

    def test_there_are_rows_to_measure(self):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            startup.arguments(["--rows", "100"])


if __name__ == "__main__":
    unittest.main()
