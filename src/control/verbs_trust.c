/* verbs_trust.c: whose tokens count: issuers and revocations, of one tenant or of all. */
#include "authz/jwks.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "control/control.h"

#include <string.h>
#include <sys/stat.h>

enum {
    LIST_MAX = 1024 * 1024,
    LIFETIME_DEFAULT_SECONDS = 3600,
    EXPIRY_MAX_SECONDS = 10 * 366 * 86400, /* a token's, however it was dated */
};

static void put_scope(struct json_writer *writer, const struct charter_scope *scope)
{
    if (scope->platform)
        json_put_bool(writer, "platform", true);
    else
        json_put_text(writer, "name", scope->tenant.name);
}

static status commit(struct session *session, const struct charter_scope *scope,
                     const struct draft *draft, const char *event, struct span detail,
                     struct fault *fault)
{
    const struct ledger_note note = {event, detail, session->uid};
    return charter_change(session->control, scope->platform ? NULL : &scope->tenant, &draft->next,
                          &note, session->kms_admin, fault);
}

/* ---- issuers ---- */

static struct token_issuer *issuer_named(const struct charter *charter, struct span iss)
{
    for (uint32_t i = 0; i < charter->issuer_count; i++)
        if (span_is(iss, charter->issuers[i].iss))
            return &charter->issuers[i];
    return NULL;
}

static status set_text(char *text, size_t size, const struct json *arguments, const char *name,
                       struct fault *fault)
{
    struct span given = {0};
    TRY(json_optional_text(&given, arguments, name, 1, size - 1, fault));
    if (given.data && (!span_is_plain_text(given) || !span_to_text(text, size, given)))
        return FAIL(BAD_FIELD, fault, "%s: 1 to %zu bytes of text without control characters",
                    name, size - 1);
    return OK;
}

/* What is not said stays: of the issuer that is replaced, else the default. */
static status set_members(struct token_issuer *issuer, const struct json *arguments,
                          struct fault *fault)
{
    int64_t skew = -1;
    TRY(set_text(issuer->iss, sizeof issuer->iss, arguments, "iss", fault));
    TRY(set_text(issuer->aud, sizeof issuer->aud, arguments, "aud", fault));
    TRY(set_text(issuer->tenant_claim, sizeof issuer->tenant_claim, arguments, "tenant_claim",
                 fault));
    TRY(set_text(issuer->user_claim, sizeof issuer->user_claim, arguments, "user_claim", fault));
    TRY(set_text(issuer->scope_claim, sizeof issuer->scope_claim, arguments, "scope_claim",
                 fault));
    TRY(set_text(issuer->clearance_claim, sizeof issuer->clearance_claim, arguments,
                 "clearance_claim", fault));
    TRY(json_optional_bool(&issuer->jti_once, arguments, "once", fault));
    TRY(json_optional_integer(&issuer->lifetime_max_seconds, arguments, "max_lifetime_seconds", 1,
                              TOKEN_LIFETIME_MAX_SECONDS, fault));
    TRY(json_optional_integer(&skew, arguments, "skew_seconds", 0, TOKEN_SKEW_SECONDS, fault));
    if (skew >= 0)
        issuer->early_seconds = issuer->late_seconds = skew;
    return OK;
}

static struct token_issuer issuer_defaults(const struct charter_scope *scope)
{
    struct token_issuer issuer = {
        .aud = TOKEN_AUDIENCE, .tenant_claim = "tenant_id", .user_claim = "sub",
        .scope_claim = "scope", .clearance_claim = "clearance",
        .lifetime_max_seconds = LIFETIME_DEFAULT_SECONDS,
        .early_seconds = TOKEN_SKEW_SECONDS, .late_seconds = TOKEN_SKEW_SECONDS};
    if (!scope->platform)
        hex_encode(issuer.tenant, SPAN_OF(scope->tenant.id));
    return issuer;
}

static status read_keys(struct jwks *ret, struct ipc_message *message, struct fault *fault)
{
    struct stat info;
    _cleanup_buffer_ struct buffer text = buffer_of(JWKS_MAX);
    TRY(ipc_need_fds(message, 1, fault));
    if (fstat(message->fds[0], &info) || !S_ISREG(info.st_mode))
        return FAIL(BAD_FIELD, fault, "jwks: must be a file");
    TRY(file_read(&text, message->fds[0], "jwks", fault));
    return jwks_read(ret, buffer_span(&text), fault);
}

