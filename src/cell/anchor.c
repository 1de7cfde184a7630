/* anchor.c: the channel to the kms while the silo is open: what is committed here is made known
 * there, so that nobody can show us an older silo later. At most one move is in flight; a reply
 * that does not come, or a channel that ends, is trouble, and trouble that lasts stops mutations,
 * never reads. */
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"
#include "crypt/note.h"

#include <sys/epoll.h>
#include <unistd.h>

enum {
    MOVE_EVERY_US = 900 * 1000, /* the promise is once a second while there are commits */
    TROUBLE_MAX_US = 5 * 1000 * 1000,
    PACKETS_MAX = 16, /* at once */
    MOVE_BYTES_MAX = ANCHOR_WIRE_BYTES + 2 + CONSISTENCY_PROOF_MAX * HASH_BYTES,
};

static status get_versions(struct key_versions *ret, struct store_key *keys,
                           struct cursor *cursor, struct fault *fault)
{
    struct span secret;
    uint8_t count;
    TRY(cursor_u8(&count, cursor, fault));
    if (count == 0 || count > DEK_VERSIONS_MAX)
        return FAIL(BAD_REQUEST, fault, "%u versions of the data key", count);
    for (uint32_t i = 0; i < count; i++) {
        TRY(cursor_u32(&ret->list[i], cursor, fault));
        if (ret->list[i] == 0 || (i > 0 && ret->list[i] >= ret->list[i - 1]))
            return FAIL(BAD_REQUEST, fault, "versions of the data key that are not in order");
        if (keys == NULL) {
            TRY(cursor_bytes(&secret, cursor, KEY_BYTES, fault));
            continue;
        }
        keys[i].version = ret->list[i];
        TRY(cursor_copy(keys[i].dek, cursor, KEY_BYTES, fault));
    }
    ret->count = count;
    return OK;
}

bool key_versions_equal(const struct key_versions *left, const struct key_versions *right)
{
    bool equal = left->count == right->count;
    for (uint32_t i = 0; equal && i < left->count; i++)
        equal = left->list[i] == right->list[i];
    return equal;
}

status kms_key_get(struct kms_key *ret, struct store_key *keys, struct cursor *cursor,
                   struct fault *fault)
{
    struct kms_key key = {0};
    TRY(get_versions(&key.versions, keys, cursor, fault));
    TRY(cursor_field(&key.wrapped, cursor, CELL_WRAPPED_MAX, "wrapped", fault));
    TRY(anchor_get(&key.anchor, cursor, fault));
    TRY(cursor_u32(&key.restores, cursor, fault));
    TRY(cursor_copy(key.platform_key, cursor, sizeof key.platform_key, fault));
    TRY(cursor_copy(key.issuer_key, cursor, sizeof key.issuer_key, fault));
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        TRY(charter_head_get(&key.heads[scope], cursor, fault));
    TRY(cursor_end(cursor, fault));
    *ret = key;
    return OK;
}

static void note_trouble(struct kms_link *link)
{
    if (link->trouble_since_us == 0)
        link->trouble_since_us = clock_monotonic_us();
}

bool kms_takes_mutations(const struct cell *cell)
{
    int64_t since_us = cell->kms.trouble_since_us;
    return since_us == 0 || clock_monotonic_us() - since_us <= TROUBLE_MAX_US;
}

void kms_close(struct cell *cell)
{
    struct kms_link *link = &cell->kms;
    link->source = loop_unwatch(cell->loop, link->source);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->dirty = link->dirty || link->move_id;
    link->move_id = link->open_id = 0;
    rotation_lose_kms(cell);
}

static void lose(struct cell *cell, const char *why)
{
    log_event(LOG_WARN, "kms.lost", "%s", why);
    note_trouble(&cell->kms);
    kms_close(cell);
}

static bool same_state(const struct anchor *left, const struct anchor *right)
{
    return left->commits == right->commits && left->map_generation == right->map_generation
        && span_equal(SPAN_OF(left->map_hash), SPAN_OF(right->map_hash))
        && left->log_size == right->log_size
        && span_equal(SPAN_OF(left->log_root), SPAN_OF(right->log_root));
}

static void begin_move(struct cell *cell);

static void on_timer(void *context)
{
    struct cell *cell = context;
    if (cell->kms.dirty)
        begin_move(cell);
}

static void move_later(struct cell *cell)
{
    if (cell->kms.timer.due_us == 0)
        cell_timer(cell, &cell->kms.timer, MOVE_EVERY_US, on_timer, cell);
}

