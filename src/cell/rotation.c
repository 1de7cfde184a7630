/* rotation.c: the data key is followed by its next version: asked of the kms when the charter says
 * that a newer one must be in use, kept in silo.keys before it seals a byte; then everything that
 * older versions have sealed moves to it, a few pages at a time, between turns. When nothing is
 * left, the kms is told never to open the older ones again, and they are forgotten here.
 *
 * Any step may be the last of this process: what is to be done next follows from what silo.keys
 * holds and from what the charter says, and is looked at again when the silo is open, when the
 * charter changes, and when the kms is back. */
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"

enum {
    STEP_PAGES = 32,
    REST_FACTOR = 4,              /* while there are requests: rests so much longer than it works */
    BUSY_US = 1000 * 1000,        /* since the last request */
    COMMIT_WAIT_US = 100 * 1000,
    RETRY_US = 5 * 1000 * 1000,
    WAKE_AGAIN_US = 1000 * 1000,
};

static void on_timer(void *context)
{
    struct cell *cell = context;
    cell->rotation.due = true;
}

static void later(struct cell *cell, int64_t after_us)
{
    cell->rotation.due = false;
    cell_timer(cell, &cell->rotation.timer, after_us, on_timer, cell);
}

static status keep_wrapped(struct cell *cell, struct span wrapped, struct fault *fault)
{
    if (wrapped.length > CELL_WRAPPED_MAX)
        return FAIL(TOO_LARGE, fault, "wrapped keys of %zu bytes", wrapped.length);
    TRY(store_write_small(cell->silo_fd, STORE_KEYS, wrapped, fault));
    buffer_clear(&cell->wrapped);
    buffer_put(&cell->wrapped, wrapped);
    return buffer_check(&cell->wrapped, "wrapped", fault);
}

static status ask(struct cell *cell, uint32_t type, struct span body, uint32_t *ret_id,
                  struct fault *fault)
{
    struct kms_link *link = &cell->kms;
    TRY(ipc_send(link->fd, type, link->last_id + 1, body, NULL, 0, fault));
    *ret_id = ++link->last_id;
    return OK;
}

status rotation_tell_kept(struct cell *cell, struct span wrapped, struct fault *fault)
{
    TRY(keep_wrapped(cell, wrapped, fault));
    return ask(cell, MESSAGE_KEY_KEPT, (struct span){0}, &cell->rotation.kept_id, fault);
}

