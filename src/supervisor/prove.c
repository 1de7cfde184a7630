/* prove.c: the assume-breach battery on this running node: for each attempt one hostile cell, in
 * the same jail as every cell, of a throwaway tenant; its end is read from the kernel and written
 * down. */
#include "base/cleanup.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
    TARGET_MAX = PROVE_TARGET_MAX,
    ATTEMPTS_MAX = 1000,
    NO_SUCH_ATTEMPT = 99,
    ATTEMPT_US = 15 * 1000 * 1000,
    WRITE_WAIT_MS = 100,
};

struct prove {
    uint32_t request, attempt, uid;
    int output;
    uint8_t tenant[TENANT_ID_BYTES];
    uint8_t posture[CELL_POSTURE_MAX], target[TARGET_MAX];
    size_t posture_length, target_length;
};

static void finish(struct supervisor *supervisor, status code, const char *detail)
{
    struct prove *prove = take_ptr(supervisor->prove);
    child_reply(service_control(supervisor), prove->request, code, detail);
    close(prove->output);
    free(prove);
}

void prove_forget_request(struct supervisor *supervisor)
{
    if (supervisor->prove)
        supervisor->prove->request = 0;
}

static void next_attempt(struct supervisor *supervisor)
{
    if (supervisor->phase > PHASE_RUN)
        finish(supervisor, UNAVAILABLE, "stopping");
    else if (supervisor->prove->attempt >= ATTEMPTS_MAX)
        finish(supervisor, INTERNAL, "the battery does not end");
    else if (!cell_spawn(supervisor, true))
        finish(supervisor, UNAVAILABLE, "a hostile cell could not be started");
}

static status read_request(struct prove *prove, struct cursor *body, struct fault *fault)
{
    struct span posture, target;
    TRY(cursor_copy(prove->tenant, body, TENANT_ID_BYTES, fault));
    TRY(cursor_u32(&prove->uid, body, fault));
    TRY(cursor_field(&posture, body, sizeof prove->posture, "posture", fault));
    TRY(cursor_field(&target, body, sizeof prove->target, "target", fault));
    TRY(cursor_end(body, fault));
    memcpy(prove->posture, posture.data, posture.length);
    memcpy(prove->target, target.data, target.length);
    prove->posture_length = posture.length;
    prove->target_length = target.length;
    return OK;
}

void prove_start(struct supervisor *supervisor, uint32_t request, struct cursor *body,
                 struct ipc_message *message)
{
    struct child *control = service_control(supervisor);
    struct fault fault;
    struct prove *prove = calloc(1, sizeof *prove);
    if (!prove || supervisor->prove || supervisor->hostile_executable < 0) {
        free(prove);
        child_reply(control, request, UNAVAILABLE, supervisor->prove
                    ? "the battery is running already" : "bulkhead-hostile is not installed");
        return;
    }
    if (read_request(prove, body, &fault) != OK) {
        free(prove);
        child_fatal(control, fault.detail);
        return;
    }
    prove->request = request;
    prove->output = take_fd(&message->fds[0]);
    supervisor->prove = prove;
    next_attempt(supervisor);
}

static void send_attempt(struct child *cell, const struct prove *prove)
{
    static uint8_t storage[TARGET_MAX + 16];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, prove->attempt);
    buffer_put_field(&body, (struct span){prove->target, prove->target_length});
    child_send(cell, MESSAGE_PROVE, 0, buffer_span(&body), &prove->output, 1);
}

static void on_deadline(void *context)
{
    child_fatal(context, "the attempt took too long");
}

void prove_advance(struct child *cell)
{
    struct supervisor *supervisor = cell->supervisor;
    struct prove *prove = supervisor->prove;
    struct fault fault;
    if (!prove) {
        child_fatal(cell, "a hostile cell without a battery");
        return;
    }
    status result = loop_timer_start(supervisor->loop, &cell->timer, ATTEMPT_US, on_deadline, cell,
                                     &fault);
    if (result == OK && cell->state == CHILD_BLANK) {
        struct span posture = {prove->posture, prove->posture_length};
        result = cell_assume(cell, prove->tenant, prove->uid, posture, &fault);
    } else if (result == OK) {
        child_send(service_kms(supervisor), MESSAGE_KMS_SERVE_CELL, cell->index,
                   SPAN_OF(cell->tenant), &cell->kms_end, 1);
        close(cell->kms_end);
        cell->kms_end = -1;
        /* to all: a request for this tenant reaches the hostile cell by whichever it comes in */
        for (uint32_t i = 0; i < supervisor->options.gateways; i++)
            cell_attach(cell, i);
        send_attempt(cell, prove);
    }
    if (result != OK)
        child_fatal(cell, fault.detail);
}

/* A line is shorter than PIPE_BUF: where a pipe has room for it, writing does not wait, and who
 * holds the other end cannot make the supervisor wait. */
static bool write_end(const struct prove *prove, int exit_code, const char *killed_for)
{
    struct pollfd room = {.fd = prove->output, .events = POLLOUT};
    return poll(&room, 1, WRITE_WAIT_MS) == 1 && room.revents & POLLOUT
        && dprintf(prove->output, "{\"attempt\":%u,\"exit\":%d,\"killed_for\":\"%s\"}\n",
                   prove->attempt, exit_code, killed_for) > 0;
}

void prove_cell_ended(struct child *cell, int exit_code)
{
    struct supervisor *supervisor = cell->supervisor;
    struct prove *prove = supervisor->prove;
    if (!prove)
        return;
    if (cell->state < CHILD_JAILED) {
        finish(supervisor, UNAVAILABLE, cell->detail[0] ? cell->detail
                                                        : "a hostile cell did not start");
        return;
    }
    if (exit_code == NO_SUCH_ATTEMPT) {
        finish(supervisor, OK, NULL);
        return;
    }
    bool written = write_end(prove, exit_code, cell->detail[0] ? "protocol" : "");
    prove->attempt++;
    if (!written)
        finish(supervisor, CLOSED, "nobody reads the results");
    else
        next_attempt(supervisor);
}
