/* phases.c: the orderly stop: gateways finish what is in flight, cells park
 * and sandboxes end, control and the kms go
 * last, because the others need them until then. Each phase has a deadline, then it is ended. */
#include "base/log.h"
#include "supervisor/supervisor.h"

enum { PHASE_DEADLINE_US = 12 * 1000 * 1000 };

static void on_deadline(void *context)
{
    struct supervisor *supervisor = context;
    log_event(LOG_WARN, "stop.forced", "phase %d took too long", supervisor->phase);
    for (uint32_t i = 0; i < 2 + supervisor->options.gateways; i++)
        if (supervisor->services[i].state == CHILD_PARKING)
            jail_kill(&supervisor->services[i].jail);
    for (struct child *cell = supervisor->cells; cell; cell = cell->next)
        jail_kill(&cell->jail);
    sandboxes_stop_all(supervisor, "the node stops");
}

static void stop_service(struct child *child)
{
    loop_timer_stop(child->supervisor->loop, &child->timer);
    if (child->state == CHILD_ABSENT)
        return;
    child_send(child, MESSAGE_STOP, 0, (struct span){0}, NULL, 0);
    if (child->state != CHILD_SERVING)
        jail_kill(&child->jail); /* it is not listening yet and has nothing to finish */
    child->state = CHILD_PARKING;
}

static void enter(struct supervisor *supervisor, int phase)
{
    struct fault fault;
    supervisor->phase = phase;
    if (loop_timer_start(supervisor->loop, &supervisor->phase_timer, PHASE_DEADLINE_US,
                         on_deadline, supervisor, &fault) != OK)
        log_event(LOG_ERROR, "stop.timer", "%s", fault.detail);
    if (phase == PHASE_STOP_GATEWAYS) {
        for (uint32_t i = 0; i < supervisor->options.gateways; i++)
            stop_service(service_gateway(supervisor, i));
    } else if (phase == PHASE_STOP_CELLS) {
        cells_park_all(supervisor);
        sandboxes_stop_all(supervisor, "the node stops");
    } else {
        stop_service(phase == PHASE_STOP_CONTROL ? service_control(supervisor)
                                                 : service_kms(supervisor));
    }
}

static bool finished(struct supervisor *supervisor)
{
    switch (supervisor->phase) {
    case PHASE_STOP_GATEWAYS:
        for (uint32_t i = 0; i < supervisor->options.gateways; i++)
            if (service_gateway(supervisor, i)->state != CHILD_ABSENT)
                return false;
        return true;
    case PHASE_STOP_CELLS: return !supervisor->cells && !sandboxes_any(supervisor);
    case PHASE_STOP_CONTROL: return service_control(supervisor)->state == CHILD_ABSENT;
    default: return service_kms(supervisor)->state == CHILD_ABSENT;
    }
}

void phases_advance(struct supervisor *supervisor)
{
    while (finished(supervisor)) {
        if (supervisor->phase == PHASE_STOP_KMS) {
            loop_stop(supervisor->loop);
            return;
        }
        enter(supervisor, supervisor->phase + 1);
    }
}

void phases_stop(struct supervisor *supervisor)
{
    if (supervisor->phase > PHASE_RUN)
        return;
    log_event(LOG_INFO, "node.stopping", "draining");
    enter(supervisor, PHASE_STOP_GATEWAYS);
    phases_advance(supervisor);
}
