/* log.h: what a process says about itself: one JSON line an event, on stderr.
 *
 * Never content, never a token, never a secret: ids, counts, reasons. Only mains and event
 * handlers log; libraries return a fault. A line is one write(2) and at most 1 KiB. */
#pragma once

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* process names the executable in every line: "kms". Must outlive the process. Lines below least
 * are dropped. */
void log_open(const char *process, enum log_level least);

/* event: a dotted name, "cell.gone"; the rest is `detail`, for people, escaped for JSON. */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
