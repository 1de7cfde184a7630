#include "wire/trace.h"

#include "base/hex.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_LENGTH = TRACE_TEXT_SIZE - 1 };

static struct span part(struct span text, size_t at, size_t length)
{
    return (struct span){text.data + at, length};
}

static bool decode_id(uint8_t *ret, size_t length, struct span text)
{
    struct fault ignored;
    uint8_t any = 0;
    if (hex_decode(ret, length, text, "id", &ignored) != OK)
        return false;
    for (size_t i = 0; i < length; i++)
        any |= ret[i];
    return any != 0;
}

bool trace_parse(uint8_t trace_id[TRACE_ID_BYTES], struct span header)
{
    uint8_t version, flags, trace[TRACE_ID_BYTES], parent[TRACE_SPAN_BYTES];
    struct fault ignored;
    if (header.length < TEXT_LENGTH || header.data[2] != '-' || header.data[35] != '-'
        || header.data[52] != '-'
        || hex_decode(&version, 1, part(header, 0, 2), "version", &ignored) != OK
        || hex_decode(&flags, 1, part(header, 53, 2), "flags", &ignored) != OK
        || !decode_id(trace, sizeof trace, part(header, 3, 32))
        || !decode_id(parent, sizeof parent, part(header, 36, 16)))
        return false;
    bool longer = header.length > TEXT_LENGTH; /* a later version may add fields behind a dash */
    if (version == 0xFF || (longer && (version == 0 || header.data[TEXT_LENGTH] != '-')))
        return false;
    memcpy(trace_id, trace, sizeof trace);
    return true;
}

void trace_format(char text[TRACE_TEXT_SIZE], const uint8_t trace_id[TRACE_ID_BYTES],
                  const uint8_t span_id[TRACE_SPAN_BYTES], uint8_t flags)
{
    char trace[2 * TRACE_ID_BYTES + 1], span[2 * TRACE_SPAN_BYTES + 1];
    hex_encode(trace, (struct span){trace_id, TRACE_ID_BYTES});
    hex_encode(span, (struct span){span_id, TRACE_SPAN_BYTES});
    snprintf(text, TRACE_TEXT_SIZE, "00-%s-%s-%02x", trace, span, (unsigned)flags);
}
