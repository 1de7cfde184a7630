/* trace.h: the W3C's traceparent header (Trace Context level 1, version 00). */
#pragma once

#include "base/limits.h"
#include "base/span.h"

enum { TRACE_SPAN_BYTES = 8, TRACE_TEXT_SIZE = 56 /* 55 characters and NUL */ };

/* False (and trace_id untouched) when header is not one valid traceparent: an unknown version is
 * read as the specification asks (its first 55 characters), ff and all-zero ids are refused. The
 * caller then begins a trace of its own. */
bool trace_parse(uint8_t trace_id[TRACE_ID_BYTES], struct span header);

/* "00-<trace id>-<span id>-<flags>". flags: 1 is sampled. */
void trace_format(char text[TRACE_TEXT_SIZE], const uint8_t trace_id[TRACE_ID_BYTES],
                  const uint8_t span_id[TRACE_SPAN_BYTES], uint8_t flags);
