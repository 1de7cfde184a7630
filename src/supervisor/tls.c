/* tls.c: certificate, private key and ticket keys, from the operator's files to the gateways.
 *
 * The supervisor parses nothing: it keeps a sealed copy of both files as they were when they were
 * read, hands it to every gateway, and believes the pair in force when one says that it fits. A
 * gateway that is restarted gets that very copy, whatever became of the files. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/secret.h"
#include "crypt/tls.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROTATE_US ((int64_t)TLS_TICKET_SECONDS * 1000 * 1000)

enum {
    TICKET_BYTES = TLS_TICKET_KEYS_MAX * TLS_TICKET_KEY_BYTES,
    WARN_BEFORE_S = 7 * 24 * 3600,
    WARN_EVERY_ROTATIONS = 24,
};

static void pair_close(struct tls_pair *pair)
{
    cleanup_close(&pair->certificate);
    cleanup_close(&pair->key);
    pair->generation = 0;
}

/* Sealed: the gateways share it. */
static status copy_file(int *ret, const char *path, const char *name, bool secret,
                        struct fault *fault)
{
    struct stat info;
    _cleanup_close_ int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0 || fstat(file, &info))
        return FAIL(BAD_FIELD, fault, "%s %.120s: %s", name, path, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size == 0 || info.st_size > TLS_PEM_MAX)
        return FAIL(BAD_FIELD, fault, "%s %.120s: no file of 1 to %d bytes", name, path,
                    TLS_PEM_MAX);
    if (secret && info.st_mode & S_IRWXO)
        return FAIL(BAD_FIELD, fault, "%s %.120s: open to everybody (mode %04o): chmod o-rwx it",
                    name, path, info.st_mode & 07777);
    _cleanup_close_ int copy = memfd_create("tls", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy < 0)
        return FAIL(INTERNAL, fault, "%s: memfd: %s", name, strerror(errno));
    for (off_t done = 0; done < info.st_size;) {
        ssize_t sent = sendfile(copy, file, NULL, (size_t)(info.st_size - done));
        if (sent <= 0)
            return FAIL(BAD_FIELD, fault, "%s %.120s: %s", name, path,
                        sent ? strerror(errno) : "it shrank while it was read");
        done += sent;
    }
    if (fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return FAIL(INTERNAL, fault, "%s: memfd: %s", name, strerror(errno));
    *ret = take_fd(&copy);
    return OK;
}

static status read_pair(struct supervisor *supervisor, struct fault *fault)
{
    struct tls *tls = &supervisor->tls;
    _cleanup_close_ int certificate = -1;
    int key;
    TRY(copy_file(&certificate, supervisor->options.tls_cert, "--tls-cert", false, fault));
    TRY(copy_file(&key, supervisor->options.tls_key, "--tls-key", true, fault));
    pair_close(&tls->offered);
    tls->offered = (struct tls_pair){.certificate = take_fd(&certificate), .key = key,
                                     .generation = ++tls->generations};
    return OK;
}

static status random_bytes(uint8_t *bytes, size_t length, struct fault *fault)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = getrandom(bytes + done, length - done, 0);
        if (got < 0 && errno != EINTR)
            return FAIL(INTERNAL, fault, "getrandom: %s", strerror(errno));
        done += got > 0 ? (size_t)got : 0;
    }
    return OK;
}

/* The newest seals, the one before still opens. */
static status rotate(struct tls *tls, struct fault *fault)
{
    memmove(tls->ticket_keys + TLS_TICKET_KEY_BYTES, tls->ticket_keys, TLS_TICKET_KEY_BYTES);
    TRY(random_bytes(tls->ticket_keys, TLS_TICKET_KEY_BYTES, fault));
    tls->ticket_count = tls->ticket_count ? TLS_TICKET_KEYS_MAX : 1;
    return OK;
}

static void hand(struct child *gateway, const struct tls_pair *pair)
{
    const struct tls *tls = &gateway->supervisor->tls;
    uint8_t storage[2 + TICKET_BYTES];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u16(&body, tls->ticket_count);
    buffer_put(&body, (struct span){tls->ticket_keys,
                                    (size_t)tls->ticket_count * TLS_TICKET_KEY_BYTES});
    if (pair) {
        const int fds[2] = {pair->certificate, pair->key};
        gateway->tls_sent = pair->generation;
        child_send(gateway, MESSAGE_GATEWAY_TLS, pair->generation, buffer_span(&body), fds, 2);
    } else {
        child_send(gateway, MESSAGE_GATEWAY_TLS, 0, buffer_span(&body), NULL, 0);
    }
    secret_wipe(storage, sizeof storage);
}

/* To those that run; NULL: the ticket keys only. Who starts gets all that there is by itself. */
static void hand_all(struct supervisor *supervisor, const struct tls_pair *pair)
{
    for (uint32_t i = 0; i < supervisor->options.gateways; i++) {
        struct child *gateway = service_gateway(supervisor, i);
        if (gateway->state >= CHILD_STARTING && gateway->state <= CHILD_SERVING
            && (!pair || gateway->tls_sent != pair->generation))
            hand(gateway, pair);
    }
}

void tls_start_gateway(struct child *gateway)
{
    const struct tls *tls = &gateway->supervisor->tls;
    gateway->tls_sent = 0;
    if (tls->accepted.generation)
        hand(gateway, &tls->accepted);
    if (tls->offered.generation) /* who was to answer may have died of something else */
        hand(gateway, &tls->offered);
}

