/* gateways.c: what gateways ask: which tenant is this, wake it; and what they tell: denials. */
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    OUTBOX_BYTES = 1024 * 1024,
    MESSAGES_PER_TURN = 64,
    FIND_MAX = 5 + 255, /* "host:" and a host */
    DENIALS_AFTER_US = 60 * 1000 * 1000, /* one ledger entry a minute at most */
};

struct gateway_wake {
    struct gateway_link *link;
    uint32_t generation, request;
};

static void close_link(struct gateway_link *link)
{
    link->source = loop_unwatch(link->control->loop, link->source);
    link->outbox = ipc_outbox_free(link->outbox);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->generation++; /* not its number tells channels apart: that is used again */
    link->wakes = 0;
}

static void send(struct gateway_link *link, uint32_t type, uint32_t id, struct span body)
{
    struct fault fault;
    if (link->fd < 0)
        return;
    if (ipc_outbox_send(link->outbox, type, id, body, NULL, 0, &fault) != OK) {
        log_event(LOG_WARN, "gateway.lost", "gateway %u: %s", link->index, fault.detail);
        close_link(link);
    } else if (ipc_outbox_waiting(link->outbox)
               && loop_change(link->control->loop, link->source, EPOLLOUT, &fault) != OK) {
        close_link(link);
    }
}

void gateway_answer(struct gateway_link *link, uint32_t id, status code, const char *detail,
                    struct span result)
{
    static uint8_t storage[CHARTER_WIRE_MAX + 512];
    struct buffer body = buffer_over(storage, sizeof storage);
    reply_put_head(&body, code, detail);
    buffer_put(&body, result);
    send(link, MESSAGE_REPLY, id, buffer_span(&body));
}

static status find(struct tenant *ret, struct control *control, struct span text,
                   struct fault *fault)
{
    uint8_t id[TENANT_ID_BYTES];
    struct route route;
    struct fault ignored;
    if (span_starts_with(text, SPAN("host:"))) {
        struct span host = {text.data + 5, text.length - 5};
        if (route_read(&route, SPAN("host"), host, &ignored) != OK)
            return FAIL(NOT_FOUND, fault, "no host");
        return route_find(ret, control, &route, fault);
    }
    if (hex_decode(id, sizeof id, text, "tenant", &ignored) == OK)
        return registry_by_id(ret, control, id, fault);
    return registry_by_name(ret, control, text, fault);
}

static status put_found(struct buffer *out, struct control *control, const struct tenant *tenant,
                        uint64_t known, struct fault *fault)
{
    _cleanup_buffer_ struct buffer charter = buffer_of(CHARTER_WIRE_MAX);
    buffer_put(out, SPAN_OF(tenant->id));
    buffer_put_u8(out, (uint8_t)tenant->state);
    buffer_put_u64(out, (uint64_t)tenant->created_at_us);
    TRY(charter_put_signed(&charter, control, tenant->id, known, fault));
    buffer_put_field(out, buffer_span(&charter));
    return buffer_check(out, "tenant", fault);
}

static status on_find(struct gateway_link *link, uint32_t id, struct cursor *body,
                      struct fault *fault)
{
    _cleanup_buffer_ struct buffer result = buffer_of(CHARTER_WIRE_MAX + 64);
    char text[FIND_MAX + 1];
    uint64_t known;
    struct tenant tenant;
    struct fault why = {0};
    TRY(cursor_text(text, sizeof text, body, "tenant", fault));
    TRY(cursor_u64(&known, body, fault));
    TRY(cursor_end(body, fault));
    status found = find(&tenant, link->control, span_of_text(text), &why);
    if (found == OK && tenant.state == TENANT_CREATING)
        found = NOT_FOUND;
    if (found == OK)
        found = put_found(&result, link->control, &tenant, known, &why) == OK ? OK : UNAVAILABLE;
    if (found == OK)
        gateway_answer(link, id, OK, "", buffer_span(&result));
    else
        gateway_answer(link, id, found == NOT_FOUND ? NOT_FOUND : UNAVAILABLE, "",
                       (struct span){0});
    return OK;
}

static void on_woken(void *context, status code, const char *detail, struct span json)
{
    struct gateway_wake *wake = context;
    (void)json;
    if (wake->link->generation == wake->generation) {
        wake->link->wakes--;
        gateway_answer(wake->link, wake->request, code == OK ? OK : UNAVAILABLE, detail,
                       (struct span){0});
    }
    free(wake);
}

