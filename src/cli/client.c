#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "wire/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ANSWER_WAIT_MS = 15 * 60 * 1000, RESULT_MAX = 512 * 1024 * 1024 };

/* Through /proc/self/fd, because a path may be longer than a socket's address. */
static status connect_to(int *ret, const char *data, struct fault *fault)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int directory = open(data, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/run/admin.sock",
             directory);
    if (directory < 0 || fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address))
        return FAIL(UNAVAILABLE, fault, "nobody serves %.120s (%s); start it with `bulkhead serve "
                    "--data DIR`", data, strerror(errno));
    *ret = take_fd(&fd);
    return OK;
}

static status take_result(struct buffer *out, struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct fault said = {0};
    struct span json;
    uint16_t code;
    if (message->type != MESSAGE_ADMIN_RESULT)
        return FAIL(BAD_REQUEST, fault, "the node answered in another protocol");
    TRY(cursor_u16(&code, &cursor, fault));
    TRY(cursor_text(said.detail, sizeof said.detail, &cursor, "detail", fault));
    TRY(cursor_field(&json, &cursor, IPC_BODY_MAX, "result", fault));
    if (code >= STATUS_COUNT)
        return FAIL(BAD_REQUEST, fault, "the node answered with an unknown status");
    if (code != OK) {
        *fault = said;
        return (status)code;
    }
    if (message->fd_count == 1)
        return file_read(out, message->fds[0], "answer", fault);
    buffer_put(out, json);
    return buffer_check(out, "answer", fault);
}

status client_call(struct buffer *out, const struct cli *cli, const char *verb,
                   struct span arguments, int fd, struct fault *fault)
{
    return client_call_fds(out, cli, verb, arguments, &fd, fd >= 0, fault);
}

status client_call_fds(struct buffer *out, const struct cli *cli, const char *verb,
                       struct span arguments, const int *fds, uint32_t fd_count,
                       struct fault *fault)
{
    static uint8_t storage[IPC_PACKET_MAX];
    _cleanup_close_ int channel = -1;
    _cleanup_buffer_ struct buffer body = buffer_of(IPC_BODY_MAX);
    struct ipc_message message;
    *out = buffer_of(RESULT_MAX);
    TRY(connect_to(&channel, cli->data, fault));
    buffer_put_text_field(&body, verb);
    buffer_put_field(&body, arguments);
    TRY(buffer_check(&body, "arguments", fault));
    status got = ipc_send_wait(channel, MESSAGE_ADMIN_CALL, 1, buffer_span(&body), fds, fd_count,
                               5000, fault);
    if (got == OK)
        got = ipc_await(&message, channel, storage, ANSWER_WAIT_MS, fault);
    if (got == CLOSED)
        return FAIL(UNAVAILABLE, fault, "the node closed the connection: it is starting or "
                    "stopping, or you are neither root nor the owner of %.90s", cli->data);
    TRY(got);
    status result = take_result(out, &message, fault);
    ipc_message_close(&message);
    return result;
}

status client_call_named(struct buffer *out, const struct cli *cli, const char *verb,
                         const char *name, int fd, struct fault *fault)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    *out = (struct buffer){0};
    json_open_object(&writer, NULL);
    if (name)
        json_put_text(&writer, "name", name);
    json_close_object(&writer);
    TRY(buffer_check(&arguments, "name", fault));
    return client_call(out, cli, verb, buffer_span(&arguments), fd, fault);
}

int cli_call(struct cli *cli, const char *verb, const struct buffer *arguments, int fd,
             cli_print *print)
{
    struct buffer answer;
    struct fault fault;
    if (arguments->failed)
        return cli_usage("the words are too long");
    status result = client_call(&answer, cli, verb, buffer_span(arguments), fd, &fault);
    int code = result == OK ? cli_show(cli, buffer_span(&answer), print)
                            : cli_refused(fault.detail);
    buffer_free(&answer);
    return code;
}
