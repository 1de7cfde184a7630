#include "agent/agent.h"
#include "agent/tree.h"

#include <stdlib.h>

enum {
    ROUND_US = 1000,
    ROUNDS_MAX = 5000,
    STILL_ROUNDS = 2, /* /proc is not read at one moment: a second look finds who slipped through */
};

struct freeze {
    struct request request;
    struct loop_timer timer;
    uint32_t rounds, still; /* still: rounds in a row that found nothing that ran */
};

static void drop(struct request *request)
{
    struct freeze *freeze = (struct freeze *)request;
    loop_timer_stop(request->agent->loop, &freeze->timer);
    request_remove(request);
    free(freeze);
}

static void end(struct freeze *freeze, status code, const struct fault *fault)
{
    struct agent *agent = freeze->request.agent;
    if (code != OK) {
        trees_continue(agent->trees);
        agent->frozen = false;
    }
    agent_answer(agent, freeze->request.id, code, fault, (struct span){0});
    drop(&freeze->request);
}

static void cancel(struct request *request)
{
    struct fault fault;
    status done = FAIL(CONFLICT, &fault, "cancelled: everything runs again");
    end((struct freeze *)request, done, &fault);
}

static void on_round(void *context)
{
    struct freeze *freeze = context;
    struct agent *agent = freeze->request.agent;
    struct fault fault;
    if (!agent->frozen) {
        cancel(&freeze->request); /* THAW came in between */
        return;
    }
    int running = trees_stop(agent->trees);
    freeze->still = running == 0 ? freeze->still + 1 : 0;
    bool over = freeze->still >= STILL_ROUNDS;
    status done = OK;
    if (running < 0)
        done = FAIL(INTERNAL, &fault, "freeze: the processes cannot be stopped");
    else if (!over && ++freeze->rounds > ROUNDS_MAX)
        done = FAIL(TIMED_OUT, &fault, "freeze: some processes do not stand still");
    else if (!over)
        done = loop_timer_start(agent->loop, &freeze->timer, ROUND_US, on_round, freeze, &fault);
    if (over || done != OK)
        end(freeze, done, &fault);
}

status freeze_begin(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    static const struct request_kind kind = {.cancel = cancel, .drop = drop};
    if (payload.length)
        return FAIL(BAD_REQUEST, fault, "freeze: nothing is to be said");
    struct request *request;
    TRY(request_make(&request, sizeof(struct freeze), agent, id, &kind, fault));
    struct freeze *freeze = (struct freeze *)request;
    agent->frozen = true;
    on_round(freeze);
    return OK;
}

status thaw(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    if (payload.length)
        return FAIL(BAD_REQUEST, fault, "thaw: nothing is to be said");
    if (agent->frozen)
        trees_continue(agent->trees);
    agent->frozen = false;
    agent_answer(agent, id, OK, NULL, (struct span){0});
    return OK;
}
