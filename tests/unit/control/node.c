#define _GNU_SOURCE
#include "node.h"

#include "wire/usage.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/loop.h"
#include "control/serve.h"
#include "crypt/crypt.h"
#include "kms/serve.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { QUIET_MS = 60, PATIENCE_MS = 10000, UID_BASE = 700000000 };

static uint8_t packet[IPC_PACKET_MAX];

static void must(status result, const struct fault *fault)
{
    if (result != OK)
        fail_msg("%s", fault->detail);
}

static void pair(int ends[2])
{
    struct fault fault;
    must(ipc_pair(ends, &fault), &fault);
}

static void ignore_report(void *context, const char *text)
{
    (void)context, (void)text;
}

static _Noreturn void be_kms(int keys, int channel)
{
    struct fault fault;
    struct keystore *store;
    struct loop *loop;
    struct kms *kms;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool served = crypt_start(&fault) == OK
               && keystore_open(&store, keys, ignore_report, NULL, &fault) == OK
               && loop_create(&loop, &fault) == OK
               && kms_serve(&kms, loop, store, channel, &fault) == OK
               && loop_run(loop, &fault) == OK;
    _exit(served ? 0 : 1);
}

static _Noreturn void be_control(int channel)
{
    struct fault fault;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool served = crypt_start(&fault) == OK && store_start(&fault) == OK
               && control_serve(channel, false, &fault) == OK;
    _exit(served ? 0 : 1);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int make_directory(const struct node *node, const char *name)
{
    assert_int_equal(mkdirat(node->directory, name, 0700), 0);
    int fd = openat(node->directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

void node_make(struct node *node)
{
    struct ipc_message message;
    struct fault fault;
    int ends[2];
    *node = (struct node){.path = "/tmp/bulkhead-control-XXXXXX", .client = -1,
                          .control_channel = -1, .links = {{-1, -1}, {-1, -1}}};
    assert_non_null(mkdtemp(node->path));
    node->directory = open(node->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    node->keys = make_directory(node, "keys");
    node->control_directory = make_directory(node, "control");
    node->silos = make_directory(node, "silos");
    pair(ends);
    node->kms = fork();
    if (node->kms == 0)
        be_kms(node->keys, ends[1]);
    close(ends[1]);
    node->kms_channel = ends[0];
    must(ipc_await(&message, node->kms_channel, packet, PATIENCE_MS, &fault), &fault);
    assert_int_equal(message.type, MESSAGE_READY);
    assert_int_equal(message.body.length, sizeof node->keys_public);
    memcpy(node->keys_public, message.body.data, sizeof node->keys_public);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static void end(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        assert_int_equal(waitpid(*pid, NULL, 0), *pid);
    }
    *pid = 0;
}

void node_stop_control(struct node *node)
{
    end(&node->control);
    close_fd(&node->control_channel);
    close_fd(&node->client);
    for (int i = 0; i < LINKS_MAX; i++) {
        close_fd(&node->links[i].control);
        close_fd(&node->links[i].kms);
    }
    node->ready = false;
}

void node_remove(struct node *node)
{
    node_stop_control(node);
    end(&node->kms);
    close_fd(&node->kms_channel);
    close(node->keys);
    close(node->control_directory);
    close(node->silos);
    close(node->directory);
    assert_int_equal(nftw(node->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* True when control is to be ended at this message; counted on both sides of its passing. */
static bool dies(struct node *node, bool before)
{
    if (before)
        node->messages++;
    if (node->died || node->messages != node->die_at || node->die_before != before)
        return false;
    end(&node->control);
    node->died = true;
    return true;
}

/* The other side may have ended: then its words are lost, as they would be. */
static void send_to(int fd, uint32_t type, uint32_t id, struct span body)
{
    struct fault fault;
    status sent = ipc_send(fd, type, id, body, NULL, 0, &fault);
    assert_true(sent == OK || sent == CLOSED);
}

static void reply(struct node *node, uint32_t id, struct span result)
{
    uint8_t storage[128];
    struct buffer body = buffer_over(storage, sizeof storage);
    reply_put_head(&body, OK, NULL);
    buffer_put(&body, result);
    send_to(node->control_channel, MESSAGE_REPLY, id, buffer_span(&body));
}

void node_answer_start(struct node *node)
{
    uint8_t storage[16];
    struct buffer result = buffer_over(storage, sizeof storage);
    struct fault fault;
    uint32_t id = node->sandboxes.held;
    node->sandboxes.held = 0;
    assert_int_not_equal(id, 0);
    if (node->sandboxes.refuse != OK) {
        must(reply_send(node->control_channel, id, node->sandboxes.refuse, node->sandboxes.why,
                        &fault), &fault);
        return;
    }
    buffer_put_u64(&result, node->sandboxes.next_id++);
    buffer_put_u8(&result, node->sandboxes.tier);
    reply(node, id, buffer_span(&result));
}

void node_sandbox_gone(struct node *node, uint64_t id, enum sandbox_end end_, const char *detail)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u64(&body, id);
    buffer_put_u8(&body, (uint8_t)end_);
    buffer_put_u64(&body, 1500000); /* CPU us */
    buffer_put_u64(&body, 4096);    /* peak KiB */
    buffer_put_u64(&body, 2250000); /* wall us */
    buffer_put_text_field(&body, detail);
    send_to(node->control_channel, MESSAGE_SANDBOX_GONE, 0, buffer_span(&body));
}

static void start_sandbox(struct node *node, const struct ipc_message *message)
{
    struct cursor body = cursor_over(message->body);
    struct fault fault;
    struct stat info;
    must(cursor_copy(node->sandboxes.tenant, &body, TENANT_ID_BYTES, &fault), &fault);
    must(sandbox_spec_get(&node->sandboxes.spec, &body, &fault), &fault);
    must(cursor_end(&body, &fault), &fault);
    node->sandboxes.had_socket = message->fd_count >= 1 && fstat(message->fds[0], &info) == 0
                              && S_ISSOCK(info.st_mode);
    node->sandboxes.had_console = message->fd_count == 2 && fstat(message->fds[1], &info) == 0
                               && S_ISFIFO(info.st_mode);
    node->sandboxes.held = message->id;
    if (!node->sandboxes.hold)
        node_answer_start(node);
}

static void stop_sandbox(struct node *node, const struct ipc_message *message)
{
    struct cursor body = cursor_over(message->body);
    struct fault fault;
    uint64_t id;
    must(cursor_u64(&id, &body, &fault), &fault);
    must(cursor_end(&body, &fault), &fault);
    node_sandbox_gone(node, id, SANDBOX_CLOSED, "stopped");
    reply(node, message->id, (struct span){0});
}

static void refuse(struct node *node, uint32_t id)
{
    struct fault fault;
    must(reply_send(node->control_channel, id, INTERNAL, "refused by the test", &fault), &fault);
}

static void act(struct node *node, const struct ipc_message *message)
{
    static const uint8_t counts[16]; /* no files, no bytes */
    char name[TENANT_ID_TEXT] = "";
    if (message->body.length >= TENANT_ID_BYTES)
        hex_encode(name, (struct span){message->body.data, TENANT_ID_BYTES});
    if (message->type != MESSAGE_READY && node->sandboxes.asked_count < ASKED_MAX)
        node->sandboxes.asked[node->sandboxes.asked_count++] = message->type;
    if (node->refuse && message->type == node->refuse) {
        refuse(node, message->id);
        return;
    }
    switch (message->type) {
    case MESSAGE_READY: node->ready = true; return;
    case MESSAGE_SILO_MAKE:
        assert_true(mkdirat(node->silos, name, 0700) == 0 || errno == EEXIST);
        reply(node, message->id, (struct span){0});
        return;
    case MESSAGE_SILO_REMOVE:
        assert_true(unlinkat(node->silos, name, AT_REMOVEDIR) == 0 || errno == ENOENT);
        reply(node, message->id, SPAN_OF(counts));
        return;
    case MESSAGE_SANDBOX_START: start_sandbox(node, message); return;
    case MESSAGE_SANDBOX_STOP: stop_sandbox(node, message); return;
    case MESSAGE_CELL_STOP: reply(node, message->id, (struct span){0}); return;
    default: fail_msg("control said %#x", message->type);
    }
}

static void forward(struct node *node, int from, int to)
{
    struct ipc_message message;
    struct fault fault;
    if (ipc_receive(&message, from, packet, &fault) != OK || dies(node, true))
        return;
    send_to(to, message.type, message.id, message.body);
    ipc_message_close(&message);
    dies(node, false);
}

static void from_control(struct node *node)
{
    struct ipc_message message;
    struct fault fault;
    if (ipc_receive(&message, node->control_channel, packet, &fault) != OK || dies(node, true))
        return;
    act(node, &message);
    ipc_message_close(&message);
    dies(node, false);
}

/* Passes on what comes for so long as something comes; false when nothing did. */
static bool pump(struct node *node, int timeout_ms)
{
    struct pollfd polled[2 + 2 * LINKS_MAX] = {
        {.fd = node->control_channel, .events = POLLIN}, {.fd = node->client, .events = POLLIN}};
    for (int i = 0; i < LINKS_MAX; i++) {
        polled[2 + 2 * i] = (struct pollfd){.fd = node->links[i].control, .events = POLLIN};
        polled[3 + 2 * i] = (struct pollfd){.fd = node->links[i].kms, .events = POLLIN};
    }
    if (poll(polled, 2 + 2 * LINKS_MAX, timeout_ms) <= 0)
        return false;
    if (polled[0].revents & POLLIN)
        from_control(node);
    for (int i = 0; i < LINKS_MAX && !node->died; i++) {
        if (polled[2 + 2 * i].revents & POLLIN)
            forward(node, node->links[i].control, node->links[i].kms);
        if (!node->died && polled[3 + 2 * i].revents & POLLIN)
            forward(node, node->links[i].kms, node->links[i].control);
    }
    return true;
}

/* The two outer ends of a forwarded channel; ours are kept. */
static void make_link(struct link *link, int *ret_control_end, int *ret_kms_end)
{
    int ends[2];
    pair(ends);
    link->control = ends[0];
    *ret_control_end = ends[1];
    pair(ends);
    link->kms = ends[0];
    *ret_kms_end = ends[1];
}

static void tell_kms(struct node *node, uint32_t type, struct buffer *body, int fd)
{
    struct fault fault;
    must(ipc_send(node->kms_channel, type, 7, buffer_span(body), &fd, 1, &fault), &fault);
    close(fd);
}

void node_start_control(struct node *node)
{
    uint8_t storage[256], channel[8];
    int ends[2], kms_end, fds[2];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    struct buffer kind = buffer_over(channel, sizeof channel);
    buffer_put(&body, SPAN_OF(node->keys_public));
    buffer_put_u32(&body, 1); /* gateway: node_open_gateway */
    buffer_put_u32(&body, UID_BASE);
    buffer_put_u32(&body, 15);
    buffer_put_text_field(&body, "");
    prices_put(&body, &(struct prices){0});
    pair(ends);
    node->control = fork();
    if (node->control == 0) {
        close(ends[0]);
        be_control(ends[1]);
    }
    close(ends[1]);
    node->control_channel = ends[0];
    make_link(&node->links[0], &fds[1], &kms_end);
    buffer_put_u8(&kind, CHANNEL_CONTROL);
    buffer_put_u32(&kind, 0);
    tell_kms(node, MESSAGE_CHANNEL, &kind, kms_end);
    fds[0] = node->control_directory;
    must(ipc_send(node->control_channel, MESSAGE_START, 0, buffer_span(&body), fds, 2, &fault),
         &fault);
    close(fds[1]);
    int64_t until_us = clock_monotonic_us() + (int64_t)PATIENCE_MS * 1000;
    while (!node->ready && !node->died) {
        pump(node, 100);
        assert_true(clock_monotonic_us() < until_us);
    }
    while (!node->died && pump(node, QUIET_MS))
        ;
}

static void open_admin(struct node *node)
{
    uint8_t storage[8];
    int kms_end, client[2], fds[2];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    close_fd(&node->links[1].control);
    close_fd(&node->links[1].kms);
    close_fd(&node->client);
    make_link(&node->links[1], &fds[1], &kms_end);
    buffer_put_u32(&body, 0);
    tell_kms(node, MESSAGE_KMS_SERVE_ADMIN, &body, kms_end);
    buffer_put_u32(&body, 4711);
    pair(client);
    node->client = client[0];
    fds[0] = client[1];
    must(ipc_send(node->control_channel, MESSAGE_ADMIN_OPEN, 0, buffer_span(&body), fds, 2, &fault),
         &fault);
    close(fds[0]);
    close(fds[1]);
}

static bool take_answer(struct node *node, status *ret_code, char detail[256],
                        struct buffer *ret_json)
{
    struct ipc_message message;
    struct fault fault;
    struct span json;
    uint16_t code;
    if (ipc_receive(&message, node->client, packet, &fault) != OK)
        return false;
    struct cursor cursor = cursor_over(message.body);
    assert_int_equal(message.type, MESSAGE_ADMIN_RESULT);
    must(cursor_u16(&code, &cursor, &fault), &fault);
    must(cursor_text(detail, 256, &cursor, "detail", &fault), &fault);
    must(cursor_field(&json, &cursor, IPC_BODY_MAX, "json", &fault), &fault);
    buffer_clear(ret_json);
    buffer_put(ret_json, json);
    *ret_code = (status)code;
    return true;
}

void node_begin(struct node *node, const char *verb, const char *arguments, int fd)
{
    uint8_t storage[1024];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    open_admin(node);
    buffer_put_text_field(&body, verb);
    buffer_put_text_field(&body, arguments);
    const int fds[] = {fd, node->second_fd};
    uint32_t count = node->second_fd > 0 ? 2 : fd >= 0;
    node->second_fd = 0;
    must(ipc_send(node->client, MESSAGE_ADMIN_CALL, 1, buffer_span(&body), fds, count, &fault),
         &fault);
}

void node_second_fd(struct node *node, int fd)
{
    node->second_fd = fd;
}

void node_settle(struct node *node)
{
    while (pump(node, QUIET_MS))
        ;
}

bool node_call(struct node *node, const char *verb, const char *arguments, status *ret_code,
               char detail[256], struct buffer *ret_json)
{
    return node_call_fd(node, verb, arguments, -1, ret_code, detail, ret_json);
}

bool node_call_fd(struct node *node, const char *verb, const char *arguments, int fd,
                  status *ret_code, char detail[256], struct buffer *ret_json)
{
    node_begin(node, verb, arguments, fd);
    return node_finish(node, ret_code, detail, ret_json);
}

bool node_finish(struct node *node, status *ret_code, char detail[256], struct buffer *ret_json)
{
    int64_t until_us = clock_monotonic_us() + (int64_t)PATIENCE_MS * 1000;
    while (!node->died) {
        if (take_answer(node, ret_code, detail, ret_json))
            return true;
        pump(node, 100);
        assert_true(clock_monotonic_us() < until_us);
    }
    return false;
}

int node_open_gateway(struct node *node)
{
    uint8_t storage[8];
    int ends[2];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    pair(ends);
    buffer_put_u8(&body, CHANNEL_GATEWAY);
    buffer_put_u32(&body, 0);
    must(ipc_send(node->control_channel, MESSAGE_CHANNEL, 0, buffer_span(&body), &ends[1], 1,
                  &fault), &fault);
    close(ends[1]);
    return ends[0];
}

bool node_has_silo(const struct node *node)
{
    DIR *listing = fdopendir(openat(node->silos, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bool any = false;
    assert_non_null(listing);
    for (const struct dirent *entry; (entry = readdir(listing));)
        any = any || entry->d_name[0] != '.';
    closedir(listing);
    return any;
}