static status on_wake(struct gateway_link *link, uint32_t id, struct cursor *body,
                      struct fault *fault)
{
    uint8_t tenant_id[TENANT_ID_BYTES];
    struct tenant tenant;
    struct fault why;
    TRY(cursor_copy(tenant_id, body, sizeof tenant_id, fault));
    TRY(cursor_end(body, fault));
    if (link->wakes >= GATEWAY_CALLS_MAX)
        return FAIL(TOO_LARGE, fault, "more than %d wakes at once", (int)GATEWAY_CALLS_MAX);
    if (registry_by_id(&tenant, link->control, tenant_id, &why) != OK
        || tenant.state != TENANT_ACTIVE || link->control->stopping) {
        gateway_answer(link, id, UNAVAILABLE, "the tenant is not active", (struct span){0});
        return OK;
    }
    struct gateway_wake *wake = malloc(sizeof *wake);
    if (!wake) {
        gateway_answer(link, id, UNAVAILABLE, "out of memory", (struct span){0});
        return OK;
    }
    *wake = (struct gateway_wake){.link = link, .generation = link->generation, .request = id};
    link->wakes++;
    wake_tenant(link->control, &tenant, link->index,
                (struct outcome){.done = on_woken, .context = wake});
    return OK;
}

static void put_denials(struct control *control, struct buffer *detail)
{
    char sample[2 * HASH_BYTES + 1];
    struct json_writer writer = json_writer_on(detail);
    json_open_object(&writer, NULL);
    json_open_object(&writer, "by_reason");
    for (int reason = 0; reason < STATS_REASONS_MAX; reason++) {
        char name[8];
        snprintf(name, sizeof name, "%d", reason);
        if (control->denials[reason])
            json_put_integer(&writer, name, (int64_t)control->denials[reason]);
    }
    json_close_object(&writer);
    hex_encode(sample, SPAN_OF(control->denial_sample));
    json_put_text(&writer, "client_sample", sample);
    json_close_object(&writer);
}

static status write_denials(struct control *control, struct span detail, struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status result = ledger_append(control, "requests.denied", NULL, -1, detail, fault);
    return registry_end(control, result, fault);
}

static void on_denials(void *context)
{
    struct control *control = context;
    struct fault fault;
    uint8_t storage[6 * 1024];
    struct buffer detail = buffer_over(storage, sizeof storage);
    put_denials(control, &detail);
    status result = write_denials(control, buffer_span(&detail), &fault);
    if (result == OK) {
        memset(control->denials, 0, sizeof control->denials);
        return;
    }
    log_event(LOG_WARN, "ledger.denials", "%s", fault.detail);
    if (!control->stopping
        && loop_timer_start(control->loop, &control->denial_timer, DENIALS_AFTER_US, on_denials,
                            control, &fault) != OK)
        control_die("denial timer", &fault);
}

void gateways_flush(struct control *control)
{
    if (control->denial_timer.due_us != 0)
        on_denials(control);
    loop_timer_stop(control->loop, &control->denial_timer);
}

static status on_denied(struct gateway_link *link, uint32_t id, struct cursor *body,
                        struct fault *fault)
{
    struct control *control = link->control;
    uint8_t reason;
    uint32_t count;
    (void)id;
    TRY(cursor_u8(&reason, body, fault));
    TRY(cursor_u32(&count, body, fault));
    TRY(cursor_copy(control->denial_sample, body, HASH_BYTES, fault));
    TRY(cursor_end(body, fault));
    if (reason >= STATS_REASONS_MAX) /* all reasons there are fit one entry of the ledger */
        return FAIL(BAD_REQUEST, fault, "DENIED: the unknown reason %u", reason);
    control->denials[reason] += count;
    if (control->denial_timer.due_us == 0)
        return loop_timer_start(control->loop, &control->denial_timer, DENIALS_AFTER_US,
                                on_denials, control, fault);
    return OK;
}

static const struct {
    uint32_t type;
    status (*handle)(struct gateway_link *link, uint32_t id, struct cursor *body,
                     struct fault *fault);
} permits[] = {
    {MESSAGE_TENANT_FIND, on_find},
    {MESSAGE_TENANT_WAKE, on_wake},
    {MESSAGE_ROUTE_FIND, route_ask},
    {MESSAGE_DENIED, on_denied},
};

static status dispatch(struct gateway_link *link, struct ipc_message *message,
                       struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    TRY(ipc_need_fds(message, 0, fault));
    for (size_t i = 0; i < sizeof permits / sizeof permits[0]; i++)
        if (permits[i].type == message->type)
            return permits[i].handle(link, message->id, &body, fault);
    return FAIL(FORBIDDEN_POLICY, fault, "message %#x is not permitted here", message->type);
}

