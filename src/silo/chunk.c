#include "silo/chunk.h"

#include "base/buffer.h"

#include <assert.h>

enum border {
    BORDER_NONE, BORDER_WORD, BORDER_SENTENCE, BORDER_PARAGRAPH, BORDER_HEADING, BORDERS
};

enum { TITLE_LOOK_MAX = 256, INDENT_MAX = 3, FENCE_MIN = 3, CONTINUATIONS_MAX = 3 };

static const char separator[] = " > ";

static uint8_t byte_at(struct span text, size_t at)
{
    return at < text.length ? text.data[at] : '\n';
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r' || byte == '\f' ||
           byte == '\v';
}

static size_t skip_indent(struct span text, size_t at)
{
    size_t from = at;
    while (at - from < INDENT_MAX && byte_at(text, at) == ' ')
        at++;
    return at;
}

static size_t count_of(struct span text, size_t at, uint8_t byte, size_t max)
{
    size_t count = 0;
    while (count < max && at + count < text.length && text.data[at + count] == byte)
        count++;
    return count;
}

static bool is_continuation(struct span text, size_t at)
{
    return at < text.length && (text.data[at] & 0xC0) == 0x80;
}

/* Where the code point that at lies in begins; at itself where the text is no UTF-8. */
static size_t to_code_point(struct span text, size_t at)
{
    size_t start = at;
    while (start > 0 && at - start < CONTINUATIONS_MAX && is_continuation(text, start))
        start--;
    return is_continuation(text, start) ? at : start;
}

/* Within TITLE_LOOK_MAX bytes; else the end of the look. */
static size_t line_end(struct span text, size_t at)
{
    size_t end = at;
    while (end < text.length && end - at < TITLE_LOOK_MAX && text.data[end] != '\n')
        end++;
    return to_code_point(text, end);
}

/* Without blanks around it, and closing number signs. */
static struct span trimmed(struct span text, size_t from, size_t to)
{
    while (from < to && is_blank(text.data[from]))
        from++;
    while (to > from && is_blank(text.data[to - 1]))
        to--;
    size_t closing = to;
    while (closing > from && text.data[closing - 1] == '#')
        closing--;
    if (closing == from || is_blank(text.data[closing - 1]))
        to = closing;
    while (to > from && is_blank(text.data[to - 1]))
        to--;
    return (struct span){text.data + from, to - from};
}

/* The level of the ATX heading that this line is; 0: it is none. */
static uint32_t atx_level(struct span *ret_title, struct span text, size_t line)
{
    size_t at = skip_indent(text, line);
    size_t level = count_of(text, at, '#', CHUNK_LEVELS + 1);
    if (level == 0 || level > CHUNK_LEVELS || !is_blank(byte_at(text, at + level)))
        return 0;
    *ret_title = trimmed(text, at + level, line_end(text, at + level));
    return (uint32_t)level;
}

/* The level of the setext heading whose text this line is; 0: it is none. */
static uint32_t setext_level(struct span *ret_title, struct span text, size_t line)
{
    size_t end = line_end(text, line);
    if (end >= text.length || text.data[end] != '\n')
        return 0;
    size_t under = skip_indent(text, end + 1);
    uint8_t byte = byte_at(text, under);
    if (byte != '=' && byte != '-')
        return 0;
    size_t after = under + count_of(text, under, byte, TITLE_LOOK_MAX);
    while (byte_at(text, after) == ' ' || byte_at(text, after) == '\r')
        after++;
    if (byte_at(text, after) != '\n' || after - under > TITLE_LOOK_MAX)
        return 0;
    struct span title = trimmed(text, line, end);
    if (title.length == 0 || title.data[0] == '>' || title.data[0] == '-')
        return 0;
    *ret_title = title;
    return byte == '=' ? 1 : 2;
}

static void note_heading(struct chunk_scanner *scanner, uint32_t level, struct span title)
{
    scanner->headings[level - 1] = title;
    for (uint32_t below = level; below < CHUNK_LEVELS; below++)
        scanner->headings[below] = (struct span){0};
}