static void ask_for_versions(struct cell *cell, enum rotation_phase phase)
{
    uint8_t storage[8 + CELL_WRAPPED_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    bool drops = phase == ROTATION_DROP;
    cell->rotation.phase = phase;
    if (cell->kms.fd < 0 || cell->kms.open_id || cell->rotation.request_id)
        return; /* an answer, or a new channel, comes back here */
    if (drops)
        buffer_put_u32(&body, cell->versions.list[0]);
    buffer_put_field(&body, buffer_span(&cell->wrapped));
    if (ask(cell, drops ? MESSAGE_KEY_DROP : MESSAGE_KEY_NEXT, buffer_span(&body),
            &cell->rotation.request_id, &fault) == OK)
        return;
    log_event(LOG_WARN, "rotation.kms", "%s", fault.detail);
    later(cell, RETRY_US);
}

static void move_pages(struct cell *cell)
{
    struct fault fault;
    bool more;
    int64_t began_us = clock_monotonic_us();
    status moved = silo_reseal(&more, cell->silo, STEP_PAGES, &fault);
    kms_note_commit(cell); /* the map of the pages is anchored, too */
    if (moved != OK) {
        log_event(LOG_WARN, "rotation.pages", "%s", fault.detail);
        later(cell, RETRY_US);
        return;
    }
    if (!more) {
        ask_for_versions(cell, ROTATION_DROP);
        return;
    }
    int64_t now_us = clock_monotonic_us();
    bool busy = now_us - cell->last_request_us < BUSY_US;
    bool waits = silo_keys_wait(cell->silo);
    if (waits)
        cell->turn.commit_due = true;
    /* a backup holds the pages where they are: that is no reason to run in a circle */
    later(cell, waits || export_active(cell) ? COMMIT_WAIT_US
                : busy ? (now_us - began_us) * REST_FACTOR : 0);
}

void rotation_look(struct cell *cell)
{
    struct rotation *rotation = &cell->rotation;
    if (rotation->request_id || cell->park.phase >= PARK_DRAIN)
        return;
    if (cell->versions.list[0] < charters_posture(cell)->key_version
        && cell->versions.count < DEK_VERSIONS_MAX) {
        ask_for_versions(cell, ROTATION_NEXT);
    } else if (cell->versions.count > 1) {
        rotation->phase = ROTATION_PAGES;
        later(cell, 0);
    } else {
        rotation->phase = ROTATION_NONE;
    }
}

void rotation_continue(struct cell *cell)
{
    if (!cell->rotation.due || cell->park.phase >= PARK_DRAIN)
        return;
    cell->rotation.due = false;
    if (cell->rotation.phase == ROTATION_PAGES)
        move_pages(cell);
    else
        rotation_look(cell);
}

void rotation_lose_kms(struct cell *cell)
{
    cell->rotation.request_id = cell->rotation.kept_id = 0;
}

int64_t rotation_wake_us(const struct cell *cell, int64_t next_us)
{
    int64_t soon_us = clock_wall_us() + WAKE_AGAIN_US;
    if (cell->rotation.phase == ROTATION_NONE || (next_us && next_us < soon_us))
        return next_us;
    return soon_us;
}

/* ---- answers ---- */

static status take_next(struct cell *cell, struct store_key *key, struct cursor *result,
                        struct fault *fault)
{
    struct key_versions *versions = &cell->versions;
    struct span wrapped;
    TRY(cursor_u32(&key->version, result, fault));
    TRY(cursor_copy(key->dek, result, sizeof key->dek, fault));
    TRY(cursor_field(&wrapped, result, CELL_WRAPPED_MAX, "wrapped", fault));
    TRY(cursor_end(result, fault));
    if (key->version <= versions->list[0] || versions->count == DEK_VERSIONS_MAX)
        return FAIL(BAD_REQUEST, fault, "version %u of the data key after %u", key->version,
                    versions->list[0]);
    TRY(rotation_tell_kept(cell, wrapped, fault)); /* before a byte is sealed under it */
    for (uint32_t i = versions->count++; i > 0; i--)
        versions->list[i] = versions->list[i - 1];
    versions->list[0] = key->version;
    status added = silo_add_key(cell->silo, key, fault);
    if (added != OK) /* silo.keys has it: the next waking takes it from there */
        cell_stop(cell, added, "%s", fault->detail);
    cell->turn.commit_due = true; /* what outlives the older version is stored with it */
    log_event(LOG_INFO, "rotation.began", "version %u of the data key", key->version);
    return OK;
}

static status on_next(struct cell *cell, struct cursor *result, struct fault *fault)
{
    struct store_key *key = secret_alloc(sizeof *key);
    if (!key)
        return FAIL(INTERNAL, fault, "no memory that can be locked");
    status taken = take_next(cell, key, result, fault);
    secret_free(key, sizeof *key);
    return taken;
}

status rotation_drop(struct cell *cell, struct span wrapped, struct fault *fault)
{
    TRY(rotation_tell_kept(cell, wrapped, fault));
    TRY(silo_drop_keys(cell->silo, fault));
    cell->versions.count = 1;
    log_event(LOG_INFO, "rotation.done", "version %u of the data key", cell->versions.list[0]);
    return OK;
}

static status on_dropped(struct cell *cell, struct cursor *result, struct fault *fault)
{
    struct span wrapped;
    TRY(cursor_field(&wrapped, result, CELL_WRAPPED_MAX, "wrapped", fault));
    TRY(cursor_end(result, fault));
    return rotation_drop(cell, wrapped, fault);
}

bool rotation_answered(struct cell *cell, const struct ipc_message *message)
{
    struct rotation *rotation = &cell->rotation;
    struct cursor result;
    struct fault fault;
    if (message->type != MESSAGE_REPLY || message->id == 0)
        return false;
    if (message->id == rotation->kept_id) {
        rotation->kept_id = 0;
        if (reply_get_head(&result, message, &fault) != OK) /* it hears so at the next waking */
            log_event(LOG_WARN, "rotation.kept", "%s", fault.detail);
        return true;
    }
    if (message->id != rotation->request_id)
        return false;
    rotation->request_id = 0;
    status said = reply_get_head(&result, message, &fault);
    if (said == OK)
        said = rotation->phase == ROTATION_DROP ? on_dropped(cell, &result, &fault)
                                                : on_next(cell, &result, &fault);
    if (said == OK) {
        rotation_look(cell);
    } else {
        log_event(LOG_WARN, "rotation.kms", "%s", fault.detail);
        later(cell, RETRY_US);
    }
    return true;
}
