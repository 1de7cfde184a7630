/* fuzz_knowledge: a text is divided into chunks that are the text again, whatever it says; a filter
 * that is taken is answered for any metadata. The first byte: how long chunks are. */
#include "fuzz.h"
#include "silo/chunk.h"
#include "silo/filter.h"

static void divide(struct span text, uint32_t bytes)
{
    struct chunk_options options = {CHUNK_BYTES_MIN + bytes, (CHUNK_BYTES_MIN + bytes) / 2};
    struct chunker chunker = chunker_of(text, options);
    struct chunk chunk;
    const uint8_t *at = text.data;
    size_t count = 0;
    for (; chunk_next(&chunk, &chunker); count++) {
        CHECK(chunk.text.length > chunk.overlap && chunk.text.length <= options.bytes);
        CHECK(chunk.text.data + chunk.overlap == at);
        CHECK(chunk.heading.length <= CHUNK_HEADING_MAX);
        CHECK(!span_is_utf8(text) ||
              (span_is_utf8(chunk.text) && span_is_utf8(chunk.heading)));
        at = chunk.text.data + chunk.text.length;
    }
    CHECK(at == text.data + text.length);
    CHECK(count <= text.length / (options.bytes / 4) + 1);
}

/* {"filter": ..., "metadata": ...} */
static void judge(struct span text)
{
    struct arena arena = arena_of(1 << 22);
    struct json value;
    struct fault fault;
    const struct filter *filter = NULL;
    if (json_parse(&value, &arena, text, &fault) == OK && value.kind == JSON_OBJECT) {
        const struct json *metadata = json_member(&value, "metadata");
        status code = filter_read(&filter, &arena, json_member(&value, "filter"), &fault);
        CHECK(code == OK || code == BAD_FIELD || code == TOO_LARGE);
        if (code == OK && metadata != NULL && metadata->kind == JSON_OBJECT)
            CHECK(filter != NULL || filter_passes(filter, metadata));
        if (code == OK && filter != NULL && metadata != NULL)
            (void)filter_passes(filter, metadata);
    }
    arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    divide((struct span){data + 1, size - 1}, data[0]);
    judge((struct span){data + 1, size - 1});
    return 0;
}