/* A gateway that does not take its answers is not read. */
static void watch(struct gateway_link *link)
{
    struct fault fault;
    if (link->fd >= 0
        && loop_change(link->control->loop, link->source,
                       ipc_outbox_waiting(link->outbox) ? EPOLLOUT : EPOLLIN, &fault) != OK)
        close_link(link);
}

static void on_event(void *context, uint32_t events)
{
    static uint8_t storage[IPC_PACKET_MAX];
    struct gateway_link *link = context;
    struct fault fault;
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        && ipc_outbox_flush(link->outbox, &fault) != OK) {
        close_link(link);
        return;
    }
    for (int i = 0; i < MESSAGES_PER_TURN && link->fd >= 0 && !ipc_outbox_waiting(link->outbox);
         i++) {
        struct ipc_message message;
        status got = ipc_receive(&message, link->fd, storage, &fault);
        if (got == AGAIN)
            break;
        if (got == OK) {
            got = dispatch(link, &message, &fault);
            ipc_message_close(&message);
        }
        if (got != OK) { /* a gateway that errs loses this channel, nothing else */
            log_event(got == CLOSED ? LOG_INFO : LOG_WARN, "gateway.closed", "gateway %u: %s",
                      link->index, fault.detail);
            close_link(link);
        }
    }
    watch(link);
}

struct claims_told {
    struct buffer names;
    uint16_t count;
};

static status one_claim(void *context, struct span name, struct fault *fault)
{
    struct claims_told *told = context;
    (void)fault;
    if (told->count == CLAIM_NAMES_MAX)
        return OK;
    told->count++;
    buffer_put_field(&told->names, name);
    return OK;
}

static status put_platform(struct buffer *out, struct control *control, struct fault *fault)
{
    _cleanup_buffer_ struct buffer charter = buffer_of(CHARTER_WIRE_MAX);
    uint8_t storage[CLAIM_NAMES_MAX * 80];
    struct claims_told told = {.names = buffer_over(storage, sizeof storage)};
    bool hosts;
    status found = charter_put_signed(&charter, control, charter_platform_id, 0, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    TRY(routes_any_host(&hosts, control, fault));
    TRY(charter_claims(control, one_claim, &told, fault));
    TRY(buffer_check(&told.names, "claims", fault));
    buffer_put_field(out, buffer_span(&charter));
    buffer_put_u8(out, hosts);
    buffer_put_u16(out, told.count);
    buffer_put(out, buffer_span(&told.names));
    return buffer_check(out, "PLATFORM", fault);
}

void gateway_link_open(struct control *control, uint32_t index, int fd)
{
    struct gateway_link *link = &control->gateways[index];
    struct fault fault;
    close_link(link);
    link->fd = fd;
    if (ipc_outbox_create(&link->outbox, fd, OUTBOX_BYTES, &fault) != OK
        || loop_watch(&link->source, control->loop, fd, EPOLLIN, on_event, link, &fault) != OK)
        control_die("gateway channel", &fault);
    _cleanup_buffer_ struct buffer platform = buffer_of(IPC_BODY_MAX);
    if (put_platform(&platform, control, &fault) != OK)
        control_die("registry", &fault);
    send(link, MESSAGE_PLATFORM, 0, buffer_span(&platform));
}

void gateways_tell_changed(struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    for (uint32_t i = 0; i < control->gateway_count; i++)
        send(&control->gateways[i], MESSAGE_TENANT_CHANGED, 0, (struct span){id, TENANT_ID_BYTES});
}

void gateways_tell_platform(struct control *control)
{
    _cleanup_buffer_ struct buffer platform = buffer_of(IPC_BODY_MAX);
    uint8_t hashed[HASH_BYTES];
    struct fault fault;
    if (put_platform(&platform, control, &fault) != OK)
        control_die("registry", &fault); /* whoever starts next tells them all */
    hash(hashed, buffer_span(&platform));
    if (span_equal(SPAN_OF(hashed), SPAN_OF(control->platform_told)))
        return;
    struct cursor bytes = cursor_over(SPAN_OF(hashed));
    if (cursor_copy(control->platform_told, &bytes, HASH_BYTES, &fault) != OK)
        control_die("PLATFORM", &fault);
    for (uint32_t i = 0; i < control->gateway_count; i++)
        send(&control->gateways[i], MESSAGE_PLATFORM, 0, buffer_span(&platform));
}
