#!/usr/bin/env python3
"""publish.py: puts the figures of bench/results.json into README.md (a selection) and docs/performance.md
(all of them), between the lines <!-- figures --> and <!-- /figures -->."""
import json
import os
import sys

sys.dont_write_bytecode = True
import table  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BEGIN, END = '<!-- figures -->', '<!-- /figures -->'


def publish(name, text):
    path = os.path.join(ROOT, name)
    with open(path) as file:
        old = file.read()
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f'publish.py: {name} has no {BEGIN} ... {END}')
    with open(path, 'w') as file:
        file.write(head + begin + '\n' + text + end + tail)


def main():
    with open(os.path.join(ROOT, 'bench/results.json')) as file:
        results = json.load(file)
    about = '\n' + table.machine(results) + '\n'
    publish('README.md', table.markdown(results, True) + about)
    publish('docs/performance.md', table.markdown(results, False) + about)


main()
