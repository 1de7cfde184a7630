/* services.c: kms, control and the gateways: started in that order, restarted with back-off. */
#include "base/clock.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEALTHY_AFTER_US = 10 * 1000 * 1000 };

struct child *service_kms(struct supervisor *supervisor)
{
    return &supervisor->services[0];
}

struct child *service_control(struct supervisor *supervisor)
{
    return &supervisor->services[1];
}

struct child *service_gateway(struct supervisor *supervisor, uint32_t index)
{
    return index < supervisor->options.gateways ? &supervisor->services[2 + index] : NULL;
}

static bool able(const struct child *child)
{
    return child->state >= CHILD_STARTING && child->state <= CHILD_SERVING;
}

static void send_channel(struct child *child, uint8_t kind, uint32_t index, int fd)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, kind);
    buffer_put_u32(&body, index);
    child_send(child, MESSAGE_CHANNEL, 0, buffer_span(&body), &fd, 1);
}

void services_connect(struct supervisor *supervisor, struct child *one, uint8_t kind_for_one,
                      uint32_t index_for_one, struct child *other, uint8_t kind_for_other,
                      uint32_t index_for_other)
{
    int ends[2];
    struct fault fault;
    (void)supervisor;
    if (!able(one) || !able(other))
        return; /* the one that is missing is connected when it has started */
    if (ipc_pair(ends, &fault) != OK) {
        log_event(LOG_ERROR, "channel.failed", "%s", fault.detail);
        return;
    }
    send_channel(one, kind_for_one, index_for_one, ends[0]);
    send_channel(other, kind_for_other, index_for_other, ends[1]);
    close(ends[0]);
    close(ends[1]);
}

static status mount_for(int *ret, int directory, struct fault *fault)
{
    return jail_detached(ret, directory, true, fault);
}

static status start_kms(struct child *kms, struct fault *fault)
{
    int keys;
    TRY(mount_for(&keys, kms->supervisor->keys_directory, fault));
    child_send(kms, MESSAGE_START, 0, (struct span){0}, &keys, 1);
    close(keys);
    return OK;
}

/* A pair of which one end rides in a START; the other goes to the peer as a CHANNEL. */
static status pair_with(int *ret, struct child *peer, uint8_t kind, uint32_t index,
                        struct fault *fault)
{
    int ends[2];
    TRY(ipc_pair(ends, fault));
    if (able(peer))
        send_channel(peer, kind, index, ends[1]);
    close(ends[1]);
    *ret = ends[0];
    return OK;
}

static status start_control(struct child *control, struct fault *fault)
{
    struct supervisor *supervisor = control->supervisor;
    uint8_t storage[512];
    int fds[2];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(supervisor->public_keys));
    buffer_put_u32(&body, supervisor->options.gateways);
    buffer_put_u32(&body, supervisor->options.uid_base);
    buffer_put_u32(&body, supervisor->options.idle_seconds);
    buffer_put_text_field(&body, supervisor->options.region);
    prices_put(&body, &supervisor->prices);
    TRY(mount_for(&fds[0], supervisor->control_directory, fault));
    status paired = pair_with(&fds[1], service_kms(supervisor), CHANNEL_CONTROL, 0, fault);
    if (paired == OK) {
        child_send(control, MESSAGE_START, 0, buffer_span(&body), fds, 2);
        close(fds[1]);
    }
    close(fds[0]);
    return paired;
}

static void put_gateway_options(struct buffer *body, const struct options *options)
{
    buffer_put_u8(body, options_speak_tls(options));
    buffer_put_text_field(body, options->domain);
    buffer_put_text_field(body, options->region);
    buffer_put_u8(body, options->tenant_labels);
    buffer_put_u32(body, options->connections_per_address);
    buffer_put_u16(body, (uint16_t)options->proxy_count);
    for (uint32_t i = 0; i < options->proxy_count; i++) {
        buffer_put_u8(body, options->proxies[i].family);
        buffer_put(body, SPAN_OF(options->proxies[i].bytes));
        buffer_put_u8(body, options->proxies[i].prefix_bits);
    }
}

static status start_gateway(struct child *gateway, struct fault *fault)
{
    struct supervisor *supervisor = gateway->supervisor;
    uint8_t storage[512 + TRUSTED_PROXIES_MAX * 18];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, gateway->index);
    buffer_put_u32(&body, supervisor->options.gateways);
    buffer_put(&body, SPAN_OF(supervisor->public_keys));
    put_gateway_options(&body, &supervisor->options);
    TRY(buffer_check(&body, "START", fault));
    int fds[4] = {supervisor->listeners[gateway->index], -1, supervisor->stats_fd,
                  supervisor->ops_listener};
    TRY(pair_with(&fds[1], service_control(supervisor), CHANNEL_GATEWAY, gateway->index, fault));
    child_send(gateway, MESSAGE_START, 0, buffer_span(&body), fds, gateway->index == 0 ? 4 : 3);
    close(fds[1]);
    tls_start_gateway(gateway);
    return OK;
}

static void on_restart(void *context);

static void restart_later(struct child *child)
{
    struct fault fault;
    if (child->supervisor->phase > PHASE_RUN)
        return;
    if (loop_timer_start(child->supervisor->loop, &child->timer, (int64_t)child->delay_ms * 1000,
                         on_restart, child, &fault) != OK)
        log_event(LOG_ERROR, "service.lost", "%s", fault.detail);
}

