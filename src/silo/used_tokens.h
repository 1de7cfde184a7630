/* used_tokens.h: which tokens that serve one request have served it. A row lives until its token
 * has expired; it is committed together with what the request did, before its answer leaves. */
#pragma once

#include "silo/state.h"

/* Inside the open transaction: notes that this token is used. UNAUTHENTICATED when it was before,
 * UNAVAILABLE when USED_TOKENS_MAX are alive. */
MUST_CHECK status used_token_take(struct silo *silo, const struct silo_request *request,
                                  struct fault *fault);
/* Deletes rows of expired tokens, at most so many; inside the open transaction. */
MUST_CHECK status used_tokens_expire(bool *ret_more, struct silo *silo, struct fault *fault);
bool used_tokens_due(struct silo *silo); /* is there one to delete? */
/* Something was taken back: the count may be wrong. */
void used_tokens_forget(struct silo *silo);

extern const struct store_schema used_tokens_schema;
