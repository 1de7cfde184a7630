#!/usr/bin/env python3
"""The habits of this project that a program can check, on every file that git knows or could know.

    tidy.py [ROOT]      prints FILE:LINE: what, for each; exit 1 when there is any

Sizes of functions, files and lines; functions of C that are not used outside base/; who may include whom;
words that mark unfinished work; paths and hosts of one machine."""
import os
import re
import subprocess
import sys

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
LINE_COLUMNS_MAX = 100

ROOMS = ['base', 'wire', 'agent', 'crypt', 'authz', 'jail', 'store', 'silo', 'vmm', 'runner', 'kms', 'control', 'gateway', 'cell',
         'supervisor', 'prove', 'cli']

# What a room may include although it is not lower.
ROOM_EXCEPTIONS = {
    # the seccomp filters of every role are data of the jail's; each executable closes its own
    ('authz', 'silo'): {'silo/actions.h'},
}

# Functions without a bound, with hidden state, or whose errors cannot be told from results.
BANNED = {
    name: why for names, why in [
        (('strcpy', 'strcat', 'stpcpy', 'strncpy', 'strncat', 'sprintf', 'vsprintf', 'gets'),
         'writes without a bound that can be checked'),
        (('atoi', 'atol', 'atoll', 'atof'), 'cannot tell an error from zero'),
        (('strtok', 'strtok_r'), 'changes what it reads'),
        (('scanf', 'sscanf', 'fscanf'), 'reads without a bound and skips what it does not know'),
        (('rand', 'srand', 'random', 'drand48'), 'is no randomness; see crypt_random'),
        (('system', 'popen'), 'runs a shell'),
        (('tmpnam', 'mktemp', 'tempnam'), 'names a file before it exists'),
        (('alloca',), 'takes the stack without a bound'),
        (('bcmp',), 'see span_equal; for secrets secret_equal'),
    ] for name in names}

# Places where a banned function is right, with the reason.
BANNED_EXCEPTIONS = {
}

SECRET = re.compile(r'\b(memcmp|strcmp|strncmp|bcmp|span_equal|span_is)\s*\(([^;]*)', re.S)
SECRET_NAME = re.compile(r'(?<![a-z])(dek|kek|private_key|secret|mac|hmac)(?![a-z])')

# Put together so that this file does not accuse itself.
UNFINISHED = re.compile(r'\b(' + '|'.join(['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK']) + r')\b')
MACHINE = re.compile(r'(?<![\w.])/(?:' + '|'.join(['ho' + 'me', 'wo' + 'rk', 'Us' + 'ers', 'ro' + 'ot']) + r')/\w')
HOSTS = re.compile('|'.join(['registry\\.npm' + 'js', 'pypi' + '\\.org', 'index\\.crates' + '\\.io',
                             'proxy\\.go' + 'lang', 'docker' + '\\.io', 'gh' + 'cr\\.io', 'arti' + 'factory']))

TEXT_SUFFIXES = ('.c', '.h', '.py', '.sh', '.mjs', '.js', '.md', '.build', '.txt', '.yaml', '.yml', '.json',
                 '.service', '.conf')
TEXT_NAMES = ('Makefile', 'run', 'meson_options.txt', '.clang-tidy', '.gitignore')

complaints = []


def complain(path, line, what):
    complaints.append(f'{path}:{line}: {what}')


def without_comments(text):
    """Comments and the contents of literals become blanks; lines stay where they are."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(match):
        kept = re.sub(r'[^\n]', ' ', match.group())
        return '""' + kept[2:] if match.group().startswith('"') else kept
    return pattern.sub(blank, text)


def functions(code):
    """(name, first line, last line) of each function: in this style a body's braces stand at column 0."""
    lines = code.split('\n')
    for number, line in enumerate(lines, 1):
        if line != '{':
            continue
        first = number - 1
        while first > 1 and lines[first - 2].strip() and not lines[first - 2].rstrip().endswith((';', '}')) \
                and not lines[first - 2].startswith('#'):
            first -= 1
        last = next((n for n in range(number, len(lines) + 1) if lines[n - 1].startswith('}')), len(lines))
        name = re.search(r'(\w+)\s*\(', ' '.join(lines[first - 1:number]))
        yield name.group(1) if name else '?', first, last


