/* wake.c: from a blank to one tenant's open silo. Nothing of the tenant is read before the jail is
 * closed, and nothing but the wrapped key before the kms, which the supervisor lets serve us only
 * after it has seen the jail, has answered. */
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"
#include "wire/messages.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    KEY_WAIT_MS = 15 * 1000,
    SEND_WAIT_MS = 5 * 1000,
    POSTURE_MAX = 2 * CHARTER_MAX + KIB(2),
    TOKENS_KEPT = 512, /* touched only as far as they are used */
};

static status take_assume(struct cell *cell, int *ret_silo, struct ipc_message *message,
                          struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint32_t outer_uid; /* the supervisor's affair: it has mapped it already */
    struct span posture;
    if (message->type == MESSAGE_CELL_RESTORE) {
        TRY(ipc_need_fds(message, 3, fault));
        TRY(cursor_copy(cell->tenant_id, &cursor, sizeof cell->tenant_id, fault));
        TRY(cursor_u32(&outer_uid, &cursor, fault));
        TRY(cursor_end(&cursor, fault));
        *ret_silo = take_fd(&message->fds[0]);
        cell->kms.fd = take_fd(&message->fds[1]);
        cell->restore_fd = take_fd(&message->fds[2]);
        return OK;
    }
    if (message->type != MESSAGE_CELL_ASSUME)
        return FAIL(BAD_REQUEST, fault, "message %#x where CELL_ASSUME was due", message->type);
    TRY(ipc_need_fds(message, 2, fault));
    TRY(cursor_copy(cell->tenant_id, &cursor, sizeof cell->tenant_id, fault));
    TRY(cursor_u32(&outer_uid, &cursor, fault));
    TRY(cursor_field(&posture, &cursor, POSTURE_MAX, "posture", fault));
    TRY(cursor_end(&cursor, fault));
    cursor = cursor_over(posture);
    TRY(charters_hand_in(cell, &cursor, fault));
    *ret_silo = take_fd(&message->fds[0]);
    cell->kms.fd = take_fd(&message->fds[1]);
    return OK;
}

static status await_assume(struct cell *cell, int *ret_silo, struct fault *fault)
{
    struct ipc_message message;
    TRY(ipc_send_wait(cell->supervisor, MESSAGE_CELL_BLANK, 0, (struct span){0}, NULL, 0,
                      SEND_WAIT_MS, fault));
    TRY(ipc_await(&message, cell->supervisor, cell->storage, -1, fault));
    status taken = take_assume(cell, ret_silo, &message, fault);
    ipc_message_close(&message);
    TRY(taken);
    hex_encode(cell->facts.id, SPAN_OF(cell->tenant_id));
    return OK;
}

static status tell_jailed(struct cell *cell, const struct jail_proof *proof, struct fault *fault)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, proof->landlock_abi);
    buffer_put_u8(&body, proof->landlock_abi > 0);
    return ipc_send_wait(cell->supervisor, MESSAGE_JAILED, 0, buffer_span(&body), NULL, 0,
                         SEND_WAIT_MS, fault);
}

