/* draft.c: the next charter of a scope, begun as a copy of the newest. */
#include "control/control.h"

#include <stdlib.h>

static void copy_revocations(struct charter *next, const struct charter *newest)
{
    for (uint32_t i = 0; i < newest->jti_count; i++)
        next->jtis[next->jti_count++] = newest->jtis[i];
    for (uint32_t i = 0; i < newest->subject_count; i++)
        next->subjects[next->subject_count++] = newest->subjects[i];
    charter_drop_past(next, next->issued_at);
}

static void copy_issuers(struct charter *next, const struct charter *newest)
{
    for (uint32_t i = 0; i < newest->issuer_count; i++)
        next->issuers[next->issuer_count++] = newest->issuers[i];
}

static bool make_room(struct charter *next, const struct charter *newest)
{
    next->issuers = calloc(newest->issuer_count + 1, sizeof *next->issuers);
    next->jtis = calloc(newest->jti_count + 1, sizeof *next->jtis);
    next->subjects = calloc(newest->subject_count + 1, sizeof *next->subjects);
    return next->issuers && next->jtis && next->subjects;
}

status draft_open(struct draft *ret, struct control *control, const uint8_t id[TENANT_ID_BYTES],
                  struct fault *fault)
{
    static const struct charter nothing;
    struct draft draft = {0};
    struct cursor bytes = cursor_over((struct span){id, TENANT_ID_BYTES});
    TRY(charter_settle(control, id, fault));
    status found = charter_newest(&draft.newest, control, id, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    const struct charter *newest = found == OK ? draft.newest : &nothing;
    if (!make_room(&draft.next, newest)) {
        draft_close(&draft);
        return FAIL(INTERNAL, fault, "out of memory");
    }
    status copied = cursor_copy(draft.next.id, &bytes, TENANT_ID_BYTES, fault);
    if (copied != OK) {
        draft_close(&draft);
        return copied;
    }
    draft.next.issued_at = clock_wall_us() / 1000000;
    draft.next.sequence = newest->sequence + 1;
    draft.next.posture = newest->posture;
    copy_issuers(&draft.next, newest);
    copy_revocations(&draft.next, newest);
    *ret = draft;
    return OK;
}

void draft_close(struct draft *draft)
{
    charter_free(draft->newest);
    free(draft->next.issuers);
    free(draft->next.jtis);
    free(draft->next.subjects);
    *draft = (struct draft){0};
}
