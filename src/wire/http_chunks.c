#include "wire/http.h"

#include "wire/http_bytes.h"

enum { SIZE_DIGITS_MAX = 8 };

/* RFC 9112 section 7.1 as a machine: one state for each thing that may come next. */
enum state {
    SIZE, EXTENSION_START, EXTENSION_NAME, VALUE_START, VALUE_TOKEN, VALUE_QUOTED, VALUE_ESCAPED,
    VALUE_END, SIZE_LF, DATA, DATA_CR, DATA_LF,
    TRAILER_START, TRAILER_NAME, TRAILER_VALUE, TRAILER_LF, END_LF,
    BROKEN /* nothing may come: a decoder that failed once fails for ever */
};

struct http_chunks http_chunks_of(uint64_t max_total)
{
    return (struct http_chunks){.max_total = max_total, .state = SIZE};
}

static status expect(struct http_chunks *chunks, uint8_t byte, uint8_t expected, enum state next,
                     struct fault *fault)
{
    if (byte != expected)
        return FAIL(BAD_REQUEST, fault, "HTTP: a chunk or trailer without its CRLF");
    chunks->state = (uint8_t)next;
    return OK;
}

static status read_size(struct http_chunks *chunks, uint8_t byte, struct fault *fault)
{
    int digit = http_hex_digit(byte);
    if (digit < 0 && chunks->digits > 0 && (byte == '\r' || byte == ';')) {
        chunks->state = byte == '\r' ? SIZE_LF : EXTENSION_START;
        return OK;
    }
    if (digit < 0 || chunks->digits == SIZE_DIGITS_MAX)
        return FAIL(BAD_REQUEST, fault, "HTTP: a chunk size must be 1 to %d hexadecimal digits",
                    (int)SIZE_DIGITS_MAX);
    chunks->left = chunks->left << 4 | (uint64_t)digit;
    chunks->digits++;
    return OK;
}

/* The state behind a byte of ";name", ";name=token" or ";name="quoted"", RFC 9112 section 7.1.1;
 * BROKEN when it may not stand there. Blanks, which the grammar tolerates, may not: readers differ
 * in what a size with blanks behind it is. */
static enum state extended(enum state state, uint8_t byte)
{
    bool token = http_is_token_byte(byte);
    bool complete = state == EXTENSION_NAME || state == VALUE_TOKEN || state == VALUE_END;
    if (complete && (byte == '\r' || byte == ';'))
        return byte == '\r' ? SIZE_LF : EXTENSION_START;
    switch (state) {
    case EXTENSION_START:
        return token ? EXTENSION_NAME : BROKEN;
    case EXTENSION_NAME:
        return byte == '=' ? VALUE_START : token ? EXTENSION_NAME : BROKEN;
    case VALUE_START:
        return byte == '"' ? VALUE_QUOTED : token ? VALUE_TOKEN : BROKEN;
    case VALUE_TOKEN:
        return token ? VALUE_TOKEN : BROKEN;
    case VALUE_QUOTED:
        if (byte == '"' || byte == '\\')
            return byte == '"' ? VALUE_END : VALUE_ESCAPED;
        return http_is_value_byte(byte) ? VALUE_QUOTED : BROKEN;
    case VALUE_ESCAPED:
        return http_is_value_byte(byte) ? VALUE_QUOTED : BROKEN;
    default:
        return BROKEN;
    }
}

/* Ignored, as RFC 9112 section 7.1.1 wants; bounded over the whole body, or each byte of it could
 * be wrapped in thousands that count nowhere. */
static status read_extension(struct http_chunks *chunks, uint8_t byte, struct fault *fault)
{
    enum state next = extended((enum state)chunks->state, byte);
    if (next == BROKEN)
        return FAIL(BAD_REQUEST, fault, "HTTP: a chunk extension must be ;name or ;name=value");
    if (chunks->extension++ == HTTP_LINE_MAX)
        return FAIL(HEADERS_TOO_LARGE, fault, "HTTP: chunk extensions over %u bytes",
                    (unsigned)HTTP_LINE_MAX);
    chunks->state = (uint8_t)next;
    return OK;
}

