/* ledger.c: the platform's own tamper-evident log: the life of tenants, receipts, denials that can
 * be tied to nobody. The same tree, checkpoints and export as a tenant's audit log. */
#include "control/control.h"
#include "base/file.h"
#include "base/hex.h"
#include "store/export.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const char origin[] = "bulkhead/ledger";

status ledger_append(struct control *control, const char *event, const struct tenant *tenant,
                     int64_t operator_uid, struct span detail, struct fault *fault)
{
    uint8_t storage[AUDIT_ENTRY_MAX];
    char now[CLOCK_TEXT_SIZE], id[TENANT_ID_TEXT];
    struct buffer entry = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&entry);
    clock_text(now, clock_wall_us());
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "index", (int64_t)store_log_next(control->log));
    json_put_text(&writer, "time", now);
    json_put_text(&writer, "event", event);
    if (tenant) {
        hex_encode(id, SPAN_OF(tenant->id));
        json_put_text(&writer, "tenant_id", id);
        json_put_text(&writer, "tenant_name", tenant->name);
    }
    if (operator_uid >= 0)
        json_put_integer(&writer, "operator_uid", operator_uid);
    if (detail.length)
        json_put_raw(&writer, "detail", detail);
    json_close_object(&writer);
    TRY(buffer_check(&entry, "ledger entry", fault));
    return store_log_append(control->log, buffer_span(&entry), fault);
}

struct export {
    int fd;
    struct buffer lines;
};

static status flush(struct export *export, struct fault *fault)
{
    TRY(buffer_check(&export->lines, "ledger export", fault));
    TRY(file_write(export->fd, buffer_span(&export->lines), "ledger export", fault));
    buffer_clear(&export->lines);
    return OK;
}

static status one_entry(void *context, const struct store_log_entry *entry, bool *stop,
                        struct fault *fault)
{
    struct export *export = context;
    (void)stop;
    export_put_entry(&export->lines, entry->salt, entry->entry);
    return export->lines.length > KIB(64) ? flush(export, fault) : OK;
}

/* fd is a file of the caller's, never a pipe: writing to it does not wait for anybody. */
status ledger_export(struct control *control, int fd, struct fault *fault)
{
    struct export export = {.fd = fd, .lines = buffer_of(MIB(1))};
    TRY(platform_anchor(control, fault));
    export_put_header(&export.lines, origin, control->platform_key);
    status result = store_log_read(control->log, 0, store_log_size(control->log), one_entry,
                                   &export, fault);
    if (result == OK) {
        export_put_checkpoint(&export.lines, span_of_text(control->checkpoint));
        result = flush(&export, fault);
    }
    buffer_free(&export.lines);
    return result;
}