struct claim_count {
    struct span name;
    uint32_t others;
};

static status count_claim(void *context, struct span name, struct fault *fault)
{
    struct claim_count *count = context;
    (void)fault;
    count->others += !span_equal(name, count->name);
    return OK;
}

/* Gateways read an unverified token under these names: there are few. */
static status check_claim(struct control *control, const struct token_issuer *issuer,
                          struct fault *fault)
{
    struct claim_count count = {.name = span_of_text(issuer->tenant_claim)};
    TRY(charter_claims(control, count_claim, &count, fault));
    if (count.others >= CLAIM_NAMES_MAX)
        return FAIL(CONFLICT, fault, "tenant_claim: the issuers of tenants use %d other names "
                    "already", CLAIM_NAMES_MAX);
    return OK;
}

static bool has_key(const struct token_issuer *issuer, const struct token_key *key)
{
    for (uint32_t i = 0; issuer && i < issuer->key_count; i++) {
        const struct token_key *other = &issuer->keys[i];
        if (span_is(span_of_text(key->id), other->id) && key->alg == other->alg
            && span_equal((struct span){key->public_key, key->length},
                          (struct span){other->public_key, other->length}))
            return true;
    }
    return false;
}

static void put_keys_without(struct json_writer *writer, const char *name,
                             const struct token_issuer *from, const struct token_issuer *without)
{
    json_open_array(writer, name);
    for (uint32_t i = 0; from && i < from->key_count; i++)
        if (!has_key(without, &from->keys[i]))
            json_put_text(writer, NULL, from->keys[i].id);
    json_close_array(writer);
}

static void put_settings(struct json_writer *writer, const struct token_issuer *issuer)
{
    json_put_text(writer, "aud", issuer->aud);
    json_put_text(writer, "tenant_claim", issuer->tenant_claim);
    json_put_text(writer, "user_claim", issuer->user_claim);
    json_put_text(writer, "scope_claim", issuer->scope_claim);
    json_put_text(writer, "clearance_claim", issuer->clearance_claim);
    json_put_bool(writer, "once", issuer->jti_once);
    json_put_integer(writer, "max_lifetime_seconds", issuer->lifetime_max_seconds);
    json_put_integer(writer, "skew_seconds", issuer->late_seconds);
}

/* Of the answer and of the ledger's entry. old or new is NULL where there is none. */
static void put_issuer_change(struct buffer *out, const struct draft *draft,
                              const struct token_issuer *old, const struct token_issuer *new)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter_sequence", (int64_t)draft->next.sequence);
    json_put_text(&writer, "iss", new ? new->iss : old->iss);
    json_put_bool(&writer, "replaced", old && new);
    put_keys_without(&writer, "keys_added", new, old);
    put_keys_without(&writer, "keys_removed", old, new);
    if (new)
        put_settings(&writer, new);
    json_close_object(&writer);
}

static status add_issuer(struct session *session, const struct charter_scope *scope,
                         struct draft *draft, const struct json *arguments,
                         const struct jwks *jwks, struct fault *fault)
{
    _cleanup_buffer_ struct buffer change = buffer_of(AUDIT_ENTRY_MAX);
    struct charter *next = &draft->next;
    struct span iss;
    TRY(json_text(&iss, arguments, "iss", 1, TOKEN_ISS_MAX, fault));
    struct token_issuer *old = issuer_named(next, iss);
    struct token_issuer former = old ? *old : (struct token_issuer){0};
    struct token_issuer issuer = old ? *old : issuer_defaults(scope);
    TRY(set_members(&issuer, arguments, fault));
    if (!scope->platform)
        TRY(check_claim(session->control, &issuer, fault));
    memset(issuer.keys, 0, sizeof issuer.keys);
    for (uint32_t i = 0; i < jwks->count; i++)
        issuer.keys[i] = jwks->keys[i];
    issuer.key_count = jwks->count;
    if (old)
        *old = issuer;
    else
        next->issuers[next->issuer_count++] = issuer;
    put_issuer_change(&change, draft, old ? &former : NULL, &issuer);
    TRY(buffer_check(&change, "change", fault));
    TRY(commit(session, scope, draft, "issuer.add", buffer_span(&change), fault));
    session_answer(session, OK, "", buffer_span(&change));
    return OK;
}

