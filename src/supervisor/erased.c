/* erased.c: large silos of erased tenants go step by step, so that nobody waits for a file system
 * that frees gigabytes. Their keys are destroyed: what still lies there is noise. */
#include "base/log.h"
#include "supervisor/supervisor.h"

enum { STEP_PAUSE_US = 1000, RETRY_US = 60 * 1000 * 1000 };

static void on_clear(void *context)
{
    struct supervisor *supervisor = context;
    struct fault fault;
    bool more = false;
    status cleared = silos_clear(&more, &supervisor->silos, &fault);
    if (cleared != OK)
        log_event(LOG_ERROR, "silo.clear", "%s", fault.detail);
    if (cleared == OK && !more)
        return;
    int64_t after_us = cleared == OK ? STEP_PAUSE_US : RETRY_US;
    if (loop_timer_start(supervisor->loop, &supervisor->clear_timer, after_us, on_clear,
                         supervisor, &fault) != OK)
        log_event(LOG_ERROR, "silo.clear", "%s", fault.detail); /* the next start goes on */
}

void erased_clear(struct supervisor *supervisor)
{
    struct fault fault;
    if (loop_timer_start(supervisor->loop, &supervisor->clear_timer, 0, on_clear, supervisor,
                         &fault) != OK)
        log_event(LOG_ERROR, "silo.clear", "%s", fault.detail);
}
