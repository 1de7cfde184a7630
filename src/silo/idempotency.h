/* idempotency.h: Idempotency-Key: a POST that is sent again has its effect once, and its first
 * answer again. Each POST of the silo runs through here, a line of NDJSON like a whole request.
 *
 * What is kept of a mutation is no answer but what its answer can be made of again (a reference,
 * 64 bytes), so that nothing that was deleted lives on here. Of a read it is the answer, until
 * anything in the silo is deleted or replaced: then a repeat is carried out anew, as it is when the
 * answer was too large. Only what succeeded is kept, 24 hours long, per user. */
#pragma once

#include "silo/state.h"

/* The handler, unless this key has served: then what it answered. CONFLICT: the key has served for
 * another request, or under more rights than the caller has now. BAD_REQUEST: no key.
 * QUOTA_EXCEEDED: the user has as many as IDEMPOTENCY_KEYS_MAX leaves room for; none is forgotten
 * before its time. replay: NULL for a read. */
MUST_CHECK status idempotency_run(struct call *call, silo_handler *handler, silo_replay *replay,
                                  struct fault *fault);

/* Does a request with these facts leave something here? */
bool idempotency_is_asked(const struct silo_request *request);

/* Something of that classification or above is being deleted or replaced: no stored answer may show
 * it any more. Those that never could stay, or their loss would tell of what is hidden. Inside the
 * open transaction, unless there are none. */
bool idempotency_has_answers(struct silo *silo);
MUST_CHECK status idempotency_drop_answers(struct silo *silo, enum clearance lowest,
                                           struct fault *fault);

/* Keys past their day, in bounded steps. Inside the open transaction. */
bool idempotency_is_due(struct silo *silo);
MUST_CHECK status idempotency_expire(bool *ret_more, struct silo *silo, struct fault *fault);
int64_t idempotency_due_us(struct silo *silo); /* wall; 0: never */

/* Something was taken back: what is known of the table may be wrong. */
void idempotency_forget(struct silo *silo);

extern const struct store_schema idempotency_schema;