static void start(struct child *child)
{
    static status (*const starters[])(struct child *, struct fault *) = {
        [CHILD_KMS] = start_kms, [CHILD_CONTROL] = start_control,
        [CHILD_GATEWAY] = start_gateway};
    struct supervisor *supervisor = child->supervisor;
    struct fault fault;
    char name[24];
    if (supervisor->phase > PHASE_RUN)
        return; /* a READY that crossed the stop */
    status result = child_spawn(child, supervisor->executables[child->kind], &fault);
    if (result != OK) {
        log_event(LOG_ERROR, "service.start", "%s: %s", child_name(name, child), fault.detail);
        restart_later(child);
        return;
    }
    result = jail_map(&child->jail, child_uid(child), child_uid(child), &fault);
    if (result == OK)
        result = starters[child->kind](child, &fault);
    if (result != OK)
        child_fatal(child, fault.detail);
}

static void on_restart(void *context)
{
    struct child *child = context;
    child->restarts++;
    stats_add(&child->supervisor->stats->slots[0].restarts, 1);
    start(child);
}

void services_start(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < 2 + supervisor->options.gateways; i++) {
        supervisor->services[i] = (struct child){
            .supervisor = supervisor, .channel = -1, .kms_end = -1,
            .kind = i == 0 ? CHILD_KMS : i == 1 ? CHILD_CONTROL : CHILD_GATEWAY,
            .index = i < 2 ? 0 : i - 2, .delay_ms = RESTART_DELAY_MIN_MS};
    }
    start(service_kms(supervisor));
}

void service_ended(struct child *child, int exit_code)
{
    struct supervisor *supervisor = child->supervisor;
    char name[24];
    bool wanted = child->state == CHILD_PARKING;
    log_event(wanted ? LOG_INFO : LOG_ERROR, "service.ended", "%s: exit %d",
              child_name(name, child), exit_code);
    bool healthy = clock_monotonic_us() - child->started_us > HEALTHY_AFTER_US;
    child->delay_ms = healthy ? RESTART_DELAY_MIN_MS
                    : child->delay_ms * 2 > RESTART_DELAY_MAX_MS ? RESTART_DELAY_MAX_MS
                    : child->delay_ms * 2;
    child_forget(child);
    child->detail[0] = '\0';
    if (child->kind == CHILD_CONTROL) {
        cells_forget_requests(supervisor);
        prove_forget_request(supervisor);
        sandboxes_forget_requests(supervisor);
    }
    if (!wanted && !supervisor->announced && ++supervisor->boot_failures >= BOOT_FAILURES_MAX
        && !supervisor->boot_failed) { /* such as a damaged registry: nothing a restart mends */
        supervisor->boot_failed = true;
        fprintf(stderr, "bulkhead serve: %s does not start; the log above says why\n", name);
        phases_stop(supervisor);
    }
    if (supervisor->phase > PHASE_RUN)
        phases_advance(supervisor);
    else
        restart_later(child);
}

static bool keys_are_the_same(struct supervisor *supervisor, const struct ipc_message *message)
{
    if (message->body.length != sizeof supervisor->public_keys)
        return false;
    if (!supervisor->keys_known)
        memcpy(supervisor->public_keys, message->body.data, sizeof supervisor->public_keys);
    supervisor->keys_known = true;
    return span_equal(SPAN_OF(supervisor->public_keys), message->body);
}

/* sd_notify(3): one datagram to the socket that systemd named. */
static void tell_systemd(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@')
        || !span_to_text(address.sun_path, sizeof address.sun_path, span_of_text(path)))
        return;
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, length)
        < 0)
        log_event(LOG_WARN, "systemd.notify", "the notification was not taken");
    close(fd);
}

static void announce(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < 2 + supervisor->options.gateways; i++)
        if (supervisor->services[i].state != CHILD_SERVING)
            return;
    if (supervisor->announced)
        return;
    supervisor->announced = true;
    supervisor->phase = PHASE_RUN;
    printf("bulkhead ready %s://%s\n",
           options_speak_tls(&supervisor->options) ? "https" : "http",
           supervisor->options.listen.text);
    fflush(stdout);
    tell_systemd("READY=1");
    log_event(LOG_INFO, "node.ready", "%s", supervisor->options.listen.text);
    microvm_begin(supervisor);
}

static void kms_ready(struct supervisor *supervisor)
{
    struct child *control = service_control(supervisor);
    if (!supervisor->announced && control->state == CHILD_ABSENT) {
        start(control);
        return;
    }
    services_connect(supervisor, control, CHANNEL_CONTROL_KMS, 0, service_kms(supervisor),
                     CHANNEL_CONTROL, 0);
    cells_kms_renewed(supervisor);
}

static void control_ready(struct supervisor *supervisor)
{
    sandboxes_tell_owed(supervisor);
    for (uint32_t i = 0; i < supervisor->options.gateways; i++) {
        struct child *gateway = service_gateway(supervisor, i);
        if (!supervisor->announced && gateway->state == CHILD_ABSENT && !gateway->timer.due_us)
            start(gateway);
        else
            services_connect(supervisor, service_control(supervisor), CHANNEL_GATEWAY, i, gateway,
                             CHANNEL_CONTROL, 0);
    }
}

void service_ready(struct child *child, const struct ipc_message *message)
{
    struct supervisor *supervisor = child->supervisor;
    bool kms = child->kind == CHILD_KMS;
    if (child->state != CHILD_JAILED || message->fd_count
        || (kms ? !keys_are_the_same(supervisor, message) : message->body.length != 0)) {
        child_fatal(child, "READY out of turn or with other keys than before");
        return;
    }
    child->state = CHILD_SERVING;
    loop_timer_stop(supervisor->loop, &child->timer);
    if (kms)
        kms_ready(supervisor);
    else if (child->kind == CHILD_CONTROL)
        control_ready(supervisor);
    announce(supervisor);
}