static status send_move(struct cell *cell, const struct anchor *anchor,
                        const struct hash_value *proof, uint32_t count, struct fault *fault)
{
    uint8_t storage[MOVE_BYTES_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    anchor_put(&body, anchor);
    buffer_put_u16(&body, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++)
        buffer_put(&body, SPAN_OF(proof[i].bytes));
    TRY(buffer_check(&body, "anchor", fault));
    return ipc_send(cell->kms.fd, MESSAGE_ANCHOR_MOVE, cell->kms.last_id + 1, buffer_span(&body),
                    NULL, 0, fault);
}

static void begin_move(struct cell *cell)
{
    struct kms_link *link = &cell->kms;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct anchor anchor;
    uint32_t count;
    struct fault fault;
    if (link->fd < 0 || link->open_id || link->move_id)
        return; /* the answer that is awaited, or a new channel, comes back here */
    if (silo_anchor(&anchor, proof, &count, cell->silo, link->anchored.log_size, &fault) != OK) {
        log_event(LOG_ERROR, "kms.anchor", "%s", fault.detail);
        note_trouble(link);
        move_later(cell);
        return;
    }
    anchor.epoch = link->epoch;
    link->dirty = link->urgent = false;
    if (same_state(&anchor, &link->anchored) && (link->has_note || !link->wants_note)) {
        link->moves_done = ++link->moves_begun;
        return;
    }
    status sent = send_move(cell, &anchor, proof, count, &fault);
    if (sent != OK) {
        link->dirty = true;
        note_trouble(link);
        if (sent != AGAIN)
            lose(cell, fault.detail);
        move_later(cell);
        return;
    }
    link->move_id = ++link->last_id;
    link->moving = anchor;
    link->moves_begun++;
    note_trouble(link); /* until it is answered */
}

void kms_note_commit(struct cell *cell)
{
    cell->kms.dirty = true;
    if (cell->kms.move_id == 0)
        move_later(cell);
}

uint64_t kms_move_now(struct cell *cell)
{
    uint64_t number = cell->kms.moves_begun + 1;
    cell->kms.dirty = cell->kms.urgent = true;
    begin_move(cell);
    return number;
}

uint64_t kms_sign_now(struct cell *cell)
{
    cell->kms.wants_note = true;
    return kms_move_now(cell);
}

bool kms_moved(const struct cell *cell, uint64_t number)
{
    return cell->kms.moves_done >= number;
}

static void go_on(struct cell *cell)
{
    if (cell->kms.dirty && cell->kms.urgent)
        begin_move(cell);
    else if (cell->kms.dirty)
        move_later(cell);
}

static status on_moved(struct cell *cell, const struct ipc_message *message, struct fault *fault)
{
    struct kms_link *link = &cell->kms;
    struct cursor result;
    struct span note;
    link->move_id = 0;
    status said = reply_get_head(&result, message, fault);
    if (said == BAD_REQUEST || said == CORRUPT)
        return said;
    if (said != OK) { /* its disk is full, say: the silo's state stays unknown there */
        log_event(LOG_WARN, "kms.anchor", "refused: %s", fault->detail);
        link->dirty = true;
        move_later(cell);
        return OK;
    }
    TRY(cursor_field(&note, &result, NOTE_MAX, "checkpoint", fault));
    TRY(cursor_end(&result, fault));
    silo_keep_checkpoint(cell->silo, note);
    link->has_note = true;
    link->anchored = link->moving;
    link->moves_done = link->moves_begun;
    link->trouble_since_us = 0;
    go_on(cell);
    return OK;
}

/* The kms may lag behind us (it lost a move), never lead: then another process had this silo. */
static status compare(struct cell *cell, const struct kms_key *key, struct fault *fault)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct anchor present;
    uint32_t count;
    const struct anchor *theirs = &key->anchor;
    if (!span_equal(SPAN_OF(key->platform_key), SPAN_OF(cell->platform_key))
        || !span_equal(SPAN_OF(key->issuer_key), SPAN_OF(cell->issuer_key)))
        return FAIL(CORRUPT, fault, "the kms came back with other keys");
    if (theirs->epoch <= cell->kms.epoch)
        return FAIL(ROLLED_BACK, fault, "the kms came back with an older epoch");
    if (!charters_are(cell, key->heads)) /* the next request wakes it under the present ones */
        return FAIL(UNAVAILABLE, fault, "the kms came back with other charters");
    TRY(silo_anchor(&present, proof, &count, cell->silo, cell->kms.anchored.log_size, fault));
    if (theirs->commits > present.commits || theirs->map_generation > present.map_generation
        || theirs->log_size > present.log_size)
        return FAIL(ROLLED_BACK, fault, "the kms knows a later state of this silo than its cell");
    return OK;
}

/* The versions are those that we have; but the kms may have heard that the older ones are not in
 * use any more before its answer was lost. What it wraps anew is kept anew. */
