/* usage.h: what the tenant used, by day, as the silo itself counts it: for GET /v1/tenant and for
 * the reports to control. Counting is increments; what was counted is stored with a commit that
 * happens anyway, at most every ten seconds, and when the cell parks. */
#pragma once

#include "silo/state.h"

void usage_begin(struct silo *silo);
/* Inside the open transaction: the counts that are due. */
MUST_CHECK status usage_write(struct silo *silo, struct fault *fault);
void usage_written(struct silo *silo);    /* the commit succeeded */
void usage_taken_back(struct silo *silo); /* or it did not: the counts stay for the next */
/* Members "month" and "today" of the open object. */
MUST_CHECK status usage_put(struct json_writer *writer, struct silo *silo, struct fault *fault);

extern const struct store_schema usage_schema;
