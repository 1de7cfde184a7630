/* base64.h: base64url without padding (RFC 4648 section 5; JWS) and plain base64 with padding
 * (section 4; signed notes). Strict: one spelling per value, stray bits refused. */
#pragma once

#include "base/buffer.h"

void base64url_put(struct buffer *out, struct span bytes);
void base64_put(struct buffer *out, struct span bytes);

/* Appends the decoded bytes; BAD_FIELD when text is not the one canonical spelling. */
MUST_CHECK status base64url_decode(struct buffer *out, struct span text, const char *name,
                                   struct fault *fault);
MUST_CHECK status base64_decode(struct buffer *out, struct span text, const char *name,
                                struct fault *fault);