status verb_issuer_add(struct session *session, const struct json *arguments,
                       struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {
        "name", "platform", "iss", "aud", "tenant_claim", "user_claim", "scope_claim",
        "clearance_claim", "skew_seconds", "max_lifetime_seconds", "once", NULL};
    struct charter_scope scope;
    struct draft draft;
    struct jwks jwks;
    TRY(json_only(arguments, known, fault));
    TRY(verb_scope(&scope, session->control, arguments, fault));
    TRY(read_keys(&jwks, message, fault));
    TRY(draft_open(&draft, session->control, scope.id, fault));
    status result = add_issuer(session, &scope, &draft, arguments, &jwks, fault);
    draft_close(&draft);
    return result;
}

static status remove_issuer(struct session *session, const struct charter_scope *scope,
                            struct draft *draft, struct span iss, struct fault *fault)
{
    _cleanup_buffer_ struct buffer change = buffer_of(AUDIT_ENTRY_MAX);
    struct charter *next = &draft->next;
    struct token_issuer *found = issuer_named(next, iss);
    if (!found)
        return FAIL(NOT_FOUND, fault, "there is no such issuer %s",
                    scope->platform ? "of the platform" : "of this tenant");
    struct token_issuer former = *found;
    *found = next->issuers[--next->issuer_count];
    put_issuer_change(&change, draft, &former, NULL);
    TRY(buffer_check(&change, "change", fault));
    TRY(commit(session, scope, draft, "issuer.remove", buffer_span(&change), fault));
    session_answer(session, OK, "", buffer_span(&change));
    return OK;
}

status verb_issuer_remove(struct session *session, const struct json *arguments,
                          struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "platform", "iss", NULL};
    struct charter_scope scope;
    struct draft draft;
    struct span iss;
    (void)message;
    TRY(json_only(arguments, known, fault));
    TRY(json_text(&iss, arguments, "iss", 1, TOKEN_ISS_MAX, fault));
    TRY(verb_scope(&scope, session->control, arguments, fault));
    TRY(draft_open(&draft, session->control, scope.id, fault));
    status result = remove_issuer(session, &scope, &draft, iss, fault);
    draft_close(&draft);
    return result;
}

static void put_issuer(struct json_writer *writer, const struct token_issuer *issuer)
{
    json_open_object(writer, NULL);
    json_put_text(writer, "iss", issuer->iss);
    put_settings(writer, issuer);
    json_open_array(writer, "keys");
    for (uint32_t i = 0; i < issuer->key_count; i++) {
        json_open_object(writer, NULL);
        json_put_text(writer, "kid", issuer->keys[i].id);
        json_put_text(writer, "alg", token_alg_name(issuer->keys[i].alg));
        json_close_object(writer);
    }
    json_close_array(writer);
    json_close_object(writer);
}

/* ---- revocations ---- */

static void put_jti(struct json_writer *writer, const struct revoked_jti *jti)
{
    char text[2 * REVOKED_JTI_BYTES + 1], until[CLOCK_TEXT_SIZE];
    hex_encode(text, SPAN_OF(jti->hash));
    clock_text(until, jti->until * 1000000);
    json_open_object(writer, NULL);
    json_put_text(writer, "jti_sha256", text); /* its first half */
    json_put_text(writer, "until", until);
    json_close_object(writer);
}

static void put_subject(struct json_writer *writer, const struct revoked_subject *subject)
{
    char at[CLOCK_TEXT_SIZE];
    clock_text(at, subject->at * 1000000);
    json_open_object(writer, NULL);
    json_put_text(writer, "user", subject->user);
    json_put_text(writer, "issued_until", at);
    json_close_object(writer);
}

