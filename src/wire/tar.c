#include "wire/tar.h"

#include <assert.h>

/* Where ustar has its fields. */
enum {
    NAME_AT = 0, NAME_BYTES = 100,
    MODE_AT = 100, UID_AT = 108, GID_AT = 116, SHORT_DIGITS = 7,
    SIZE_AT = 124, TIME_AT = 136, LONG_DIGITS = 11,
    SUM_AT = 148, SUM_DIGITS = 6, SUM_BYTES = 8,
    TYPE_AT = 156,
    MAGIC_AT = 257,
};

#define SIZE_MAX_USTAR ((UINT64_C(1) << 33) - 1)
#define MAGIC SPAN("ustar\00000")
#define PAX_NAME SPAN("PaxHeaders/next")

/* ---- names ---- */

static bool is_safe_component(struct span part)
{
    return part.length > 0 && !span_is(part, ".") && !span_is(part, "..");
}

bool tar_name_is_safe(struct span name)
{
    if (name.length == 0 || name.length > TAR_NAME_MAX || !span_is_plain_text(name)
        || span_find(name, '\\') < name.length)
        return false;
    for (;;) {
        size_t end = span_find(name, '/');
        if (!is_safe_component((struct span){name.data, end}))
            return false;
        if (end == name.length)
            return true;
        name = (struct span){name.data + end + 1, name.length - end - 1};
    }
}

static bool fits_ustar(struct span name)
{
    if (name.length > NAME_BYTES)
        return false;
    for (size_t i = 0; i < name.length; i++)
        if (name.data[i] >= 0x80)
            return false;
    return true;
}

/* ---- writing ---- */

static void place(uint8_t *at, struct span bytes)
{
    for (size_t i = 0; i < bytes.length; i++)
        at[i] = bytes.data[i];
}

static void place_octal(uint8_t *at, size_t digits, uint64_t value)
{
    for (size_t i = digits; i-- > 0; value >>= 3)
        at[i] = (uint8_t)('0' + (value & 7));
}

/* With the sum's own field as spaces. */
static uint32_t sum_of(const uint8_t block[TAR_BLOCK_BYTES])
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < TAR_BLOCK_BYTES; i++)
        sum += i >= SUM_AT && i < SUM_AT + SUM_BYTES ? ' ' : block[i];
    return sum;
}

static void put_block(struct buffer *out, struct span name, uint64_t bytes, int64_t seconds,
                      char type)
{
    uint8_t block[TAR_BLOCK_BYTES] = {0};
    uint64_t time = seconds > 0 ? (uint64_t)seconds : 0;
    place(block + NAME_AT, name);
    place_octal(block + MODE_AT, SHORT_DIGITS, 0600);
    place_octal(block + UID_AT, SHORT_DIGITS, 0);
    place_octal(block + GID_AT, SHORT_DIGITS, 0);
    place_octal(block + SIZE_AT, LONG_DIGITS, bytes);
    place_octal(block + TIME_AT, LONG_DIGITS, time < SIZE_MAX_USTAR ? time : SIZE_MAX_USTAR);
    block[TYPE_AT] = (uint8_t)type;
    place(block + MAGIC_AT, MAGIC);
    place_octal(block + SUM_AT, SUM_DIGITS, sum_of(block));
    block[SUM_AT + SUM_BYTES - 1] = ' ';
    buffer_put(out, SPAN_OF(block));
}

/* "LENGTH KEYWORD=VALUE\n", where LENGTH counts itself. */
static void put_record(struct buffer *pax, const char *keyword, struct span value)
{
    size_t rest = 3 + span_of_text(keyword).length + value.length, length = rest;
    for (size_t digits = 1, ten = 10;; digits++, ten *= 10) {
        length = rest + digits;
        if (length < ten)
            break;
    }
    buffer_printf(pax, "%zu %s=", length, keyword);
    buffer_put(pax, value);
    buffer_put_u8(pax, '\n');
}

