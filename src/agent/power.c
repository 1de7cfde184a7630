#define _GNU_SOURCE
#include "agent/agent.h"

#include <stdlib.h>
#include <sys/reboot.h>
#include <unistd.h>

status shutdown_begin(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    uint8_t how;
    TRY(cursor_u8(&how, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (how > 1)
        return FAIL(BAD_FIELD, fault, "shutdown: 0 or 1");
    agent_answer(agent, id, OK, NULL, (struct span){0});
    agent->shutdown = (uint8_t)(1 + how);
    return OK;
}

/* Nothing is synced: what the guest wrote is not kept. */
void power_down(const struct agent *agent, bool restart)
{
    if (agent->guest)
        reboot(restart ? RB_AUTOBOOT : RB_POWER_OFF);
    _exit(0);
}