static status ask_for_key(struct cell *cell, struct fault *fault)
{
    uint8_t storage[4 + CELL_WRAPPED_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_field(&body, buffer_span(&cell->wrapped));
    TRY(buffer_check(&body, "wrapped", fault));
    cell->kms.last_id = 1;
    return ipc_send_wait(cell->kms.fd, MESSAGE_KEY_OPEN, cell->kms.last_id, buffer_span(&body),
                         NULL, 0, SEND_WAIT_MS, fault);
}

static status take_key(struct kms_key *ret, struct store_key *keys, struct cell *cell,
                       int silo_fd, const struct ipc_message *message, struct fault *fault)
{
    struct cursor result;
    struct kms_key key;
    if (message->id != cell->kms.last_id)
        return FAIL(BAD_REQUEST, fault, "an answer to %u, not to %u", message->id,
                    cell->kms.last_id);
    TRY(ipc_need_fds(message, 0, fault));
    TRY(reply_get_head(&result, message, fault));
    TRY(kms_key_get(&key, keys, &result, fault));
    if (key.wrapped.length == 0 && cell->wrapped.length == 0)
        return FAIL(CORRUPT, fault, "the kms gave a key without its wrapped form");
    if (key.wrapped.length) { /* before a byte is sealed under it */
        TRY(store_write_small(silo_fd, STORE_KEYS, key.wrapped, fault));
        buffer_clear(&cell->wrapped);
        buffer_put(&cell->wrapped, key.wrapped);
        TRY(buffer_check(&cell->wrapped, "wrapped", fault));
    }
    *ret = key;
    return OK;
}

static status open_silo(struct cell *cell, int silo_fd, const struct kms_key *key,
                        const struct store_key *keys, struct fault *fault)
{
    struct silo_opening opening = {
        .silo_fd = silo_fd, .keys = keys, .key_count = key->versions.count,
        .anchor = key->anchor,
        .platform_key = key->platform_key,
    };
    struct cursor id = cursor_over(SPAN_OF(cell->tenant_id));
    TRY(cursor_copy(opening.tenant_id, &id, sizeof opening.tenant_id, fault));
    TRY(silo_open(&cell->silo, &opening, fault));
    cell->versions = key->versions;
    cell->kms.epoch = key->anchor.epoch;
    cell->kms.anchored = key->anchor;
    struct cursor bytes = cursor_over(SPAN_OF(key->platform_key));
    TRY(cursor_copy(cell->platform_key, &bytes, sizeof cell->platform_key, fault));
    bytes = cursor_over(SPAN_OF(key->issuer_key));
    return cursor_copy(cell->issuer_key, &bytes, sizeof cell->issuer_key, fault);
}

/* An answer of the kms; a charter that was signed in this very moment may come before it. */
static status await_reply(struct ipc_message *ret, struct cell *cell, struct fault *fault)
{
    for (;;) {
        struct ipc_message message;
        TRY(ipc_await(&message, cell->kms.fd, cell->storage, KEY_WAIT_MS, fault));
        if (message.type != MESSAGE_CHARTER) {
            *ret = message;
            return OK;
        }
        status taken = ipc_need_fds(&message, 0, fault);
        if (taken == OK)
            taken = charters_hand_in_late(cell, message.body, fault);
        ipc_message_close(&message);
        TRY(taken);
    }
}

/* Only when this is answered is what was wrapped before of no more use. */
static status tell_kept(struct cell *cell, struct fault *fault)
{
    struct ipc_message message;
    struct cursor result;
    TRY(ipc_send_wait(cell->kms.fd, MESSAGE_KEY_KEPT, ++cell->kms.last_id, (struct span){0}, NULL,
                      0, SEND_WAIT_MS, fault));
    TRY(await_reply(&message, cell, fault));
    status told = ipc_need_fds(&message, 0, fault);
    if (told == OK && message.id != cell->kms.last_id)
        told = FAIL(BAD_REQUEST, fault, "an answer to %u, not to %u", message.id,
                    cell->kms.last_id);
    if (told == OK)
        told = reply_get_head(&result, &message, fault);
    ipc_message_close(&message);
    return told;
}

status cell_open_key(struct ipc_message *ret, struct cell *cell, struct fault *fault)
{
    TRY(ask_for_key(cell, fault));
    return await_reply(ret, cell, fault);
}

static status fetch_key_and_open(struct cell *cell, int silo_fd, struct store_key *keys,
                                 struct charter_head heads[SILO_CHARTERS], struct fault *fault)
{
    struct ipc_message message;
    struct kms_key key;
    cell->wrapped = buffer_of(CELL_WRAPPED_MAX);
    struct fault none;
    status found = store_read_small(&cell->wrapped, silo_fd, STORE_KEYS, &none);
    if (found != OK && found != NOT_FOUND) /* also a file of a size that we never wrote */
        return FAIL(found == TOO_LARGE ? CORRUPT : found, fault, "%s", none.detail);
    TRY(ask_for_key(cell, fault));
    TRY(await_reply(&message, cell, fault));
    status taken = take_key(&key, keys, cell, silo_fd, &message, fault);
    secret_wipe(cell->storage, IPC_HEADER_BYTES + message.body.length);
    ipc_message_close(&message);
    TRY(taken);
    if (key.wrapped.length)
        TRY(tell_kept(cell, fault));
    key.wrapped = (struct span){0}; /* it was borrowed from what is wiped now */
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        heads[scope] = key.heads[scope];
    return open_silo(cell, silo_fd, &key, keys, fault);
}

static status open_with_key(struct cell *cell, int silo_fd,
                            struct charter_head heads[SILO_CHARTERS], struct fault *fault)
{
    const size_t size = DEK_VERSIONS_MAX * sizeof(struct store_key);
    struct store_key *keys = secret_alloc(size);
    if (!keys)
        return FAIL(INTERNAL, fault, "no memory that can be locked");
    status opened = fetch_key_and_open(cell, silo_fd, keys, heads, fault);
    secret_free(keys, size);
    return opened;
}

/* The built-in issuer, and those of the charters. */
static status trust_issuers(struct cell *cell, const struct charter_head heads[SILO_CHARTERS],
                            struct fault *fault)
{
    struct token_issuer builtin = token_issuer_builtin(cell->issuer_key);
    TRY(token_verifier_create(&cell->verifier, fault));
    TRY(token_verifier_put(cell->verifier, &builtin, fault));
    TRY(token_cache_create(&cell->tokens, TOKENS_KEPT, fault));
    TRY(user_rates_create(&cell->quota.users, fault));
    return charters_choose(cell, heads, fault);
}

static status tell_ready(struct cell *cell, struct fault *fault)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u64(&body, silo_bytes(cell->silo));
    return ipc_send_wait(cell->supervisor, MESSAGE_CELL_READY, 0, buffer_span(&body), NULL, 0,
                         SEND_WAIT_MS, fault);
}

