#include "kms/channel.h"

#include "authz/token.h"
#include "base/arena.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/secret.h"
#include "crypt/note.h"
#include "wire/json.h"
#include "wire/messages.h"

#include <string.h>

#define RECEIPT_CONTEXT SPAN("bulkhead receipt v1\n")

/* The last step of reading a body: what fails from here on is answered. */
static status body_end(struct request *request, struct fault *fault)
{
    TRY(cursor_end(&request->body, fault));
    request->read = true;
    return OK;
}

static status body_id(uint8_t ret[TENANT_ID_BYTES], struct request *request, struct fault *fault)
{
    return cursor_copy(ret, &request->body, TENANT_ID_BYTES, fault);
}

static status only_id(uint8_t ret[TENANT_ID_BYTES], struct request *request, struct fault *fault)
{
    TRY(body_id(ret, request, fault));
    return body_end(request, fault);
}

static status not_platform(const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    if (keystore_is_platform(id))
        return FAIL(BAD_FIELD, fault, "tenant id: all zero is the platform itself, no tenant");
    return OK;
}

static void log_verb(const struct request *request, const char *event,
                     const uint8_t id[TENANT_ID_BYTES])
{
    char text[TENANT_ID_TEXT];
    hex_encode(text, (struct span){id, TENANT_ID_BYTES});
    if (request->channel->role == ROLE_ADMIN)
        log_event(LOG_INFO, event, "tenant %s, by uid %u", text, request->channel->uid);
    else
        log_event(LOG_INFO, event, "tenant %s", text);
}

/* ---- the supervisor ---- */

static status on_stop(struct request *request, struct fault *fault)
{
    TRY(body_end(request, fault));
    kms_stop(request->kms);
    return OK;
}

static status on_channel(struct request *request, struct fault *fault)
{
    const struct channel model = {.role = ROLE_STANDING};
    uint8_t kind;
    uint32_t index;
    TRY(cursor_u8(&kind, &request->body, fault));
    TRY(cursor_u32(&index, &request->body, fault));
    if (kind != CHANNEL_CONTROL || index != 0)
        return FAIL(BAD_REQUEST, fault, "channel of kind %u and index %u", kind, index);
    TRY(body_end(request, fault));
    kms_close_channels(request->kms, ROLE_STANDING, NULL);
    /* a new control: what its predecessor asked for an operator and was not read yet is not done,
     * so that whoever asks now whether it was done hears what holds */
    kms_close_channels(request->kms, ROLE_ADMIN, NULL);
    return kms_add_channel(request->kms, &model, take_fd(&request->message->fds[0]), fault);
}

static status on_serve_cell(struct request *request, struct fault *fault)
{
    struct channel model = {.role = ROLE_CELL, .served_as = request->message->id};
    struct key_status key;
    TRY(only_id(model.tenant, request, fault));
    TRY(not_platform(model.tenant, fault));
    kms_close_channels(request->kms, ROLE_CELL, model.tenant);
    TRY(keystore_look(&key, kms_store(request->kms), model.tenant, fault));
    if (key.state != KEY_LIVE)
        return FAIL(NOT_FOUND, fault, "there is no live key of this tenant");
    if (kms_channels(request->kms, ROLE_CELL) >= CELLS_AWAKE_MAX)
        return FAIL(QUOTA_EXCEEDED, fault, "%u cells are served, no more can be",
                    (unsigned)CELLS_AWAKE_MAX);
    return kms_add_channel(request->kms, &model, take_fd(&request->message->fds[0]), fault);
}

static status on_serve_admin(struct request *request, struct fault *fault)
{
    struct channel model = {.role = ROLE_ADMIN};
    TRY(cursor_u32(&model.uid, &request->body, fault));
    TRY(body_end(request, fault));
    if (kms_channels(request->kms, ROLE_ADMIN) >= ADMINS_MAX)
        return FAIL(QUOTA_EXCEEDED, fault, "%u admin connections are served, no more can be",
                    (unsigned)ADMINS_MAX);
    return kms_add_channel(request->kms, &model, take_fd(&request->message->fds[0]), fault);
}

/* ---- cells, and control for the platform's silo ---- */

/* The silo is to keep it: KEY_KEPT says that it does. */
static void put_wrapped(struct request *request, const struct released_key *key)
{
    buffer_put_field(request->result, (struct span){key->wrapped, key->wrapped_length});
    if (key->wrapped_length)
        memcpy(request->offers, key->wrapped_under, HASH_BYTES);
}