static status begin_chunk(struct http_chunks *chunks, uint8_t byte, struct fault *fault)
{
    TRY(expect(chunks, byte, '\n', chunks->left ? DATA : TRAILER_START, fault));
    if (chunks->left > chunks->max_total - chunks->total)
        return FAIL(TOO_LARGE, fault, "HTTP: a body over %llu bytes",
                    (unsigned long long)chunks->max_total);
    chunks->total += chunks->left;
    chunks->digits = 0;
    return OK;
}

static status read_trailer(struct http_chunks *chunks, uint8_t byte, struct fault *fault)
{
    if (chunks->trailer++ == HTTP_LINE_MAX)
        return FAIL(HEADERS_TOO_LARGE, fault, "HTTP: trailers over %u bytes",
                    (unsigned)HTTP_LINE_MAX);
    if (chunks->state == TRAILER_START && byte == '\r') {
        chunks->state = END_LF;
        return OK;
    }
    if (chunks->state == TRAILER_VALUE) {
        if (byte == '\r')
            chunks->state = TRAILER_LF;
        else if (!http_is_value_byte(byte))
            return FAIL(BAD_REQUEST, fault, "HTTP: a trailer holds a control byte");
        return OK;
    }
    if (chunks->state == TRAILER_NAME && byte == ':') {
        chunks->state = TRAILER_VALUE;
        return OK;
    }
    if (!http_is_token_byte(byte))
        return FAIL(BAD_REQUEST, fault, "HTTP: a trailer has no proper name");
    chunks->state = TRAILER_NAME;
    return OK;
}

static status read_byte(struct http_chunks *chunks, uint8_t byte, struct fault *fault)
{
    switch ((enum state)chunks->state) {
    case SIZE: return read_size(chunks, byte, fault);
    case EXTENSION_START:
    case EXTENSION_NAME:
    case VALUE_START:
    case VALUE_TOKEN:
    case VALUE_QUOTED:
    case VALUE_ESCAPED:
    case VALUE_END: return read_extension(chunks, byte, fault);
    case SIZE_LF: return begin_chunk(chunks, byte, fault);
    case DATA_CR: return expect(chunks, byte, '\r', DATA_LF, fault);
    case DATA_LF: return expect(chunks, byte, '\n', SIZE, fault);
    case TRAILER_START:
    case TRAILER_NAME:
    case TRAILER_VALUE: return read_trailer(chunks, byte, fault);
    case TRAILER_LF: return expect(chunks, byte, '\n', TRAILER_START, fault);
    case END_LF:
        TRY(expect(chunks, byte, '\n', BROKEN, fault));
        chunks->done = true;
        return OK;
    case DATA:
    case BROKEN: break;
    }
    return FAIL(BAD_REQUEST, fault, "HTTP: bytes behind the end of a chunked body");
}

static struct span take_data(struct http_chunks *chunks, struct span bytes)
{
    uint64_t length = chunks->left < bytes.length ? chunks->left : bytes.length;
    chunks->left -= length;
    if (chunks->left == 0)
        chunks->state = DATA_CR;
    return (struct span){bytes.data, (size_t)length};
}

status http_chunks_next(struct span *ret, size_t *ret_consumed, struct http_chunks *chunks,
                        struct span bytes, struct fault *fault)
{
    struct span piece = {0};
    size_t at = 0;
    while (at < bytes.length && !chunks->done && piece.length == 0) {
        if (chunks->state == DATA) {
            piece = take_data(chunks, (struct span){bytes.data + at, bytes.length - at});
            at += piece.length;
            continue;
        }
        status read = read_byte(chunks, bytes.data[at++], fault);
        if (read != OK) {
            chunks->state = BROKEN;
            return read;
        }
    }
    *ret = piece;
    *ret_consumed = at;
    return OK;
}
