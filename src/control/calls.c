/* calls.c: what was asked of the supervisor and is not answered yet. */
#include "control/control.h"

#include <stdlib.h>

struct call {
    uint32_t id;
    call_on_reply *on_reply;
    void *context;
    struct call *next;
};

void call_supervisor(struct control *control, uint32_t type, struct span body, const int *fds,
                     uint32_t fd_count, call_on_reply *on_reply, void *context)
{
    struct fault fault;
    struct call *call = malloc(sizeof *call);
    if (++control->next_call == 0)
        control->next_call = 1;
    if (!call) {
        on_reply(context, INTERNAL, "out of memory", NULL, NULL);
        return;
    }
    *call = (struct call){.id = control->next_call, .on_reply = on_reply, .context = context,
                          .next = control->calls};
    status sent = ipc_outbox_send(control->supervisor_outbox, type, call->id, body, fds, fd_count,
                                  &fault);
    if (sent == OK) {
        control->calls = call;
        return;
    }
    free(call);
    if (sent == CLOSED)
        control_die("supervisor channel", &fault);
    on_reply(context, UNAVAILABLE, "the supervisor does not keep up", NULL, NULL);
}

void call_answered(struct control *control, struct ipc_message *message)
{
    struct call **at = &control->calls;
    while (*at && (*at)->id != message->id)
        at = &(*at)->next;
    struct call *call = *at;
    struct cursor result;
    struct fault fault = {0};
    if (!call)
        return; /* control was restarted meanwhile: its predecessor asked */
    *at = call->next;
    status code = reply_get_head(&result, message, &fault);
    call->on_reply(call->context, code, fault.detail, &result, message);
    free(call);
}
