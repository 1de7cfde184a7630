#include "crypt/note.h"

#include "base/hex.h"
#include "wire/base64.h"

enum {
    KEY_ID_BYTES = 4,
    ED25519_TYPE = 1,
    SIZE_DIGITS_MAX = 20, /* of a u64 */
    ROOT_TEXT = 44,       /* 32 bytes in base64 */
};

#define SIGNATURE_PREFIX SPAN("\xe2\x80\x94 ") /* em dash, space */

/* What a signature line is held against. */
struct expected {
    struct span text, key_name;
    uint8_t key_id[KEY_ID_BYTES];
    struct verifier *verifier;
};

static bool has_control(struct span bytes)
{
    for (size_t i = 0; i < bytes.length; i++)
        if (bytes.data[i] < 0x20)
            return true;
    return false;
}

/* Well-formed UTF-8 of at least a character, in which no line can hide. */
static bool is_line_text(struct span bytes)
{
    return bytes.length > 0 && span_is_utf8(bytes) && !has_control(bytes);
}

/* Characters of Unicode's White_Space beyond ASCII (PropList), in UTF-8. */
static bool starts_with_space(struct span bytes)
{
    static const struct span spaces[] = {
        {(const uint8_t *)"\xc2\x85", 2},     {(const uint8_t *)"\xc2\xa0", 2},
        {(const uint8_t *)"\xe1\x9a\x80", 3}, {(const uint8_t *)"\xe2\x80\xa8", 3},
        {(const uint8_t *)"\xe2\x80\xa9", 3}, {(const uint8_t *)"\xe2\x80\xaf", 3},
        {(const uint8_t *)"\xe2\x81\x9f", 3}, {(const uint8_t *)"\xe3\x80\x80", 3},
    };
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        if (span_starts_with(bytes, spaces[i]))
            return true;
    return bytes.length >= 3 && bytes.data[0] == 0xe2 && bytes.data[1] == 0x80
        && bytes.data[2] <= 0x8a; /* U+2000 to U+200A */
}

static bool is_key_name(struct span name)
{
    if (!is_line_text(name))
        return false;
    for (size_t i = 0; i < name.length; i++)
        if (name.data[i] == ' ' || name.data[i] == '+'
            || starts_with_space((struct span){name.data + i, name.length - i}))
            return false;
    return true;
}

static size_t find(struct span bytes, uint8_t wanted)
{
    size_t at = 0;
    while (at < bytes.length && bytes.data[at] != wanted)
        at++;
    return at;
}

/* The bytes before the next wanted one, which is dropped; false when there is none. */
static bool take_until(struct span *ret, struct span *rest, uint8_t wanted)
{
    size_t at = find(*rest, wanted);
    if (at == rest->length)
        return false;
    *ret = (struct span){rest->data, at};
    *rest = (struct span){rest->data + at + 1, rest->length - at - 1};
    return true;
}

static void key_id(uint8_t ret[KEY_ID_BYTES], struct span name,
                   const uint8_t key[SIGN_PUBLIC_BYTES])
{
    static const uint8_t between[] = {'\n', ED25519_TYPE};
    uint8_t whole[HASH_BYTES];
    hash_parts(whole, (struct span[]){name, SPAN_OF(between), {key, SIGN_PUBLIC_BYTES}}, 3);
    for (size_t i = 0; i < KEY_ID_BYTES; i++)
        ret[i] = whole[i];
}

void key_fingerprint(char text[2 * HASH_BYTES + 1], const uint8_t key[SIGN_PUBLIC_BYTES])
{
    uint8_t whole[HASH_BYTES];
    hash(whole, (struct span){key, SIGN_PUBLIC_BYTES});
    hex_encode(text, SPAN_OF(whole));
}

void checkpoint_put_body(struct buffer *out, const struct checkpoint *checkpoint)
{
    buffer_put_text(out, checkpoint->origin);
    buffer_printf(out, "\n%ju\n", (uintmax_t)checkpoint->size);
    base64_put(out, SPAN_OF(checkpoint->root.bytes));
    buffer_put_u8(out, '\n');
}