def check_sizes(path, text, code):
    lines = text.split('\n')
    if len(lines) - 1 > FILE_LINES_MAX:
        complain(path, len(lines) - 1, f'the file is longer than {FILE_LINES_MAX} lines')
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_COLUMNS_MAX and 'http' not in line:
            complain(path, number, f'{len(line)} columns: at most {LINE_COLUMNS_MAX}')
        if line != line.rstrip():
            complain(path, number, 'blanks at the end of the line')
        if '\t' in line:
            complain(path, number, 'a tab')
    for name, first, last in functions(code):
        if last - first + 1 > FUNCTION_LINES_MAX:
            complain(path, first, f'{name}: {last - first + 1} lines: at most {FUNCTION_LINES_MAX}')


def line_of(code, offset):
    return code.count('\n', 0, offset) + 1


def check_banned(path, code):
    for match in re.finditer(r'(?<![\w.>])(\w+)\s*\(', code):
        name = match.group(1)
        if name in BANNED and name not in BANNED_EXCEPTIONS.get(path, ()):
            complain(path, line_of(code, match.start()), f'{name}: {BANNED[name]}')
    for match in SECRET.finditer(code):
        arguments = match.group(2).split('))')[0]
        if SECRET_NAME.search(arguments):
            complain(path, line_of(code, match.start()),
                     f'{match.group(1)} over a secret takes a time that tells: see secret_equal')


def check_includes(path, text):
    room = path.split('/')[1]
    if room not in ROOMS:
        complain(path, 1, f'{room} is no room of this house; see ROOMS')
        return
    for number, line in enumerate(text.split('\n'), 1):
        match = re.match(r'#include\s+([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quote, name = match.groups()
        if name.startswith('openssl/') and room != 'crypt':
            complain(path, number, 'only src/crypt includes OpenSSL')
        if name == 'sqlite3.h' and room != 'store':
            complain(path, number, 'only src/store includes SQLite')
        if quote == '<':
            continue
        other = name.split('/')[0]
        if '/' not in name or other not in ROOMS:
            complain(path, number, f'"{name}": rooms are included by their path below src/')
        elif ROOMS.index(other) > ROOMS.index(room) and name not in ROOM_EXCEPTIONS.get((room, other), ()):
            complain(path, number, f'{room} stands below {other} and may not include "{name}"')


def check_words(path, text):
    for number, line in enumerate(text.split('\n'), 1):
        if UNFINISHED.search(line):
            complain(path, number, 'unfinished work')
        if MACHINE.search(line):
            complain(path, number, 'a path of one machine')
        if HOSTS.search(line):
            complain(path, number, 'the name of a registry: mirrors are configured outside')


def check(path, text):
    check_words(path, text)
    if path.endswith(('.c', '.h')) and path.startswith(('src/', 'tests/', 'bench/')):
        code = without_comments(text)
        check_sizes(path, text, code)
        if path.startswith('src/'):
            check_includes(path, text)
            if not path.startswith('src/base/'):
                check_banned(path, code)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else '.'
    listed = subprocess.run(['git', '-C', root, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                            check=True, capture_output=True).stdout.decode()
    checked = 0
    for path in sorted(filter(None, listed.split('\0'))):
        whole = os.path.join(root, path)
        if not os.path.isfile(whole) or '/corpus/' in path \
                or not (path.endswith(TEXT_SUFFIXES) or os.path.basename(path) in TEXT_NAMES):
            continue
        with open(whole, encoding='utf-8', errors='replace') as file:
            check(path, file.read())
        checked += 1
    for complaint in complaints:
        print(complaint)
    if checked < 50:
        sys.exit(f'tidy: only {checked} files were found: wrong directory?')
    print(f'tidy: {checked} files, {len(complaints)} complaints')
    sys.exit(1 if complaints else 0)


if __name__ == '__main__':
    main()