static status full(const char *what, struct fault *fault)
{
    return FAIL(TOO_LARGE, fault, "%d %s are revoked already; each is dropped when its tokens "
                "could not be in force any more, a day later at most", CHARTER_REVOCATIONS_MAX,
                what);
}

/* No clock and no issuer lets a token of ours live longer; an expiry that lies beyond that, as a
 * token says that nobody has verified here, can only make it last longer, never end it early. */
static status revoke_jti(struct revoked_jti **ret, struct charter *next, struct span jti,
                         int64_t expires_at, struct fault *fault)
{
    uint8_t hashed[HASH_BYTES];
    struct revoked_jti *entry = NULL;
    int64_t until = next->issued_at + TOKEN_LIFETIME_MAX_SECONDS + 2 * TOKEN_SKEW_SECONDS;
    hash(hashed, jti);
    for (uint32_t i = 0; i < next->jti_count; i++)
        if (span_equal(SPAN_OF(next->jtis[i].hash), (struct span){hashed, REVOKED_JTI_BYTES}))
            entry = &next->jtis[i];
    if (!entry && next->jti_count >= CHARTER_REVOCATIONS_MAX)
        return full("tokens", fault);
    if (!entry)
        entry = &next->jtis[next->jti_count++];
    struct cursor bytes = cursor_over(SPAN_OF(hashed));
    TRY(cursor_copy(entry->hash, &bytes, REVOKED_JTI_BYTES, fault));
    entry->until = until > expires_at ? until : expires_at + TOKEN_SKEW_SECONDS;
    *ret = entry;
    return OK;
}

static status revoke_subject(struct revoked_subject **ret, struct charter *next,
                             struct span user, struct fault *fault)
{
    struct revoked_subject *entry = NULL;
    if (!principal_is_valid(user))
        return FAIL(BAD_FIELD, fault, "user: 1 to %d bytes of text without control characters",
                    USER_MAX);
    for (uint32_t i = 0; i < next->subject_count; i++)
        if (span_is(user, next->subjects[i].user))
            entry = &next->subjects[i];
    if (!entry && next->subject_count >= CHARTER_REVOCATIONS_MAX)
        return full("users", fault);
    if (!entry)
        entry = &next->subjects[next->subject_count++];
    if (!span_to_text(entry->user, sizeof entry->user, user))
        return FAIL(BAD_FIELD, fault, "user: at most %d bytes", USER_MAX);
    entry->at = next->issued_at > entry->at ? next->issued_at : entry->at;
    *ret = entry;
    return OK;
}

/* A user's name stays out of the ledger, which outlives every tenant. */
static void put_revoked_subject(struct buffer *out, const struct charter *next,
                                const struct revoked_subject *subject)
{
    char text[2 * HASH_BYTES + 1];
    uint8_t hashed[HASH_BYTES];
    const struct span parts[] = {SPAN_OF(next->id), span_of_text(subject->user)};
    struct json_writer writer = json_writer_on(out);
    hash_parts(hashed, parts, 2);
    hex_encode(text, SPAN_OF(hashed));
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter_sequence", (int64_t)next->sequence);
    json_put_text(&writer, "user_sha256", text);
    json_put_integer(&writer, "issued_until", subject->at);
    json_close_object(&writer);
}

static void put_revoked_jti(struct buffer *out, const struct charter *next,
                            const struct revoked_jti *jti)
{
    char text[2 * REVOKED_JTI_BYTES + 1];
    struct json_writer writer = json_writer_on(out);
    hex_encode(text, SPAN_OF(jti->hash));
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter_sequence", (int64_t)next->sequence);
    json_put_text(&writer, "jti_sha256", text);
    json_put_integer(&writer, "until", jti->until);
    json_close_object(&writer);
}

struct revocation { /* one of the two */
    struct revoked_jti *jti;
    struct revoked_subject *subject;
};