void checkpoint_put_signature(struct buffer *out, const char *key_name,
                              const uint8_t key[SIGN_PUBLIC_BYTES],
                              const uint8_t signature[SIGNATURE_BYTES])
{
    uint8_t id[KEY_ID_BYTES], tagged_storage[KEY_ID_BYTES + SIGNATURE_BYTES];
    struct buffer tagged = buffer_over(tagged_storage, sizeof tagged_storage);
    key_id(id, span_of_text(key_name), key);
    buffer_put(&tagged, SPAN_OF(id));
    buffer_put(&tagged, (struct span){signature, SIGNATURE_BYTES});
    buffer_put_u8(out, '\n');
    buffer_put(out, SIGNATURE_PREFIX);
    buffer_put_text(out, key_name);
    buffer_put_u8(out, ' ');
    base64_put(out, buffer_span(&tagged));
    buffer_put_u8(out, '\n');
}

status checkpoint_sign(struct buffer *out, const struct checkpoint *checkpoint,
                       const char *key_name, struct signer *signer, struct fault *fault)
{
    const struct span origin = {(const uint8_t *)checkpoint->origin,
                                find(SPAN_OF(checkpoint->origin), '\0')};
    if (origin.length == ORIGIN_MAX || !is_line_text(origin))
        return FAIL(BAD_FIELD, fault, "origin: 1 to %d bytes of UTF-8 without control characters",
                    ORIGIN_MAX - 1);
    if (!is_key_name(span_of_text(key_name)))
        return FAIL(BAD_FIELD, fault, "key name: UTF-8 without spaces, plus, control characters");
    uint8_t storage[NOTE_MAX], signature[SIGNATURE_BYTES], public_key[SIGN_PUBLIC_BYTES];
    struct buffer note = buffer_over(storage, sizeof storage);
    checkpoint_put_body(&note, checkpoint);
    TRY(buffer_check(&note, "checkpoint", fault));
    TRY(signer_sign(signature, signer, buffer_span(&note), fault));
    signer_public(public_key, signer);
    checkpoint_put_signature(&note, key_name, public_key, signature);
    TRY(buffer_check(&note, "checkpoint", fault));
    buffer_put(out, buffer_span(&note));
    return buffer_check(out, "checkpoint", fault);
}

