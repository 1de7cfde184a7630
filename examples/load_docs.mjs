// load_docs.mjs: cuts HTML documentation into paragraphs of plain text.
//   node examples/load_docs.mjs DIR [COUNT]      prints the first COUNT as NDJSON
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: ' ', mdash: '—', ndash: '–' };
const PARAGRAPH_MIN = 80, PARAGRAPH_MAX = 8000; // characters

function textOf(html) {
  return html.replace(/<[^>]*>/g, ' ')
    .replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)))
    .replace(/&#x([0-9a-f]+);/gi, (_, code) => String.fromCodePoint(parseInt(code, 16)))
    .replace(/&(\w+);/g, (whole, name) => ENTITIES[name] ?? whole)
    .replace(/\s+/g, ' ').replace(/ ([.,;:!?)])/g, '$1').trim();
}

// The paragraphs of one page: {title, text}, in order.
export function paragraphsOf(html) {
  const title = textOf(/<title>(.*?)<\/title>/is.exec(html)?.[1] ?? '');
  const body = html.replace(/<(script|style|svg|head)\b.*?<\/\1>/gis, ' ');
  return body.split(/<p\b[^>]*>|<\/p>|<\/?li\b[^>]*>|<\/?pre\b[^>]*>|<\/?table\b[^>]*>|<\/?h\d\b[^>]*>|<\/?div\b[^>]*>/i)
    .map(textOf)
    .filter((text) => text.length >= PARAGRAPH_MIN && text.length <= PARAGRAPH_MAX)
    .map((text) => ({ title, text }));
}

// All pages below a directory, in order of their names; a paragraph that several pages repeat is taken once.
export function loadDocs(directory) {
  const seen = new Set(), found = [];
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })
    .sort((one, two) => (one.name < two.name ? -1 : 1))) {
    const file = path.join(directory, entry.name);
    if (entry.isDirectory() || !/\.html$/.test(entry.name)) continue;
    for (const paragraph of paragraphsOf(fs.readFileSync(file, 'utf8'))) {
      if (seen.has(paragraph.text)) continue;
      seen.add(paragraph.text);
      found.push({ ...paragraph, page: entry.name });
    }
  }
  return found;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (!process.argv[2]) {
    console.error('usage: node examples/load_docs.mjs DIR [COUNT]');
    process.exit(2);
  }
  for (const paragraph of loadDocs(process.argv[2]).slice(0, Number(process.argv[3] ?? Infinity)))
    console.log(JSON.stringify(paragraph));
}
