/* kms_link.c: control's half of the talk with the kms: its own store's key, anchors, key states. */
#include "base/log.h"
#include "base/secret.h"
#include "control/control.h"
#include "crypt/note.h"
#include "store/io.h"

#include <string.h>
#include <unistd.h>

enum {
    KMS_WAIT_MS = 5000,
    WRAPPED_MAX = 1024,
    KEYS_BYTES = DEK_VERSIONS_MAX * sizeof(struct store_key),
};

static uint8_t storage[IPC_PACKET_MAX];

void control_die(const char *what, const struct fault *fault)
{
    log_event(LOG_ERROR, "control.fatal", "%s: %s", what, fault->detail);
    _exit(1);
}

status kms_call(struct cursor *ret_result, int channel, uint32_t type, struct span body,
                struct fault *fault)
{
    static uint32_t id;
    struct ipc_message message;
    TRY(ipc_send_wait(channel, type, ++id, body, NULL, 0, KMS_WAIT_MS, fault));
    do { /* an answer that came after its deadline is passed over */
        TRY(ipc_await(&message, channel, storage, KMS_WAIT_MS, fault));
        ipc_message_close(&message);
    } while (message.id != id);
    return reply_get_head(ret_result, &message, fault);
}

struct opened {
    struct store_key *keys; /* secret; newest first */
    uint32_t key_count;
    struct span wrapped;
    struct anchor anchor;
};

static status read_opened(struct opened *ret, struct cursor *result, struct fault *fault)
{
    struct span keys, heads;
    uint32_t restores; /* of the platform's silo: none */
    uint8_t count;
    TRY(cursor_u8(&count, result, fault));
    if (count == 0 || count > DEK_VERSIONS_MAX)
        return FAIL(BAD_REQUEST, fault, "%u versions of the data key", count);
    ret->key_count = count;
    for (uint32_t i = 0; i < count; i++) {
        TRY(cursor_u32(&ret->keys[i].version, result, fault));
        TRY(cursor_copy(ret->keys[i].dek, result, KEY_BYTES, fault));
    }
    TRY(cursor_field(&ret->wrapped, result, WRAPPED_MAX, "wrapped", fault));
    TRY(anchor_get(&ret->anchor, result, fault));
    TRY(cursor_u32(&restores, result, fault));
    TRY(cursor_bytes(&keys, result, 2 * SIGN_PUBLIC_BYTES, fault));
    TRY(cursor_bytes(&heads, result, 2 * CHARTER_HEAD_BYTES, fault)); /* for cells */
    return cursor_end(result, fault);
}

/* The registry's silo has the id that no tenant can have. */
static status open_store(struct control *control, const struct opened *opened, struct fault *fault)
{
    static const uint8_t id[TENANT_ID_BYTES];
    struct store_anchor known = {.commits = opened->anchor.commits,
                                 .map_generation = opened->anchor.map_generation};
    memcpy(known.map_hash, opened->anchor.map_hash, sizeof known.map_hash);
    const struct store_options options = {.silo_fd = control->directory, .silo_id = id,
                                          .keys = opened->keys, .key_count = opened->key_count,
                                          .anchor = &known};
    TRY(store_open(&control->store, &options, fault));
    TRY(store_log_open(&control->log, control->store, fault));
    struct hash_value root;
    TRY(store_log_root_at(&root, control->log, opened->anchor.log_size, fault));
    if (opened->anchor.log_size
        && !span_equal(SPAN_OF(root.bytes), SPAN_OF(opened->anchor.log_root)))
        return FAIL(ROLLED_BACK, fault, "the ledger is not the one that was anchored");
    return OK;
}

static status take_key(struct control *control, bool open, struct fault *fault)
{
    uint8_t wrapped_bytes[WRAPPED_MAX], body_bytes[WRAPPED_MAX + 8];
    struct buffer wrapped = buffer_over(wrapped_bytes, sizeof wrapped_bytes);
    status read = store_read_small(&wrapped, control->directory, STORE_KEYS, fault);
    if (read != OK && read != NOT_FOUND)
        return read;
    struct buffer body = buffer_over(body_bytes, sizeof body_bytes);
    buffer_put_field(&body, buffer_span(&wrapped));
    struct cursor result;
    TRY(kms_call(&result, control->kms, MESSAGE_KEY_OPEN, buffer_span(&body), fault));
    struct opened opened = {.keys = secret_alloc(KEYS_BYTES)};
    if (!opened.keys)
        return FAIL(INTERNAL, fault, "no locked memory for a key");
    status outcome = read_opened(&opened, &result, fault);
    if (outcome == OK && opened.wrapped.length)
        outcome = store_write_small(control->directory, STORE_KEYS, opened.wrapped, fault);
    if (outcome == OK && open)
        outcome = open_store(control, &opened, fault);
    if (outcome == OK) {
        control->epoch = opened.anchor.epoch;
        control->anchored_size = opened.anchor.log_size;
    }
    secret_free(opened.keys, KEYS_BYTES);
    secret_wipe(storage, sizeof storage);
    return outcome;
}

status platform_open(struct control *control, struct fault *fault)
{
    TRY(take_key(control, true, fault));
    return registry_migrate(control, fault);
}

status platform_renew(struct control *control, int channel, struct fault *fault)
{
    close(control->kms);
    control->kms = channel;
    TRY(take_key(control, false, fault));
    return platform_anchor(control, fault);
}

status platform_anchor(struct control *control, struct fault *fault)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX], root = store_log_root(control->log);
    uint32_t count = 0;
    const struct store_anchor state = store_anchor(control->store);
    struct anchor anchor = {.epoch = control->epoch, .commits = state.commits,
                            .map_generation = state.map_generation,
                            .log_size = store_log_size(control->log)};
    memcpy(anchor.map_hash, state.map_hash, sizeof anchor.map_hash);
    memcpy(anchor.log_root, root.bytes, sizeof anchor.log_root);
    TRY(store_log_consistency(proof, &count, control->log, control->anchored_size,
                              anchor.log_size, fault));
    uint8_t bytes[ANCHOR_WIRE_BYTES + 2 + CONSISTENCY_PROOF_MAX * HASH_BYTES];
    struct buffer body = buffer_over(bytes, sizeof bytes);
    anchor_put(&body, &anchor);
    buffer_put_u16(&body, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++)
        buffer_put(&body, SPAN_OF(proof[i].bytes));
    struct cursor result;
    TRY(kms_call(&result, control->kms, MESSAGE_ANCHOR_MOVE, buffer_span(&body), fault));
    TRY(cursor_text(control->checkpoint, sizeof control->checkpoint, &result, "checkpoint",
                    fault));
    control->anchored_size = anchor.log_size;
    return OK;
}

status kms_key_state(struct key_state *ret, struct control *control,
                     const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct cursor result;
    TRY(kms_call(&result, control->kms, MESSAGE_KEY_STATE, (struct span){id, TENANT_ID_BYTES},
                 fault));
    TRY(cursor_u8(&ret->state, &result, fault));
    TRY(cursor_copy(ret->fingerprint, &result, sizeof ret->fingerprint, fault));
    TRY(anchor_get(&ret->anchor, &result, fault));
    TRY(cursor_u32(&ret->dek_floor, &result, fault));
    TRY(cursor_u32(&ret->dek_newest, &result, fault));
    TRY(cursor_u32(&ret->restores, &result, fault));
    TRY(cursor_u8(&ret->kek_rotating, &result, fault));
    return cursor_u8(&ret->withdrawn, &result, fault);
}
