#include "store/witness.h"

#include "base/arena.h"
#include "base/clock.h"
#include "wire/base64.h"
#include "wire/json.h"

#include <stdlib.h>

enum {
    BASE64_KEY_MAX = 64,
    LINE_MAX_BYTES = 6 * NOTE_SIGNED_MAX + KIB(1),
    PARSE_ARENA_MAX = MIB(1),
};

struct reader {
    struct witness *witness;
    struct arena arena;
    struct buffer spelled; /* the line as it must be written */
    uint64_t line;
};

void witness_put_header(struct buffer *out, const char *origin,
                        const uint8_t key[SIGN_PUBLIC_BYTES])
{
    uint8_t storage[BASE64_KEY_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    base64_put(&text, (struct span){key, SIGN_PUBLIC_BYTES});
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "format", WITNESS_FORMAT);
    json_put_text(&writer, "origin", origin);
    json_put_string(&writer, "public_key", buffer_span(&text));
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

void witness_put_checkpoint(struct buffer *out, int64_t wall_us, struct span note)
{
    char time[CLOCK_TEXT_SIZE];
    clock_text(time, wall_us);
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "time", time);
    json_put_string(&writer, "checkpoint", note);
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

static status check_spelling(const struct reader *reader, struct span line, struct fault *fault)
{
    struct span spelled = buffer_span(&reader->spelled);
    if (reader->spelled.failed || spelled.length == 0 ||
        !span_equal((struct span){spelled.data, spelled.length - 1}, line))
        return FAIL(CORRUPT, fault, "not written as a witness file is");
    return OK;
}

static status take_header(struct reader *reader, const struct json *line, struct span text,
                          struct fault *fault)
{
    static const char *const names[] = {"format", "origin", "public_key", NULL};
    struct witness *witness = reader->witness;
    struct buffer key = buffer_over(witness->key, sizeof witness->key);
    struct span format, origin, key_text;
    TRY(json_only(line, names, fault));
    TRY(json_text(&format, line, "format", 1, 64, fault));
    TRY(json_text(&origin, line, "origin", 1, ORIGIN_MAX - 1, fault));
    TRY(json_text(&key_text, line, "public_key", 1, BASE64_KEY_MAX, fault));
    if (!span_is(format, WITNESS_FORMAT))
        return FAIL(CORRUPT, fault, "format: only " WITNESS_FORMAT " is known");
    TRY(base64_decode(&key, key_text, "public_key", fault));
    if (key.failed || key.length != SIGN_PUBLIC_BYTES)
        return FAIL(CORRUPT, fault, "public_key: must be 32 bytes in base64");
    if (!span_to_text(witness->origin, sizeof witness->origin, origin))
        return FAIL(CORRUPT, fault, "origin: not a text");
    witness_put_header(&reader->spelled, witness->origin, witness->key);
    return check_spelling(reader, text, fault);
}

static status check_next(const struct witness *witness, const struct checkpoint *checkpoint,
                         struct fault *fault)
{
    if (!span_equal(span_of_text(checkpoint->origin), span_of_text(witness->origin)))
        return FAIL(CORRUPT, fault, "a checkpoint of another log: %.100s", checkpoint->origin);
    if (witness->count == 0)
        return OK;
    const struct witnessed *last = &witness->checkpoints[witness->count - 1];
    if (checkpoint->size < last->size)
        return FAIL(CORRUPT, fault, "the log has shrunk: %llu entries, %llu on line %llu",
                    (unsigned long long)checkpoint->size, (unsigned long long)last->size,
                    (unsigned long long)last->line);
    if (checkpoint->size == last->size &&
        !span_equal(SPAN_OF(checkpoint->root.bytes), SPAN_OF(last->root.bytes)))
        return FAIL(CORRUPT, fault, "another log of %llu entries than on line %llu",
                    (unsigned long long)last->size, (unsigned long long)last->line);
    return OK;
}

static status add(struct witness *witness, const struct checkpoint *checkpoint, uint64_t line,
                  struct fault *fault)
{
    if (witness->count == WITNESS_CHECKPOINTS_MAX)
        return FAIL(TOO_LARGE, fault, "more than %d checkpoints", (int)WITNESS_CHECKPOINTS_MAX);
    if (witness->count == witness->capacity) {
        uint32_t capacity = witness->capacity ? 2 * witness->capacity : 64;
        struct witnessed *grown = reallocarray(witness->checkpoints, capacity, sizeof *grown);
        if (grown == NULL)
            return FAIL(INTERNAL, fault, "out of memory");
        witness->checkpoints = grown;
        witness->capacity = capacity;
    }
    witness->checkpoints[witness->count++] =
        (struct witnessed){checkpoint->size, line, checkpoint->root};
    return OK;
}

static status take_checkpoint(struct reader *reader, const struct json *line, struct span text,
                              struct fault *fault)
{
    static const char *const names[] = {"time", "checkpoint", NULL};
    struct witness *witness = reader->witness;
    struct checkpoint checkpoint;
    struct span time, note;
    int64_t wall_us;
    TRY(json_only(line, names, fault));
    TRY(json_text(&time, line, "time", 1, CLOCK_TEXT_SIZE, fault));
    TRY(json_text(&note, line, "checkpoint", 1, NOTE_SIGNED_MAX, fault));
    if (!clock_read(&wall_us, time))
        return FAIL(CORRUPT, fault, "time: not a time");
    witness_put_checkpoint(&reader->spelled, wall_us, note);
    TRY(check_spelling(reader, text, fault));
    TRY(checkpoint_open(&checkpoint, note, PLATFORM_KEY_NAME, witness->key, fault));
    TRY(check_next(witness, &checkpoint, fault));
    if (witness->count > 0 && checkpoint.size == witness->checkpoints[witness->count - 1].size)
        return FAIL(CORRUPT, fault, "the checkpoint of the line before, once more");
    return add(witness, &checkpoint, reader->line, fault);
}

static status take_line(struct reader *reader, struct span text, struct fault *fault)
{
    struct json line;
    arena_reset(&reader->arena);
    buffer_clear(&reader->spelled);
    if (text.length > LINE_MAX_BYTES)
        return FAIL(CORRUPT, fault, "longer than %d bytes", (int)LINE_MAX_BYTES);
    TRY(json_parse(&line, &reader->arena, text, fault));
    TRY(json_need_object(&line, "the line", fault));
    return reader->line == 1 ? take_header(reader, &line, text, fault)
                             : take_checkpoint(reader, &line, text, fault);
}

static status read_lines(struct reader *reader, struct span file, struct fault *fault)
{
    struct fault inner;
    for (reader->line = 1; file.length > 0 || reader->line == 1; reader->line++) {
        size_t length = span_find(file, '\n');
        if (length == file.length)
            return FAIL(CORRUPT, fault, "line %llu: the file is cut off",
                        (unsigned long long)reader->line);
        status taken = take_line(reader, (struct span){file.data, length}, &inner);
        if (taken != OK)
            return FAIL(taken == TOO_LARGE ? TOO_LARGE : CORRUPT, fault, "line %llu: %.150s",
                        (unsigned long long)reader->line, inner.detail);
        file = (struct span){file.data + length + 1, file.length - length - 1};
    }
    return OK;
}

status witness_read(struct witness **ret, struct span file, struct fault *fault)
{
    struct reader reader = {.witness = calloc(1, sizeof *reader.witness),
                            .arena = arena_of(PARSE_ARENA_MAX),
                            .spelled = buffer_of(LINE_MAX_BYTES + 1)};
    if (reader.witness == NULL)
        return FAIL(INTERNAL, fault, "out of memory");
    status done = read_lines(&reader, file, fault);
    arena_free(&reader.arena);
    buffer_free(&reader.spelled);
    if (done != OK) {
        witness_free(reader.witness);
        return done;
    }
    *ret = reader.witness;
    return OK;
}

struct witness *witness_free(struct witness *witness)
{
    if (witness != NULL)
        free(witness->checkpoints);
    free(witness);
    return NULL;
}

status witness_check(bool *ret_new, const struct witness *witness, struct span note,
                     struct fault *fault)
{
    struct checkpoint checkpoint;
    TRY(checkpoint_open(&checkpoint, note, PLATFORM_KEY_NAME, witness->key, fault));
    TRY(check_next(witness, &checkpoint, fault));
    *ret_new = witness->count == 0 ||
               checkpoint.size > witness->checkpoints[witness->count - 1].size;
    return OK;
}
