#include "silo/memory.h"

enum { ID_CHARACTERS = 26, TIME_BYTES = 6, BITS_PER_CHARACTER = 5 };

static_assert(ITEM_ID_TEXT == ID_CHARACTERS + 1, "an id and its NUL");

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; /* Crockford's */

static const char *const kinds[MEMORY_KINDS] = {
    [MEMORY_EVENT] = "event",
    [MEMORY_FACT] = "fact",
    [MEMORY_PREFERENCE] = "preference",
    [MEMORY_SUMMARY] = "summary",
    [MEMORY_EPISODE] = "episode",
};

const char *memory_kind_name(enum memory_kind kind)
{
    assert(kind < MEMORY_KINDS);
    return kinds[kind];
}

status memory_kind_read(enum memory_kind *ret, struct span text, const char *name,
                        struct fault *fault)
{
    for (uint32_t i = 0; i < MEMORY_KINDS; i++) {
        if (span_is(text, kinds[i])) {
            *ret = (enum memory_kind)i;
            return OK;
        }
    }
    return FAIL(BAD_FIELD, fault, "%s: must be event, fact, preference, summary or episode", name);
}

/* 26 characters hold 130 bits: the first two are zero. */
void memory_id_text(char text[ITEM_ID_TEXT], const struct memory_id *id)
{
    uint32_t bits = 0, held = 2;
    size_t next = 0;
    for (size_t i = 0; i < ID_CHARACTERS; i++) {
        if (held < BITS_PER_CHARACTER) {
            bits = bits << 8 | id->bytes[next++];
            held += 8;
        }
        held -= BITS_PER_CHARACTER;
        text[i] = alphabet[bits >> held & 31];
    }
    text[ID_CHARACTERS] = '\0';
}

static int digit_of(uint8_t character)
{
    for (int i = 0; i < 32; i++)
        if ((uint8_t)alphabet[i] == character)
            return i;
    return -1;
}

bool memory_id_read(struct memory_id *ret, struct span text)
{
    if (text.length != ID_CHARACTERS)
        return false;
    struct memory_id id;
    uint32_t bits = 0, held = 0;
    size_t next = 0;
    for (size_t i = 0; i < ID_CHARACTERS; i++) {
        int digit = digit_of(text.data[i]);
        if (digit < 0 || (i == 0 && digit > 7))
            return false;
        bits = (bits << BITS_PER_CHARACTER | (uint32_t)digit) & 0xFFFF;
        held += i == 0 ? BITS_PER_CHARACTER - 2 : BITS_PER_CHARACTER;
        if (held >= 8) {
            held -= 8;
            id.bytes[next++] = (uint8_t)(bits >> held);
        }
    }
    *ret = id;
    return true;
}

struct memory_id memory_id_at(int64_t wall_us)
{
    struct memory_id id = {0};
    uint64_t ms = wall_us > 0 ? (uint64_t)wall_us / 1000 : 0;
    for (size_t i = TIME_BYTES; i-- > 0; ms >>= 8)
        id.bytes[i] = (uint8_t)ms;
    return id;
}

int64_t memory_id_us(const struct memory_id *id)
{
    int64_t ms = 0;
    for (size_t i = 0; i < TIME_BYTES; i++)
        ms = ms << 8 | id->bytes[i];
    return ms * 1000;
}

/* id + 1 + a random number of 32 bits: within one millisecond ids grow and still cannot be guessed.
 */
static void step_past(struct memory_id *id)
{
    uint32_t random;
    crypt_random(&random, sizeof random);
    uint64_t carry = (uint64_t)random + 1;
    for (size_t i = MEMORY_ID_BYTES; i-- > 0 && carry > 0;) {
        carry += id->bytes[i];
        id->bytes[i] = (uint8_t)carry;
        carry >>= 8;
    }
}

struct memory_id memory_id_new(struct silo *silo)
{
    struct memory_id id = memory_id_at(silo->now_us);
    crypt_random(id.bytes + TIME_BYTES, MEMORY_ID_BYTES - TIME_BYTES);
    uint8_t *last = silo->memory.last_id;
    struct span newest = {last, MEMORY_ID_BYTES};
    struct span time = {id.bytes, TIME_BYTES};
    if (span_compare(time, (struct span){last, TIME_BYTES}) <= 0) {
        for (size_t i = 0; i < MEMORY_ID_BYTES; i++)
            id.bytes[i] = newest.data[i];
        step_past(&id);
    }
    for (size_t i = 0; i < MEMORY_ID_BYTES; i++)
        last[i] = id.bytes[i];
    return id;
}
