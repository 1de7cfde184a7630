/* report.c: what `bulkhead status` shows: each process with what the kernel says of its jail now.
 * */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "supervisor/supervisor.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { REPORT_MAX = 64 * 1024 * 1024 };

static const char *const state_names[] = {"absent", "starting", "blank", "waking", "waking",
                                          "serving", "stopping"};

/* Read again at every call: a report is no memory of how things once were. */
void report_jail(struct json_writer *writer, struct child *child)
{
    char cgroup[160], name[24];
    struct fault fault;
    struct jail_report report = {0};
    jail_cgroup_text(cgroup, sizeof cgroup, &child->supervisor->cgroups, child_name(name, child));
    const struct jail_expectation expected = {
        .uid = child_uid(child), .gid = child_uid(child),
        .landlock_abi = child->report.landlock_abi, .cgroup = cgroup,
        .threads = child->kind == CHILD_VMM ? monitor_threads(child) : 1,
        .spare_threads = child->kind == CHILD_VMM, /* KVM's own, from Linux 6.13 on */
        .groups_kept = child->supervisor->shared_id};
    status holds = child->state >= CHILD_JAILED
                 ? jail_verify(&report, &child->jail, &expected, &fault) : AGAIN;
    json_put_text(writer, "jail_state", holds == OK ? "verified" : holds == AGAIN ? "closing"
                                                                                : "BROKEN");
    if (holds != OK && holds != AGAIN)
        json_put_text(writer, "jail_fault", fault.detail);
    if (holds == OK) {
        if (jail_measure(&report, &child->jail, &fault) != OK)
            report.private_kib = -1;
        jail_report_json(writer, "jail", &report);
    }
}

static void put_child(struct json_writer *writer, struct child *child)
{
    char name[24], id[TENANT_ID_TEXT];
    json_open_object(writer, NULL);
    json_put_text(writer, "name", child_name(name, child));
    json_put_text(writer, "state", state_names[child->state]);
    if (child->kind == CHILD_CELL && child->state > CHILD_BLANK) {
        hex_encode(id, SPAN_OF(child->tenant));
        json_put_text(writer, "tenant_id", id);
        json_put_integer(writer, "bytes_stored", (int64_t)child->bytes);
        json_put_integer(writer, "damaged_pages", (int64_t)child->damaged);
    }
    if (child->kind != CHILD_CELL)
        json_put_integer(writer, "restarts", child->restarts);
    if (child->state != CHILD_ABSENT) {
        json_put_integer(writer, "pid", child->jail.pid);
        json_put_integer(writer, "up_seconds",
                         (clock_monotonic_us() - child->started_us) / 1000000);
        report_jail(writer, child);
    }
    json_close_object(writer);
}

static void put_node(struct json_writer *writer, const struct supervisor *supervisor)
{
    struct utsname host;
    char tls[TLS_TEXT_SIZE];
    if (uname(&host) != 0)
        host = (struct utsname){0};
    json_put_text(writer, "version", BULKHEAD_VERSION);
    json_put_text(writer, "kernel", host.release);
    json_put_text(writer, "listen", supervisor->options.listen.text);
    json_put_text(writer, "ops", supervisor->options.ops.text);
    tls_text(tls, supervisor);
    json_put_text(writer, "tls", tls);
    json_put_text(writer, "identity", supervisor->shared_id
                  ? "one uid for all jails: not started as root" : "one uid a tenant");
    json_put_text(writer, "cgroup", supervisor->cgroups.reason[0] ? supervisor->cgroups.reason
                                                                  : supervisor->cgroups.path);
    json_put_text(writer, "key_store", "file");
    json_put_text(writer, "key_store_promise",
                  "A destroyed key is overwritten, synced and unlinked. That file system, its "
                  "snapshots and the disk's own remapping may keep old blocks: copies of the key "
                  "store made earlier are outside what this provider can erase.");
    json_put_integer(writer, "supervisor_pid", getpid());
}

static void put_refusals(struct json_writer *writer, const struct supervisor *supervisor)
{
    char id[TENANT_ID_TEXT], when[CLOCK_TEXT_SIZE];
    json_open_array(writer, "refused");
    for (uint32_t i = 0; i < REFUSALS_KEPT; i++) {
        const struct refusal *refusal = &supervisor->refusals[i];
        if (refusal->wall_us == 0)
            continue;
        hex_encode(id, SPAN_OF(refusal->tenant));
        clock_text(when, refusal->wall_us);
        json_open_object(writer, NULL);
        json_put_text(writer, "tenant_id", id);
        json_put_text(writer, "time", when);
        json_put_text(writer, "code", status_code(refusal->code));
        json_put_text(writer, "detail", refusal->detail);
        json_close_object(writer);
    }
    json_close_array(writer);
}

static void put_report(struct json_writer *writer, struct supervisor *supervisor)
{
    uint32_t awake = 0, blanks = 0;
    json_open_object(writer, NULL);
    put_node(writer, supervisor);
    json_open_array(writer, "services");
    for (uint32_t i = 0; i < 2 + supervisor->options.gateways; i++)
        put_child(writer, &supervisor->services[i]);
    json_close_array(writer);
    json_open_array(writer, "cells");
    for (struct child *cell = supervisor->cells; cell; cell = cell->next) {
        awake += cell->state > CHILD_BLANK;
        blanks += cell->state == CHILD_BLANK;
        if (cell->state > CHILD_BLANK)
            put_child(writer, cell);
    }
    json_close_array(writer);
    put_refusals(writer, supervisor);
    sandboxes_report(writer, supervisor);
    json_put_integer(writer, "cells_awake", awake);
    json_put_integer(writer, "blanks_ready", blanks);
    json_close_object(writer);
}

void report_status(struct child *control, uint32_t request)
{
    struct fault fault;
    _cleanup_buffer_ struct buffer text = buffer_of(REPORT_MAX);
    struct json_writer writer = json_writer_on(&text);
    put_report(&writer, control->supervisor);
    _cleanup_close_ int fd = memfd_create("status", MFD_CLOEXEC);
    if (buffer_check(&text, "status", &fault) != OK || fd < 0
        || file_write(fd, buffer_span(&text), "status", &fault) != OK) {
        child_reply(control, request, INTERNAL, "the report could not be written");
        return;
    }
    uint8_t storage[16];
    struct buffer reply = buffer_over(storage, sizeof storage);
    reply_put_head(&reply, OK, NULL);
    child_send(control, MESSAGE_REPLY, request, buffer_span(&reply), &fd, 1);
}