static void tell_expiry(const struct tls *tls)
{
    char until[CLOCK_TEXT_SIZE];
    int64_t left_s = tls->expires_s - clock_wall_us() / 1000000;
    clock_text(until, tls->expires_s * 1000000);
    if (left_s < 0)
        log_event(LOG_WARN, "tls.expired", "the certificate was valid until %s", until);
    else if (left_s < WARN_BEFORE_S)
        log_event(LOG_WARN, "tls.expires", "the certificate is valid until %s only", until);
}

static void on_rotation(void *context)
{
    struct supervisor *supervisor = context;
    struct tls *tls = &supervisor->tls;
    struct fault fault;
    if (rotate(tls, &fault) == OK)
        hand_all(supervisor, NULL);
    else
        log_event(LOG_ERROR, "tls.rotation", "%s", fault.detail);
    if (++tls->rotations % WARN_EVERY_ROTATIONS == 0)
        tell_expiry(tls);
    if (loop_timer_start(supervisor->loop, &tls->rotation, ROTATE_US, on_rotation, supervisor,
                         &fault) != OK)
        log_event(LOG_ERROR, "tls.rotation", "%s", fault.detail);
}

status tls_open(struct supervisor *supervisor, struct fault *fault)
{
    struct tls *tls = &supervisor->tls;
    tls->accepted = tls->offered = (struct tls_pair){.certificate = -1, .key = -1};
    if (!options_speak_tls(&supervisor->options))
        return OK;
    TRY(read_pair(supervisor, fault));
    tls->ticket_keys = secret_alloc(TICKET_BYTES);
    if (!tls->ticket_keys)
        return FAIL(INTERNAL, fault, "no secret memory: raise RLIMIT_MEMLOCK");
    TRY(rotate(tls, fault));
    return loop_timer_start(supervisor->loop, &tls->rotation, ROTATE_US, on_rotation, supervisor,
                            fault);
}

void tls_reload(struct supervisor *supervisor)
{
    struct tls *tls = &supervisor->tls;
    struct fault fault;
    if (!options_speak_tls(&supervisor->options))
        return;
    if (rotate(tls, &fault) != OK)
        log_event(LOG_ERROR, "tls.rotation", "%s", fault.detail);
    if (read_pair(supervisor, &fault) == OK) {
        hand_all(supervisor, &tls->offered);
    } else {
        log_event(LOG_ERROR, "tls.refused", "%s; the old certificate stays", fault.detail);
        hand_all(supervisor, NULL);
    }
}

static void refused(struct child *gateway, uint32_t generation, const char *why)
{
    struct supervisor *supervisor = gateway->supervisor;
    struct tls *tls = &supervisor->tls;
    const struct options *options = &supervisor->options;
    const bool key = span_starts_with(span_of_text(why), SPAN("key"));
    const char *option = key ? "--tls-key" : "--tls-cert";
    const char *path = key ? options->tls_key : options->tls_cert;
    if (supervisor->boot_failed
        || (generation != tls->offered.generation && generation != tls->accepted.generation))
        return; /* an older one, or another gateway has said so */
    log_event(LOG_ERROR, "tls.refused", "%s %.100s: %s%s", option, path, why,
              tls->accepted.generation ? "; the old certificate stays" : "");
    if (!tls->accepted.generation) {
        supervisor->boot_failed = true;
        fprintf(stderr, "bulkhead serve: %s %s: %s\n", option, path, why);
        phases_stop(supervisor);
    }
    if (generation == tls->offered.generation && tls->accepted.generation)
        pair_close(&tls->offered);
}

static void accepted(struct supervisor *supervisor, const uint8_t fingerprint[HASH_BYTES],
                     int64_t expires_s)
{
    struct tls *tls = &supervisor->tls;
    char until[CLOCK_TEXT_SIZE];
    pair_close(&tls->accepted);
    tls->accepted = tls->offered;
    tls->offered = (struct tls_pair){.certificate = -1, .key = -1};
    tls->expires_s = expires_s;
    hex_encode(tls->fingerprint, (struct span){fingerprint, HASH_BYTES});
    clock_text(until, expires_s * 1000000);
    log_event(LOG_INFO, "tls.loaded", "certificate of SHA-256 %s, valid until %s",
              tls->fingerprint, until);
    tell_expiry(tls);
    hand_all(supervisor, &tls->accepted); /* those that started in between with the former one */
}

status tls_answered(struct child *gateway, const struct ipc_message *message, struct fault *fault)
{
    struct supervisor *supervisor = gateway->supervisor;
    uint8_t fingerprint[HASH_BYTES];
    uint64_t expires_s;
    struct cursor result;
    struct fault why;
    if (message->id == 0 || message->id > gateway->tls_sent)
        return FAIL(BAD_REQUEST, fault, "a REPLY to nothing");
    if (reply_get_head(&result, message, &why) != OK) {
        refused(gateway, message->id, why.detail);
        return OK;
    }
    TRY(cursor_copy(fingerprint, &result, sizeof fingerprint, fault));
    TRY(cursor_u64(&expires_s, &result, fault));
    TRY(cursor_end(&result, fault));
    if (message->id == supervisor->tls.offered.generation)
        accepted(supervisor, fingerprint, (int64_t)expires_s);
    return OK;
}

void tls_text(char text[TLS_TEXT_SIZE], const struct supervisor *supervisor)
{
    const struct tls *tls = &supervisor->tls;
    char until[CLOCK_TEXT_SIZE];
    clock_text(until, tls->expires_s * 1000000);
    if (tls->accepted.generation)
        snprintf(text, TLS_TEXT_SIZE, "on: valid until %s, SHA-256 %s", until, tls->fingerprint);
    else
        snprintf(text, TLS_TEXT_SIZE, "off%s",
                 supervisor->options.behind_proxy ? ": a proxy ends it" : "");
}
