/* quota.c: the tenant's quotas, counted here and nowhere else, and what was denied often enough to
 * be told as a number. Rates and slots are taken when a request's head has come: so many that
 * arrive in one turn are counted one by one. What is over costs no transaction and no entry of its
 * own. */
#include "base/clock.h"
#include "cell/state.h"

#include <assert.h>

enum {
    TELL_EVERY_US = 1000 * 1000,
    RETRY_SLOT_SECONDS = 1,
    RETRY_BYTES_SECONDS = 60, /* somebody has to delete first */
};

static const struct {
    const char *action;
    status why;
} told[DENIAL_KINDS] = {
    [DENIAL_REQUESTS] = {"quota.requests_per_second", QUOTA_EXCEEDED},
    [DENIAL_USER_REQUESTS] = {"quota.user_requests_per_second", QUOTA_EXCEEDED},
    [DENIAL_CONCURRENT] = {"quota.concurrent_requests", QUOTA_EXCEEDED},
    [DENIAL_BYTES] = {"quota.bytes_stored", QUOTA_EXCEEDED},
    [DENIAL_REVOKED] = {"token.revoked", UNAUTHENTICATED},
};

void quota_apply(struct cell *cell, const struct quotas *quotas)
{
    cell->quota.limits = *quotas;
    rate_set(&cell->quota.requests, quotas->requests_per_second, clock_monotonic_us());
}

/* What costs nothing to ask first; a user beyond its own rate uses up nothing of the others'. */
static status take(enum denial *ret_asked, struct request *request, struct quota_state *quota,
                   struct fault *fault)
{
    const struct quotas *limits = &quota->limits;
    int64_t now_us = clock_monotonic_us();
    *ret_asked = DENIAL_CONCURRENT;
    request->retry_after = RETRY_SLOT_SECONDS;
    if (limits->concurrent_requests > 0 && quota->in_flight >= limits->concurrent_requests)
        return FAIL(QUOTA_EXCEEDED, fault, "concurrent_requests: at most %llu",
                    (unsigned long long)limits->concurrent_requests);
    *ret_asked = DENIAL_USER_REQUESTS;
    TRY(user_rates_take(quota->users, limits->user_requests_per_second,
                        span_of_text(request->envelope.user), now_us, &request->retry_after,
                        fault));
    *ret_asked = DENIAL_REQUESTS;
    return rate_take(&quota->requests, now_us, "requests_per_second", &request->retry_after,
                     fault);
}

status quota_admit(struct request *request, struct cell *cell, struct fault *fault)
{
    enum denial asked;
    status taken = take(&asked, request, &cell->quota, fault);
    if (taken == QUOTA_EXCEEDED)
        request->denial = asked;
    TRY(taken);
    request->admitted = true;
    cell->quota.in_flight++;
    return OK;
}

void quota_leave(struct request *request, struct cell *cell)
{
    if (!request->admitted)
        return;
    assert(cell->quota.in_flight > 0);
    request->admitted = false;
    cell->quota.in_flight--;
}

static bool can_add(const struct action *action)
{
    return action->mutates && !span_is(span_of_text(action->method), "DELETE");
}

status quota_check_bytes(struct request *request, struct cell *cell, struct fault *fault)
{
    uint64_t limit = cell->quota.limits.bytes_stored;
    if (limit == 0 || !can_add(request->action) || silo_bytes(cell->silo) < limit)
        return OK;
    request->denial = DENIAL_BYTES;
    request->retry_after = RETRY_BYTES_SECONDS;
    return FAIL(QUOTA_EXCEEDED, fault, "bytes_stored: at most %llu", (unsigned long long)limit);
}

static void on_tell(void *context)
{
    struct cell *cell = context;
    cell->quota.tell_due = true;
}

void denial_note(struct cell *cell, enum denial kind, const char *user)
{
    struct denials *denials = &cell->quota.denials[kind];
    if (denials->count++ > 0)
        return;
    bool fits = span_to_text(denials->user, sizeof denials->user, span_of_text(user));
    assert(fits);
    int64_t due_us = denials->told_us ? denials->told_us + TELL_EVERY_US : 0;
    int64_t wait_us = due_us - clock_monotonic_us();
    if (wait_us <= 0)
        cell->quota.tell_due = true;
    else if (cell->quota.timer.due_us == 0)
        cell_timer(cell, &cell->quota.timer, wait_us, on_tell, cell);
}

void denials_tell(struct cell *cell, bool all)
{
    struct quota_state *quota = &cell->quota;
    int64_t now_us = clock_monotonic_us();
    struct fault fault;
    quota->tell_due = false;
    for (int kind = 0; kind < DENIAL_KINDS; kind++) {
        struct denials *denials = &quota->denials[kind];
        int64_t wait_us = denials->told_us ? denials->told_us + TELL_EVERY_US - now_us : 0;
        if (denials->count == 0)
            continue;
        status noted = AGAIN;
        if (all || wait_us <= 0)
            noted = silo_note_denials(cell->silo, told[kind].action, told[kind].why, denials->user,
                                      denials->count, &fault);
        if (noted == OK)
            *denials = (struct denials){.told_us = now_us};
        else if (quota->timer.due_us == 0) /* not yet, or the log is behind */
            cell_timer(cell, &quota->timer, wait_us > 0 ? wait_us : TELL_EVERY_US, on_tell, cell);
    }
}
