#include "base/hex.h"

void hex_encode(char *text, struct span bytes)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes.length; i++) {
        text[2 * i] = digits[bytes.data[i] >> 4];
        text[2 * i + 1] = digits[bytes.data[i] & 15];
    }
    text[2 * bytes.length] = '\0';
}

static int digit(uint8_t character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

status hex_decode(uint8_t *ret, size_t length, struct span text, const char *name,
                  struct fault *fault)
{
    bool valid = text.length == 2 * length;
    for (size_t i = 0; valid && i < text.length; i++)
        valid = digit(text.data[i]) >= 0;
    if (!valid)
        return FAIL(BAD_FIELD, fault, "%s: must be %zu lower-case hexadecimal digits", name,
                    2 * length);
    for (size_t i = 0; i < length; i++)
        ret[i] = (uint8_t)(digit(text.data[2 * i]) << 4 | digit(text.data[2 * i + 1]));
    return OK;
}
