/* charters.c: which charters are in force, and what follows from them. Only the kms says which: a
 * candidate whose hash is not the head that it named is not looked into, whoever signed it. */
#include "base/log.h"
#include "cell/state.h"

#include <assert.h>

enum { POSTURE_MAX = 2 * CHARTER_MAX + KIB(2), FIELD_MAX = CHARTER_MAX + KIB(1) };

static const uint8_t platform_id[TENANT_ID_BYTES]; /* all zero: no tenant has it */

static const char *name_of(enum silo_charter scope)
{
    return scope == SILO_CHARTER_TENANT ? "tenant" : "platform";
}

status charters_hand_in(struct cell *cell, struct cursor *posture, struct fault *fault)
{
    struct charters *charters = &cell->charters;
    TRY(cursor_u32(&charters->idle_seconds, posture, fault));
    TRY(cursor_text(charters->region, sizeof charters->region, posture, "region", fault));
    for (int scope = 0; scope < SILO_CHARTERS; scope++) {
        struct span handed;
        charters->handed[scope] = buffer_of(FIELD_MAX);
        TRY(cursor_field(&handed, posture, FIELD_MAX, "charter", fault));
        buffer_put(&charters->handed[scope], handed);
        TRY(buffer_check(&charters->handed[scope], "charter", fault));
    }
    TRY(prices_get(&cell->usage.prices, posture, fault));
    if (charters->idle_seconds == 0)
        charters->idle_seconds = IDLE_SECONDS_DEFAULT;
    return cursor_end(posture, fault);
}

