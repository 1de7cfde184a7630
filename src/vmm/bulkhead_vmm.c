/* bulkhead_vmm.c: the executable bulkhead-vmm: one microVM, in its jail. */
#include "base/log.h"
#include "vmm/monitor.h"

#include <malloc.h>
#include <signal.h>

static status enter(struct jail_proof *ret, struct fault *fault)
{
    return jail_enter(ret, JAIL_VMM, NULL, 0, fault);
}

static status run(struct fault *fault)
{
    const struct monitor_jail jail = {.enter = enter, .seal = jail_seal};
    struct loop *loop;
    TRY(jail_blank(JAIL_VMM, fault));
    TRY(loop_create(&loop, fault));
    status ran = monitor_run(JAIL_FD_SUPERVISOR, loop, &jail, fault);
    loop_free(loop);
    return ran;
}

int main(void)
{
    struct fault fault;
    log_open("vmm", LOG_INFO);
    signal(SIGPIPE, SIG_IGN);
    mallopt(M_ARENA_MAX, 1); /* only the device thread asks for memory */
    if (run(&fault) == OK)
        return 0;
    log_event(LOG_ERROR, "vmm.ended", "%s", fault.detail);
    return 1;
}
