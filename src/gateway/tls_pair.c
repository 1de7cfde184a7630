/* tls_pair.c: certificate, key and ticket keys as the supervisor hands them in. The files are read
 * and judged here, in the jail, and nowhere else. */
#include "base/cleanup.h"
#include "base/limits.h"
#include "base/secret.h"
#include "gateway/gateway.h"
#include "wire/messages.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { REPLY_WAIT_MS = 10000 };

struct file { /* in secret memory: one of them is a key */
    uint8_t *bytes;
    size_t length;
};

static void file_free(struct file *file)
{
    secret_free(file->bytes, file->length);
}

static status file_take(struct file *ret, int fd, const char *name, struct fault *fault)
{
    struct stat info;
    if (fstat(fd, &info) || info.st_size <= 0 || info.st_size > TLS_PEM_MAX)
        return FAIL(BAD_FIELD, fault, "%s: empty, or more than %d bytes", name, TLS_PEM_MAX);
    struct file file = {.length = (size_t)info.st_size};
    file.bytes = secret_alloc(file.length);
    if (!file.bytes)
        return FAIL(INTERNAL, fault, "%s: no secret memory", name);
    for (size_t read = 0; read < file.length;) {
        ssize_t got = pread(fd, file.bytes + read, file.length - read, (off_t)read);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            file_free(&file);
            return FAIL(BAD_FIELD, fault, "%s: %s", name, got ? strerror(errno) : "cut short");
        }
        read += (size_t)got;
    }
    *ret = file;
    return OK;
}

static status read_pair(struct tls_server **ret, const int fds[2], struct fault *fault)
{
    struct file certificate, key;
    TRY(file_take(&certificate, fds[0], "certificate", fault));
    status result = file_take(&key, fds[1], "key", fault);
    if (result == OK) {
        result = tls_server_create(ret, (struct span){certificate.bytes, certificate.length},
                                   (struct span){key.bytes, key.length}, fault);
        file_free(&key);
    }
    file_free(&certificate);
    return result;
}

static status answer(int supervisor, uint32_t id, status result, const struct fault *why,
                     const struct tls_server *server, struct fault *fault)
{
    uint8_t storage[320], fingerprint[HASH_BYTES];
    struct buffer body = buffer_over(storage, sizeof storage);
    reply_put_head(&body, result, result == OK ? NULL : why->detail);
    if (result == OK) {
        tls_server_fingerprint(fingerprint, server);
        buffer_put(&body, SPAN_OF(fingerprint));
        buffer_put_u64(&body, (uint64_t)tls_server_expires(server));
    }
    return ipc_send_wait(supervisor, MESSAGE_REPLY, id, buffer_span(&body), NULL, 0,
                         REPLY_WAIT_MS, fault);
}

static status take(struct tls_server **server, int supervisor, const struct ipc_message *message,
                   struct span keys, struct fault *fault)
{
    struct tls_server *fresh = NULL;
    struct fault why = {0};
    if (message->fd_count) {
        status result = read_pair(&fresh, message->fds, &why);
        status told = answer(supervisor, message->id, result, &why, fresh, fault);
        if (told != OK)
            tls_server_free(fresh);
        TRY(told);
    }
    if (fresh) {
        tls_server_free(*server); /* what shakes hands keeps it until it is done */
        *server = fresh;
    }
    if (*server)
        tls_server_tickets(*server, keys.data, (uint32_t)(keys.length / TLS_TICKET_KEY_BYTES));
    return OK;
}

status gateway_tls_take(struct tls_server **server, int supervisor, struct ipc_message *message,
                        struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct span keys;
    uint16_t count;
    if (message->type != MESSAGE_GATEWAY_TLS)
        return FAIL(BAD_REQUEST, fault, "message %#x where GATEWAY_TLS was due", message->type);
    TRY(cursor_u16(&count, &cursor, fault));
    if (count < 1 || count > TLS_TICKET_KEYS_MAX)
        return FAIL(BAD_REQUEST, fault, "GATEWAY_TLS: %u ticket keys", count);
    TRY(cursor_bytes(&keys, &cursor, (size_t)count * TLS_TICKET_KEY_BYTES, fault));
    TRY(cursor_end(&cursor, fault));
    if ((message->fd_count != 0 && message->fd_count != 2)
        || (message->fd_count != 0) != (message->id != 0))
        return FAIL(BAD_REQUEST, fault, "GATEWAY_TLS: %u descriptors, id %u", message->fd_count,
                    message->id);
    status result = take(server, supervisor, message, keys, fault);
    secret_wipe((uint8_t *)(uintptr_t)message->body.data, message->body.length);
    return result;
}
