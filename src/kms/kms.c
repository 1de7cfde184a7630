/* bulkhead-kms: holds the keys, and gives each to the one process that may have it. */
#include "base/cleanup.h"
#include "base/log.h"
#include "crypt/crypt.h"
#include "jail/jail.h"
#include "kms/serve.h"
#include "wire/ipc.h"
#include "wire/messages.h"

enum { START_TIMEOUT_MS = 60000 };

static void report(void *context, const char *text)
{
    (void)context;
    log_event(LOG_ERROR, "keystore.damaged", "%s", text);
}

static status await_start(int *ret_directory, struct fault *fault)
{
    static uint8_t packet[IPC_PACKET_MAX];
    struct ipc_message message;
    TRY(ipc_await(&message, JAIL_FD_SUPERVISOR, packet, START_TIMEOUT_MS, fault));
    status fits = ipc_need_fds(&message, 1, fault);
    if (fits == OK && (message.type != MESSAGE_START || message.body.length != 0))
        fits = FAIL(BAD_REQUEST, fault, "message %#x where START was due", message.type);
    if (fits == OK)
        *ret_directory = take_fd(&message.fds[0]);
    ipc_message_close(&message);
    return fits;
}

/* Jailed before the first byte of a key is read. */
static status enter_jail(int *ret_directory, struct fault *fault)
{
    struct jail_proof proof;
    uint8_t storage[8];
    struct buffer said = buffer_over(storage, sizeof storage);
    TRY(crypt_start(fault));
    TRY(await_start(ret_directory, fault));
    const struct jail_directory keys = {*ret_directory, JAIL_READ | JAIL_WRITE};
    TRY(jail_close(&proof, JAIL_KMS, &keys, 1, fault));
    buffer_put_u32(&said, proof.landlock_abi);
    buffer_put_u8(&said, 1);
    return ipc_send_wait(JAIL_FD_SUPERVISOR, MESSAGE_JAILED, 0, buffer_span(&said), NULL, 0,
                         START_TIMEOUT_MS, fault);
}

static status serve(struct keystore *store, struct fault *fault)
{
    struct loop *loop;
    struct kms *kms;
    TRY(loop_create(&loop, fault));
    status ended = kms_serve(&kms, loop, store, JAIL_FD_SUPERVISOR, fault);
    if (ended == OK) {
        ended = loop_run(loop, fault);
        if (ended == OK)
            ended = kms_outcome(kms, fault);
        kms_free(kms);
    }
    loop_free(loop);
    return ended;
}

static status run(struct fault *fault)
{
    _cleanup_close_ int directory = -1;
    struct keystore *store;
    TRY(jail_blank(JAIL_KMS, fault));
    TRY(enter_jail(&directory, fault));
    TRY(keystore_open(&store, directory, report, NULL, fault));
    status served = serve(store, fault);
    keystore_close(store);
    return served;
}

int main(void)
{
    struct fault fault = {0};
    log_open("kms", LOG_INFO);
    if (run(&fault) == OK)
        return 0;
    log_event(LOG_ERROR, "kms.failed", "%s", fault.detail);
    return 1;
}