/* A whole one of a scope that is ours. */
static status get_signed(struct signed_charter *ret, enum silo_charter *ret_scope,
                         const struct cell *cell, struct span bytes, struct fault *fault)
{
    struct cursor cursor = cursor_over(bytes);
    struct signed_charter charter;
    TRY(signed_charter_get(&charter, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    bool tenant = span_equal(SPAN_OF(charter.id), SPAN_OF(cell->tenant_id));
    if (!tenant && !span_equal(SPAN_OF(charter.id), SPAN_OF(platform_id)))
        return FAIL(BAD_FIELD, fault, "a charter of another tenant");
    *ret = charter;
    *ret_scope = tenant ? SILO_CHARTER_TENANT : SILO_CHARTER_PLATFORM;
    return OK;
}

static bool same_head(const struct charter_head *left, const struct charter_head *right)
{
    return left->sequence == right->sequence
        && span_equal(SPAN_OF(left->hash), SPAN_OF(right->hash));
}

static struct charter_head head_of(const struct signed_charter *charter)
{
    struct charter_head head = {.sequence = charter->sequence};
    charter_hash(head.hash, charter->id, charter->sequence, charter->document);
    return head;
}

/* NOT_FOUND when these bytes are not the charter of that head. proven: this silo has kept a charter
 * of that head, so its signature was found good at an earlier waking: the hash says it is the same
 * one, and a verification is a good part of the processor time of a waking. */
static status open_candidate(struct charter **ret, struct signed_charter *ret_signed,
                             struct cell *cell, enum silo_charter scope, struct span bytes,
                             const struct charter_head *head, bool proven, struct fault *fault)
{
    struct signed_charter charter;
    enum silo_charter found;
    struct fault why;
    if (bytes.length == 0)
        return FAIL(NOT_FOUND, fault, "no charter of the %s was handed in", name_of(scope));
    if (get_signed(&charter, &found, cell, bytes, &why) != OK || found != scope)
        return FAIL(NOT_FOUND, fault, "what was handed in is no charter of the %s",
                    name_of(scope));
    struct charter_head own = head_of(&charter);
    if (!same_head(&own, head))
        return FAIL(NOT_FOUND, fault, "the charter in force of the %s, %llu, was not handed in",
                    name_of(scope), (unsigned long long)head->sequence);
    status opened = proven
        ? signed_charter_read(ret, &charter, &why)
        : signed_charter_open(ret, cell->charters.platform, &charter, &why);
    if (opened != OK)
        return FAIL(NOT_FOUND, fault, "the charter of the %s: %.100s", name_of(scope),
                    why.detail);
    *ret_signed = charter;
    return OK;
}

static status open_own(struct charter **ret, struct cell *cell, enum silo_charter scope,
                       const struct charter_head *head, struct fault *fault)
{
    struct signed_charter charter;
    struct buffer copy = buffer_of(FIELD_MAX);
    status opened = silo_charter(&copy, cell->silo, scope, fault);
    if (opened == OK)
        opened = open_candidate(ret, &charter, cell, scope, buffer_span(&copy), head, false,
                                fault);
    buffer_free(&copy);
    return opened;
}

static status choose(struct charter **ret, struct cell *cell, enum silo_charter scope,
                     const struct charter_head *head, struct fault *fault)
{
    struct charter_head own;
    struct signed_charter charter;
    struct fault ignored;
    if (head->sequence == 0 && scope == SILO_CHARTER_PLATFORM) {
        *ret = NULL;
        return OK;
    }
    if (head->sequence == 0)
        return FAIL(UNAVAILABLE, fault, "the kms has signed no charter for this tenant");
    if (silo_charter_head(&own, cell->silo, scope, &ignored) != OK)
        own = (struct charter_head){0}; /* damaged: as if there were no copy */
    bool kept = same_head(&own, head);
    status opened = open_candidate(ret, &charter, cell, scope,
                                   buffer_span(&cell->charters.handed[scope]), head, kept, fault);
    if (opened == OK && !kept)
        silo_keep_charter(cell->silo, scope, &charter);
    if (opened != OK && kept) {
        log_event(LOG_WARN, "charter.own", "%s", fault->detail);
        opened = open_own(ret, cell, scope, head, &ignored);
    }
    return opened == NOT_FOUND ? UNAVAILABLE : opened;
}

/* What the posture says becomes what this process goes by. */
static void apply(struct cell *cell)
{
    const struct charter *charter = cell->charters.in_force[SILO_CHARTER_TENANT];
    const struct posture *posture = &charter->posture;
    bool fits = span_to_text(cell->facts.name, sizeof cell->facts.name,
                             span_of_text(posture->name));
    assert(fits);
    cell->facts.created_at_us = posture->created_at_us;
    cell->facts.clearance_required = posture->clearance_required;
    cell->facts.token_lifetime_max_seconds = posture->token_lifetime_max_seconds;
    silo_set_posture(cell->silo, posture, charter->sequence);
    quota_apply(cell, &posture->quotas);
    cell->charters.generation++;
}

static status enforce(struct cell *cell, enum silo_charter scope, struct charter *charter,
                      const struct charter_head *head, struct fault *fault)
{
    struct charters *charters = &cell->charters;
    if (charter) {
        status trusted = charter_trust(cell->verifier, charter, fault);
        if (trusted != OK) {
            charter_free(charter);
            return trusted;
        }
    }
    charter_free(charters->in_force[scope]);
    charters->in_force[scope] = charter;
    charters->heads[scope] = *head;
    return OK;
}

status charters_choose(struct cell *cell, const struct charter_head heads[SILO_CHARTERS],
                       struct fault *fault)
{
    TRY(verifier_create(&cell->charters.platform, cell->platform_key, fault));
    for (int i = 0; i < SILO_CHARTERS; i++) {
        enum silo_charter scope = (enum silo_charter)i;
        struct charter *charter;
        TRY(choose(&charter, cell, scope, &heads[scope], fault));
        TRY(enforce(cell, scope, charter, &heads[scope], fault));
        buffer_free(&cell->charters.handed[scope]);
    }
    silo_set_prices(cell->silo, &cell->usage.prices);
    apply(cell);
    return OK;
}

status charters_hand_in_late(struct cell *cell, struct span body, struct fault *fault)
{
    struct signed_charter charter;
    enum silo_charter scope;
    TRY(get_signed(&charter, &scope, cell, body, fault));
    buffer_clear(&cell->charters.handed[scope]);
    buffer_put(&cell->charters.handed[scope], body);
    return buffer_check(&cell->charters.handed[scope], "charter", fault);
}

status charters_replace(struct cell *cell, struct span body, struct fault *fault)
{
    struct signed_charter charter;
    struct charter *opened;
    enum silo_charter scope;
    TRY(get_signed(&charter, &scope, cell, body, fault));
    struct charter_head head = head_of(&charter);
    const struct charter_head *present = &cell->charters.heads[scope];
    if (same_head(&head, present))
        return OK; /* it has crossed the answer that named it */
    if (head.sequence <= present->sequence)
        return FAIL(ROLLED_BACK, fault, "charter %llu of the %s after %llu",
                    (unsigned long long)head.sequence, name_of(scope),
                    (unsigned long long)present->sequence);
    TRY(signed_charter_open(&opened, cell->charters.platform, &charter, fault));
    TRY(enforce(cell, scope, opened, &head, fault));
    silo_keep_charter(cell->silo, scope, &charter);
    apply(cell);
    rotation_look(cell);
    turn_look_for_expiry(cell);
    log_event(LOG_INFO, "charter.changed", "%s, %llu", name_of(scope),
              (unsigned long long)head.sequence);
    return OK;
}

bool charters_are(const struct cell *cell, const struct charter_head heads[SILO_CHARTERS])
{
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        if (!same_head(&heads[scope], &cell->charters.heads[scope]))
            return false;
    return true;
}

bool charters_revoke(const struct cell *cell, const struct claims *claims)
{
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        if (charter_revokes(cell->charters.in_force[scope], claims))
            return true;
    return false;
}

const struct posture *charters_posture(const struct cell *cell)
{
    return &cell->charters.in_force[SILO_CHARTER_TENANT]->posture;
}

void charters_free(struct cell *cell)
{
    struct charters *charters = &cell->charters;
    for (int scope = 0; scope < SILO_CHARTERS; scope++) {
        charters->in_force[scope] = charter_free(charters->in_force[scope]);
        buffer_free(&charters->handed[scope]);
    }
    charters->platform = verifier_free(charters->platform);
}
