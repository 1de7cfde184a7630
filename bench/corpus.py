"""corpus.py: real documents for measuring: the pages of software documentation, each with its title.

BENCH_DOCS=DIR: NAME.base.jsonl.gz, one line {"doc","title","text"} a piece of a page, in order. Without
it: the HTML pages that Debian's packages sqlite3-doc and postgresql-doc-15 install."""
import gzip
import html
import json
import os
import re

from common import QUICK

PACKAGES = {'sqlite': '/usr/share/doc/sqlite3', 'postgres': '/usr/share/doc/postgresql-doc-15/html'}


def _pieces(path):
    with gzip.open(path, 'rt') as file:
        for line in file:
            row = json.loads(line)
            yield row['doc'], row['title'], row['text']


def _pages_of_html(directory):
    for name in sorted(os.listdir(directory)):
        if not name.endswith('.html'):
            continue
        with open(os.path.join(directory, name), encoding='utf-8', errors='replace') as file:
            source = file.read()
        title = re.search(r'<title>(.*?)</title>', source, re.S | re.I)
        body = re.sub(r'(?is)<(script|style|svg|head)\b.*?</\1>', ' ', source)
        for piece in re.split(r'(?i)</?(?:p|li|pre|table|h\d|div)\b[^>]*>', body):
            text = ' '.join(html.unescape(re.sub(r'<[^>]*>', ' ', piece)).split())
            if len(text) >= 80:
                yield name, ' '.join(html.unescape(title[1]).split()) or name if title else name, text


def _sources():
    directory = os.environ.get('BENCH_DOCS')
    if directory:
        names = sorted(name[:-len('.base.jsonl.gz')] for name in os.listdir(directory)
                       if name.endswith('.base.jsonl.gz'))
        return {name: _pieces(os.path.join(directory, f'{name}.base.jsonl.gz')) for name in names}
    return {name: _pages_of_html(path) for name, path in PACKAGES.items() if os.path.isdir(path)}


def load():
    """{corpus: [{"id","title","text"}, ...]}: a document a page."""
    found = {}
    for name, pieces in _sources().items():
        pages = {}
        for doc, title, text in pieces:
            page = pages.setdefault(doc, {'id': doc.replace('/', '~'), 'title': title or doc, 'pieces': []})
            page['pieces'].append(text)
        documents = [{'id': page['id'], 'title': page['title'], 'text': '\n\n'.join(page['pieces'])}
                     for page in pages.values()]
        found[name] = documents[:60] if QUICK else documents
    if not found:
        raise RuntimeError('no documentation to measure with: see bench/corpus.py')
    return found
