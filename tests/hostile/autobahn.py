"""Makes a table of the Autobahn suite's verdicts, and puts it into a README between two marks. Called by `autobahn`.
Never changes a verdict: exit code 1 when a case failed, or when there was none."""

import json
import re
import sys
from itertools import groupby

BEGIN, END = "<!-- autobahn: written by tests/hostile/autobahn -->", "<!-- autobahn: end -->"
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
ABOUT = {
    "1": "text and binary messages of all lengths",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "reserved opcodes",
    "5": "fragments",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits and speed: messages of up to 16 MiB",
    "10": "fragments by the sender's own choice",
}


def number(case):
    return [int(part) for part in case.split(".")]


def section(case):
    return case.rsplit(".", 1)[0] if case.count(".") > 1 else case.split(".")[0]


def spans(cases):
    """`5.1 5.2 5.3` as `5.1–5.3`."""
    runs = []
    for case in cases:
        if runs and number(case)[:-1] == number(runs[-1][1])[:-1] and number(case)[-1] == number(runs[-1][1])[-1] + 1:
            runs[-1][1] = case
        else:
            runs.append([case, case])
    return ", ".join(first if first == last else f"{first}–{last}" for first, last in runs)


def main():
    report, version, *readme = sys.argv[1:]
    with open(report, encoding="utf-8") as file:
        (results,) = json.load(file).values()
    verdicts = {
        case: (result["behavior"], result["behaviorClose"]) for case, result in sorted(results.items(), key=lambda r: number(r[0]))
    }
    bad = {case: verdict for case, verdict in verdicts.items() if not set(verdict) <= GOOD}
    rows = [
        f"`autobahntestsuite` {version} itself ran (`wstest --mode fuzzingclient`), not cases of our own: {len(verdicts)} cases, "
        f"{len(bad)} failed. The first verdict is on what was said, the second on how the connection closed.",
        "",
        "| section | cases | said | closed |",
        "| --- | --- | --- | --- |",
    ]
    for name, group in groupby(verdicts, key=section):
        by_verdict = {}
        for case in group:
            by_verdict.setdefault(verdicts[case], []).append(case)
        for (said, closed), cases in by_verdict.items():
            about = ABOUT.get(name.split(".")[0], "")
            rows.append(f"| {name} {about} | {spans(cases)} | {said} | {closed} |")
    table = "\n".join(rows)
    print(table)
    for path in readme:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
        text, count = pattern.subn(lambda _: f"{BEGIN}\n\n{table}\n\n{END}", text)
        assert count == 1, f"{path} has no place for the table"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return 1 if bad or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
