/* bulkhead_hostile.c: the executable bulkhead-hostile: one is started for each attempt. */
#include "base/log.h"
#include "jail/jail.h"
#include "prove/hostile.h"

#include <signal.h>

int main(void)
{
    struct fault fault;
    log_open("hostile", LOG_INFO);
    signal(SIGPIPE, SIG_IGN);
    status ran = jail_blank(JAIL_CELL, &fault);
    if (ran == OK)
        ran = hostile_run(JAIL_FD_SUPERVISOR, &fault);
    if (ran == OK)
        return 0;
    if (ran == NOT_FOUND)
        return PROVE_NO_SUCH_ATTEMPT;
    log_event(LOG_ERROR, "hostile.ended", "%s", fault.detail);
    return 1;
}