static void put_pax(struct buffer *out, struct span name, uint64_t bytes, int64_t seconds)
{
    uint8_t storage[TAR_PAX_MAX], digits[24];
    struct buffer pax = buffer_over(storage, sizeof storage);
    struct buffer size = buffer_over(digits, sizeof digits);
    if (!fits_ustar(name))
        put_record(&pax, "path", name);
    buffer_printf(&size, "%llu", (unsigned long long)bytes);
    if (bytes > SIZE_MAX_USTAR)
        put_record(&pax, "size", buffer_span(&size));
    assert(!pax.failed);
    put_block(out, PAX_NAME, pax.length, seconds, 'x');
    buffer_put(out, buffer_span(&pax));
    tar_put_padding(out, pax.length);
}

/* For a program that knows no pax: a name that cannot mean anything. */
static struct span harmless(uint8_t storage[NAME_BYTES], struct span name)
{
    size_t length = name.length < NAME_BYTES ? name.length : NAME_BYTES;
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = name.data[i];
        bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
                     || (byte >= '0' && byte <= '9') || byte == '-';
        storage[i] = plain ? byte : '_';
    }
    return (struct span){storage, length};
}

void tar_put_header(struct buffer *out, struct span name, uint64_t bytes, int64_t modified_us)
{
    uint8_t storage[NAME_BYTES];
    int64_t seconds = modified_us / 1000000;
    assert(tar_name_is_safe(name));
    if (!fits_ustar(name) || bytes > SIZE_MAX_USTAR)
        put_pax(out, name, bytes, seconds);
    put_block(out, fits_ustar(name) ? name : harmless(storage, name),
              bytes > SIZE_MAX_USTAR ? 0 : bytes, seconds, '0');
}

static uint32_t padding_of(uint64_t bytes)
{
    return (uint32_t)((TAR_BLOCK_BYTES - bytes % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES);
}

void tar_put_padding(struct buffer *out, uint64_t bytes)
{
    static const uint8_t zeros[TAR_BLOCK_BYTES];
    buffer_put(out, (struct span){zeros, padding_of(bytes)});
}

void tar_put_end(struct buffer *out)
{
    static const uint8_t zeros[2 * TAR_BLOCK_BYTES];
    buffer_put(out, SPAN_OF(zeros));
}

/* ---- following ---- */

static status no_archive(struct fault *fault, const char *why)
{
    return FAIL(CORRUPT, fault, "no archive of ours: %s", why);
}

/* All digits and the NUL behind them. */
static bool read_octal(uint64_t *ret, const uint8_t *at, size_t digits)
{
    uint64_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        if (at[i] < '0' || at[i] > '7')
            return false;
        value = value << 3 | (uint64_t)(at[i] - '0');
    }
    *ret = value;
    return at[digits] == '\0';
}

static bool read_decimal(uint64_t *ret, struct span text)
{
    uint64_t value = 0;
    if (text.length == 0 || text.length > 18)
        return false;
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *ret = value;
    return true;
}

static struct span drop_front(struct span text, size_t count)
{
    return (struct span){text.data + count, text.length - count};
}

/* One record off the front of *pax. */
static bool next_record(struct span *ret_keyword, struct span *ret_value, struct span *pax)
{
    uint64_t length;
    size_t space = span_find(*pax, ' ');
    if (!read_decimal(&length, (struct span){pax->data, space}) || length > pax->length
        || length < space + 2 || pax->data[length - 1] != '\n')
        return false;
    struct span record = {pax->data + space + 1, (size_t)length - space - 2};
    size_t equals = span_find(record, '=');
    if (equals == record.length)
        return false;
    *ret_keyword = (struct span){record.data, equals};
    *ret_value = drop_front(record, equals + 1);
    *pax = drop_front(*pax, (size_t)length);
    return true;
}

/* What the pax header says instead of the block. */
static status read_pax(struct span *name, uint64_t *bytes, const struct tar_follower *follower,
                       struct fault *fault)
{
    struct span pax = {follower->pax, follower->pax_length}, keyword, value;
    while (pax.length > 0) {
        if (!next_record(&keyword, &value, &pax))
            return no_archive(fault, "a pax header");
        if (span_is(keyword, "path"))
            *name = value;
        else if (!span_is(keyword, "size") || !read_decimal(bytes, value))
            return no_archive(fault, "a pax header");
    }
    return OK;
}

