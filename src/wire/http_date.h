/* http_date.h: dates as HTTP writes them (RFC 9110 5.6.7). */
#pragma once

#include "base/span.h"

enum { HTTP_DATE_TEXT = 30 }; /* "Sun, 06 Nov 1994 08:49:37 GMT" and NUL */

/* IMF-fixdate; years 1 to 9999. */
void http_date_text(char text[HTTP_DATE_TEXT], int64_t seconds);

/* Seconds since 1970 from any of the three forms that a recipient must take; a year of two digits
 * is one of 1970 to 2069. False for anything else. */
bool http_date_read(int64_t *ret_seconds, struct span text);
