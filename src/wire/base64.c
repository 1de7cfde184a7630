#include "wire/base64.h"

/* The padded alphabet and the unpadded one differ in two characters and in the padding. */
struct alphabet {
    const char *digits, *rule;
    bool padded;
};

static const struct alphabet url_safe = {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    "canonical base64url without padding", false};
static const struct alphabet plain = {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "canonical base64 with padding", true};

static void put(struct buffer *out, struct span bytes, const struct alphabet *alphabet)
{
    for (size_t at = 0; at < bytes.length; at += 3) {
        size_t left = bytes.length - at < 3 ? bytes.length - at : 3;
        uint32_t group = 0;
        for (size_t i = 0; i < 3; i++)
            group = group << 8 | (i < left ? bytes.data[at + i] : 0u);
        uint8_t digits[4] = {'=', '=', '=', '='};
        for (size_t i = 0; i <= left; i++)
            digits[i] = (uint8_t)alphabet->digits[group >> (18 - 6 * i) & 63];
        buffer_put(out, (struct span){digits, alphabet->padded ? 4 : left + 1});
    }
}

void base64url_put(struct buffer *out, struct span bytes)
{
    put(out, bytes, &url_safe);
}

void base64_put(struct buffer *out, struct span bytes)
{
    put(out, bytes, &plain);
}

/* No table and no early exit per character: keys are decoded here too, and the value of a digit is
 * computed by masks so that it does not index memory. 64 or more: not a digit. */
static uint32_t digit_value(uint8_t character, const struct alphabet *alphabet)
{
    uint32_t c = character, value = 255;
    uint32_t upper = c - 'A', lower = c - 'a', decimal = c - '0';
    value ^= (0u - (upper < 26)) & (255 ^ upper);
    value ^= (0u - (lower < 26)) & (255 ^ (lower + 26));
    value ^= (0u - (decimal < 10)) & (255 ^ (decimal + 52));
    value ^= (0u - (c == (uint8_t)alphabet->digits[62])) & (255 ^ 62);
    value ^= (0u - (c == (uint8_t)alphabet->digits[63])) & (255 ^ 63);
    return value;
}

static size_t padding_of(struct span text)
{
    size_t padding = 0;
    while (padding < 2 && padding < text.length && text.data[text.length - 1 - padding] == '=')
        padding++;
    return padding;
}

/* Writes the bytes of text, which has no padding any more. False when a character is foreign or the
 * bits left over at the end are not zero. */
static bool decode_digits(uint8_t *ret, struct span text, const struct alphabet *alphabet)
{
    uint32_t bits = 0, held = 0, foreign = 0;
    for (size_t i = 0; i < text.length; i++) {
        uint32_t value = digit_value(text.data[i], alphabet);
        foreign |= value & 192;
        bits = bits << 6 | (value & 63);
        held += 6;
        if (held >= 8) {
            held -= 8;
            *ret++ = (uint8_t)(bits >> held);
        }
    }
    return foreign == 0 && (bits & ((1u << held) - 1)) == 0;
}

static status decode(struct buffer *out, struct span text, const struct alphabet *alphabet,
                     const char *name, struct fault *fault)
{
    bool canonical = !alphabet->padded || text.length % 4 == 0;
    if (alphabet->padded)
        text.length -= padding_of(text);
    canonical = canonical && text.length % 4 != 1;
    if (!canonical)
        return FAIL(BAD_FIELD, fault, "%s: must be %s", name, alphabet->rule);
    if (text.length == 0)
        return OK;
    size_t length = text.length / 4 * 3 + text.length % 4 * 3 / 4;
    uint8_t *room = buffer_reserve(out, length);
    if (!room)
        return FAIL(TOO_LARGE, fault, "%s: more than %zu bytes", name, out->max);
    if (!decode_digits(room, text, alphabet))
        return FAIL(BAD_FIELD, fault, "%s: must be %s", name, alphabet->rule);
    buffer_advance(out, length);
    return OK;
}

status base64url_decode(struct buffer *out, struct span text, const char *name,
                        struct fault *fault)
{
    return decode(out, text, &url_safe, name, fault);
}

status base64_decode(struct buffer *out, struct span text, const char *name, struct fault *fault)
{
    return decode(out, text, &plain, name, fault);
}