static status begin_pax(struct tar_follower *follower, uint64_t bytes, struct fault *fault)
{
    if (follower->pax_length > 0 || bytes == 0 || bytes > sizeof follower->pax)
        return no_archive(fault, "a pax header");
    follower->is_pax = true;
    follower->content = bytes;
    return OK;
}

static status begin_file(struct tar_follower *follower, const struct tar_eyes *eyes,
                         uint64_t bytes, struct fault *fault)
{
    struct span field = {follower->block + NAME_AT, NAME_BYTES};
    struct span name = {field.data, span_find(field, '\0')};
    TRY(read_pax(&name, &bytes, follower, fault));
    if (!tar_name_is_safe(name))
        return no_archive(fault, "the name of a member leads elsewhere");
    follower->content = bytes;
    eyes->member(eyes->context, name, bytes);
    follower->pax_length = 0;
    return OK;
}

static bool is_zero(const uint8_t block[TAR_BLOCK_BYTES])
{
    uint8_t any = 0;
    for (uint32_t i = 0; i < TAR_BLOCK_BYTES; i++)
        any |= block[i];
    return any == 0;
}

static status read_block(struct tar_follower *follower, const struct tar_eyes *eyes,
                         struct fault *fault)
{
    const uint8_t *block = follower->block;
    uint64_t bytes, sum;
    if (is_zero(block)) {
        follower->is_over = ++follower->ends == 2;
        return follower->pax_length > 0 ? no_archive(fault, "a pax header for nothing") : OK;
    }
    if (follower->ends > 0 || !span_equal((struct span){block + MAGIC_AT, MAGIC.length}, MAGIC)
        || !read_octal(&bytes, block + SIZE_AT, LONG_DIGITS)
        || !read_octal(&sum, block + SUM_AT, SUM_DIGITS) || sum != sum_of(block)
        || block[SUM_AT + SUM_BYTES - 1] != ' ')
        return no_archive(fault, "a header");
    if (block[TYPE_AT] == 'x')
        TRY(begin_pax(follower, bytes, fault));
    else if (block[TYPE_AT] == '0')
        TRY(begin_file(follower, eyes, bytes, fault));
    else
        return no_archive(fault, "a member that is no file");
    follower->padding = padding_of(follower->content);
    return OK;
}

/* Every step takes at least a byte. */
static size_t least(uint64_t left, size_t right)
{
    return left < right ? (size_t)left : right;
}

static status take(size_t *ret, struct tar_follower *follower, const struct tar_eyes *eyes,
                   struct span bytes, struct fault *fault)
{
    if (follower->content > 0) {
        *ret = least(follower->content, bytes.length);
        follower->content -= *ret;
        if (follower->is_pax) {
            place(follower->pax + follower->pax_length, (struct span){bytes.data, *ret});
            follower->pax_length += (uint32_t)*ret;
            follower->is_pax = follower->content > 0;
        } else {
            eyes->content(eyes->context, (struct span){bytes.data, *ret});
        }
        return OK;
    }
    if (follower->padding > 0) {
        *ret = least(follower->padding, bytes.length);
        follower->padding -= *ret;
        return OK;
    }
    if (follower->is_over)
        return no_archive(fault, "it goes on behind its end");
    *ret = least(TAR_BLOCK_BYTES - follower->in_block, bytes.length);
    place(follower->block + follower->in_block, (struct span){bytes.data, *ret});
    follower->in_block = (follower->in_block + (uint32_t)*ret) % TAR_BLOCK_BYTES;
    return follower->in_block == 0 ? read_block(follower, eyes, fault) : OK;
}

status tar_follow(struct tar_follower *follower, const struct tar_eyes *eyes, struct span bytes,
                  struct fault *fault)
{
    size_t taken;
    while (bytes.length > 0) {
        TRY(take(&taken, follower, eyes, bytes, fault));
        bytes = drop_front(bytes, taken);
    }
    return OK;
}

status tar_follow_end(const struct tar_follower *follower, struct fault *fault)
{
    if (!follower->is_over)
        return FAIL(TRUNCATED, fault, "the archive was cut short");
    return OK;
}