/* Decimal, no sign, no leading zero. */
static bool read_size(uint64_t *ret, struct span text)
{
    if (text.length == 0 || text.length > SIZE_DIGITS_MAX
        || (text.data[0] == '0' && text.length > 1))
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < text.length; i++) {
        uint8_t digit = (uint8_t)(text.data[i] - '0');
        if (digit > 9 || __builtin_mul_overflow(value, 10, &value)
            || __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *ret = value;
    return true;
}

static status read_body(struct checkpoint *ret, struct span text, struct fault *fault)
{
    struct span origin, size, root;
    if (!take_until(&origin, &text, '\n') || !take_until(&size, &text, '\n')
        || !take_until(&root, &text, '\n') || text.length != 0)
        return FAIL(CORRUPT, fault, "checkpoint: its text is not three lines");
    struct checkpoint checkpoint = {0};
    if (origin.length == 0 || !span_to_text(checkpoint.origin, sizeof checkpoint.origin, origin))
        return FAIL(CORRUPT, fault, "checkpoint: origin empty or longer than %d bytes",
                    ORIGIN_MAX - 1);
    if (!read_size(&checkpoint.size, size))
        return FAIL(CORRUPT, fault, "checkpoint: the size is no decimal number of 64 bits");
    struct buffer bytes = buffer_over(checkpoint.root.bytes, HASH_BYTES);
    if (root.length != ROOT_TEXT || base64_decode(&bytes, root, "root", fault) != OK
        || bytes.length != HASH_BYTES)
        return FAIL(CORRUPT, fault, "checkpoint: the root is no base64 of 32 bytes");
    *ret = checkpoint;
    return OK;
}

/* The text is parted from the signatures by the last empty line. */
static status split(struct span *ret_text, struct span *ret_signatures, struct span note,
                    struct fault *fault)
{
    if (note.length == 0 || note.length > NOTE_SIGNED_MAX || !span_is_utf8(note)
        || note.data[note.length - 1] != '\n')
        return FAIL(CORRUPT, fault, "note: at most %d bytes of UTF-8, ending in a newline",
                    (int)NOTE_SIGNED_MAX);
    for (size_t i = 0; i < note.length; i++)
        if (note.data[i] < 0x20 && note.data[i] != '\n')
            return FAIL(CORRUPT, fault, "note: a control character");
    size_t at = note.length - 1;
    while (at > 0 && !(note.data[at - 1] == '\n' && note.data[at] == '\n'))
        at--;
    if (at == 0 || at + 1 == note.length)
        return FAIL(CORRUPT, fault, "note: no signature");
    *ret_text = (struct span){note.data, at};
    *ret_signatures = (struct span){note.data + at + 1, note.length - at - 1};
    return OK;
}

/* *ret_known: whether the line is of the expected key; then it holds. */
static status check_line(bool *ret_known, struct span line, const struct expected *expected,
                         struct fault *fault)
{
    const struct span prefix = SIGNATURE_PREFIX;
    uint8_t storage[NOTE_SIGNED_MAX * 3 / 4];
    struct buffer tagged = buffer_over(storage, sizeof storage);
    struct span name, text;
    if (!span_starts_with(line, prefix))
        return FAIL(CORRUPT, fault, "note: a line after the text that is no signature");
    text = (struct span){line.data + prefix.length, line.length - prefix.length};
    if (!take_until(&name, &text, ' ') || !is_key_name(name)
        || base64_decode(&tagged, text, "signature", fault) != OK
        || tagged.length <= KEY_ID_BYTES)
        return FAIL(CORRUPT, fault, "note: a malformed signature line");
    bool known = span_equal(name, expected->key_name)
              && span_equal((struct span){storage, KEY_ID_BYTES}, SPAN_OF(expected->key_id));
    if (known
        && (tagged.length != KEY_ID_BYTES + SIGNATURE_BYTES
            || verifier_check(expected->verifier, expected->text, storage + KEY_ID_BYTES, fault)))
        return FAIL(CORRUPT, fault, "note: the signature of %.*s does not verify",
                    (int)(name.length < 64 ? name.length : 64), (const char *)name.data);
    *ret_known = known;
    return OK;
}

static status check_signatures(struct span signatures, const struct expected *expected,
                               struct fault *fault)
{
    bool found = false;
    struct span line;
    for (uint32_t count = 0; take_until(&line, &signatures, '\n'); count++) {
        bool known;
        if (count == NOTE_SIGNATURES_MAX)
            return FAIL(CORRUPT, fault, "note: more than %d signatures", NOTE_SIGNATURES_MAX);
        TRY(check_line(&known, line, expected, fault));
        found = found || known;
    }
    if (!found)
        return FAIL(CORRUPT, fault, "note: no signature of the expected key");
    return OK;
}

status checkpoint_open(struct checkpoint *ret, struct span note, const char *key_name,
                       const uint8_t key[SIGN_PUBLIC_BYTES], struct fault *fault)
{
    struct checkpoint checkpoint;
    struct expected expected = {.key_name = span_of_text(key_name)};
    struct span signatures;
    TRY(split(&expected.text, &signatures, note, fault));
    TRY(read_body(&checkpoint, expected.text, fault));
    key_id(expected.key_id, expected.key_name, key);
    TRY(verifier_create(&expected.verifier, key, fault));
    status checked = check_signatures(signatures, &expected, fault);
    verifier_free(expected.verifier);
    if (checked == OK)
        *ret = checkpoint;
    return checked;
}