static void put_dek(struct request *request, const struct released_dek *dek)
{
    buffer_put_u32(request->result, dek->version);
    buffer_put(request->result, SPAN_OF(dek->key));
}

static status on_key_open(struct request *request, struct fault *fault)
{
    struct channel *channel = request->channel;
    struct released_key *key = kms_scratch(request->kms);
    uint8_t platform[SIGN_PUBLIC_BYTES], issuer[SIGN_PUBLIC_BYTES];
    struct charter_head own, shared;
    struct span wrapped;
    if (channel->epoch)
        return FAIL(BAD_REQUEST, fault, "the key was given on this channel before");
    TRY(cursor_field(&wrapped, &request->body, IPC_BODY_MAX, "wrapped", fault));
    TRY(body_end(request, fault));
    TRY(keystore_heads(&own, &shared, kms_store(request->kms), channel->tenant, fault));
    TRY(keystore_release(key, kms_store(request->kms), channel->tenant, wrapped, fault));
    keystore_public_keys(platform, issuer, kms_store(request->kms));
    request->secret = request->anchored = request->opened = true;
    channel->epoch = key->anchor.epoch;
    buffer_put_u8(request->result, (uint8_t)key->count);
    for (uint32_t i = 0; i < key->count; i++)
        put_dek(request, &key->deks[i]);
    put_wrapped(request, key);
    anchor_put(request->result, &key->anchor);
    buffer_put_u32(request->result, key->restores);
    buffer_put(request->result, SPAN_OF(platform));
    buffer_put(request->result, SPAN_OF(issuer));
    charter_head_put(request->result, &own);
    charter_head_put(request->result, &shared);
    return OK;
}

static status read_wrapped(struct span *ret, struct request *request, struct fault *fault)
{
    if (!request->channel->epoch)
        return FAIL(BAD_REQUEST, fault, "versions of a key that was not opened");
    TRY(cursor_field(ret, &request->body, IPC_BODY_MAX, "wrapped", fault));
    return body_end(request, fault);
}

static status on_key_next(struct request *request, struct fault *fault)
{
    struct released_key *key = kms_scratch(request->kms);
    struct span wrapped;
    TRY(read_wrapped(&wrapped, request, fault));
    TRY(keystore_next(key, kms_store(request->kms), request->channel->tenant, wrapped, fault));
    request->secret = request->anchored = true;
    put_dek(request, &key->deks[0]);
    put_wrapped(request, key);
    log_verb(request, "key.next", request->channel->tenant);
    return OK;
}

static status on_key_drop(struct request *request, struct fault *fault)
{
    struct released_key *key = kms_scratch(request->kms);
    struct span wrapped;
    uint32_t version;
    TRY(cursor_u32(&version, &request->body, fault));
    TRY(read_wrapped(&wrapped, request, fault));
    TRY(keystore_drop(key, kms_store(request->kms), request->channel->tenant, wrapped, version,
                      fault));
    request->secret = request->anchored = true;
    put_wrapped(request, key);
    log_verb(request, "key.dropped", request->channel->tenant);
    return OK;
}

static status on_key_kept(struct request *request, struct fault *fault)
{
    if (!request->channel->epoch)
        return FAIL(BAD_REQUEST, fault, "a key that was not opened cannot be kept");
    TRY(body_end(request, fault));
    return keystore_kept(kms_store(request->kms), request->channel->tenant,
                         request->channel->offered, fault);
}

static status read_proof(struct hash_value ret[CONSISTENCY_PROOF_MAX], uint16_t *ret_count,
                         struct request *request, struct fault *fault)
{
    uint16_t count;
    TRY(cursor_u16(&count, &request->body, fault));
    if (count > CONSISTENCY_PROOF_MAX)
        return FAIL(BAD_REQUEST, fault, "proof: %u hashes, at most %d", count,
                    CONSISTENCY_PROOF_MAX);
    for (uint16_t i = 0; i < count; i++)
        TRY(cursor_copy(ret[i].bytes, &request->body, HASH_BYTES, fault));
    *ret_count = count;
    return OK;
}