/* A line of ``` or ~~~ opens a block of code, in which '#' means nothing, and closes it. */
static bool is_fence(struct chunk_scanner *scanner, size_t line)
{
    size_t at = skip_indent(scanner->text, line);
    uint8_t byte = byte_at(scanner->text, at);
    if ((byte != '`' && byte != '~') || (scanner->fenced && byte != scanner->fence) ||
        count_of(scanner->text, at, byte, FENCE_MIN) < FENCE_MIN)
        return false;
    scanner->fenced = !scanner->fenced;
    scanner->fence = byte;
    return true;
}

/* At the beginning of a line that is not blank. */
static bool begins_heading(struct chunk_scanner *scanner, size_t line)
{
    struct span title;
    if (is_fence(scanner, line) || scanner->fenced)
        return false;
    uint32_t level = atx_level(&title, scanner->text, line);
    if (level == 0 && scanner->blank_before)
        level = setext_level(&title, scanner->text, line);
    if (level == 0)
        return false;
    note_heading(scanner, level, title);
    return true;
}

static bool is_line_blank(struct span text, size_t line)
{
    size_t at = line;
    while (at < text.length && at - line < TITLE_LOOK_MAX && text.data[at] != '\n' &&
           is_blank(text.data[at]))
        at++;
    return byte_at(text, at) == '\n';
}

/* The closing of a sentence in ideographs: U+3002, U+FF01, U+FF1F; it ends here. */
static bool is_wide_stop(struct span text, size_t end)
{
    if (end < 3 || end > text.length)
        return false;
    const uint8_t *at = text.data + end - 3;
    return (at[0] == 0xE3 && at[1] == 0x80 && at[2] == 0x82) ||
           (at[0] == 0xEF && at[1] == 0xBC && (at[2] == 0x81 || at[2] == 0x9F));
}

static bool is_closer(uint8_t byte)
{
    return byte == '"' || byte == '\'' || byte == ')' || byte == ']' || byte == '*' || byte == '_';
}

static void take_byte(struct chunk_scanner *scanner)
{
    uint8_t byte = scanner->text.data[scanner->at++];
    bool blank = is_blank(byte);
    if (byte == '.' || byte == '!' || byte == '?')
        scanner->stop = true;
    else if (!is_closer(byte) && !blank)
        scanner->stop = false;
    scanner->after_blank = blank;
    scanner->after_stop = blank && scanner->stop;
    if (byte != '\n') {
        scanner->in_line = true;
        return;
    }
    scanner->in_line = false;
    scanner->blank_before = scanner->line_blank;
}

/* What stands before the byte at hand, which is then taken. */
static enum border step(struct chunk_scanner *scanner)
{
    struct span text = scanner->text;
    size_t at = scanner->at;
    enum border border = BORDER_NONE;
    bool blank = is_blank(byte_at(text, at));
    if (!blank && scanner->after_stop)
        border = BORDER_SENTENCE;
    else if (!blank && scanner->after_blank)
        border = BORDER_WORD;
    else if (!blank && is_wide_stop(text, at) && !is_wide_stop(text, at + 3))
        border = BORDER_SENTENCE;
    if (!scanner->in_line) {
        scanner->line_blank = is_line_blank(text, at);
        if (!scanner->line_blank) {
            if (scanner->blank_before && !scanner->fenced)
                border = BORDER_PARAGRAPH;
            if (begins_heading(scanner, at))
                border = BORDER_HEADING;
        }
    }
    if (at < text.length)
        take_byte(scanner);
    return border;
}

/* Bytes after which, and before which, nothing begins and nothing changes. */
static const bool is_plain[256] = {
    ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, [','] = true, ['-'] = true,
    ['/'] = true,
};

