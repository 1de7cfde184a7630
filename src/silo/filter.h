/* filter.h: conditions on metadata, as a search may carry them.
 *
 * An object: each member is a path ("team" or "owner.team") with a value it must equal, or with an
 * object of $eq, $ne, $gt, $gte, $lt, $lte (a value), $in, $nin (an array of values), $exists (a
 * boolean); or $and, $or (an array of objects), $not (an object). All members must hold. A path
 * goes through arrays, and of an array in metadata any element does. Numbers compare as numbers,
 * strings by their bytes, so that times in RFC 3339 UTC of one form are in order; values of
 * different kinds are neither equal nor in order. What is not there equals nothing, so that $ne and
 * $nin hold. Pure. */
#pragma once

#include "wire/json.h"

struct filter;

/* value: as parsed, and NULL or null: everything passes. The result borrows value and lives in the
 * arena; NULL for everything. BAD_FIELD naming `filter`; TOO_LARGE. */
MUST_CHECK status filter_read(const struct filter **ret, struct arena *arena,
                              const struct json *value, struct fault *fault);

/* metadata: an object. filter may be NULL. */
bool filter_passes(const struct filter *filter, const struct json *metadata);

/* The same for metadata as stored, empty for {}; scratch is reset. Damaged metadata does not
 * pass. */
bool filter_passes_text(const struct filter *filter, struct arena *scratch, struct span metadata);

/* That arena: metadata at its largest. */
enum { FILTER_ARENA_MAX = 768 * 1024 };
