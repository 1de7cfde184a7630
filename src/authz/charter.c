#include "authz/charter.h"

#include "base/hex.h"

#include <stdlib.h>

static const char signed_prefix[] = "bulkhead charter v1\n";

bool charter_is_platform(const struct charter *charter)
{
    static const uint8_t platform[TENANT_ID_BYTES];
    return span_equal(SPAN_OF(charter->id), SPAN_OF(platform));
}

struct charter *charter_free(struct charter *charter)
{
    if (charter) {
        free(charter->issuers);
        free(charter->jtis);
        free(charter->subjects);
    }
    free(charter);
    return NULL;
}

void charter_drop_past(struct charter *charter, int64_t now)
{
    const int64_t life = TOKEN_LIFETIME_MAX_SECONDS + 2 * TOKEN_SKEW_SECONDS;
    uint32_t jtis = 0, subjects = 0;
    for (uint32_t i = 0; i < charter->jti_count; i++)
        if (charter->jtis[i].until + TOKEN_SKEW_SECONDS > now)
            charter->jtis[jtis++] = charter->jtis[i];
    for (uint32_t i = 0; i < charter->subject_count; i++)
        if (charter->subjects[i].at > now - life)
            charter->subjects[subjects++] = charter->subjects[i];
    charter->jti_count = jtis;
    charter->subject_count = subjects;
}

/* ---- signed ---- */

static void put_signed_head(struct buffer *out, const uint8_t id[TENANT_ID_BYTES],
                            uint64_t sequence)
{
    buffer_put(out, SPAN(signed_prefix));
    buffer_put(out, (struct span){id, TENANT_ID_BYTES});
    buffer_put_u64(out, sequence);
}

void charter_signed_bytes(struct buffer *out, const uint8_t id[TENANT_ID_BYTES], uint64_t sequence,
                          struct span document)
{
    put_signed_head(out, id, sequence);
    buffer_put(out, document);
}

void charter_hash(uint8_t ret[HASH_BYTES], const uint8_t id[TENANT_ID_BYTES], uint64_t sequence,
                  struct span document)
{
    struct buffer head = buffer_over((uint8_t[64]){0}, 64);
    static_assert(sizeof signed_prefix + TENANT_ID_BYTES + 8 <= 64, "the head fits");
    put_signed_head(&head, id, sequence);
    hash_parts(ret, (struct span[]){buffer_span(&head), document}, 2);
}

void signed_charter_put(struct buffer *out, const struct signed_charter *charter)
{
    buffer_put(out, SPAN_OF(charter->id));
    buffer_put_u64(out, charter->sequence);
    buffer_put_field(out, charter->document);
    buffer_put(out, SPAN_OF(charter->signature));
}

status signed_charter_get(struct signed_charter *ret, struct cursor *cursor, struct fault *fault)
{
    struct signed_charter charter;
    TRY(cursor_copy(charter.id, cursor, sizeof charter.id, fault));
    TRY(cursor_u64(&charter.sequence, cursor, fault));
    TRY(cursor_field(&charter.document, cursor, CHARTER_MAX, "charter", fault));
    TRY(cursor_copy(charter.signature, cursor, sizeof charter.signature, fault));
    *ret = charter;
    return OK;
}

static void charter_cleanup(struct charter **charter)
{
    *charter = charter_free(*charter);
}

status signed_charter_read(struct charter **ret, const struct signed_charter *charter,
                           struct fault *fault)
{
    __attribute__((cleanup(charter_cleanup))) struct charter *opened = NULL;
    TRY(charter_read(&opened, charter->document, fault));
    if (!span_equal(SPAN_OF(opened->id), SPAN_OF(charter->id))
        || opened->sequence != charter->sequence)
        return FAIL(BAD_FIELD, fault, "charter: not of the id and sequence that were signed");
    *ret = opened;
    opened = NULL;
    return OK;
}

status signed_charter_open(struct charter **ret, struct verifier *platform,
                           const struct signed_charter *charter, struct fault *fault)
{
    if (charter->document.length > CHARTER_MAX)
        return FAIL(BAD_FIELD, fault, "charter: at most %d bytes", CHARTER_MAX);
    _cleanup_buffer_ struct buffer bytes = buffer_of(CHARTER_SIGNED_MAX);
    charter_signed_bytes(&bytes, charter->id, charter->sequence, charter->document);
    if (bytes.failed)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    TRY(verifier_check(platform, buffer_span(&bytes), charter->signature, fault));
    return signed_charter_read(ret, charter, fault);
}

void charter_head_put(struct buffer *out, const struct charter_head *head)
{
    buffer_put_u64(out, head->sequence);
    buffer_put(out, SPAN_OF(head->hash));
}

status charter_head_get(struct charter_head *ret, struct cursor *cursor, struct fault *fault)
{
    static const uint8_t none[HASH_BYTES];
    struct charter_head head;
    TRY(cursor_u64(&head.sequence, cursor, fault));
    TRY(cursor_copy(head.hash, cursor, sizeof head.hash, fault));
    if (head.sequence == 0 && !span_equal(SPAN_OF(head.hash), SPAN_OF(none)))
        return FAIL(BAD_FIELD, fault, "charter head: a hash without a sequence");
    *ret = head;
    return OK;
}

/* ---- in force ---- */

status charter_trust(struct token_verifier *verifier, const struct charter *charter,
                     struct fault *fault)
{
    char tenant[TENANT_ID_TEXT] = "";
    if (!charter_is_platform(charter))
        hex_encode(tenant, SPAN_OF(charter->id));
    return token_verifier_replace(verifier, tenant, charter->issuers, charter->issuer_count,
                                  fault);
}

static bool is_revoked_jti(const struct charter *charter, const uint8_t jti[HASH_BYTES])
{
    static const uint8_t none[HASH_BYTES];
    if (span_equal((struct span){jti, HASH_BYTES}, SPAN_OF(none)))
        return false;
    uint32_t low = 0, high = charter->jti_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = span_compare(SPAN_OF(charter->jtis[middle].hash),
                                 (struct span){jti, REVOKED_JTI_BYTES});
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static const struct revoked_subject *find_subject(const struct charter *charter, struct span user)
{
    uint32_t low = 0, high = charter->subject_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = span_compare(span_of_text(charter->subjects[middle].user), user);
        if (order == 0)
            return &charter->subjects[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool charter_revokes(const struct charter *charter, const struct claims *claims)
{
    if (!charter)
        return false;
    if (is_revoked_jti(charter, claims->jti))
        return true;
    const struct revoked_subject *cut = find_subject(charter, span_of_text(claims->user));
    return cut && (claims->issued_at == 0
                   || claims->issued_at <= cut->at + claims->issuer_early_seconds);
}
