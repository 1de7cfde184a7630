#include "store/export.h"

#include "base/arena.h"
#include "wire/base64.h"
#include "wire/json.h"

#include <assert.h>
#include <stdlib.h>

enum {
    BASE64_KEY_MAX = 64,
    PARSE_ARENA_MAX = MIB(2), /* JSON_MEMBERS_MAX values and the longest line */
};

struct export_verifier {
    bool has_key, has_header, has_earlier, earlier_met, done;
    uint8_t key[SIGN_PUBLIC_BYTES];
    char origin[ORIGIN_MAX];
    struct buffer earlier_note;
    struct checkpoint earlier, last;
    const struct witness *witness; /* NULL: none */
    uint32_t met;                  /* of its checkpoints */
    struct merkle_edge edge;
    uint64_t line; /* that is being read, from 1 */
    struct buffer partial;
    struct buffer spelled; /* the line as it must be written */
    struct arena arena;
};

void export_put_header(struct buffer *out, const char *origin, const uint8_t key[SIGN_PUBLIC_BYTES])
{
    uint8_t storage[BASE64_KEY_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    base64_put(&text, (struct span){key, SIGN_PUBLIC_BYTES});
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "format", EXPORT_FORMAT);
    json_put_text(&writer, "origin", origin);
    json_put_string(&writer, "public_key", buffer_span(&text));
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

void export_put_entry(struct buffer *out, struct span salt, struct span entry)
{
    buffer_put_text(out, "{\"salt\":\"");
    base64_put(out, salt);
    buffer_put_text(out, "\",\"entry\":");
    buffer_put(out, entry);
    buffer_put_text(out, "}\n");
}

void export_put_checkpoint(struct buffer *out, struct span note)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_string(&writer, "checkpoint", note);
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

status export_verifier_create(struct export_verifier **ret, const struct export_demands *demands,
                              struct fault *fault)
{
    if (demands->checkpoint.length > NOTE_SIGNED_MAX)
        return FAIL(TOO_LARGE, fault, "the checkpoint: at most %d bytes are allowed",
                    (int)NOTE_SIGNED_MAX);
    struct export_verifier *verifier = calloc(1, sizeof *verifier);
    if (verifier == NULL)
        return FAIL(INTERNAL, fault, "out of memory");
    verifier->line = 1;
    verifier->partial = buffer_of(EXPORT_LINE_MAX);
    verifier->spelled = buffer_of(EXPORT_LINE_MAX + 1);
    verifier->arena = arena_of(PARSE_ARENA_MAX);
    verifier->earlier_note = buffer_of(NOTE_SIGNED_MAX);
    verifier->has_earlier = demands->checkpoint.length > 0;
    verifier->witness = demands->witness;
    buffer_put(&verifier->earlier_note, demands->checkpoint);
    if (demands->key != NULL) {
        verifier->has_key = true;
        for (size_t i = 0; i < SIGN_PUBLIC_BYTES; i++)
            verifier->key[i] = demands->key[i];
    }
    *ret = verifier;
    return OK;
}

struct export_verifier *export_verifier_free(struct export_verifier *verifier)
{
    if (verifier == NULL)
        return NULL;
    buffer_free(&verifier->partial);
    buffer_free(&verifier->spelled);
    buffer_free(&verifier->earlier_note);
    arena_free(&verifier->arena);
    free(verifier);
    return NULL;
}

/* Every fault of a file names its line; inner keeps what the parser below had to say. */
static status at_line(const struct export_verifier *verifier, const struct fault *inner,
                      struct fault *fault)
{
    return FAIL(CORRUPT, fault, "line %llu: %.150s", (unsigned long long)verifier->line,
                inner->detail);
}

static status wrong(struct fault *fault, const char *what)
{
    return FAIL(CORRUPT, fault, "%s", what);
}

static status decode(uint8_t *ret, size_t length, struct span text, const char *name,
                     struct fault *fault)
{
    uint8_t storage[BASE64_KEY_MAX];
    struct buffer bytes = buffer_over(storage, sizeof storage);
    TRY(base64_decode(&bytes, text, name, fault));
    if (bytes.failed || bytes.length != length)
        return FAIL(CORRUPT, fault, "%s: must be %zu bytes in base64", name, length);
    for (size_t i = 0; i < length; i++)
        ret[i] = storage[i];
    return OK;
}

/* Once the entries have reached the size of the checkpoint kept elsewhere, their root must be its.
 */
static status meet_earlier(struct export_verifier *verifier, struct fault *fault)
{
    if (!verifier->has_earlier || verifier->edge.size != verifier->earlier.size)
        return OK;
    struct hash_value root = merkle_root(&verifier->edge);
    if (!span_equal(SPAN_OF(root.bytes), SPAN_OF(verifier->earlier.root.bytes)))
        return FAIL(CORRUPT, fault,
                    "the first %llu entries are not those of the checkpoint kept elsewhere",
                    (unsigned long long)verifier->earlier.size);
    verifier->earlier_met = true;
    return OK;
}

/* The same for each of a witness file, whose sizes grow. */
static status meet_witness(struct export_verifier *verifier, struct fault *fault)
{
    const struct witness *witness = verifier->witness;
    if (witness == NULL || verifier->met == witness->count)
        return OK;
    const struct witnessed *next = &witness->checkpoints[verifier->met];
    if (next->size != verifier->edge.size)
        return OK;
    struct hash_value root = merkle_root(&verifier->edge);
    if (!span_equal(SPAN_OF(root.bytes), SPAN_OF(next->root.bytes)))
        return FAIL(CORRUPT, fault, "the first %llu entries are not those of line %llu of the "
                    "witness file", (unsigned long long)next->size,
                    (unsigned long long)next->line);
    verifier->met++;
    return OK;
}

static status open_witness(struct export_verifier *verifier, struct fault *fault)
{
    const struct witness *witness = verifier->witness;
    if (witness == NULL)
        return OK;
    if (!span_equal(SPAN_OF(witness->key), SPAN_OF(verifier->key)))
        return wrong(fault, "the witness file is of another key");
    if (!span_equal(span_of_text(witness->origin), span_of_text(verifier->origin)))
        return FAIL(CORRUPT, fault, "the witness file is of another log: %.100s", witness->origin);
    return meet_witness(verifier, fault);
}

static status open_earlier(struct export_verifier *verifier, struct fault *fault)
{
    if (!verifier->has_earlier)
        return OK;
    struct fault inner;
    if (checkpoint_open(&verifier->earlier, buffer_span(&verifier->earlier_note),
                        PLATFORM_KEY_NAME, verifier->key, &inner) != OK)
        return FAIL(CORRUPT, fault, "the checkpoint kept elsewhere: %.100s", inner.detail);
    if (!span_equal(span_of_text(verifier->earlier.origin), span_of_text(verifier->origin)))
        return wrong(fault, "the checkpoint kept elsewhere is of another log");
    return meet_earlier(verifier, fault);
}

/* There is one way to write each line: a file is either the one that was exported or it is not. */
static status check_spelling(const struct export_verifier *verifier, const struct json *line,
                             struct fault *fault)
{
    struct span spelled = buffer_span(&verifier->spelled);
    if (verifier->spelled.failed || spelled.length == 0 ||
        !span_equal((struct span){spelled.data, spelled.length - 1}, line->source))
        return wrong(fault, "not written as an export is");
    return OK;
}

static status take_header(struct export_verifier *verifier, const struct json *line,
                          struct fault *fault)
{
    static const char *const names[] = {"format", "origin", "public_key", NULL};
    struct span format, origin, text;
    TRY(json_only(line, names, fault));
    TRY(json_text(&format, line, "format", 1, 64, fault));
    TRY(json_text(&origin, line, "origin", 1, ORIGIN_MAX - 1, fault));
    TRY(json_text(&text, line, "public_key", 1, BASE64_KEY_MAX, fault));
    if (!span_is(format, EXPORT_FORMAT))
        return wrong(fault, "format: only " EXPORT_FORMAT " is known");
    uint8_t key[SIGN_PUBLIC_BYTES];
    TRY(decode(key, sizeof key, text, "public_key", fault));
    if (verifier->has_key && !span_equal(SPAN_OF(key), SPAN_OF(verifier->key)))
        return wrong(fault, "public_key: not the key that was demanded");
    for (size_t i = 0; i < sizeof key; i++)
        verifier->key[i] = key[i];
    if (!span_to_text(verifier->origin, sizeof verifier->origin, origin))
        return wrong(fault, "origin: not a text");
    export_put_header(&verifier->spelled, verifier->origin, verifier->key);
    TRY(check_spelling(verifier, line, fault));
    verifier->has_header = true;
    TRY(open_witness(verifier, fault));
    return open_earlier(verifier, fault);
}

static status take_entry(struct export_verifier *verifier, const struct json *line,
                         struct fault *fault)
{
    static const char *const names[] = {"salt", "entry", NULL};
    struct span text;
    uint8_t salt[AUDIT_SALT_BYTES];
    TRY(json_only(line, names, fault));
    TRY(json_text(&text, line, "salt", 1, BASE64_KEY_MAX, fault));
    TRY(decode(salt, sizeof salt, text, "salt", fault));
    const struct json *entry = json_member(line, "entry");
    const struct json *index = entry == NULL ? NULL : json_member(entry, "index");
    if (index == NULL || index->kind != JSON_INTEGER)
        return wrong(fault, "entry: without an index");
    if (index->integer < 0 || (uint64_t)index->integer != verifier->edge.size)
        return FAIL(CORRUPT, fault, "entry %lld stands where entry %llu must be",
                    (long long)index->integer, (unsigned long long)verifier->edge.size);
    export_put_entry(&verifier->spelled, SPAN_OF(salt), entry->source);
    TRY(check_spelling(verifier, line, fault));
    const struct span parts[] = {SPAN_OF(salt), entry->source};
    struct hash_value leaf = merkle_leaf_parts(parts, 2);
    TRY(merkle_append(&verifier->edge, &leaf, NULL, NULL, fault));
    TRY(meet_witness(verifier, fault));
    return meet_earlier(verifier, fault);
}

static status take_checkpoint(struct export_verifier *verifier, const struct json *line,
                              struct fault *fault)
{
    static const char *const names[] = {"checkpoint", NULL};
    struct span note;
    TRY(json_only(line, names, fault));
    TRY(json_text(&note, line, "checkpoint", 1, NOTE_SIGNED_MAX, fault));
    export_put_checkpoint(&verifier->spelled, note);
    TRY(check_spelling(verifier, line, fault));
    TRY(checkpoint_open(&verifier->last, note, PLATFORM_KEY_NAME, verifier->key, fault));
    if (!span_equal(span_of_text(verifier->last.origin), span_of_text(verifier->origin)))
        return wrong(fault, "the checkpoint is of another log than the header says");
    if (verifier->last.size != verifier->edge.size)
        return FAIL(CORRUPT, fault, "the checkpoint covers %llu entries, the file has %llu",
                    (unsigned long long)verifier->last.size,
                    (unsigned long long)verifier->edge.size);
    struct hash_value root = merkle_root(&verifier->edge);
    if (!span_equal(SPAN_OF(root.bytes), SPAN_OF(verifier->last.root.bytes)))
        return wrong(fault, "the entries above are not those that were signed");
    if (verifier->has_earlier && !verifier->earlier_met)
        return FAIL(CORRUPT, fault, "cut off: the checkpoint kept elsewhere has %llu entries",
                    (unsigned long long)verifier->earlier.size);
    if (verifier->witness != NULL && verifier->met < verifier->witness->count)
        return FAIL(CORRUPT, fault, "cut off: line %llu of the witness file has %llu entries",
                    (unsigned long long)verifier->witness->checkpoints[verifier->met].line,
                    (unsigned long long)verifier->witness->checkpoints[verifier->met].size);
    verifier->done = true;
    return OK;
}

static status take_line(struct export_verifier *verifier, struct span text, struct fault *fault)
{
    struct json line;
    arena_reset(&verifier->arena);
    buffer_clear(&verifier->spelled);
    if (verifier->done)
        return wrong(fault, "something stands behind the checkpoint");
    TRY(json_parse(&line, &verifier->arena, text, fault));
    line.source = text; /* blanks around it included */
    TRY(json_need_object(&line, "the line", fault));
    if (!verifier->has_header)
        return take_header(verifier, &line, fault);
    if (json_member(&line, "checkpoint") != NULL)
        return take_checkpoint(verifier, &line, fault);
    return take_entry(verifier, &line, fault);
}

static status end_line(struct export_verifier *verifier, struct span text, struct fault *fault)
{
    struct fault inner;
    if (take_line(verifier, text, &inner) != OK)
        return at_line(verifier, &inner, fault);
    verifier->line++;
    return OK;
}

static size_t line_length(struct span bytes)
{
    size_t length = 0;
    while (length < bytes.length && bytes.data[length] != '\n')
        length++;
    return length;
}

status export_verifier_feed(struct export_verifier *verifier, struct span bytes,
                            struct fault *fault)
{
    while (bytes.length > 0) {
        size_t length = line_length(bytes);
        bool ended = length < bytes.length;
        struct span text = {bytes.data, length};
        bool whole = ended && verifier->partial.length == 0;
        if (!whole || length > EXPORT_LINE_MAX)
            buffer_put(&verifier->partial, text);
        if (verifier->partial.failed)
            return FAIL(CORRUPT, fault, "line %llu: longer than %d bytes",
                        (unsigned long long)verifier->line, (int)EXPORT_LINE_MAX);
        if (!ended)
            return OK;
        TRY(end_line(verifier, whole ? text : buffer_span(&verifier->partial), fault));
        buffer_clear(&verifier->partial);
        bytes = (struct span){bytes.data + length + 1, bytes.length - length - 1};
    }
    return OK;
}

status export_verifier_end(struct export_summary *ret, struct export_verifier *verifier,
                           struct fault *fault)
{
    if (!verifier->done || verifier->partial.length > 0)
        return FAIL(CORRUPT, fault, "line %llu: the file ends before its checkpoint",
                    (unsigned long long)verifier->line);
    assert(verifier->last.size == verifier->edge.size);
    *ret = (struct export_summary){
        .checkpoint = verifier->last,
        .has_earlier = verifier->has_earlier,
        .witnessed = verifier->met,
        .earlier_size = verifier->has_earlier ? verifier->earlier.size : 0,
    };
    for (size_t i = 0; i < SIGN_PUBLIC_BYTES; i++)
        ret->key[i] = verifier->key[i];
    return OK;
}