static status on_anchor_move(struct request *request, struct fault *fault)
{
    struct channel *channel = request->channel;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct anchor anchor;
    uint16_t count;
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    if (!channel->epoch)
        return FAIL(BAD_REQUEST, fault, "an anchor before the key was opened");
    TRY(anchor_get(&anchor, &request->body, fault));
    TRY(read_proof(proof, &count, request, fault));
    TRY(body_end(request, fault));
    status moved = keystore_move(&note, kms_store(request->kms), channel->tenant, channel->epoch,
                                 &anchor, proof, count, fault);
    if (moved == CORRUPT) {
        char text[TENANT_ID_TEXT];
        hex_encode(text, SPAN_OF(channel->tenant));
        log_event(LOG_ERROR, "anchor.refused", "tenant %s: %s", text, fault->detail);
        channel->ends = true;
    }
    TRY(moved);
    request->anchored = true;
    buffer_put_field(request->result, buffer_span(&note));
    return OK;
}

/* ---- control ---- */

static status put_versions(struct request *request, const uint8_t id[TENANT_ID_BYTES],
                           const struct key_status *key, struct fault *fault)
{
    status usable = keystore_usable(kms_store(request->kms), id, fault);
    if (usable != OK && usable != UNAVAILABLE)
        return usable;
    buffer_put_u32(request->result, key->dek_floor);
    buffer_put_u32(request->result, key->dek_newest);
    buffer_put_u32(request->result, key->restores);
    buffer_put_u8(request->result, key->rotating);
    buffer_put_u8(request->result, usable == UNAVAILABLE);
    return OK;
}

static status on_key_state(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    struct key_status key;
    TRY(only_id(id, request, fault));
    TRY(keystore_look(&key, kms_store(request->kms), id, fault));
    request->anchored = true; /* it may tell what this turn moved */
    buffer_put_u8(request->result, (uint8_t)key.state);
    buffer_put(request->result, SPAN_OF(key.fingerprint));
    anchor_put(request->result, &key.anchor);
    return put_versions(request, id, &key, fault);
}

static status on_key_discard(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    TRY(only_id(id, request, fault));
    TRY(not_platform(id, fault));
    TRY(keystore_discard(kms_store(request->kms), id, fault));
    log_verb(request, "key.discarded", id);
    return OK;
}

static status receipt_says(const struct json *receipt, const char *member, struct span value,
                           struct fault *fault)
{
    char due[2 * HASH_BYTES + 1];
    struct span said;
    hex_encode(due, value);
    TRY(json_text(&said, receipt, member, 1, RECEIPT_MAX, fault));
    if (!span_is(said, due))
        return FAIL(BAD_FIELD, fault, "receipt: %s is not that of the shredded tenant", member);
    return OK;
}

/* A receipt must be about the tenant that was shredded, else one erasure would vouch for any. */
static status check_receipt(struct span receipt, const uint8_t id[TENANT_ID_BYTES],
                            const struct key_status *key, struct fault *fault)
{
    struct arena arena = arena_of(KIB(256));
    struct json value;
    status checked = json_parse(&value, &arena, receipt, fault);
    if (checked == OK)
        checked = json_need_object(&value, "receipt", fault);
    if (checked == OK)
        checked = receipt_says(&value, "tenant_id", (struct span){id, TENANT_ID_BYTES}, fault);
    if (checked == OK)
        checked = receipt_says(&value, "kek_fingerprint", SPAN_OF(key->fingerprint), fault);
    arena_free(&arena);
    return checked;
}

static status on_receipt_sign(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES], signature[SIGNATURE_BYTES];
    uint8_t storage[RECEIPT_MAX + 64];
    struct buffer message = buffer_over(storage, sizeof storage);
    struct key_status key;
    struct span receipt;
    TRY(body_id(id, request, fault));
    TRY(cursor_field(&receipt, &request->body, RECEIPT_MAX, "receipt", fault));
    TRY(body_end(request, fault));
    TRY(keystore_look(&key, kms_store(request->kms), id, fault));
    if (key.state != KEY_SHREDDED)
        return FAIL(CONFLICT, fault, "the key of this tenant was not shredded");
    TRY(check_receipt(receipt, id, &key, fault));
    buffer_put(&message, RECEIPT_CONTEXT);
    buffer_put(&message, receipt);
    TRY(buffer_check(&message, "receipt", fault));
    TRY(keystore_sign(signature, kms_store(request->kms), SIGN_RECEIPT, buffer_span(&message),
                      fault));
    buffer_put(request->result, SPAN_OF(signature));
    log_verb(request, "receipt.signed", id);
    return OK;
}

static status on_key_create(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES], fingerprint[HASH_BYTES];
    TRY(only_id(id, request, fault));
    TRY(not_platform(id, fault));
    TRY(keystore_create(fingerprint, kms_store(request->kms), id, fault));
    request->anchored = true;
    buffer_put(request->result, SPAN_OF(fingerprint));
    log_verb(request, "key.created", id);
    return OK;
}