/* step takes bytes one by one; most are within words, where each leaves the scanner as it was. */
static void skip_plain(struct chunk_scanner *scanner, size_t to)
{
    struct span text = scanner->text;
    size_t at = scanner->at;
    if (to > text.length)
        to = text.length;
    if (at == 0 || !scanner->in_line || !is_plain[text.data[at - 1]])
        return;
    while (at < to && is_plain[text.data[at]])
        at++;
    scanner->at = at;
}

/* Where what is carried over begins: the first sentence within reach, or else word. */
static size_t overlap_start(const struct chunker *chunker, size_t core)
{
    struct span text = chunker->scanner.text;
    size_t reach = chunker->options.overlap < core ? core - chunker->options.overlap : 0;
    size_t word = core;
    if (core == 0 || reach >= core || chunker->under_heading)
        return core;
    struct chunk_scanner look = {.text = text, .at = reach > 0 ? reach - 1 : 0, .in_line = true};
    while (look.at < core) {
        size_t at = look.at;
        enum border border = step(&look);
        if (at < reach || at == 0)
            continue;
        if (border >= BORDER_SENTENCE)
            return at;
        if (border == BORDER_WORD && word == core)
            word = at;
    }
    if (word < core)
        return word;
    size_t at = to_code_point(text, reach);
    return at < reach ? core : at;
}

/* The last of the best borders in (from, to]. scanner: at or before from. */
static size_t best_end(struct chunk_scanner scanner, size_t from, size_t to)
{
    size_t found[BORDERS] = {0};
    while (scanner.at <= to) {
        size_t at = scanner.at;
        enum border border = step(&scanner);
        if (at > from)
            found[border] = at;
        skip_plain(&scanner, to);
    }
    for (int border = BORDERS - 1; border > BORDER_NONE; border--)
        if (found[border] != 0)
            return found[border];
    return to_code_point(scanner.text, to);
}

static struct span write_heading(struct chunker *chunker, const struct chunk_scanner *scanner)
{
    struct buffer out = buffer_over((uint8_t *)chunker->heading, sizeof chunker->heading);
    for (uint32_t level = 0; level < CHUNK_LEVELS; level++) {
        struct span title = scanner->headings[level];
        size_t gap = out.length > 0 ? sizeof separator - 1 : 0;
        if (title.length == 0 || out.length + gap >= CHUNK_HEADING_MAX)
            continue;
        size_t room = CHUNK_HEADING_MAX - out.length - gap;
        if (gap > 0)
            buffer_put_text(&out, separator);
        if (title.length > room)
            title.length = to_code_point(title, room);
        buffer_put(&out, title);
    }
    return buffer_span(&out);
}

struct chunker chunker_of(struct span text, struct chunk_options options)
{
    assert(options.bytes >= CHUNK_BYTES_MIN && options.bytes <= CHUNK_BYTES_MAX &&
           options.overlap <= options.bytes / 2);
    return (struct chunker){.options = options,
                            .scanner = {.text = text, .blank_before = true}};
}

bool chunk_next(struct chunk *ret, struct chunker *chunker)
{
    struct chunk_scanner *scanner = &chunker->scanner;
    struct span text = scanner->text;
    size_t core = scanner->at, bytes = chunker->options.bytes;
    if (core >= text.length)
        return false;
    size_t from = overlap_start(chunker, core), end = text.length;
    struct chunk_scanner ahead = *scanner;
    step(&ahead);
    struct span heading = write_heading(chunker, &ahead);
    if (text.length - from > bytes) {
        size_t least = from + bytes / 2; /* a chunk of its own bytes, and not of scraps */
        if (least < core + bytes / 4)
            least = core + bytes / 4;
        end = best_end(*scanner, least, from + bytes);
    }
    assert(end > core && end - from <= bytes);
    while (scanner->at < end) {
        step(scanner);
        skip_plain(scanner, end);
    }
    ahead = *scanner;
    chunker->under_heading = end < text.length && step(&ahead) == BORDER_HEADING;
    *ret = (struct chunk){
        .text = {text.data + from, end - from},
        .overlap = (uint32_t)(core - from),
        .heading = heading,
    };
    return true;
}
