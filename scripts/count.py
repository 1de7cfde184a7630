#!/usr/bin/env python3
"""Adds up what the test programs of meson's logs say of themselves, and prints the closing line.

count.py LOG.json...   one log a suite. Each cmocka program and each Node.js program counts its own tests;
any other program is one test. A program that ended badly counts as a failure even when it counted none.
Prints why, for every failure and every skipped test. Exit 1 on any failure."""
import json
import re
import sys

TAIL_LINES = 60


def cmocka(text):
    """(passed, failed, [skipped]) or None: several groups of tests may follow each other."""
    if not re.search(r'^\[==========\] .*test\(s\) run', text, re.M):
        return None
    total = {word: sum(int(n) for n in re.findall(rf'^\[  {word} +\] (\d+) test\(s\)', text, re.M))
             for word in ('PASSED', 'FAILED', 'SKIPPED')}
    names = re.findall(r'^\[  SKIPPED \] (\S+)$', text, re.M)
    names = sorted(set(name for name in names if not name.isdigit()))
    return total['PASSED'], total['FAILED'], names or ['(unnamed)'] * total['SKIPPED']


def tap(text):
    """The TAP of node:test: its own sums at the end count the tests without the suites around them."""
    sums = {word: re.search(rf'^# {word} (\d+)$', text, re.M)
            for word in ('pass', 'fail', 'cancelled', 'skipped')}
    if not all(sums.values()):
        return None
    number = {word: int(match.group(1)) for word, match in sums.items()}
    skipped = re.findall(r'^\s*ok \d+ - (.* # SKIP.*)$', text, re.M)
    return number['pass'], number['fail'] + number['cancelled'], skipped


def why_it_failed(test):
    """The failed tests of a TAP with their reasons, or else the end of what the program said."""
    text = test.get('stdout', '') + '\n' + test.get('stderr', '')
    reasons = re.findall(r'^( *)not ok .*\n((?:\1  .*\n)*)', text, re.M)
    names = re.findall(r'^ *not ok .*$', text, re.M)
    if tap(text) and names:
        return '\n'.join(f'{name}\n{reason}' for name, (_, reason) in zip(names, reasons))
    return '\n'.join(text.strip().split('\n')[-TAIL_LINES:])


def count(test):
    text = test.get('stdout', '') + '\n' + test.get('stderr', '')
    if test['result'] == 'SKIP':
        lines = [line for line in text.strip().split('\n') if line]
        return 0, 0, [lines[-1] if lines else 'no reason given']
    passed, failed, skipped = cmocka(text) or tap(text) or (1, 0, [])
    if test['result'] not in ('OK', 'EXPECTEDFAIL') and failed == 0:
        failed = 1
        passed = passed if passed > 1 else 0
    return passed, failed, skipped


def main(paths):
    passed, failed, skipped = 0, 0, []
    for path in paths:
        with open(path, encoding='utf-8') as log:
            tests = [json.loads(line) for line in log]
        if not tests:
            print(f'{path}: holds no test: that is a failure')
            failed += 1
        for test in tests:
            ok, bad, left = count(test)
            passed, failed = passed + ok, failed + bad
            skipped += [f"{test['name']}: {why}" for why in left]
            if bad:
                print(f"=== FAILED ({test['result']}): {test['name']}")
                print(why_it_failed(test))
    for why in skipped:
        print(f'skipped: {why}')
    print(f'{passed} passed, {failed} failed' + (f', {len(skipped)} skipped' if skipped else ''))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