static void tell_failed(struct cell *cell, status why, const struct fault *fault)
{
    uint8_t storage[256];
    struct fault ignored;
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u16(&body, (uint16_t)why);
    buffer_put_text_field(&body, fault->detail);
    if (ipc_send_wait(cell->supervisor, MESSAGE_CELL_FAILED, 0, buffer_span(&body), NULL, 0,
                      SEND_WAIT_MS, &ignored) != OK)
        log_event(LOG_ERROR, "cell.failed", "%s", fault->detail);
}

static status wake(struct cell *cell, cell_close_jail *close_jail, struct fault *fault)
{
    _cleanup_close_ int silo_fd = -1;
    struct charter_head heads[SILO_CHARTERS];
    struct jail_proof proof;
    TRY(await_assume(cell, &silo_fd, fault));
    TRY(close_jail(&proof, silo_fd, fault));
    TRY(tell_jailed(cell, &proof, fault));
    if (cell->restore_fd >= 0) {
        status restored = cell_restore(cell, silo_fd, fault);
        if (restored != OK)
            tell_failed(cell, restored, fault);
        return restored;
    }
    status opened = open_with_key(cell, silo_fd, heads, fault);
    if (opened == OK)
        opened = trust_issuers(cell, heads, fault);
    if (opened != OK)
        tell_failed(cell, opened, fault);
    TRY(opened);
    cell->silo_fd = take_fd(&silo_fd);
    return tell_ready(cell, fault);
}

status cell_wake(struct cell **ret, int supervisor, struct loop *loop,
                 cell_close_jail *close_jail, struct fault *fault)
{
    struct cell *cell = calloc(1, sizeof *cell);
    uint8_t *storage = malloc(IPC_PACKET_MAX);
    if (!cell || !storage) {
        free(cell);
        free(storage);
        return FAIL(INTERNAL, fault, "cell: out of memory");
    }
    *cell = (struct cell){.loop = loop, .supervisor = supervisor, .silo_fd = -1,
                          .restore_fd = -1,
                          .storage = storage, .kms.fd = -1,
                          .turn.body = buffer_of(CELL_RESPONSE_MAX),
                          .line_arena = arena_of(REQUEST_ARENA_MAX),
                          .turn.frame = buffer_of(IPC_BODY_MAX)};
    status awake = wake(cell, close_jail, fault);
    if (awake != OK) {
        cell_free(cell);
        return awake;
    }
    *ret = cell;
    return OK;
}

struct cell *cell_free(struct cell *cell)
{
    if (!cell)
        return NULL;
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++)
        if (cell->relays[i])
            relay_end(cell->relays[i]);
    relay_sweep(cell);
    relay_free_spares(cell);
    export_drop_all(cell);
    kms_close(cell);
    loop_unwatch(cell->loop, cell->supervisor_source);
    struct loop_timer *timers[] = {
        &cell->kms.timer, &cell->turn.commit_timer, &cell->turn.expire_timer,
        &cell->turn.again_timer, &cell->park.idle_timer, &cell->park.deadline_timer,
        &cell->quota.timer, &cell->rotation.timer, &cell->note_timer, &cell->usage.timer,
    };
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
        loop_timer_stop(cell->loop, timers[i]);
    token_cache_free(cell->tokens);
    token_verifier_free(cell->verifier);
    user_rates_free(cell->quota.users);
    charters_free(cell);
    silo_abandon(cell->silo); /* NULL when parked; else its last commit is what counts */
    if (cell->silo_fd >= 0)
        close(cell->silo_fd);
    if (cell->restore_fd >= 0)
        close(cell->restore_fd);
    buffer_free(&cell->wrapped);
    buffer_free(&cell->turn.body);
    buffer_free(&cell->turn.frame);
    arena_free(&cell->line_arena);
    free(cell->storage);
    free(cell);
    return NULL;
}