static status answer_revoked(struct session *session, const struct charter_scope *scope,
                             const struct charter *next, const struct revocation *revoked,
                             struct fault *fault)
{
    uint8_t storage[4096];
    struct buffer text = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&text);
    json_open_object(&writer, NULL);
    put_scope(&writer, scope);
    json_put_integer(&writer, "charter_sequence", (int64_t)next->sequence);
    json_open_array(&writer, "revoked");
    if (revoked->jti)
        put_jti(&writer, revoked->jti);
    else
        put_subject(&writer, revoked->subject);
    json_close_array(&writer);
    json_close_object(&writer);
    TRY(buffer_check(&text, "revoked", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

static status revoke_one(struct session *session, const struct charter_scope *scope,
                         struct draft *draft, const struct json *arguments, struct fault *fault)
{
    uint8_t storage[1024];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct revocation revoked = {0};
    struct span jti = {0}, user = {0};
    struct charter *next = &draft->next;
    int64_t expires_at = 0;
    TRY(json_optional_text(&jti, arguments, "jti", 1, TOKEN_JTI_MAX, fault));
    TRY(json_optional_text(&user, arguments, "user", 1, USER_MAX, fault));
    TRY(json_optional_integer(&expires_at, arguments, "expires_at", 0,
                              next->issued_at + EXPIRY_MAX_SECONDS, fault));
    if (!jti.data == !user.data)
        return FAIL(BAD_FIELD, fault, "jti: either that of a token or a user is needed");
    if (jti.data) {
        TRY(revoke_jti(&revoked.jti, next, jti, expires_at, fault));
        put_revoked_jti(&detail, next, revoked.jti);
    } else {
        TRY(revoke_subject(&revoked.subject, next, user, fault));
        put_revoked_subject(&detail, next, revoked.subject);
    }
    TRY(buffer_check(&detail, "revoked", fault));
    TRY(commit(session, scope, draft, "token.revoke", buffer_span(&detail), fault));
    return answer_revoked(session, scope, next, &revoked, fault);
}

status verb_revoke(struct session *session, const struct json *arguments,
                   struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "platform", "jti", "expires_at", "user", NULL};
    struct charter_scope scope;
    struct draft draft;
    (void)message;
    TRY(json_only(arguments, known, fault));
    TRY(verb_scope(&scope, session->control, arguments, fault));
    TRY(draft_open(&draft, session->control, scope.id, fault));
    status result = revoke_one(session, &scope, &draft, arguments, fault);
    draft_close(&draft);
    return result;
}

/* ---- lists ---- */

static void put_issuers(struct json_writer *writer, const struct charter *charter)
{
    for (uint32_t i = 0; i < charter->issuer_count; i++)
        put_issuer(writer, &charter->issuers[i]);
}

static void put_revocations(struct json_writer *writer, const struct charter *charter)
{
    for (uint32_t i = 0; i < charter->jti_count; i++)
        put_jti(writer, &charter->jtis[i]);
    for (uint32_t i = 0; i < charter->subject_count; i++)
        put_subject(writer, &charter->subjects[i]);
}

/* {"name"|"platform", "charter_sequence", "data"} of one scope's newest charter. */
static status list(struct session *session, const struct json *arguments,
                   void (*put)(struct json_writer *, const struct charter *),
                   struct fault *fault)
{
    static const char *const known[] = {"name", "platform", NULL};
    _cleanup_buffer_ struct buffer text = buffer_of(LIST_MAX);
    struct json_writer writer = json_writer_on(&text);
    struct charter *charter = NULL;
    struct charter_scope scope;
    TRY(json_only(arguments, known, fault));
    TRY(verb_scope(&scope, session->control, arguments, fault));
    status found = charter_newest(&charter, session->control, scope.id, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    json_open_object(&writer, NULL);
    put_scope(&writer, &scope);
    json_put_integer(&writer, "charter_sequence", charter ? (int64_t)charter->sequence : 0);
    json_open_array(&writer, "data");
    if (charter)
        put(&writer, charter);
    json_close_array(&writer);
    json_close_object(&writer);
    charter_free(charter);
    TRY(buffer_check(&text, "list", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

status verb_issuer_list(struct session *session, const struct json *arguments,
                        struct ipc_message *message, struct fault *fault)
{
    (void)message;
    return list(session, arguments, put_issuers, fault);
}

status verb_revoke_list(struct session *session, const struct json *arguments,
                        struct ipc_message *message, struct fault *fault)
{
    (void)message;
    return list(session, arguments, put_revocations, fault);
}
