/* fields.h: what items of several kinds have in common: members of a body, columns of a row,
 * members of an answer. */
#pragma once

#include "silo/state.h"

/* "metadata" of a body: JSON of at most max bytes; *ret stays where it is absent or null.
 * BAD_FIELD. */
MUST_CHECK status field_metadata(struct span *ret, const struct json *body, size_t max,
                                 struct fault *fault);

/* Of a new item. text: NULL where nothing is said. BAD_FIELD; FORBIDDEN_CLEARANCE: above the
 * caller's. */
MUST_CHECK status field_classification(enum clearance *ret, const struct span *text,
                                       const struct envelope *envelope, struct fault *fault);
/* The same, of the member "classification". */
MUST_CHECK status field_classification_in(enum clearance *ret, const struct json *body,
                                          const struct envelope *envelope, struct fault *fault);

/* Empty text is stored, and shown, as null. */
void field_bind(struct statement *statement, int parameter, struct span text);
void field_put(struct json_writer *writer, const char *name, struct span text);
