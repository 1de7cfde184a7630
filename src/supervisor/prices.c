/* prices.c: the operator's price file: read at the start and on SIGHUP; control shows money by it.
 * A bad file is named, and what was in force stays. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

status prices_load(struct supervisor *supervisor, struct fault *fault)
{
    const char *path = supervisor->options.prices;
    uint8_t storage[PRICE_FILE_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    struct fault why;
    struct stat info;
    if (path[0] == '\0')
        return OK;
    _cleanup_close_ int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0 || fstat(file, &info))
        return FAIL(BAD_FIELD, fault, "--prices %.120s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size > (off_t)PRICE_FILE_MAX)
        return FAIL(BAD_FIELD, fault, "--prices %.120s: no file of at most %u bytes", path,
                    (unsigned)PRICE_FILE_MAX);
    status read = file_read(&text, file, "file", &why);
    if (read == OK)
        read = prices_read(&supervisor->prices, buffer_span(&text), &why);
    return read == OK ? OK : FAIL(BAD_FIELD, fault, "--prices %.60s: %.100s", path, why.detail);
}

void prices_reload(struct supervisor *supervisor)
{
    uint8_t storage[128];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    if (supervisor->options.prices[0] == '\0')
        return;
    if (prices_load(supervisor, &fault) != OK) {
        log_event(LOG_ERROR, "prices.refused", "%s; the old prices stay", fault.detail);
        return;
    }
    prices_put(&body, &supervisor->prices);
    child_send(service_control(supervisor), MESSAGE_PRICES, 0, buffer_span(&body), NULL, 0);
    log_event(LOG_INFO, "prices.loaded", "%s", supervisor->options.prices);
}