static status on_key_shred(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    struct key_status key;
    TRY(only_id(id, request, fault));
    TRY(not_platform(id, fault));
    kms_close_channels(request->kms, ROLE_CELL, id); /* what is erased has no cell */
    TRY(keystore_shred(&key, kms_store(request->kms), id, fault));
    buffer_put(request->result, SPAN_OF(key.fingerprint));
    anchor_put(request->result, &key.anchor);
    log_verb(request, "key.shredded", id);
    return OK;
}

static status on_kek_rotate(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES], fingerprint[HASH_BYTES];
    TRY(only_id(id, request, fault));
    TRY(not_platform(id, fault));
    TRY(keystore_rotate(fingerprint, kms_store(request->kms), id, fault));
    request->anchored = true;
    buffer_put(request->result, SPAN_OF(fingerprint));
    log_verb(request, "kek.rotated", id);
    return OK;
}

static status on_key_disable(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    TRY(only_id(id, request, fault));
    TRY(not_platform(id, fault));
    TRY(keystore_withdraw(kms_store(request->kms), id, true, fault));
    kms_look_at_withdrawals(request->kms);
    log_verb(request, "key.disabled", id);
    return OK;
}

static status on_key_enable(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    TRY(only_id(id, request, fault));
    TRY(not_platform(id, fault));
    TRY(keystore_withdraw(kms_store(request->kms), id, false, fault));
    log_verb(request, "key.enabled", id);
    return OK;
}

static status on_anchor_restore(struct request *request, struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    struct anchor anchor;
    uint32_t restores;
    TRY(body_id(id, request, fault));
    TRY(anchor_get(&anchor, &request->body, fault));
    TRY(body_end(request, fault));
    TRY(not_platform(id, fault));
    if (kms_serves_cell(request->kms, id))
        return FAIL(CONFLICT, fault, "a cell has this silo open");
    TRY(keystore_restore(&restores, kms_store(request->kms), id, &anchor, fault));
    request->anchored = true;
    buffer_put_u32(request->result, restores);
    log_verb(request, "anchor.restored", id);
    return OK;
}

static status mint(struct buffer *out, struct keystore *store, const struct token_request *token,
                   struct fault *fault)
{
    uint8_t platform[SIGN_PUBLIC_BYTES], issuer[SIGN_PUBLIC_BYTES], signature[SIGNATURE_BYTES];
    char key_id[TOKEN_KEY_ID_TEXT];
    keystore_public_keys(platform, issuer, store);
    token_key_id(key_id, issuer);
    TRY(token_body_put(out, token, key_id, clock_wall_us() / 1000000, fault));
    TRY(keystore_sign(signature, store, SIGN_TOKEN, buffer_span(out), fault));
    token_signature_put(out, signature);
    secret_wipe(signature, sizeof signature);
    return buffer_check(out, "token", fault);
}

/* The lengths of the texts are for token_body_put to judge: an operator's slip is no attack. */
static status read_mint(struct token_request *ret, uint8_t ret_id[TENANT_ID_BYTES],
                        struct request *request, struct fault *fault)
{
    struct cursor *body = &request->body;
    struct token_request token = {.ttl_max_seconds = TOKEN_LIFETIME_MAX_SECONDS};
    uint32_t ttl_seconds;
    TRY(body_id(ret_id, request, fault));
    TRY(cursor_field(&token.user, body, IPC_BODY_MAX, "user", fault));
    TRY(cursor_field(&token.agent, body, IPC_BODY_MAX, "agent", fault));
    TRY(cursor_field(&token.scope, body, IPC_BODY_MAX, "scope", fault));
    TRY(cursor_field(&token.clearance, body, IPC_BODY_MAX, "clearance", fault));
    TRY(cursor_u32(&ttl_seconds, body, fault));
    TRY(body_end(request, fault));
    token.ttl_seconds = ttl_seconds;
    *ret = token;
    return OK;
}

