/* admin.c: one operator's connection, with the kms channel that lives and dies with it. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SESSIONS_MAX = 64, ARGUMENTS_MAX = 16 * 1024, ANSWER_WAIT_MS = 2000 };

static void free_session(struct session *session)
{
    struct session **at = &session->control->sessions;
    while (*at != session)
        at = &(*at)->next;
    *at = session->next;
    session->control->session_count--;
    free(session);
}

static void hang_up(struct session *session)
{
    if (!session->gone) {
        session->source = loop_unwatch(session->control->loop, session->source);
        close(session->client);
        session->gone = true;
    }
    if (session->busy)
        return; /* what is under way ends first; it still needs the kms */
    close(session->kms_admin);
    free_session(session);
}

/* An answer longer than a message travels as a file. */
static status answer_file(int *ret, struct span json, struct fault *fault)
{
    _cleanup_close_ int fd = memfd_create("answer", MFD_CLOEXEC);
    if (fd < 0)
        return FAIL(INTERNAL, fault, "the answer cannot be handed over");
    TRY(file_write(fd, json, "answer", fault));
    *ret = take_fd(&fd);
    return OK;
}

void session_answer(struct session *session, status code, const char *detail, struct span json)
{
    _cleanup_buffer_ struct buffer body = buffer_of(IPC_BODY_MAX);
    _cleanup_close_ int file = -1;
    struct fault fault;
    session->busy = false;
    if (!session->gone) {
        bool large = json.length > IPC_BODY_MAX / 2;
        if (large && answer_file(&file, json, &fault) != OK) {
            code = INTERNAL;
            detail = fault.detail;
        }
        reply_put_head(&body, code, detail);
        buffer_put_field(&body, large ? (struct span){0} : json);
        if (ipc_send_wait(session->client, MESSAGE_ADMIN_RESULT, session->call,
                          buffer_span(&body), &file, file >= 0, ANSWER_WAIT_MS, &fault) != OK) {
            log_event(LOG_WARN, "admin.answer", "%s", fault.detail);
            hang_up(session);
        }
    } else {
        hang_up(session);
    }
}

static status take_call(struct session *session, struct ipc_message *message,
                        struct fault *fault)
{
    char verb[64];
    struct span arguments;
    struct cursor body = cursor_over(message->body);
    if (message->type != MESSAGE_ADMIN_CALL || session->busy)
        return FAIL(BAD_REQUEST, fault, "message %#x is not permitted here", message->type);
    TRY(cursor_text(verb, sizeof verb, &body, "verb", fault));
    TRY(cursor_field(&arguments, &body, ARGUMENTS_MAX, "arguments", fault));
    TRY(cursor_end(&body, fault));
    session->busy = true;
    session->call = message->id;
    verbs_run(session, span_of_text(verb), arguments, message);
    return OK;
}

static void on_client(void *context, uint32_t events)
{
    static uint8_t storage[IPC_PACKET_MAX];
    struct session *session = context;
    struct ipc_message message;
    struct fault fault;
    (void)events;
    status got = ipc_receive(&message, session->client, storage, &fault);
    if (got == AGAIN)
        return;
    if (got == OK) {
        got = take_call(session, &message, &fault);
        ipc_message_close(&message);
    } else if (got != CLOSED) {
        log_event(LOG_WARN, "admin.closed", "%s", fault.detail);
    }
    if (got != OK)
        hang_up(session);
}

void admin_open(struct control *control, struct cursor *body, struct ipc_message *message)
{
    struct fault fault;
    uint32_t uid, pid;
    if (ipc_need_fds(message, 2, &fault) != OK || cursor_u32(&uid, body, &fault) != OK
        || cursor_u32(&pid, body, &fault) != OK || cursor_end(body, &fault) != OK)
        control_die("ADMIN_OPEN", &fault);
    struct session *session = control->session_count < SESSIONS_MAX ? calloc(1, sizeof *session)
                                                                    : NULL;
    if (!session) {
        log_event(LOG_WARN, "admin.closed", "more than %d operators are connected", SESSIONS_MAX);
        return;
    }
    *session = (struct session){.control = control, .client = take_fd(&message->fds[0]),
                                .kms_admin = take_fd(&message->fds[1]), .uid = uid,
                                .next = control->sessions};
    control->sessions = session;
    control->session_count++;
    if (loop_watch(&session->source, control->loop, session->client, EPOLLIN, on_client, session,
                   &fault) != OK)
        control_die("admin", &fault);
}
