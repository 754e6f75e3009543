"""Builds every test program once and plays them, some side by side: called by tests/run, which installs what they need.

Stories wait for real servers more than they work, so several at a time fill two cores. What judges how quick something is
plays alone. A story that fails beside others is played once more, alone, since a machine that is too busy can starve it:
what holds then is named at the end, for somebody to look at, and does not fail the run, eight stories in all at most.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# How long one program may take, in seconds.
PATIENCE = 1800
# So many stories in all may hold at a second try.
SECOND_TRIES = 8
# Stories at a time, where it is not libtest's own number.
THREADS = {"hearth/it": 4, "hearth/faults": 2, "hearth/hostile": 2}
# Programs that play alone, one after the other, behind all others.
ALONE = ["hearth/scenarios"]
# One lane beside all others.
LONGEST = "hearth/it"

printing = threading.Lock()


class Program:
    """A test program: its package and name, where it is and what it is played with."""

    def __init__(self, name, executable, folder, filters=()):
        self.name, self.executable, self.folder, self.filters = name, executable, folder, list(filters)

    def plays(self, words=()):
        """Plays it to its end; whether all held, and what it said. Its output is printed as a whole."""
        began = time.monotonic()
        threads = [f"--test-threads={THREADS[self.name]}"] if self.name in THREADS and not words else []
        command = [self.executable, *self.filters, *words, *threads]
        with tempfile.TemporaryFile() as output:
            # Without standard input, and what it says in one file, in its order.
            with subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            ) as process:
                try:
                    status = process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    status = f"no end in {PATIENCE} s"
            output.seek(0)
            said = output.read().decode(errors="replace")
        with printing:
            print(f"\n=== {self.name}: {time.monotonic() - began:.0f} s\n{said}", flush=True)
            if status != 0:
                print(f"=== {self.name} failed: {status}", flush=True)
        return status == 0, said

    def failures(self, said):
        """The stories that failed, as libtest names them behind everything else."""
        behind = said.rpartition("\nfailures:\n")[2].partition("\ntest result:")[0]
        return re.findall(r"^    (\S+)$", behind, re.MULTILINE)


def built(*words):
    """Builds test programs."""
    command = ["cargo", "test", "--locked", "--no-run", "--message-format=json-render-diagnostics", *words]
    build = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if build.returncode != 0:
        sys.exit(build.returncode)
    programs = []
    for line in build.stdout.splitlines():
        told = json.loads(line)
        if told["reason"] == "compiler-artifact" and told["profile"]["test"] and told["executable"]:
            folder = Path(told["manifest_path"]).parent
            package = "hearth" if folder == ROOT else folder.name
            kind = "" if told["target"]["kind"] == ["test"] else f" ({told['target']['kind'][0]})"
            programs.append(Program(f"{package}/{told['target']['name']}{kind}", told["executable"], folder))
    return programs


class Run:
    """What has come of it so far."""

    def __init__(self):
        self.failed, self.failures = [], []

    def plays(self, programs):
        """One after the other."""
        for program in programs:
            holds, said = program.plays()
            if holds:
                continue
            failures = program.failures(said)
            if failures:
                self.failures += [(program, failure) for failure in failures]
            else:
                self.failed.append(program.name)

    def beside(self, *lanes):
        """Each lane beside the others."""
        threads = [threading.Thread(target=self.plays, args=(lane,)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def second_tries(self):
        """Plays what failed beside others once more, alone, in the build that it failed in."""
        if len(self.failures) > SECOND_TRIES:
            self.failed += [f"{program.name} {failure}" for program, failure in self.failures]
            self.failures = []
        held = []
        for program, failure in self.failures:
            alone = Program(program.name, program.executable, program.folder, ["--exact", failure])
            holds, _ = alone.plays(["--test-threads=1"])
            (held if holds else self.failed).append(f"{program.name} {failure}")
        self.failures = []
        return held


def main():
    began = time.monotonic()
    run = Run()
    programs = built("--workspace")
    print(f"built: {time.monotonic() - began:.0f} s", flush=True)
    longest = [program for program in programs if program.name == LONGEST]
    alone = [program for program in programs if program.name in ALONE]
    others = [program for program in programs if program not in longest and program not in alone]
    if not longest or len(alone) != len(ALONE):
        sys.exit("tests/play.py: the programs are called otherwise now")
    run.beside(longest, others)
    held = run.second_tries()
    run.plays(alone)

    # Guards turned off one at a time to see a checker fail, and tasks that die or hang: the one extra build, which takes the
    # place of the server that all others play with.
    (guards,) = built("--features", "hearth/sabotage", "--test", "faults")
    guards.filters = ["sabotage::", "vital::"]
    run.plays([guards])
    held += run.second_tries()

    if os.system("cargo test --workspace --locked --doc </dev/null") != 0:
        run.failed.append("the examples in docs")
    print(f"\nall of it: {time.monotonic() - began:.0f} s")
    for story in held:
        print(f"held at its second try only, alone: {story}")
    for name in run.failed:
        print(f"FAILED: {name}")
    sys.exit(1 if run.failed else 0)


main()