static status on_token_mint(struct request *request, struct fault *fault)
{
    struct token_request token;
    uint8_t id[TENANT_ID_BYTES], storage[REPLY_MAX - 64];
    char text[TENANT_ID_TEXT];
    struct buffer minted = buffer_over(storage, sizeof storage);
    struct key_status key;
    TRY(read_mint(&token, id, request, fault));
    TRY(keystore_look(&key, kms_store(request->kms), id, fault));
    if (key.state != KEY_LIVE)
        return FAIL(NOT_FOUND, fault, "there is no live key of this tenant");
    hex_encode(text, SPAN_OF(id));
    token.tenant = span_of_text(text);
    status done = mint(&minted, kms_store(request->kms), &token, fault);
    if (done == OK)
        buffer_put_field(request->result, buffer_span(&minted));
    secret_wipe(storage, sizeof storage);
    TRY(done);
    log_verb(request, "token.minted", id);
    return OK;
}

/* The document is for others to read: here is no parser of it. */
static status read_charter(struct signed_charter *ret, struct request *request,
                           struct fault *fault)
{
    struct signed_charter charter;
    TRY(body_id(charter.id, request, fault));
    TRY(cursor_u64(&charter.sequence, &request->body, fault));
    TRY(cursor_field(&charter.document, &request->body, CHARTER_MAX, "document", fault));
    TRY(body_end(request, fault));
    if (charter.document.length == 0)
        return FAIL(BAD_FIELD, fault, "document: empty");
    *ret = charter;
    return OK;
}

static status on_charter_sign(struct request *request, struct fault *fault)
{
    struct signed_charter charter;
    bool renew_only = request->channel->role != ROLE_ADMIN, is_new;
    TRY(read_charter(&charter, request, fault));
    TRY(keystore_charter(&is_new, kms_store(request->kms), &charter, renew_only, fault));
    if (is_new)
        kms_push_charter(request->kms, &charter);
    request->anchored = true; /* also when it is signed again: the newest may be of this turn */
    buffer_put(request->result, SPAN_OF(charter.signature));
    log_verb(request, is_new ? "charter.signed" : "charter.signed_again", charter.id);
    return OK;
}

/* ---- who may ask what ---- */

static const struct permit supervisor_permits[] = {
    {MESSAGE_STOP, 0, false, on_stop},
    {MESSAGE_CHANNEL, 1, false, on_channel},
    {MESSAGE_KMS_SERVE_CELL, 1, true, on_serve_cell},
    {MESSAGE_KMS_SERVE_ADMIN, 1, true, on_serve_admin},
};

static const struct permit standing_permits[] = {
    {MESSAGE_KEY_OPEN, 0, true, on_key_open}, /* of the platform's own silo */
    {MESSAGE_ANCHOR_MOVE, 0, true, on_anchor_move},
    {MESSAGE_KEY_STATE, 0, true, on_key_state},
    {MESSAGE_KEY_DISCARD, 0, true, on_key_discard},
    {MESSAGE_RECEIPT_SIGN, 0, true, on_receipt_sign},
    {MESSAGE_CHARTER_SIGN, 0, true, on_charter_sign}, /* the newest one again */
};

static const struct permit admin_permits[] = {
    {MESSAGE_KEY_STATE, 0, true, on_key_state},
    {MESSAGE_KEY_CREATE, 0, true, on_key_create},
    {MESSAGE_KEY_SHRED, 0, true, on_key_shred},
    {MESSAGE_TOKEN_MINT, 0, true, on_token_mint},
    {MESSAGE_CHARTER_SIGN, 0, true, on_charter_sign},
    {MESSAGE_KEK_ROTATE, 0, true, on_kek_rotate},
    {MESSAGE_KEY_DISABLE, 0, true, on_key_disable},
    {MESSAGE_KEY_ENABLE, 0, true, on_key_enable},
    {MESSAGE_ANCHOR_RESTORE, 0, true, on_anchor_restore},
};

static const struct permit cell_permits[] = {
    {MESSAGE_KEY_OPEN, 0, true, on_key_open},
    {MESSAGE_ANCHOR_MOVE, 0, true, on_anchor_move},
    {MESSAGE_KEY_NEXT, 0, true, on_key_next},
    {MESSAGE_KEY_DROP, 0, true, on_key_drop},
    {MESSAGE_KEY_KEPT, 0, true, on_key_kept},
};

#define PERMITS(name, array) {name, array, sizeof(array) / sizeof *(array)}

const struct permits kms_permits[ROLE_COUNT] = {
    [ROLE_SUPERVISOR] = PERMITS("supervisor", supervisor_permits),
    [ROLE_STANDING] = PERMITS("control", standing_permits),
    [ROLE_ADMIN] = PERMITS("control for an operator", admin_permits),
    [ROLE_CELL] = PERMITS("cell", cell_permits),
};
