/* Text that is accepted is the one spelling of its bytes; bytes written are read back. */
#include "fuzz.h"
#include "wire/base64.h"

typedef void put_function(struct buffer *, struct span);
typedef status decode_function(struct buffer *, struct span, const char *, struct fault *);

static void check(put_function *put, decode_function *decode, struct span input)
{
    struct fault fault;
    struct buffer decoded = buffer_of(input.length + 4), text = buffer_of(2 * input.length + 8);
    if (decode(&decoded, input, "text", &fault) == OK) {
        put(&text, buffer_span(&decoded));
        CHECK(span_equal(buffer_span(&text), input));
    } else {
        CHECK(decoded.length == 0);
    }
    buffer_clear(&decoded);
    buffer_clear(&text);
    put(&text, input);
    CHECK(decode(&decoded, buffer_span(&text), "text", &fault) == OK);
    CHECK(span_equal(buffer_span(&decoded), input));
    buffer_free(&decoded);
    buffer_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(base64_put, base64_decode, (struct span){data, size});
    check(base64url_put, base64url_decode, (struct span){data, size});
    return 0;
}
