/* bulkhead-gateway: the HTTP front of a node, one process a core. */
#include "base/cleanup.h"
#include "base/log.h"
#include "gateway/gateway.h"
#include "jail/jail.h"
#include "wire/messages.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>

enum { WAIT_MS = 60000 };

static status await_start(struct gateway_start *ret, struct fault *fault)
{
    static uint8_t packet[IPC_PACKET_MAX];
    struct ipc_message message;
    TRY(ipc_await(&message, JAIL_FD_SUPERVISOR, packet, WAIT_MS, fault));
    status taken = gateway_start_get(ret, &message, fault);
    ipc_message_close(&message);
    return taken;
}

static status map_stats(struct stats_page **ret, int *fd, struct fault *fault)
{
    void *page = mmap(NULL, sizeof **ret, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (page == MAP_FAILED)
        return FAIL(INTERNAL, fault, "stats page: %s", strerror(errno));
    cleanup_close(fd);
    *ret = page;
    return OK;
}

static status enter_jail(const struct gateway_start *start, struct fault *fault)
{
    struct jail_proof proof;
    uint8_t storage[8];
    struct buffer said = buffer_over(storage, sizeof storage);
    TRY(gateway_warm_up(start, fault));
    TRY(jail_close(&proof, JAIL_GATEWAY, NULL, 0, fault));
    buffer_put_u32(&said, proof.landlock_abi);
    buffer_put_u8(&said, 1);
    return ipc_send_wait(JAIL_FD_SUPERVISOR, MESSAGE_JAILED, 0, buffer_span(&said), NULL, 0,
                         WAIT_MS, fault);
}

static status await_tls(struct gateway *gateway, struct fault *fault)
{
    static uint8_t packet[IPC_PACKET_MAX];
    struct ipc_message message;
    TRY(ipc_await(&message, JAIL_FD_SUPERVISOR, packet, WAIT_MS, fault));
    status taken = gateway_on_tls(gateway, &message, fault);
    ipc_message_close(&message);
    return taken;
}

static status serve(struct gateway_start *start, struct stats_page *stats, struct fault *fault)
{
    struct loop *loop;
    struct gateway *gateway;
    TRY(loop_create(&loop, fault));
    status ended = gateway_create(&gateway, loop, JAIL_FD_SUPERVISOR, start, stats, fault);
    if (ended == OK) {
        if (start->tls)
            ended = await_tls(gateway, fault);
        if (ended == OK)
            ended = ipc_send_wait(JAIL_FD_SUPERVISOR, MESSAGE_READY, 0, (struct span){0}, NULL, 0,
                                  WAIT_MS, fault);
        if (ended == OK)
            ended = loop_run(loop, fault);
        if (ended == OK)
            ended = gateway_outcome(gateway, fault);
        gateway_free(gateway);
    }
    loop_free(loop);
    return ended;
}

static status run(struct fault *fault)
{
    struct gateway_start start;
    struct stats_page *stats;
    TRY(jail_blank(JAIL_GATEWAY, fault));
    TRY(crypt_start(fault));
    TRY(await_start(&start, fault));
    TRY(map_stats(&stats, &start.stats, fault));
    status ran = enter_jail(&start, fault);
    if (ran == OK)
        ran = serve(&start, stats, fault);
    gateway_start_close(&start);
    return ran;
}

int main(void)
{
    struct fault fault = {0};
    log_open("gateway", LOG_INFO);
    mallopt(M_ARENA_MAX, 1); /* one thread */
    if (run(&fault) == OK)
        return 0;
    log_event(LOG_ERROR, "gateway.failed", "%s", fault.detail);
    return 1;
}