static status take_versions(struct cell *cell, const struct kms_key *key, struct fault *fault)
{
    struct fault why;
    bool dropped = key->versions.count == 1 && cell->rotation.phase == ROTATION_DROP
                && key->versions.list[0] == cell->versions.list[0];
    if (!dropped && !key_versions_equal(&key->versions, &cell->versions))
        return FAIL(CORRUPT, fault, "the kms came back with other versions of the key");
    if (key->wrapped.length == 0)
        return OK;
    status kept = dropped ? rotation_drop(cell, key->wrapped, &why)
                          : rotation_tell_kept(cell, key->wrapped, &why);
    if (kept != OK) /* the next waking does it */
        log_event(LOG_WARN, "kms.wrapped", "%s", why.detail);
    return OK;
}

static status on_opened(struct cell *cell, const struct ipc_message *message, struct fault *fault)
{
    struct kms_link *link = &cell->kms;
    struct cursor result;
    struct kms_key key;
    status said = reply_get_head(&result, message, fault);
    if (said == OK)
        said = kms_key_get(&key, NULL, &result, fault);
    /* not UNAVAILABLE: the key was withdrawn, and nobody else will tell the supervisor */
    if (said == INTERNAL || said == OUT_OF_SPACE || said == BAD_REQUEST || said == TRUNCATED)
        return said;
    if (said == OK)
        said = compare(cell, &key, fault);
    if (said == OK)
        said = take_versions(cell, &key, fault);
    if (said != OK) { /* the key is gone, or the silo is not ours any more */
        cell_stop(cell, said, "%s", fault->detail);
        return OK;
    }
    link->open_id = 0;
    link->epoch = key.anchor.epoch;
    link->anchored = key.anchor;
    link->trouble_since_us = 0;
    link->dirty = true;
    log_event(LOG_INFO, "kms.renewed", "epoch %llu", (unsigned long long)link->epoch);
    begin_move(cell);
    rotation_look(cell);
    return OK;
}

static status dispatch(struct cell *cell, const struct ipc_message *message, struct fault *fault)
{
    struct kms_link *link = &cell->kms;
    TRY(ipc_need_fds(message, 0, fault));
    if (message->type == MESSAGE_REPLY && link->move_id && message->id == link->move_id)
        return on_moved(cell, message, fault);
    if (message->type == MESSAGE_REPLY && link->open_id && message->id == link->open_id)
        return on_opened(cell, message, fault);
    if (rotation_answered(cell, message))
        return OK;
    if (message->type == MESSAGE_CHARTER) {
        struct fault why;
        status replaced = charters_replace(cell, message->body, &why);
        if (replaced != OK) /* what is in force is unknown now */
            cell_stop(cell, replaced, "%s", why.detail);
        return OK;
    }
    return FAIL(BAD_REQUEST, fault, "message %#x out of turn", message->type);
}

/* False when nothing waits any more. */
static bool read_one(struct cell *cell)
{
    struct ipc_message message;
    struct fault fault;
    status came = ipc_receive(&message, cell->kms.fd, cell->storage, &fault);
    if (came == AGAIN)
        return false;
    if (came == OK) {
        came = dispatch(cell, &message, &fault);
        secret_wipe(cell->storage, IPC_HEADER_BYTES + message.body.length); /* maybe a DEK */
        ipc_message_close(&message);
    }
    if (came != OK)
        lose(cell, fault.detail);
    return came == OK;
}

void kms_listen(struct cell *cell)
{
    for (int i = 0; i < PACKETS_MAX && cell->kms.fd >= 0 && !cell->ended && read_one(cell); i++)
        ;
}

static void on_event(void *context, uint32_t events)
{
    (void)events;
    kms_listen(context);
}

status kms_start(struct cell *cell, struct fault *fault)
{
    struct kms_link *link = &cell->kms;
    TRY(loop_watch(&link->source, cell->loop, link->fd, EPOLLIN, on_event, cell, fault));
    kms_note_commit(cell); /* a crash may have left commits that the kms never heard of */
    return OK;
}

static status reopen(struct cell *cell, struct fault *fault)
{
    struct kms_link *link = &cell->kms;
    uint8_t storage[4 + CELL_WRAPPED_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_field(&body, buffer_span(&cell->wrapped));
    TRY(buffer_check(&body, "wrapped", fault));
    TRY(loop_watch(&link->source, cell->loop, link->fd, EPOLLIN, on_event, cell, fault));
    TRY(ipc_send(link->fd, MESSAGE_KEY_OPEN, link->last_id + 1, buffer_span(&body), NULL, 0,
                 fault));
    link->open_id = ++link->last_id;
    return OK;
}

void kms_replace(struct cell *cell, int fd)
{
    struct fault fault;
    kms_close(cell);
    note_trouble(&cell->kms);
    cell->kms.fd = fd;
    if (reopen(cell, &fault) != OK)
        lose(cell, fault.detail);
}
