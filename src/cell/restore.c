/* restore.c: a cell that only makes its tenant's silo from a chain of backups, in a directory of
 * its own, and ends. The backups are hostile: they are read here, in the jail, as the tenant's uid,
 * with its key alone. What it says it made is put in force by others. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"
#include "silo/care.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { STALL_MS = 60 * 1000, SAY_WAIT_MS = 5000 };

/* The command line writes the files one after another. */
static status read_backups(void *context, uint8_t *bytes, size_t length, struct fault *fault)
{
    const int *fd = context;
    size_t done = 0;
    while (done < length) {
        struct pollfd ready = {.fd = *fd, .events = POLLIN};
        int polled = poll(&ready, 1, STALL_MS);
        if (polled == 0)
            return FAIL(TIMED_OUT, fault, "the backups stopped coming");
        ssize_t got = polled < 0 ? -1 : read(*fd, bytes + done, length - done);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got < 0)
            return FAIL(INTERNAL, fault, "the backups cannot be read: %s", strerror(errno));
        if (got == 0)
            return FAIL(done == 0 ? NOT_FOUND : TRUNCATED, fault, "end of the backups");
        done += (size_t)got;
    }
    return OK;
}

static status tell(struct cell *cell, const struct silo_restored *restored,
                   const struct anchor *replaced, struct fault *fault)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    anchor_put(&body, &restored->anchor);
    anchor_put(&body, replaced);
    buffer_put_u64(&body, restored->sequence);
    buffer_put_text_field(&body, restored->time);
    buffer_put_u64(&body, restored->log_size);
    buffer_put(&body, SPAN_OF(restored->log_root));
    buffer_put_u64(&body, restored->bytes);
    TRY(buffer_check(&body, "CELL_RESTORED", fault));
    return ipc_send_wait(cell->supervisor, MESSAGE_CELL_RESTORED, 0, buffer_span(&body), NULL, 0,
                         SAY_WAIT_MS, fault);
}

static status run(struct cell *cell, struct silo_restore *restore, struct silo_opening *opening,
                  struct fault *fault)
{
    struct silo_restored restored;
    status made = silo_restore_run(&restored, restore, opening, cell->platform_key, fault);
    TRY(made);
    log_event(LOG_INFO, "silo.restored", "from %06llu.bhb of %s",
              (unsigned long long)restored.sequence, restored.time);
    return tell(cell, &restored, &opening->anchor, fault);
}

static status take_key(struct kms_key *ret, struct cell *cell, struct store_key *keys,
                       const struct ipc_message *message, struct fault *fault)
{
    struct cursor result;
    TRY(ipc_need_fds(message, 0, fault));
    TRY(reply_get_head(&result, message, fault));
    TRY(kms_key_get(ret, keys, &result, fault));
    struct cursor platform = cursor_over(SPAN_OF(ret->platform_key));
    return cursor_copy(cell->platform_key, &platform, sizeof cell->platform_key, fault);
}

/* Keys that were destroyed on purpose are told apart from damage: the backup is not to blame. */
static status not_released(const struct silo_restore *restore, status why, struct fault *fault)
{
    struct fault said = *fault;
    uint32_t version = silo_restore_key_version(restore);
    if (why == ROLLED_BACK)
        return FAIL(ROLLED_BACK, fault, "it was made before the data key was rotated: version %u "
                    "is destroyed (--rotate-dek)", version);
    if (why == CORRUPT)
        return FAIL(CORRUPT, fault, "its keys do not open: they were changed, or are wrapped under "
                    "a KEK that is no more (--rotate-kek)");
    return FAIL(why, fault, "the keys of this backup are not released: %.120s", said.detail);
}

/* Of a backup made in mid-rotation the kms releases what is left. */
static status without_some(const struct cell *cell, size_t wrapped_left, status failed,
                           struct fault *fault)
{
    struct fault said = *fault;
    if (failed != CORRUPT || wrapped_left == 0 || wrapped_left >= cell->wrapped.length)
        return failed;
    return FAIL(ROLLED_BACK, fault, "%.100s: it was made while the data key was rotated, and older "
                "versions are destroyed (--rotate-dek)", said.detail);
}

/* KEY_KEPT is not sent: the silo in place may still need what its own keys are wrapped under. The
 * kms releases the keys that the backup has in their wrapped form: it knows whether they are
 * this tenant's, and still in being. */
static status open_and_run(struct cell *cell, struct silo_restore *restore, int silo_fd,
                           struct store_key *keys, struct fault *fault)
{
    struct ipc_message message;
    struct kms_key key;
    cell->wrapped = buffer_of(CELL_WRAPPED_MAX);
    buffer_put(&cell->wrapped, silo_restore_wrapped(restore));
    TRY(buffer_check(&cell->wrapped, "wrapped", fault));
    TRY(cell_open_key(&message, cell, fault));
    status taken = take_key(&key, cell, keys, &message, fault);
    secret_wipe(cell->storage, IPC_HEADER_BYTES + message.body.length);
    ipc_message_close(&message);
    if (taken != OK)
        return not_released(restore, taken, fault);
    struct silo_opening opening = {.silo_fd = silo_fd, .keys = keys,
                                   .key_count = key.versions.count, .anchor = key.anchor};
    struct cursor id = cursor_over(SPAN_OF(cell->tenant_id));
    TRY(cursor_copy(opening.tenant_id, &id, sizeof opening.tenant_id, fault));
    return without_some(cell, key.wrapped.length, run(cell, restore, &opening, fault), fault);
}

status cell_restore(struct cell *cell, int silo_fd, struct fault *fault)
{
    const size_t size = DEK_VERSIONS_MAX * sizeof(struct store_key);
    struct silo_restore *restore;
    struct store_key *keys = secret_alloc(size);
    if (!keys)
        return FAIL(INTERNAL, fault, "no locked memory for a key");
    status restored = silo_restore_begin(&restore, cell->tenant_id, read_backups,
                                         &cell->restore_fd, fault);
    if (restored == OK) {
        restored = open_and_run(cell, restore, silo_fd, keys, fault);
        silo_restore_end(restore);
    }
    secret_free(keys, size);
    return restored;
}
