/* problem.h: the one shape of an error's body: application/problem+json (RFC 9457). */
#pragma once

#include "base/buffer.h"
#include "base/status.h"

#define PROBLEM_MEDIA_TYPE "application/problem+json"

/* Appends {"type","title","status","code","detail","trace_id"}. detail is for people and must not
 * hold content or secrets: it is a fault's. NULL leaves it out. trace_id: hexadecimal text. What
 * is not UTF-8 in detail becomes U+FFFD. */
void problem_put(struct buffer *out, status code, const char *detail, const char *trace_id);
