/* main.c: the executable bulkhead-cell: what must exist before the jail closes, then the cell. */
#include "base/log.h"
#include "cell/cell.h"
#include "crypt/crypt.h"
#include "store/store.h"

#include <malloc.h>
#include <signal.h>

static status close_jail(struct jail_proof *ret, int silo_fd, struct fault *fault)
{
    const struct jail_directory silo = {silo_fd, JAIL_READ | JAIL_WRITE};
    return jail_close(ret, JAIL_CELL, &silo, 1, fault);
}

static status run(struct fault *fault)
{
    struct loop *loop;
    TRY(jail_blank(JAIL_CELL, fault));
    TRY(crypt_start(fault));
    TRY(store_start(fault));
    TRY(loop_create(&loop, fault));
    status ran = cell_run(JAIL_FD_SUPERVISOR, loop, close_jail, fault);
    loop_free(loop);
    return ran;
}

int main(void)
{
    struct fault fault;
    log_open("cell", LOG_INFO);
    signal(SIGPIPE, SIG_IGN);
    mallopt(M_ARENA_MAX, 1); /* one thread */
    if (run(&fault) == OK)
        return 0;
    log_event(LOG_ERROR, "cell.ended", "%s", fault.detail);
    return 1;
}
